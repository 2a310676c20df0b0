"""Writes the page of a sweep: a process of its own, for plots and a forest take 130 MB that a scheduler does not need.

python -m cnn_vit.studies.sweeping.page_process OUT [REASON]
"""

import argparse
import sys
from pathlib import Path

from cnn_vit.reports import sweep_page
from cnn_vit.studies.sweeping import outcome


def main() -> int:
    """Writes the page; returns the exit code."""
    parser = argparse.ArgumentParser(prog="page_process", description="Writes the page of a sweep.")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the sweep")
    parser.add_argument("reason", nargs="?", metavar="REASON", help="why it ended before all was done")
    words = parser.parse_args()
    facts = outcome.read_sweep(words.out)
    if words.reason:
        facts = outcome.add_reason(facts, words.reason)
    sweep_page.write(words.out / outcome.PAGE, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
