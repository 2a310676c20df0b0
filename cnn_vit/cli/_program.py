"""cnn-vit: train and understand CNNs and Vision Transformers; every number printed is measured.

Settings are written --config.key=value or --config.key value. Dashes and underscores are the same
in flags. Every command takes --json (print one JSON object on stdout), --debug (show the traceback
of an error) and --help.

The exit code is 0 where all was done; 2 where the input is wrong; 3 where the disk, the rights or
another run are in the way; 4 where training diverged; 128+n where signal n stopped the command,
and the same command resumes the run; 1 where this program has a bug, or a run of a study crashed.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from cnn_vit import cli, process, stops
from cnn_vit.errors import StoppedError, SurroundingsError, UserError, is_out_of_memory, unknown

BUG = 1  # exit code of a bug in this program
TOO_LITTLE_MEMORY = (
    "there is too little memory; make data.batch_size, data.image_size or the model smaller, `cnn-vit train --show "
    "--compile` says what a training step needs"
)
SETTING = "--config."  # what the flag of a setting begins with
MODEL_KEYWORD = "--model."  # what the flag of a keyword of a network begins with, where no recipe is named
HELP_FLAGS = ("-h", "--help")


class Parser(argparse.ArgumentParser):
    """A parser of command lines that raises its complaint as a `UserError`, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """Raises the message that argparse would print before it ends the process."""
        for kind, noun in (("int", "whole number"), ("float", "number")):
            message = re.sub(rf"invalid {kind} value: (.*)", rf"\1 is not a {noun}", message)
        raise UserError(f"{self.prog}: {message}; {self.prog} --help shows what it takes")


def run(words: Sequence[str]) -> int:
    """Runs one command and returns its exit code. For any code but 0, the last line on stderr is the one-line cause.

    Args:
        words: the words of the command line without the program's name.
    """
    with repair_streams():
        # The flag is looked up by hand: words that cannot be parsed shall show their traceback as well.
        args = argparse.Namespace(debug="--debug" in words)
        try:
            code = dispatch(list(words), args)
        except (Exception, StoppedError) as error:
            code = report_failure(error, args)
        except KeyboardInterrupt as error:  # of a program that calls this one outside its main thread
            stopped = StoppedError(signal.SIGINT, stops.STOPPED.format(signal.SIGINT.name))
            code = report_failure(stopped.with_traceback(error.__traceback__), args)
        stops.end_command(code)
        return code


# Streams --------------------------------------------------------------------------------------------------------------


class ForgivingStream:
    """Standard error, but text that cannot be written is dropped: nobody reads it then, and the work goes on."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text or drops it; returns its number of characters in both cases."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Writes out what is buffered, or drops it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


@contextlib.contextmanager
def repair_streams() -> Iterator[None]:
    """Within this context, stdout and stderr exist and take any character, however the process was started.

    A stream that was closed is replaced by one that drops its text, and characters that the encoding of a stream lacks
    are written as escapes. Afterwards the streams are those from before.
    """
    before = sys.stdout, sys.stderr
    stdout, stderr = (stream or io.StringIO() for stream in before)  # Python sets a closed stream to None
    for stream in (stdout, stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = stdout
    sys.stderr = ForgivingStream(stderr)  # type: ignore[assignment]  # all of a stream that anything here asks for
    try:
        yield
    finally:
        flush_or_discard(stderr)
        sys.stdout, sys.stderr = before


def flush_or_discard(stream: Any) -> None:
    """Writes out what a stream has buffered; where that fails, it goes to the null device.

    Otherwise Python would try again when it ends, and print a complaint of its own.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# Words to calls -------------------------------------------------------------------------------------------------------


def dispatch(words: list[str], args: argparse.Namespace) -> int:
    """Finds the command that the words name, and runs it or prints its help.

    Args:
        words: the words of the command line without the program's name.
        args: where the parsed words go, so that `run` has them even where the command fails.

    Returns:
        The exit code.

    Raises:
        UserError: there is no such command, or it does not take these words.
    """
    commands = cli.find_commands()
    if not words or words[0] in HELP_FLAGS:
        cli.print_line(program_help())
        return 0
    name = words[0]
    if name not in commands:
        raise unknown("command", name, [*commands, "--help"])
    stops.raise_if_requested()
    module = importlib.import_module(f"cnn_vit.cli.{name}")
    rest, overrides = split_settings(words[1:])
    rest, model_keywords = split_settings(rest, MODEL_KEYWORD)
    parser = build_parser(name, module)
    if set(HELP_FLAGS) & set(rest):
        cli.print_line(command_help(parser, rest, overrides))
        return 0
    _, extra = parser.parse_known_intermixed_args(rest, args)  # words may stand before and behind any flag
    if extra:
        raise unexpected_word_error(name, extra[0], list(parser._option_string_actions))
    if overrides and not hasattr(args, "config"):
        raise UserError(f"{name} takes no settings; leave out {SETTING}{overrides[0]}")
    if model_keywords and not hasattr(args, "model_keywords"):
        remedy = f"write {SETTING}model.{model_keywords[0]}" if hasattr(args, "config") else "leave it out"
        raise UserError(f"{name} does not take {MODEL_KEYWORD}{model_keywords[0]}; {remedy}")
    refuse_removed_folder()
    args.overrides = overrides
    if model_keywords:
        args.model_keywords = model_keywords
    args.prepared = process.prepare()  # before the command imports jax
    from cnn_vit.files import cache

    cache.configure(**process.cache_environment())
    stops.raise_if_requested()
    return module.run(args) or 0


def split_settings(words: Sequence[str], prefix: str = SETTING) -> tuple[list[str], list[str]]:
    """Parts the words of a command from its settings: (["--workdir=a"], ["seed=1"]).

    Args:
        words: the words behind the command's name; a setting is `--config.key=value` or `--config.key value`.
        prefix: what the flag of a setting begins with.

    Returns:
        The words for the command's parser, with underscores in their flags, and "key=value" for each setting.

    Raises:
        UserError: a flag is written without its value.
    """
    rest: list[str] = []
    overrides: list[str] = []
    remaining = iter(words)
    for word in remaining:
        flag, equals, value = word.partition("=")
        if flag.startswith(prefix):
            if not equals:
                value = next(remaining, "--")
                if value.startswith("--"):  # the next flag, or the end of the line
                    raise UserError(f"{flag} has no value; write {flag}=VALUE")
            overrides.append(f"{flag.removeprefix(prefix)}={value}")
        elif flag.startswith("--"):
            if equals and not value:
                raise UserError(f"{flag}= has no value; write {flag}=VALUE, or leave it out")
            rest.append("--" + flag[2:].replace("-", "_") + equals + value)
        else:
            rest.append(word)
    return rest, overrides


def build_parser(name: str, module: ModuleType) -> Parser:
    """Returns the parser for the words of a command.

    Args:
        name: the name of the command.
        module: its file, with `arguments(parser)` and the help text as docstring.
    """
    parser = Parser(
        prog=f"cnn-vit {name}",
        description=cli.wrap_paragraphs(module.__doc__ or "", cli.terminal_width()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def unexpected_word_error(command: str, word: str, flags: list[str]) -> UserError:
    """Returns the error for a word that a command does not take, with what the user probably meant.

    Args:
        command: the name of the command.
        word: the word as it was written.
        flags: the flags that the command takes.
    """
    flag, _, value = word.partition("=")
    if "--config" in flags:
        if word.partition(":")[0].endswith(".py"):
            return UserError(f"{command} does not take {word}; did you mean --config={word}?")
        path = value if flag == "--data" else word
        if path and os.path.exists(path):
            remedy = f"`cnn-vit new {cli.shell_quote(path)}` writes a recipe for it"
            return UserError(f"{command} does not take {word}; {remedy}")
    return unknown(f"{command} argument", flag, flags)


def refuse_removed_folder() -> None:
    """Checks that the current folder still exists: no relative path would lead anywhere.

    Raises:
        SurroundingsError: the folder has been removed.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise SurroundingsError(f"the current folder is gone ({error.strerror}); go to another one (cd)") from error


# Help -----------------------------------------------------------------------------------------------------------------


def program_help() -> str:
    """Returns the help of the whole program: the docstring of this file, and a line for each command."""
    width = cli.terminal_width()
    rows = [(name, cli.read_summary(path)) for name, path in cli.find_commands().items()]
    description = cli.wrap_paragraphs(__doc__ or "", width)
    commands = cli.format_table(rows, indent="  ", width=width)
    return f"{description}\n\nusage: cnn-vit COMMAND ...\n\n{commands}\n\nnext: cnn-vit COMMAND --help"


def command_help(parser: Parser, rest: Sequence[str], overrides: Sequence[str]) -> str:
    """Returns the help of a command; where it takes a recipe and one is named, with every setting of that recipe.

    Args:
        parser: the parser of the command.
        rest: its words, without settings.
        overrides: its settings, "key=value" each.
    """
    # The command's own parser would refuse a line that asks for help and leaves out what it requires.
    config_parser = Parser(add_help=False, allow_abbrev=False)
    config_parser.add_argument("--config")
    config = config_parser.parse_known_args(rest)[0].config
    if config is None or "--config" not in parser._option_string_actions:
        return parser.format_help()
    from cnn_vit.cli import _settings

    return f"{parser.format_help()}\n{_settings.settings_help(config, overrides)}"


# Failures -------------------------------------------------------------------------------------------------------------


def report_failure(error: BaseException, args: argparse.Namespace) -> int:
    """Prints the cause of a failure as the last line on stderr, in one sentence, and returns the exit code.

    An error that no user can cause is a bug: its traceback is saved in a file, which the sentence names.
    """
    flush_or_discard(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE  # as a shell expects of a program whose reader has gone; there is nothing to say
    if args.debug:
        traceback.print_exception(error)
    lines, code = explain_failure(error, args)
    stops.end_command(code)  # a signal that comes now has nothing to add
    for line in lines:
        cli.print_note(line)
    return code


def explain_failure(error: BaseException, args: argparse.Namespace) -> tuple[list[str], int]:
    """Returns what is printed about a failure, the cause as the last line, and the exit code.

    The traceback of a bug is saved in a file.
    """
    if isinstance(error, UserError | StoppedError):
        return [cli.as_one_line(line) for line in (*error.details, str(error))], error.code
    # This is how jax says that the machine has none of the devices that JAX_PLATFORMS asks for.
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        return [cli.as_one_line(process.no_device_sentence(str(error)), most=400)], SurroundingsError.code
    if is_out_of_memory(error):
        sentence = f"{TOO_LITTLE_MEMORY} ({str(error) or 'no more was said'})"
        return [cli.as_one_line(sentence, most=400)], SurroundingsError.code
    cause = cli.as_one_line(f"{type(error).__name__}: {error}", most=300)
    return [f"this is a bug in cnn-vit, {cause}; {save_traceback(error, args)}"], BUG


def save_traceback(error: BaseException, args: argparse.Namespace) -> str:
    """Saves a traceback in the folder `crash` of the run, or in a temporary folder where there is no run folder.

    Returns:
        Where it is, as the end of a sentence; where no file can be written, how to see it.
    """
    import tempfile

    from cnn_vit import files
    from cnn_vit.runs import folder

    run_folder = Path(getattr(args, "workdir", None) or os.devnull)  # the null device is no folder
    try:
        crash_folder = Path(tempfile.gettempdir()) / "cnn_vit_crash"
        if run_folder.is_dir():
            crash_folder = run_folder / folder.CRASH
        path = crash_folder / f"traceback-{os.getpid()}.txt"
        files.write(path, "".join(traceback.format_exception(error)))
    except (UserError, OSError):
        return "add --debug to see where"
    return f"its traceback is in {path}"
