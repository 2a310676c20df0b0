"""`python -m cnn_vit COMMAND ...`, which the console script `cnn-vit` does as well.

What a command line means is said in `cli/_program.py`. It is imported once signals are handled: until then Ctrl-C
prints a traceback.
"""

import os
import sys
from collections.abc import Sequence

from cnn_vit import stops


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. For any code but 0, the last line on stderr is the one-line cause.

    Args:
        argv: the words of the command line without the program's name; None for those of this process, which is then
            taken to be there for this command alone.
    """
    occupy_standard_descriptors()  # before the first file is opened, the pipe of signals
    with stops.handle_signals(owns_process=argv is None):
        from cnn_vit.cli import _program

        return _program.run(sys.argv[1:] if argv is None else argv)


def occupy_standard_descriptors() -> None:
    """Opens the null device as file descriptor 0, 1 or 2 wherever the process was started without it.

    Otherwise the next file that is opened would get that number, and with it whatever a C library prints.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
