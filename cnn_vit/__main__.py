"""cnn-vit: train and understand CNNs and Vision Transformers; every number printed is measured.

Settings are written --config.key=value or --config.key value. Dashes and underscores are the same in flags. Every
command takes --json (one JSON object on stdout), --debug (tracebacks) and --help.
Exit codes: 0 done; 2 the input is wrong; 3 the disk, the rights or another run are in the way; 4 training diverged;
128+n stopped by signal n, which the same command resumes; 1 a fault of this program.
"""

import argparse
import contextlib
import importlib
import io
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from cnn_vit import cli, process
from cnn_vit.errors import StoppedError, SurroundingsError, UserError, unknown

FAULT = 1  # exit code of a fault of this program
SETTING = "--config."


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the words in one sentence, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        for kind, what in (("int", "whole number"), ("float", "number")):
            message = re.sub(rf"invalid {kind} value: (.*)", rf"\1 is no {what}", message)
        raise UserError(f"{self.prog}: {message}; {self.prog} --help shows what it takes")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. The last line on stderr is the one-line cause of any other than 0."""
    words = list(sys.argv[1:] if argv is None else argv)
    with repair_streams():
        given = argparse.Namespace(debug="--debug" in words)
        try:
            with install_signal_handlers():
                code = dispatch(words, given)
        except Exception as error:
            code = report_failure(error, given)
        except KeyboardInterrupt as error:
            code = report_failure(stopped_error(signal.SIGINT).with_traceback(error.__traceback__), given)
        return code


class ForgivingStream:
    """Standard error as it is, but for what cannot be written: nobody is there to be told of that, and work goes on."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


@contextlib.contextmanager
def repair_streams() -> Iterator[None]:
    """Standard streams that exist and write in any encoding; a closed one swallows what it is given.

    Their numbers are taken too: the next file opened would get a closed one's, and with it what C libraries print.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    before = sys.stdout, sys.stderr
    sys.stdout, stderr = (stream or io.StringIO() for stream in before)
    for stream in (sys.stdout, stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = ForgivingStream(stderr)  # type: ignore[assignment]  # all of a stream that anything here asks for
    try:
        yield
    finally:
        flush_or_discard(stderr)
        sys.stdout, sys.stderr = before


def flush_or_discard(stream: Any) -> None:
    """Flushes a stream; what cannot be written goes nowhere, instead of to Python's own complaint at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stopped_error(number: int) -> StoppedError:
    """The error for a signal that came while there was nothing to save."""
    return StoppedError(number, f"stopped by {signal.Signals(number).name}; the same command starts again")


@contextlib.contextmanager
def install_signal_handlers() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command with a sentence, as Ctrl-C does; what `nohup` has it ignore stays so."""

    def came(number: int, frame: FrameType | None) -> NoReturn:
        raise stopped_error(number)

    alone = threading.current_thread() is threading.main_thread()  # which alone may ask for signals
    ours = [one for one in (signal.SIGTERM, signal.SIGHUP) if alone and signal.getsignal(one) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, came)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def dispatch(words: list[str], given: argparse.Namespace) -> int:
    """Finds the command, reads its words into `given`, runs it or prints its help."""
    known = cli.commands()
    if not words or words[0] in ("-h", "--help"):
        cli.print_line(program_help())
        return 0
    if words[0] not in known:
        raise unknown("command", words[0], [*known, "--help"])
    module = importlib.import_module(f"cnn_vit.cli.{words[0]}")
    rest, overrides = split_settings(words[1:])
    parser = build_parser(words[0], module)
    if {"-h", "--help"} & set(rest):
        cli.print_line(command_help(parser, rest, overrides))
        return 0
    _, extra = parser.parse_known_args(rest, given)
    if extra:
        raise unexpected_word(
            words[0], extra[0], [flag for action in parser._actions for flag in action.option_strings]
        )
    if overrides and not hasattr(given, "config"):
        raise UserError(f"{words[0]} takes no settings; leave out {SETTING}{overrides[0]}")
    refuse_removed_folder()
    given.overrides = overrides
    given.prepared = process.prepare()
    from cnn_vit.files import cache

    cache.configure(**process.cache_environment())
    return module.run(given) or 0


def unexpected_word(command: str, word: str, flags: list[str]) -> UserError:
    """The error for a word that a command does not take, with what was probably meant."""
    flag, _, value = word.partition("=")
    if "--config" in flags:
        if word.partition(":")[0].endswith(".py"):
            return UserError(f"{command} takes no {word}; did you mean --config={word}?")
        if (path := value if flag == "--data" else word) and os.path.exists(path):
            return UserError(f"{command} takes no {word}; `cnn-vit new {cli.shell_quote(path)}` writes a recipe for it")
    return unknown(f"{command} argument", flag, flags)


def refuse_removed_folder() -> None:
    """Refuses to work from a folder that somebody has removed: no path would lead anywhere."""
    try:
        os.getcwd()
    except OSError as error:
        raise SurroundingsError(f"the current folder is gone ({error.strerror}); go to another one (cd)") from error


def program_help() -> str:
    """The help of the whole program."""
    rows = [(name, cli.summary(path)) for name, path in cli.commands().items()]
    wide = cli.terminal_width()
    commands = cli.table(rows, indent="  ", width=wide)
    return (
        f"{cli.wrap(__doc__ or '', wide)}\n\nusage: cnn-vit COMMAND ...\n\n{commands}\n\nnext: cnn-vit COMMAND --help"
    )


def build_parser(name: str, module: ModuleType) -> Parser:
    """The parser of a command's words."""
    parser = Parser(
        prog=f"cnn-vit {name}",
        description=cli.wrap(module.__doc__ or "", cli.terminal_width()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of the command, flags with underscores, apart from its settings: (["--workdir=a"], ["seed=1"])."""
    rest: list[str] = []
    overrides: list[str] = []
    left = iter(words)
    for word in left:
        flag, equals, value = word.partition("=")
        if flag.startswith(SETTING):
            value = value if equals else next(left, "--")
            if not equals and value.startswith("--"):
                raise UserError(f"{flag} sets nothing; write {flag}=VALUE")
            overrides.append(f"{flag.removeprefix(SETTING)}={value}")
        elif flag.startswith("--"):
            if equals and not value:
                raise UserError(f"{flag}= names nothing; write {flag}=VALUE, or leave it out")
            rest.append("--" + flag[2:].replace("-", "_") + equals + value)
        else:
            rest.append(word)
    return rest, overrides


def command_help(parser: Parser, rest: Sequence[str], overrides: Sequence[str]) -> str:
    """The help of a command, with every setting of the recipe where one is named."""
    only = Parser(add_help=False, allow_abbrev=False)
    only.add_argument("--config")
    config = only.parse_known_args(rest)[0].config
    if config is None or "--config" not in parser._option_string_actions:
        return parser.format_help()
    from cnn_vit.cli import _settings

    return f"{parser.format_help()}\n{_settings.settings_help(config, overrides)}"


def report_failure(error: BaseException, given: argparse.Namespace) -> int:
    """Says why in one last line on stderr; returns the exit code."""
    flush_or_discard(sys.stdout)
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    if given.debug:
        traceback.print_exception(error)
    if isinstance(error, UserError):
        for line in error.details:
            cli.print_note(cli.one_line(line))
        cli.print_note(cli.one_line(str(error)))
        return error.code
    if isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend"):
        cli.print_note(cli.one_line(process.no_device_sentence(str(error)), most=400))
        return SurroundingsError.code
    cause = cli.one_line(f"{type(error).__name__}: {error}", most=300)
    cli.print_note(f"a fault of this program, {cause}; {save_traceback(error, given)}")
    return FAULT


def save_traceback(error: BaseException, given: argparse.Namespace) -> str:
    """Puts the traceback into the run folder's `crash`, else into a temporary folder; says where it is."""
    import tempfile

    from cnn_vit import files

    run = Path(getattr(given, "workdir", None) or os.devnull)
    folder = run / "crash" if run.is_dir() else Path(tempfile.gettempdir()) / "cnn_vit_crash"
    path = folder / f"traceback-{os.getpid()}.txt"
    try:
        files.write(path, "".join(traceback.format_exception(error)))
    except (UserError, OSError):
        return "add --debug to see where"
    return f"its traceback is in {path}"


if __name__ == "__main__":
    sys.exit(main())
