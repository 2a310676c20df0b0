"""The laboratory: experiments that ask what textbooks claim, each done again by one command.

Read `run_experiment`. An experiment is a folder of experiments/ with an experiment.py. Its texts are literals
(`reports/lab_facts.py`); of its functions, these are called:

    list_trials(*, quick) -> [Trial, ...]             runs that it needs, each with a name; may be left out
    measure(seed, runs, *, quick) -> Measured         what one seed gives; `runs` are the trials by name
    weigh(rows) -> {key of SENTENCES: [Evidence]}     what the rows say of each sentence
    tabulate(rows) -> [Table, ...]                    the rows as tables
    draw(rows) -> {name of FIGURES: SVG}              figures, by `cnn_vit.plots`
    weigh_times(times), tabulate_times, draw_times    the same of the times; each may be left out

Rows are plain values that the seed decides; what a clock decides are `times`, which are kept apart. Of the rows of all
seeds everything else is made: judgements, tables and figures; and of the times those that a clock decides. A sentence
may have evidence of both kinds: its judgement is then one by the clock.

    runs/lab/NAME/full/trials/ID           the trials, as of any study
    runs/lab/NAME/full/measured/SEED.json  the rows of a seed, written when it is measured: a stopped run goes on there
    experiments/NAME/                      results.json, timing.json, figures and README.md, once all is there;
                                           a judgement by the clock lies in timing.json, for its numbers change
    runs/lab/NAME/quick/                   the same with --quick, results and all: full results are never overwritten

A seed is measured again where the code of experiment.py has changed, its texts apart, or where what lies there is of a
quick run or of other data.

An experiment may say, by the text ALSO_ON, that it can be given other data, such as MNIST. Its list_trials and measure
then take `data: OtherData | None` as well, and three seeds are enough. Results on other data are stated apart:

    runs/lab/NAME/DATA/                    trials and what is measured; runs/lab/NAME/DATA-quick with --quick
    experiments/NAME/DATA/                 results.json, timing.json and README.md
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_vit import files, plots, process, stops
from cnn_vit.errors import StoppedError, UserError, unknown
from cnn_vit.reports import evidence, lab_facts, lab_readme
from cnn_vit.reports.evidence import Evidence
from cnn_vit.reports.lab_facts import (
    EXPERIMENT,
    README,
    RESULTS,
    SUFFIX,
    TIMES,
    ExperimentFacts,
)
from cnn_vit.runs import environment, reader
from cnn_vit.runs.journal import cpu_seconds
from cnn_vit.settings.recipes import recipe_errors, run_file
from cnn_vit.studies import lab_checks, trials, workers
from cnn_vit.studies.lab_folders import LOCK, find_experiment, locked, refresh_readmes
from cnn_vit.studies.trials import DataCache, PlannedTrial, Trial, TrialRecord
from cnn_vit.studies.workers import StudyOptions
from cnn_vit.training.progress import Progress

RUNS = Path("runs") / "lab"
FULL, QUICK = "full", "quick"
MEASURED = "measured"
FUNCTIONS = ("measure", "weigh", "tabulate", "draw")
SEEDS = (0, 1, 2)  # of an experiment that names none
REMOVED = "removed"  # where trials lie while they are removed
STOPPED = "stopped by {}; the same command goes on with what is not measured yet"
STOPPED_AGAIN = "stopped by {}; the same command without --again goes on with what is not measured yet"


@dataclass(frozen=True)
class Measured:
    """What one seed of an experiment gave.

    Attributes:
        rows: plain values by name, which the seed decides: the same bytes each time.
        times: plain values by name, which a clock decides.
    """

    rows: Sequence[Mapping[str, Any]]
    times: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class OtherData:
    """Data that an experiment is given instead of its own.

    Attributes:
        name: of the data set, one of ALSO_ON.
        path: an npz with train_x, train_y, test_x and test_y that holds it; None for the published files.
    """

    name: str
    path: Path | None = None

    @property
    def section(self) -> dict[str, str]:
        """The settings `data` that read it."""
        if self.path is None:
            return {"name": self.name}
        return {"name": "arrays", "path": str(self.path.absolute())}


@dataclass(frozen=True)
class Options:
    """How an experiment is done.

    Attributes:
        is_quick: whether it is made small, and its results lie beside the full ones.
        is_again: whether what is there, trials and all, is removed at first and done again.
        workers: trials that are done at the same time.
        out: the folder of the trials and of what is measured; None for one below runs/lab.
        data: that it is given; None for its own.
    """

    is_quick: bool = False
    is_again: bool = False
    workers: int = 1
    out: Path | None = None
    data: OtherData | None = None


@dataclass(frozen=True)
class Experiment:
    """An experiment whose file was run.

    Attributes:
        facts: its texts, and its last results.
        module: of its file.
        code: sha256 of the file without its texts.
        seeds: that it is measured with.
    """

    facts: ExperimentFacts
    module: ModuleType
    code: str
    seeds: tuple[int, ...] = field(default=SEEDS)

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.facts.texts.name

    @property
    def path(self) -> Path:
        """The file of the experiment."""
        return self.facts.texts.folder / EXPERIMENT


# The file -------------------------------------------------------------------------------------------------------------


def load_experiment(folder: Path) -> Experiment:
    """Runs the file of an experiment.

    Raises:
        UserError: it fails, or it lacks something.
    """
    facts = lab_facts.read_facts(folder)
    path = folder / EXPERIMENT
    with refusing_exit():
        module = run_file(path, name=str(path))
    missing = [name for name in FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        raise UserError(
            f"{path} has no function {', '.join(missing)}; `cnn-vit lab new NAME` writes an example of each"
        )
    with saying_place(path, lab_facts.line_of(path, "SEEDS")):
        seeds = lab_checks.check_seeds(getattr(module, "SEEDS", SEEDS))
    return Experiment(facts, module, lab_facts.hash_code(path), seeds)


# Running --------------------------------------------------------------------------------------------------------------


def run_experiment(name: str, options: Options) -> ExperimentFacts:
    """Does what an experiment still needs, writes its results, and returns them.

    Raises:
        UserError: there is no such experiment, its file fails, a trial has failed, or it cannot be given these data.
        SurroundingsError: a folder cannot be written, or another process does the same experiment.
        StoppedError: a signal asked to stop; the same call goes on.
    """
    experiment = load_experiment(find_experiment(name))
    data_name = ""
    if options.data is not None:
        data_name = options.data.name
        refuse_data(experiment, data_name)
        experiment = replace(experiment, seeds=experiment.seeds[: evidence.LEAST_SEEDS])
    out = options.out or RUNS / name / choose_subfolder(data_name, is_quick=options.is_quick)
    refuse_results_folder(experiment, out)
    target = out if options.is_quick else experiment.facts.texts.folder / data_name
    with contextlib.ExitStack() as stack:
        stack.enter_context(workers.locked(out))
        if not options.is_quick:  # another run may have other trials, and write the same results
            lock = f"{LOCK}-{data_name}" if data_name else LOCK
            stack.enter_context(locked(experiment.facts.texts.folder / lock, waits=False))
        stack.enter_context(saying_how_to_go_on(options))
        planned = plan_trials(experiment, out, options)
        files.remove(out / REMOVED)  # what a killed --again has left of it
        if options.is_again:
            forget_all(experiment, out, planned)
        runs = do_trials(planned, out, options)
        measured = measure_seeds(experiment, out, runs, options)
        write_results(experiment, target, runs, measured, options)
    if not options.is_quick:
        refresh_readmes(experiment.facts.texts.folder.parent)
    return lab_facts.read_facts(experiment.facts.texts.folder, source=target, data=data_name)


def refuse_data(experiment: Experiment, name: str) -> None:
    """Raises UserError where an experiment cannot be given a data set."""
    names = experiment.facts.texts.also_on
    if not names:
        raise UserError(f"{experiment.name} is measured on its own data alone; leave --data={name} out")
    if name not in names:
        raise unknown(f"data set that {experiment.name} can be given", name, names)


def refuse_results_folder(experiment: Experiment, out: Path) -> None:
    """Raises UserError where trials, or the results of a quick run, would lie among other files of the user's."""
    experiments = experiment.facts.texts.folder.parent
    if out.resolve().is_relative_to(experiments.resolve()):
        raise UserError(f"--out={out} lies in {experiments}, which holds the full results; name another folder")
    if (out / README).exists() and not (out / RESULTS).exists():
        raise UserError(f"--out={out} has a {README} that is not of an experiment; name another folder")


def choose_subfolder(data_name: str, *, is_quick: bool) -> str:
    """Returns the name of the folder below runs/lab/NAME."""
    if data_name:
        return f"{data_name}-{QUICK}" if is_quick else data_name
    return QUICK if is_quick else FULL


def words_of(experiment: Experiment, options: Options) -> dict[str, Any]:
    """Returns the keywords that list_trials and measure are called with."""
    words: dict[str, Any] = {"quick": options.is_quick}
    if experiment.facts.texts.also_on:
        words["data"] = options.data
    return words


@contextlib.contextmanager
def saying_how_to_go_on(options: Options) -> Iterator[None]:
    """Within this context, a run with --again that is stopped says that the command without it goes on."""
    try:
        yield
    except StoppedError as error:
        if options.is_again:
            raise StoppedError(error.signal, STOPPED_AGAIN.format(error.signal.name)) from error
        raise


def plan_trials(experiment: Experiment, out: Path, options: Options) -> list[PlannedTrial]:
    """Returns the trials that an experiment lists, each with its place.

    Raises:
        UserError: two have the same name, or are the same.
    """
    list_trials = getattr(experiment.module, "list_trials", None)
    if list_trials is None:
        return []
    listed: list[Trial] = call(experiment, list_trials, **words_of(experiment, options))
    if not lab_checks.is_list(listed) or not all(isinstance(trial, Trial) for trial in listed):
        raise UserError(
            f"{experiment.path}: list_trials returned {lab_checks.kind(listed)}; it returns a list of Trial"
        )
    names = [trial.name for trial in listed]
    if len(set(names)) < len(names) or "" in names:
        raise UserError(f"{experiment.path}: each trial of list_trials needs a name of its own")
    return trials.plan_trials(listed, out, DataCache())


def forget_all(experiment: Experiment, out: Path, planned: Sequence[PlannedTrial]) -> None:
    """Removes what was measured of each seed, and the trials; other files of the folder stay.

    What rows were made of goes after the rows, and a trial's folder leaves its place at once: wherever this is killed,
    the next run finds nothing in half.
    """
    for seed in experiment.seeds:
        files.remove(out / MEASURED / f"{seed}.json")
    for trial in planned:
        if trial.folder.exists():
            with files.Lock(trial.folder / trials.LOCK, on_wait=lambda _: None):  # an orphan may be at work
                files.ensure_writable(out / REMOVED)
                files.move(trial.folder, out / REMOVED / trial.id)
    files.remove(out / REMOVED)


def do_trials(planned: Sequence[PlannedTrial], out: Path, options: Options) -> dict[str, TrialRecord]:
    """Does the trials of an experiment that have no result yet, and returns all by name.

    Raises:
        UserError: one has failed.
    """
    if not planned:
        return {}
    records = workers.do_trials(planned, out, StudyOptions(workers=options.workers))
    failed = [record for record in records if record.state in trials.FAILED]
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {len(records)} trials have failed, the first {trials.describe(first.planned.trial)} "
            f"({first.planned.folder}): {first.state}: {first.reason}; --again does all of them again"
        )
    return {record.planned.trial.name: record for record in records}


def measure_seeds(
    experiment: Experiment, out: Path, runs: Mapping[str, TrialRecord], options: Options
) -> list[dict[str, Any]]:
    """Measures each seed that is not measured yet, and returns what was measured of all, in their order."""
    measured = []
    with stops.handle_signals() as stop, stop.saying(STOPPED_AGAIN if options.is_again else STOPPED):
        progress = Progress(len(experiment.seeds), batch_size=None)
        try:
            for number, seed in enumerate(experiment.seeds):
                stop.raise_if_requested()
                path = out / MEASURED / f"{seed}.json"
                content = read_measured(path, experiment, options)
                if content is None:
                    progress.say(f"{experiment.name}: measuring seed {seed}, {number + 1} of {len(experiment.seeds)}")
                    content = measure_seed(experiment, seed, runs, options)
                    files.write_json(path, content)
                    content = files.read_json(path)  # as a run finds it that goes on: tuples are lists by then
                measured.append(content)
                progress.update(number + 1)
        finally:
            progress.close()
    return measured


def identify(experiment: Experiment, options: Options) -> dict[str, Any]:
    """Returns what decides the rows of a seed, as measured/SEED.json holds it."""
    data_name = "" if options.data is None else options.data.name
    return {"code": experiment.code, "is_quick": options.is_quick, "data": data_name}


def read_measured(path: Path, experiment: Experiment, options: Options) -> dict[str, Any] | None:
    """Returns what was measured of a seed; None where that is not there, or is of other code, size or data."""
    if not path.exists():
        return None
    content = reader.read_object(path, code=str, rows=list, times=list)
    wanted = identify(experiment, options)
    return content if {key: content.get(key) for key in wanted} == wanted else None


def measure_seed(
    experiment: Experiment, seed: int, runs: Mapping[str, TrialRecord], options: Options
) -> dict[str, Any]:
    """Measures one seed."""
    begin = cpu_seconds()
    measured = call(experiment, experiment.module.measure, seed, runs, **words_of(experiment, options))
    with saying_place(experiment.path, first_line(experiment.module.measure)):
        if not isinstance(measured, Measured):
            raise UserError(f"measure returned {lab_checks.kind(measured)}; it returns a Measured")
        rows = lab_checks.check_rows(measured.rows, name="rows")
        times = lab_checks.check_rows(measured.times, name="times")
    return identify(experiment, options) | {
        "rows": [{"seed": seed, **row} for row in rows],
        "times": [{"seed": seed, **row} for row in times],
        "cpu_seconds": round(cpu_seconds() - begin, 2),
        "machine": describe_machine(),
        "commit": environment.git_commit(),
    }


def describe_machine() -> str:
    """Returns the machine of this process in a phrase."""
    current = environment.current_environment(None)
    devices = current["devices"]
    cores = len(process.usable_cores())
    return f"{cores} cores {current['machine']}, {devices['kind']}, jax {current['versions']['jax']}"


def call(experiment: Experiment, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Calls a function of an experiment, whose errors become one sentence with file and line.

    Raises:
        UserError: the function fails.
    """
    path = experiment.path
    with refusing_exit(), recipe_errors(path, name=str(path), line=first_line(function) or 1):
        return function(*arguments, **keywords)


def first_line(function: Callable) -> int | None:
    """Returns the line on which a function begins; None where it is not written in Python."""
    return getattr(getattr(function, "__code__", None), "co_firstlineno", None)


@contextlib.contextmanager
def refusing_exit() -> Iterator[None]:
    """Within this context, an experiment that ends the program is told not to."""
    try:
        yield
    except UserError as error:
        if isinstance(error.__cause__, SystemExit):
            place = str(error).partition(": SystemExit")[0]
            raise UserError(f"{place}: an experiment cannot end the program; return, or raise an error") from error
        raise


@contextlib.contextmanager
def saying_place(path: Path, line: int | None) -> Iterator[None]:
    """Within this context, sentences about what an experiment gave begin with its file and line."""
    try:
        yield
    except UserError as error:
        place = str(path) if line is None else f"{path}:{line}"
        raise UserError(f"{place}: {error}") from error


def call_checked(experiment: Experiment, name: str, check: Callable, *arguments: Any, default: Any = None) -> Any:
    """Calls a function of an experiment, and returns what a check makes of its answer.

    Args:
        experiment: whose function it is.
        name: of the function.
        check: takes the answer and the name, and raises UserError where it is not as it should be.
        arguments: of the function.
        default: what is returned where the experiment leaves the function out.

    Raises:
        UserError: the function fails, or the check does.
    """
    function = getattr(experiment.module, name, None)
    if function is None:
        return default
    answer = call(experiment, function, *arguments)
    with saying_place(experiment.path, first_line(function)):
        return check(answer, name)


# Results --------------------------------------------------------------------------------------------------------------


def write_results(
    experiment: Experiment,
    target: Path,
    runs: Mapping[str, TrialRecord],
    measured: Sequence[Mapping[str, Any]],
    options: Options,
) -> None:
    """Writes what was measured, what it says, the figures and the README.md; results.json last but for that."""
    rows = [row for content in measured for row in content["rows"]]
    time_rows = [row for content in measured for row in content["times"]]
    by_seeds: list[dict[str, Any]] = []
    by_clock: list[dict[str, Any]] = []
    for judgement in judge_sentences(experiment, rows, time_rows):
        (by_clock if evidence.is_by_clock(judgement) else by_seeds).append(judgement)
    tables = call_checked(experiment, "tabulate", lab_checks.check_tables, rows)
    time_tables = call_checked(experiment, "tabulate_times", lab_checks.check_tables, time_rows, default=[])
    data_name = "" if options.data is None else options.data.name
    figures = {}
    if not data_name:  # the captions are about the experiment's own data
        figures = draw_figures(experiment, rows, time_rows)
    machines = distinct([content["machine"] for content in measured])
    clock_keys = [judgement["key"] for judgement in by_clock]
    if clock_keys and len(machines) > 1:
        raise UserError(
            f"{experiment.name}: a clock decides {', '.join(clock_keys)}, and the seeds were measured on "
            f"{'; '.join(machines)}; --again measures all of them on this machine"
        )
    cpu = sum(content["cpu_seconds"] for content in measured)
    for record in runs.values():
        cpu += record.result.get("timing", {}).get("cpu_seconds", 0)
    times = {
        "code": experiment.code,
        "machine": "; ".join(machines),
        "commit": "; ".join(distinct([content["commit"] for content in measured])) or None,
        "cpu_seconds": round(float(cpu), 2),
        "judgements": by_clock,
        "tables": lab_facts.tables_to_json(time_tables),
        "times": time_rows,
    }
    results = {
        "experiment": experiment.name,
        "data": data_name,
        "is_quick": options.is_quick,
        "seeds": list(experiment.seeds),
        "judgements": by_seeds,
        "tables": lab_facts.tables_to_json(tables),
        "rows": rows,
    }
    for name, svg in figures.items():  # from here on nothing of the author's can fail
        files.write(target / f"{name}{SUFFIX}", plots.standalone(svg))
    files.write_json(target / TIMES, times)
    files.write_json(target / RESULTS, results)
    facts = lab_facts.read_facts(experiment.facts.texts.folder, source=target, data=data_name)
    files.write(target / README, lab_readme.write_readme(facts))


def distinct(values: Sequence[str | None]) -> list[str]:
    """Returns each value once, in order, without None."""
    return list(dict.fromkeys(value for value in values if value is not None))


def judge_sentences(
    experiment: Experiment, rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the verdict on each sentence with its evidence, as results.json and timing.json hold it.

    Raises:
        UserError: a sentence has no evidence, or evidence has no sentence, or not one number a seed.
    """
    check = functools.partial(lab_checks.check_weights, count=len(experiment.seeds))
    seed_evidence: Mapping[str, Sequence[Evidence]] = call_checked(experiment, "weigh", check, rows)
    clock_evidence: Mapping[str, Sequence[Evidence]] = call_checked(experiment, "weigh_times", check, times, default={})
    keys = [sentence.key for sentence in experiment.facts.texts.sentences]
    keys_with_evidence = {**seed_evidence, **clock_evidence}.keys()
    if keys_with_evidence != set(keys):
        functions = "weigh and weigh_times give" if clock_evidence else "weigh gives"
        raise UserError(
            f"{experiment.path}: {functions} evidence for {', '.join(keys_with_evidence)}, and SENTENCES are "
            f"{', '.join(keys)}; give some for each of them and for no other"
        )
    judgements = []
    for key in keys:
        by_seeds, by_clock = seed_evidence.get(key, ()), clock_evidence.get(key, ())
        parts = [part.to_json() for part in by_seeds]
        parts += [part.to_json() | {"is_by_clock": True} for part in by_clock]
        with saying_place(experiment.path, first_line(experiment.module.weigh)):
            verdict = evidence.decide([*by_seeds, *by_clock])
        judgements.append({"key": key, "verdict": verdict, "evidence": parts})
    return judgements


def draw_figures(
    experiment: Experiment, rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Returns the figures of an experiment by name: those of the rows, then those of the times.

    Raises:
        UserError: they are not those of FIGURES.
    """
    figures: dict[str, str] = call_checked(experiment, "draw", lab_checks.check_figures, rows)
    figures |= call_checked(experiment, "draw_times", lab_checks.check_figures, times, default={})
    names = [name for name, _ in experiment.facts.texts.figures]
    if set(figures) != set(names):
        raise UserError(
            f"{experiment.path}: draw gives {', '.join(figures) or 'nothing'}, and FIGURES has a caption for "
            f"{', '.join(names) or 'nothing'}; give each figure a caption"
        )
    return figures
