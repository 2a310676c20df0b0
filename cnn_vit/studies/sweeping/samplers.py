"""Which point of the space a sweep tries next: grid, random, Sobol, Halton, TPE.

A sampler is a function of the space, the number of the suggestion and the seed of the sweep, and of nothing else but
what a sampler that learns is shown: what the earlier trials gave. It keeps nothing between two calls, so a sweep gets
the same points after any restart, and with any number of workers that ask in any order.

    grid       every combination of the grid values, in order
    random     independent uniform draws
    sobol      fills the space evenly, best at powers of two
    halton     fills the space evenly at any number
    tpe        learns from the earlier trials where good values are

Every keyword that is not common to all samplers is an option of a sweep, as `settings.signatures` reads it. SciPy and
Optuna are imported by the samplers that need them, so that importing this file costs nothing. Measured by
`experiments/sweeps/samplers.py`: a process with `studies.workers` needs 43 MB; Sobol adds 68 MB and 0.6 CPU-seconds,
TPE 11 MB and 0.1; with all of them it needs 116 MB.
"""

import contextlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.studies.sweeping.space import CHOICE, INT, LOG, Dimension, Point, Space

COMMON_KEYWORDS = ("index", "seed", "history", "pending")  # what the planner gives to every sampler: no options


@dataclass(frozen=True)
class Observation:
    """What a trial gave.

    Attributes:
        point: the point that was tried.
        metric: larger is better; None for a trial that failed.
    """

    point: Point
    metric: float | None


def grid(
    space: Space, *, index: int, seed: int, history: Sequence[Observation] = (), pending: Sequence[Point] = ()
) -> Point:
    """Every combination of the dimensions' grid values, each once; the first key changes slowest.

    Raises:
        UserError: the grid has no point of this number.
        ValueError: a float range without `steps`.
    """
    points = space.grid_points
    if index >= len(points):
        raise UserError(f"no suggestion {index}: the grid is finished after {len(points)}; set trials to that at most")
    return dict(points[index])


def random(
    space: Space, *, index: int, seed: int, history: Sequence[Observation] = (), pending: Sequence[Point] = ()
) -> Point:
    """Independent uniform draws.

    Bergstra and Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012. The draws are those of NumPy's
    Philox, whose key is (seed, index).
    """
    key = np.array([seed, index], np.uint64)
    units = np.random.Generator(np.random.Philox(key=key)).random(len(space.dimensions))
    return space.from_units(units.tolist())


def sobol(
    space: Space, *, index: int, seed: int, history: Sequence[Observation] = (), pending: Sequence[Point] = ()
) -> Point:
    """Sobol's sequence, scrambled: fills the space evenly, best at powers of two.

    Of the first 2^m points, each half of each dimension holds half, each quarter a quarter and so on. Joe and Kuo, SIAM
    J. Sci. Comput. 30, 2008; Owen, 1998; scipy.stats.qmc.Sobol, which scrambles by a random lower triangular matrix and
    a shift (Matousek, J. Complexity 14, 1998).
    """
    from scipy.stats import qmc

    engine = qmc.Sobol(len(space.dimensions), scramble=True, rng=np.random.default_rng(seed))
    if index > 0:  # SciPy cannot go forward by nothing
        engine.fast_forward(index)
    return space.from_units(engine.random(1)[0].tolist())


def halton(
    space: Space, *, index: int, seed: int, history: Sequence[Observation] = (), pending: Sequence[Point] = ()
) -> Point:
    """Halton's sequence, scrambled: fills the space evenly at any number of points.

    The dimension with the p-th prime b puts one of each b successive points into each b-th part of its range. Halton,
    Numer. Math. 2, 1960; Owen, arXiv:1706.02808; scipy.stats.qmc.Halton.
    """
    from scipy.stats import qmc

    engine = qmc.Halton(len(space.dimensions), scramble=True, rng=np.random.default_rng(seed))
    engine.fast_forward(index)
    return space.from_units(engine.random(1)[0].tolist())


def tpe(
    space: Space,
    *,
    index: int,
    seed: int,
    history: Sequence[Observation] = (),
    pending: Sequence[Point] = (),
    startup: int = 10,
) -> Point:
    """Tree-structured Parzen estimator: tries what is likely among good trials and unlikely among the others.

    Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011; optuna.samplers.TPESampler, with one
    density over all dimensions that are always active (Falkner et al., BOHB, arXiv:1807.01774) and one for each of the
    others. The good ones are the best tenth of the trials that gave a number.

    Each call makes a new Optuna study in memory, replays the history into it and asks once. Points that are pending,
    and those that failed, count among the bad ones: Optuna itself would forget failures, and then tries the rates that
    diverge again and again. A call takes 3 CPU-milliseconds behind 10 trials, 11 behind 100, 27 behind 300 and 79
    behind 1,000 (`experiments/sweeps/samplers.py`). Other versions of Optuna may suggest other points.

    Args:
        startup: how many first suggestions are those of `random`, before anything is learned, in [1, 1e6].

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = import_optuna()
    if index < startup:
        return random(space, index=index, seed=seed)
    with silence(optuna):
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=0, multivariate=True, constant_liar=True, seed=mix_seed(seed, index)
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        distributions = {dimension.key: make_distribution(optuna, dimension) for dimension in space.dimensions}
        for observation in history:
            study.add_trial(replay_trial(optuna, space, distributions, observation.point, observation.metric))
        for point in pending:
            study.add_trial(replay_trial(optuna, space, distributions, point, None))
        return ask_for_point(study.ask(), space)


def import_optuna() -> Any:
    """Imports Optuna, which the extra `sweep` of cnn_vit installs; raises UserError where it is missing."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "the sampler tpe needs Optuna, which is not installed; pip install 'cnn_vit[sweep]', or take sobol"
        ) from error
    return optuna


@contextlib.contextmanager
def silence(optuna: Any) -> Iterator[None]:
    """Keeps Optuna's log and its warnings of experimental options from stderr; afterwards both are as they were."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def mix_seed(seed: int, index: int) -> int:
    """Returns a seed of 32 bits for one suggestion: a sum would give sweep 1 the draws of sweep 0, one later."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def make_distribution(optuna: Any, dimension: Dimension) -> Any:
    """Returns Optuna's description of a dimension; a choice is the number of the value, which may be of any type."""
    if dimension.kind == CHOICE:
        return optuna.distributions.CategoricalDistribution(tuple(range(len(dimension.choices))))
    if dimension.kind == INT:
        return optuna.distributions.IntDistribution(int(dimension.low), int(dimension.high))
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.kind == LOG)


def replay_trial(
    optuna: Any, space: Space, distributions: Mapping[str, Any], point: Point, metric: float | None
) -> Any:
    """Returns an earlier trial as Optuna knows it.

    A point without a number becomes a running trial, because those are what the option `constant_liar` counts among the
    bad ones.
    """
    parameters: dict[str, Any] = {}
    for dimension in space.dimensions:
        if dimension.key not in point:
            continue
        value = point[dimension.key]
        if dimension.kind == CHOICE:
            value = find_choice(dimension, value)
        parameters[dimension.key] = value
    used_distributions = {key: distributions[key] for key in parameters}
    if metric is None or not math.isfinite(metric):
        state = optuna.trial.TrialState.RUNNING
        return optuna.trial.create_trial(state=state, params=parameters, distributions=used_distributions)
    return optuna.trial.create_trial(value=metric, params=parameters, distributions=used_distributions)


def find_choice(dimension: Dimension, value: Any) -> int:
    """Returns the number of a choice. As JSON, 1 differs from true, and a tuple does not differ from a list."""
    return [json.dumps(choice) for choice in dimension.choices].index(json.dumps(value))


def ask_for_point(trial: Any, space: Space) -> Point:
    """Asks Optuna for the values of one point, dimension by dimension: which ones are active depends on the values."""
    point: Point = {}
    for dimension in space.dimensions:
        if not space.is_active(dimension, point):
            continue
        if dimension.kind == CHOICE:
            number = trial.suggest_categorical(dimension.key, tuple(range(len(dimension.choices))))
            point[dimension.key] = dimension.choices[number]
        elif dimension.kind == INT:
            point[dimension.key] = trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high))
        else:
            value = trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.kind == LOG)
            point[dimension.key] = dimension.round(value)
    return point


@dataclass(frozen=True)
class Sampler:
    """An entry of SAMPLERS.

    Attributes:
        suggest: returns the point of a suggestion.
        is_adaptive: whether it looks at history and pending points.
    """

    suggest: Callable[..., Point]
    is_adaptive: bool


SAMPLERS: dict[str, Sampler] = {
    "grid": Sampler(grid, is_adaptive=False),
    "random": Sampler(random, is_adaptive=False),
    "sobol": Sampler(sobol, is_adaptive=False),
    "halton": Sampler(halton, is_adaptive=False),
    "tpe": Sampler(tpe, is_adaptive=True),
}
