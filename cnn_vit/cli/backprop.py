"""Learn backpropagation by hand: a file of functions to fill, a check that says what went wrong, and a page of it all.

    cnn-vit backprop trace                     an image through a small CNN and back: formulas, values, gradients
    cnn-vit backprop start homework.py         writes 18 functions to fill: each layer forward and backward
    cnn-vit backprop check homework.py         grades them, and recognizes about 180 mistakes by what they give
    cnn-vit backprop check homework.py --only=relu_backward     one function; --only=conv is both of a layer
    cnn-vit backprop trace photo.png --label=7 --out=photo.html

check runs the functions of your file: in a process of its own, each for at most 10 CPU-seconds and
with 2 GB of memory, but with all your rights; do not check a file of somebody you do not trust. Its
exit code is 0 only where every function that was asked for is right. Functions not written yet are
named as such. Only NumPy is needed, and the right answers are those of cnn_vit/analysis/backprop.py,
which is written to be read afterwards.

trace walks one gray image (a handwritten digit of scikit-learn by default) through conv, ReLU, pool,
conv, ReLU, pool, dense and softmax cross-entropy and back, does one step of gradient descent, and
compares every gradient with jax.grad in float64. The page needs no network.
"""

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _image
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.analysis.backprop_trace import Trace
    from cnn_vit.studies.homework.grading import FileGrade, FunctionGrade, Remark

ACTIONS = ("start", "check", "trace")
FLAGS = {  # which action each flag belongs to
    "only": "check",
    "out": "trace",
    "label": "trace",
    "rate": "trace",
    "seed": "trace",
}
NOT_ALL_RIGHT = 2  # exit code of a check
DEFAULT_PAGE = "backprop.html"
CLASSES = 10
DEFAULT_DIGIT = 3
SIDE = 16  # pixels that an image of the user's is brought to
DEFAULT_RATE, LARGEST_RATE = 0.1, 100.0
LINE = 100  # characters of a line where no terminal says how many it has


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command, those of each of its parts in a group."""
    parser.add_argument("words", nargs="+", metavar="start | check | trace", help="what to do, then FILE.py or IMAGE")
    check = parser.add_argument_group("behind check")
    check.add_argument("--only", metavar="NAME", help="one function, or a layer such as conv (default: all)")
    behind_trace = parser.add_argument_group("behind trace")
    behind_trace.add_argument("--out", metavar="FILE", help=f"the page (default: {DEFAULT_PAGE})")
    behind_trace.add_argument(
        "--label", type=int, metavar="K", help="which digit (default: 3), or class of IMAGE (default: 0)"
    )
    behind_trace.add_argument("--rate", type=float, metavar="R", help="learning rate of the step (default: 0.1)")
    behind_trace.add_argument("--seed", type=int, metavar="N", help="of the initial parameters (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Does what the first word asks for, and returns the exit code."""
    action, *names = args.words
    if action not in ACTIONS:
        raise unknown("part of backprop", action, ACTIONS)
    for flag, owner in FLAGS.items():
        if getattr(args, flag) is not None and owner != action:
            raise UserError(f"--{flag} belongs to backprop {owner}; leave it out")
    if action == "trace":
        return trace(args, names)
    if len(names) != 1:
        raise UserError(f"backprop {action} takes one FILE.py; write cnn-vit backprop {action} homework.py")
    return start(args, names[0]) if action == "start" else check(args, names[0])


# start ----------------------------------------------------------------------------------------------------------------


def start(args: argparse.Namespace, file: str) -> int:
    """Writes the file to fill."""
    import os

    from cnn_vit import files
    from cnn_vit.studies.homework import skeleton
    from cnn_vit.studies.homework.exercises import GOOD_START, OUTPUTS

    path = Path(file)
    if path.suffix != ".py":
        raise UserError(f"{file} does not end in .py; name it {path.with_suffix('.py')}")
    if os.path.lexists(path):
        raise UserError(f"{file} is there already, and may be somebody's work; name another file")
    check_command = f"cnn-vit backprop check {cli.shell_quote(file)}"
    files.write(path, skeleton.write_skeleton(check_command))
    record = {"file": file, "functions": list(OUTPUTS)}
    text = (
        f"{file} has {len(OUTPUTS)} functions to fill, each with its formula and shapes. Begin with {GOOD_START[0]}:\n"
        f"write its body in place of `raise NotImplementedError`, then check."
    )
    next_check = f"{check_command} --only={GOOD_START[0]}"
    cli.print_answer(args, record, text, next_command=next_check, even_if_stopped=True)
    return 0


# check ----------------------------------------------------------------------------------------------------------------


def check(args: argparse.Namespace, file: str) -> int:
    """Grades a file."""
    from cnn_vit.studies.homework import grading

    cli.print_note(f"running the functions of {cli.as_one_line(file)}")
    grade = grading.check_file(file, only=args.only)
    cli.print_answer(args, grade.to_json(), as_text(grade), next_command=next_command(grade))
    if grade.is_right:
        return 0
    cli.print_note(f"not all is right: {count_states(grade)}")
    return NOT_ALL_RIGHT


def next_command(grade: "FileGrade") -> str:
    """The next sensible command: a function that is not right, in the order of a good start; the page where all are."""
    from cnn_vit.studies.homework import grading
    from cnn_vit.studies.homework.exercises import GOOD_START, OUTPUTS

    command = f"cnn-vit backprop check {cli.shell_quote(grade.file)}"
    for state in (grading.WRONG, grading.NOT_WRITTEN, grading.NOT_RUN):
        names = [function.name for function in grade.functions if function.state == state]
        if names:
            good_start = [name for name in GOOD_START if name in names]
            return f"{command} --only={(good_start or names)[0]}"
    return "cnn-vit backprop trace" if len(grade.functions) == len(OUTPUTS) else command


def count_states(grade: "FileGrade") -> str:
    """How many functions are in each state, in words."""
    from cnn_vit.studies.homework import grading

    phrases = []
    for state in (grading.RIGHT, grading.WRONG, grading.NOT_WRITTEN, grading.NOT_RUN):
        count = grade.count(state)
        if count:
            phrases.append(f"{count} {state}")
    total = len(grade.functions)
    return f"{', '.join(phrases)}, of {total} function{'s' if total > 1 else ''}"


def as_text(grade: "FileGrade") -> str:
    """Returns the grades as text: a line for each function, its remarks below it."""
    width = cli.terminal_width() or LINE
    longest = max(len(function.name) for function in grade.functions)
    lines = []
    for function in grade.functions:
        lines.append(f"{function.name.ljust(longest)}  {state_text(function)}")
        for remark in function.remarks:
            lines += fold_remark(remark, width)
        if function.printed:
            lines.append("    it printed:")
            lines += [f"        {cli.as_one_line(line)}" for line in function.printed.splitlines()]
    return "\n".join([*lines, "", count_states(grade)])


def state_text(function: "FunctionGrade") -> str:
    """The state of a function, with how many of its cases are right where not all are."""
    from cnn_vit.studies.homework import grading

    if function.state == grading.WRONG:
        return f"{function.state}: {function.right_cases} of {function.cases} cases are right"
    return function.state


def fold_remark(remark: "Remark", width: int) -> list[str]:
    """A remark as indented lines: the sentence, then the cases in which it shows."""
    head = f"{remark.output}: " if remark.output else ""
    lines = [cli.as_one_line(f"{head}{remark.sentence}")]
    if remark.cases:
        lines.append(f"(with {'; '.join(remark.cases)})")
    folded = []
    for line in lines:
        folded += textwrap.wrap(
            line, max(width, 40), initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False
        )
    return folded


# trace ----------------------------------------------------------------------------------------------------------------


def trace(args: argparse.Namespace, names: list[str]) -> int:
    """Writes the page of one image, and prints how far each layer is from automatic differentiation."""
    if len(names) > 1:
        raise UserError(f"backprop trace takes one IMAGE, not {len(names)}")
    out = Path(args.out or DEFAULT_PAGE)
    if out.suffix != ".html":
        raise UserError(f"--out={out} does not end in .html; name it {out.with_suffix('.html')}")
    label = args.label
    if label is not None and not 0 <= label < CLASSES:
        raise UserError(f"--label={label} is not a class; it takes 0 to {CLASSES - 1}")
    rate = DEFAULT_RATE if args.rate is None else args.rate
    if not 0 < rate <= LARGEST_RATE:  # nan is in no range
        raise UserError(f"--rate={rate:g} is not a learning rate; it takes a number above 0, up to {LARGEST_RATE}")
    seed = 0 if args.seed is None else args.seed
    if seed < 0:
        raise UserError(f"--seed={seed} is negative; it takes a whole number from 0 up")

    from cnn_vit import files, stops
    from cnn_vit.reports import backprop_page

    files.ensure_writable(out.parent)
    if names:
        pixels, source = _image.read_image(names[0], SIDE)
        image = pixels[..., 0]
        label = 0 if label is None else label
    else:
        label = DEFAULT_DIGIT if label is None else label
        image, source = _image.read_digit(label)
    stops.raise_if_requested()
    from cnn_vit.analysis import backprop_trace

    walk = backprop_trace.trace(image, label, rate=rate, seed=seed)
    stops.raise_if_requested()
    files.write(out, backprop_page.write_page(walk, source, trace_command(args, names)))
    cli.print_answer(
        args,
        trace_record(walk, str(out)),
        trace_text(walk, str(out)),
        next_command="cnn-vit backprop start homework.py",
        even_if_stopped=True,
    )
    return 0


def trace_command(args: argparse.Namespace, names: list[str]) -> str:
    """The command that makes the page again."""
    words = ["cnn-vit backprop trace", *map(cli.shell_quote, names)]
    for flag in ("label", "rate", "seed", "out"):
        if getattr(args, flag) is not None:
            words.append(cli.shell_quote(f"--{flag}={getattr(args, flag)}"))
    return " ".join(words)


def trace_record(walk: "Trace", out: str) -> dict[str, Any]:
    """Returns what was found as plain values."""
    differences = []
    for row in walk.differences:
        differences.append({"layer": row.layer, "array": row.array, "largest": row.largest, "scale": row.scale})
    return {
        "page": out,
        "label": walk.label,
        "loss": walk.loss,
        "loss_after": walk.loss_after,
        "rate": walk.rate,
        "largest_difference": walk.largest_difference,
        "differences": differences,
    }


def trace_text(walk: "Trace", out: str) -> str:
    """Returns the largest difference of each layer as a table, the step, and where the page is."""
    rows: list[tuple[str, ...]] = [("layer", "output", "largest difference from jax.grad (float64)")]
    for layer in walk.layers:
        largest = max(row.largest for row in walk.differences if row.layer == layer.name)
        shape = " x ".join(map(str, layer.y.shape[1:]))
        rows.append((layer.name, shape, f"{largest:.1e}"))
    losses = f"from {walk.loss:.4f} to {walk.loss_after:.4f}"
    step = f"a step of rate {walk.rate:g} brings the loss of class {walk.label} {losses}"
    return f"{cli.format_table(rows)}\n\n{step}\npage: {cli.as_one_line(out)}"
