"""How long from the command to the first step? Wall seconds of `cnn-vit train`, and where they go.

    python experiments/speed/startup.py [--config=configs/digits_resnet.py] [--runs=3] [--profile] [--json]

Each start makes a new run folder and is stopped as soon as the line of its first step is in metrics.jsonl. The first
one compiles into a fresh compilation cache, and the later ones find the compiled programs there. `--profile` also
prints how long the imports take (python -X importtime).
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LONGEST_IMPORTS = 12  # that `--profile` prints


def time_first_step(config: str, workdir: Path, environment: dict[str, str]) -> float:
    """Starts a run, stops it after its first step, and returns the wall seconds from one to the other.

    Args:
        config: the recipe.
        workdir: a new run folder.
        environment: the environment variables of the process.

    Raises:
        SystemExit: the run ended before its first step; the message is what it wrote on stderr.
    """
    words = ["-m", "cnn_vit", "train", f"--config={config}", f"--workdir={workdir}", "--config.log_every=1"]
    metrics = workdir / "metrics.jsonl"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environment, stderr=subprocess.PIPE, text=True)
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            message = process.stderr.read() if process.stderr else ""
            raise SystemExit(message or "the run ended before its first step")
        time.sleep(0.002)
    seconds = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return seconds


def profile_imports(environment: dict[str, str]) -> list[tuple[str, float]]:
    """Returns the packages that take longest to import, the longest first, and their seconds.

    The seconds of a package include what it imports itself. Modules deeper than PACKAGE.MODULE are left out.
    """
    words = [sys.executable, "-X", "importtime", "-c", "import cnn_vit.training.loop"]
    process = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    lines = re.findall(r"import time: +\d+ \| +(\d+) \| +([\w.]+)", process.stderr)
    seconds_by_name = {name: int(microseconds) / 1e6 for microseconds, name in lines if name.count(".") <= 1}
    longest_first = sorted(seconds_by_name.items(), key=lambda pair: -pair[1])
    return longest_first[:LONGEST_IMPORTS]


def main() -> None:
    """Times the first start and the later ones, and prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits_resnet.py", help="recipe to start (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="starts that find the cache (default: 3)")
    parser.add_argument("--profile", action="store_true", help="print the longest imports too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    imports = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CNN_VIT_CACHE": f"{folder}/cache"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would win over the fresh cache
        first, *later = [
            time_first_step(args.config, Path(folder, str(start)), environment) for start in range(args.runs + 1)
        ]
        if args.profile:
            imports = profile_imports(environment)
    later_median = statistics.median(later)
    if args.json:
        answer = {"first": first, "later": later, "later_median": later_median}
        if args.profile:
            answer["imports"] = imports
        print(json.dumps(answer))
        return
    print(f"{args.config}: {first:.2f} s to the first step with an empty compilation cache")
    print(f"then {later_median:.2f} s (median of {args.runs}; least {min(later):.2f} s)")
    for name, seconds in imports:
        print(f"  {seconds:6.2f} s  import {name}")


if __name__ == "__main__":
    main()
