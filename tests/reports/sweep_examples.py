"""Sweeps made up for the tests of their report: every number is chosen, no run is behind them."""

import math
from pathlib import Path

import numpy as np

from cnn_vit.reports.sweep_facts import SweepFacts, SweepTrial
from cnn_vit.studies.sweeping.space import Dimension, Space

RATE, DECAY, DEPTH, OPTIMIZER, MOMENTUM = (
    "optimizer.learning_rate", "optimizer.weight_decay", "model.depth", "optimizer.name", "optimizer.momentum",
)  # fmt: skip
SPACE = tuple(
    Space(
        (
            Dimension(RATE, "log", low=1e-4, high=1.0),
            Dimension(DEPTH, "int", low=2, high=12),
            Dimension(OPTIMIZER, "choice", ("adamw", "sgd")),
            Dimension(MOMENTUM, "uniform", low=0.5, high=0.99, when=((OPTIMIZER, ("sgd",)),)),
        )
    ).to_json()
)


def make_trial(row, metric, *, suggestion=None, seed=0, values=None, state=None, **changes):
    """A trial of a made-up sweep; without a metric it has crashed, unless a state is named."""
    if state is None:
        state = "complete" if metric is not None else "crashed"
    has_numbers = metric is not None
    content = {
        "row": row,
        "suggestion": row if suggestion is None else suggestion,
        "seed": seed,
        "id": f"{row:016x}",
        "values": {RATE: 0.001 * (row + 1)} if values is None else values,
        "state": state,
        "reason": "" if has_numbers else "ValueError: a fault",
        "metric": metric,
        "alias_of": None,
        "steps": 90 if has_numbers else 0,
        "planned_steps": 90,
        "seconds": 36.0 if has_numbers else None,
        "cpu_seconds": 72.0 if has_numbers else None,
        "curve": ((45, metric / 2), (90, metric)) if has_numbers else (),
        "folder": Path("out/trials") / f"{row:016x}",
        "n": None,
    }
    return SweepTrial(**(content | changes))


def make_facts(trials, *, metric="validation.accuracy", mode="max", dimensions=SPACE[:1], **changes):
    """A sweep of these trials."""
    content = {
        "name": "made_up",
        "out": Path("out"),
        "definition": {"config": "configs/digits_cnn.py", "sampler": "random", "seeds": 1, "seed": 0},
        "dimensions": tuple(dimensions),
        "metric": metric,
        "mode": mode,
        "trials": tuple(trials),
        "planned": len(trials),
        "notes": (),
    }
    return SweepFacts(**(content | changes))


def make_realistic(*, suggestions=60, failed=3, pruned=20, seed=0, scale=1.0):
    """A sweep such as people run: four dimensions of which one is conditional, some trials failed, some pruned.

    The accuracy falls with the distance of the learning rate from 0.01 and rises a little with the depth; the others
    do nothing. The first trials to fail have the highest learning rates, and the worst of the others are pruned.
    """
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(suggestions):
        values = {RATE: float(f"{10 ** rng.uniform(-4, 0):.4g}"), DEPTH: int(rng.integers(2, 13))}
        values[OPTIMIZER] = str(rng.choice(["adamw", "sgd"]))
        if values[OPTIMIZER] == "sgd":
            values[MOMENTUM] = round(float(rng.uniform(0.5, 0.99)), 3)
        noise = rng.normal(0, 0.004)
        accuracy = 0.965 - 0.055 * (math.log10(values[RATE]) + 2) ** 2 + 0.002 * values[DEPTH] + noise
        points.append((values, scale * float(np.clip(round(accuracy * 360) / 360, 0, 1))))
    by_rate = sorted(range(suggestions), key=lambda number: -points[number][0][RATE])
    broken = set(by_rate[:failed])
    by_metric = sorted((number for number in range(suggestions) if number not in broken), key=lambda k: points[k][1])
    given_up = dict.fromkeys(by_metric[: pruned // 2], 40) | dict.fromkeys(by_metric[pruned // 2 : pruned], 120)
    trials = []
    for number, (values, final) in enumerate(points):
        steps = given_up.get(number, 360)
        curve = []
        for step in range(40, steps + 1, 40):
            noise = rng.normal(0, 0.006)
            curve.append((step, float(np.clip(final * (1 - 0.75 * math.exp(-step / 70)) + scale * noise, 0, scale))))
        if steps == 360:
            curve[-1] = (360, final)
        state = "pruned" if number in given_up else "complete"
        changes = dict(state=state, steps=steps, planned_steps=360, curve=tuple(curve), n=360, cpu_seconds=0.4 * steps)
        metric = curve[-1][1]
        if number in broken:
            metric = None
            state, reason = ("diverged", f"the loss is nan at step {37 + number}")
            if number == by_rate[0]:
                state, reason = ("out of memory", "RESOURCE_EXHAUSTED: 3.1 GB for <script>alert(1)</script>")
            changes |= dict(state=state, reason=reason, steps=37, curve=(), cpu_seconds=9.0)
        trials.append(make_trial(number, metric, values=values, **changes))
    definition = {
        "config": "configs/digits_cnn.py", "objective": "", "overrides": ["duration=20 epochs"], "sampler": "random",
        "sampler_options": {}, "trials": suggestions, "seeds": 1, "seed": 0, "metric": "validation.accuracy",
        "mode": "max", "lag": 4, "halving": {"eta": 3, "first": "2 epochs"}, "workers": 2, "threads": 1,
    }  # fmt: skip
    return make_facts(
        trials, dimensions=SPACE, name="digits_cnn learning rate, depth and optimizer", definition=definition
    )
