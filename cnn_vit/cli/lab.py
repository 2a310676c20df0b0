"""The laboratory: what textbooks say of CNNs and ViTs, each as a question, a command and a measured answer.

    cnn-vit lab                       lists the experiments: what is said, the last verdict, the question
    cnn-vit lab run padding           measures one again, at most four CPU-minutes, and writes its folder
    cnn-vit lab run padding --quick   the same made small, written under runs/lab; full results stay as they are
    cnn-vit lab run why_convolution --data=mnist    the same on other data, which takes longer and is stated apart
    cnn-vit lab report                one HTML page of all, which reads as a chapter, and each README.md anew
    cnn-vit lab new mine              writes experiments/mine/experiment.py, an example that runs
    cnn-vit lab show convolution      a filter slides over an image: an animation with its products, and a drawing

`show` takes one of six subjects, and writes SUBJECT.gif and SUBJECT.svg under runs/lab/show. IMAGE is a
file; without one, a handwritten digit of 8 x 8 pixels with levels 0 to 16 is taken.

    cnn-vit lab show convolution IMAGE --stride=2 --padding=1 --padding_kind=circular --dilation=2
    cnn-vit lab show convolution --channels=3 --kernel=outline    one filter has weights for each channel
    cnn-vit lab show convolution --kernel=1,2,1/0,0,0/-1,-2,-1    weights of your own, row by row
    cnn-vit lab show padding --padding=2             what stands around the image, in each kind of padding
    cnn-vit lab show pooling --size=3 --stride=2     largest, average, blur and first pixel of each window
    cnn-vit lab show attention --head_width=2        query, key, value, scores, softmax, output of each patch
    cnn-vit lab show filters --workdir=RUN           of the first layer, before and after training
    cnn-vit lab show features IMAGE --workdir=RUN    what each layer makes of an image, before and after

The numbers are what the layers of this package return. Follow one position with pencil and paper: the line
under each frame writes out how one number comes about, a sum of up to nine products whole, a longer one by
its channels or as its result. --json prints image, weights and outputs, and of attention also the tokens and
the projections, which the drawing leaves out.

An experiment is a folder experiments/NAME with an experiment.py: question, claim, the sentences of
textbooks, and functions that measure, weigh and draw. Verdicts are true, false, conditional (true of
some parts, false of others) and not resolved, by 95 % intervals over at least 3 seeds. `run` goes on
where it was stopped; what is measured is not measured again, until the code of the experiment changes.
--again begins anew, trials included; where it was stopped, the command without --again goes on. MNIST is
downloaded (12 MB), or read with --data_path=FILE from an npz with train_x, train_y, test_x and test_y.
results.json is the same bytes each time; times stand apart in timing.json, and so do verdicts "by the clock",
which hold on the machine that measured them.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _lab_show
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.reports.lab_facts import ExperimentFacts

ACTIONS = ("list", "run", "report", "new", "show")
RUN_FLAGS = ("quick", "again", "data", "data_path", "workers", "out")
CHAPTER = Path("runs") / "lab" / "chapter.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("words", nargs="*", metavar="ACTION", help=f"{', '.join(ACTIONS)}, then NAME or SUBJECT")
    parser.add_argument("--quick", action="store_true", help="run: make it small, beside the full results")
    parser.add_argument("--again", action="store_true", help="run: remove its trials and rows, and begin again")
    parser.add_argument("--data", metavar="NAME", help="run: the data set instead of the experiment's own, as mnist")
    parser.add_argument("--data_path", metavar="FILE", help="run: an npz that holds it, instead of the download")
    parser.add_argument("--workers", type=int, metavar="N", help="run: trials at the same time (default: 1)")
    parser.add_argument(
        "--out",
        metavar="PATH",
        help=f"run: the folder of the trials (default: runs/lab/NAME/full or quick); report: the page ({CHAPTER}); "
        f"show: the folder of the drawings ({_lab_show.FOLDER})",
    )
    _lab_show.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Does what the first word asks for."""
    action, *names = args.words or ["list"]
    if action not in ACTIONS:
        refuse_experiment(action)
        raise unknown("action of lab", action, ACTIONS)
    refuse_other_flags(args, action)
    if action in ("run", "new") and len(names) != 1:
        raise UserError(f"`cnn-vit lab {action}` takes the name of one experiment, not {len(names)}; see cnn-vit lab")
    if action in ("list", "report") and names:
        raise UserError(f"`cnn-vit lab {action}` takes no names, not {' '.join(names)}; leave them out")
    if action == "run":
        run_one(args, names[0])
    elif action == "report":
        write_report(args)
    elif action == "new":
        write_new(args, names[0])
    elif action == "show":
        _lab_show.show(args, names)
    else:
        list_all(args)


def refuse_experiment(word: str) -> None:
    """Raises UserError where the name of an experiment stands for an action."""
    from cnn_vit.reports.lab_facts import EXPERIMENT
    from cnn_vit.studies.lab_folders import EXPERIMENTS, SHIPPED

    if any((experiments / word / EXPERIMENT).exists() for experiments in (Path(EXPERIMENTS), SHIPPED)):
        raise UserError(f"{word} is an experiment, not an action of lab; `cnn-vit lab run {word}` measures it")


def refuse_other_flags(args: argparse.Namespace, action: str) -> None:
    """Raises UserError for a flag that another action takes."""
    own_flags = {"run": RUN_FLAGS, "report": ("out",), "show": ("out", *_lab_show.FLAGS)}
    taken = own_flags.get(action, ())
    for flag in (*RUN_FLAGS, *_lab_show.FLAGS):
        value = getattr(args, flag)
        if value is not None and value is not False and flag not in taken:  # 0 is a value
            raise UserError(f"`cnn-vit lab {action}` does not take --{flag}; leave it out")
    if args.model_keywords and action != "show":
        keyword = args.model_keywords[0].partition("=")[0]
        raise UserError(f"`cnn-vit lab {action}` does not take --model.{keyword}; leave it out")


def list_all(args: argparse.Namespace) -> None:
    """Prints a row for each sentence of a textbook, with its verdict and experiment."""
    from cnn_vit.reports import lab_facts
    from cnn_vit.studies.lab_folders import find_experiments

    experiments, broken = lab_facts.read_readable(find_experiments())
    warn_of(broken)
    rows: list[tuple[str, str, str]] = []
    for facts in experiments:
        rows.append((facts.texts.name, facts.verdict_summary, facts.texts.question))
        for sentence in facts.texts.sentences:
            rows.append(("", facts.verdict_text(sentence.key), f"\u201c{sentence.text}\u201d"))
    for name, reason in broken.items():
        rows.append((name, "cannot be read", reason))
    record = {"experiments": [as_json(facts) for facts in experiments], "broken": broken}
    name = experiments[0].texts.name if experiments else "NAME"
    text = cli.format_table([("experiment", "verdict", "question"), *rows], width=cli.terminal_width())
    cli.print_answer(args, record, text, next_command=f"cnn-vit lab run {name} --quick")


def warn_of(broken: Mapping[str, str]) -> None:
    """Says on stderr which experiments cannot be read."""
    for name, reason in broken.items():
        cli.print_note(f"warning: {name} cannot be read: {reason}")


def as_json(facts: "ExperimentFacts") -> dict[str, Any]:
    """Returns an experiment with its verdicts, as --json prints it."""
    from cnn_vit.reports import evidence

    sentences = []
    for sentence in facts.texts.sentences:
        entry = {"key": sentence.key, "text": sentence.text, "verdict": facts.verdict(sentence.key)}
        by_clock = evidence.is_by_clock(facts.judgement(sentence.key))
        sentences.append(entry | {"by_clock": by_clock, "truth": sentence.truth})
    return {"name": facts.texts.name, "question": facts.texts.question, "sentences": sentences}


def run_one(args: argparse.Namespace, name: str) -> None:
    """Measures an experiment and prints its verdicts with their evidence."""
    from cnn_vit.reports import evidence
    from cnn_vit.reports.lab_facts import README
    from cnn_vit.reports.lab_readme import QUICK_NOTE
    from cnn_vit.studies import lab

    if args.workers is not None and args.workers < 1:
        raise UserError(f"workers={args.workers} do nothing; make it at least 1")
    if args.data is None and args.data_path is not None:
        raise UserError(f"--data_path={args.data_path} needs --data=NAME, which says what the file holds")
    data_path = Path(args.data_path) if args.data_path is not None else None
    options = lab.Options(
        is_quick=args.quick,
        is_again=args.again,
        workers=args.workers or 1,
        out=Path(args.out) if args.out is not None else None,
        data=None if args.data is None else lab.OtherData(args.data, data_path),
    )
    facts = lab.run_experiment(name, options)
    width = cli.terminal_width()
    parts = [facts.texts.question]
    if args.quick:
        parts.append(cli.wrap_paragraphs(QUICK_NOTE, width))
    for sentence in facts.texts.sentences:
        judgement = facts.judgement(sentence.key)
        heading = f"{facts.verdict_text(sentence.key)}: \u201c{sentence.text}\u201d"
        rows = []
        for row in map(evidence.describe, judgement["evidence"]):
            prefix = "" if row.role == "part" else f"{row.role}: "
            rows.append((f"{prefix}{row.statement}", row.interval, f"{row.bound}?", row.outcome))
        parts.append(f"{cli.wrap_paragraphs(heading, width)}\n{cli.format_table(rows, indent='  ', width=width)}")
    for table in [*facts.tables, *facts.time_tables]:
        parts.append(f"{table.title}\n{cli.format_table([table.columns, *table.rows], indent='  ', width=width)}")
    parts.append(cli.format_table([("written", facts.source / README)]))
    record = as_json(facts) | {"data": facts.data, "folder": str(facts.source), "quick": args.quick}
    next_command = "cnn-vit lab report"
    if args.quick:
        next_command = f"cnn-vit lab run {name}" + (f" --data={facts.data}" if facts.data else "")
    cli.print_answer(args, record, "\n\n".join(parts), next_command=next_command, even_if_stopped=True)


def write_report(args: argparse.Namespace) -> None:
    """Writes the chapter, and brings the README.md of each experiment up to date."""
    from cnn_vit import files
    from cnn_vit.reports import lab_facts, lab_page
    from cnn_vit.studies.lab_folders import EXPERIMENTS, SHIPPED, find_experiments, refresh_readmes

    out = Path(args.out) if args.out is not None else CHAPTER
    if out.suffix != ".html":
        raise UserError(f"--out={out} is not a page; name one that ends with .html")
    experiments, broken = lab_facts.read_readable(find_experiments())
    warn_of(broken)
    files.write(out, lab_page.write_chapter(experiments))
    own = Path(EXPERIMENTS)
    written = refresh_readmes(own if lab_facts.list_folders(own) else SHIPPED)
    rows = [("chapter", out), *(("README", path) for path in written)]
    record = {
        "report": str(out),
        "readmes": [str(path) for path in written],
        "experiments": len(experiments),
        "broken": broken,
    }
    cli.print_answer(
        args, record, cli.format_table(rows), next_command=f"open {cli.shell_quote(str(out))}", even_if_stopped=True
    )


def write_new(args: argparse.Namespace, name: str) -> None:
    """Writes the experiment.py of a new experiment."""
    from cnn_vit.studies.lab_folders import write_skeleton

    path = write_skeleton(name)
    next_command = f"cnn-vit lab run {name}"
    cli.print_answer(
        args, {"experiment": str(path)}, f"written: {path}", next_command=next_command, even_if_stopped=True
    )
