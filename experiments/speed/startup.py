"""From command to the first step: wall seconds of `cnn-vit train`, and where they go.

    python experiments/speed/startup.py [--config=configs/digits_resnet.py] [--runs=3] [--json]

Each run starts a new run folder and is stopped as soon as the line of its first step is in metrics.jsonl. The first one
compiles into a fresh cache, the others find it. `--profile` prints what the imports take (python -X importtime).
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


def first_step(config: str, workdir: Path, environment: dict[str, str]) -> float:
    """Wall seconds from the start of the process to the first line of its metrics."""
    words = ["-m", "cnn_vit", "train", f"--config={config}", f"--workdir={workdir}", "--config.log_every=1"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environment, stderr=subprocess.PIPE, text=True)
    metrics = workdir / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            raise SystemExit(process.stderr.read() if process.stderr else "the run ended before its first step")
        time.sleep(0.002)
    taken = time.perf_counter() - began
    process.send_signal(signal.SIGTERM)
    process.communicate()
    return taken


def imports(environment: dict[str, str]) -> list[tuple[str, float]]:
    """The packages that take longest to import, in seconds, each with what it imports first."""
    words = [sys.executable, "-X", "importtime", "-c", "import cnn_vit.training.loop"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    rows = re.findall(r"import time: +\d+ \| +(\d+) \| ( *)([\w.]+)", done.stderr)
    found = {name: int(total) / 1e6 for total, _, name in rows if name.count(".") <= 1}
    return sorted(found.items(), key=lambda pair: -pair[1])[:12]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits_resnet.py")
    parser.add_argument("--runs", type=int, default=3, help="starts that find the cache (default: 3)")
    parser.add_argument("--profile", action="store_true", help="print the longest imports too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as away:
        environment = {**os.environ, "CNN_VIT_CACHE": f"{away}/cache"}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        times = [first_step(given.config, Path(away, str(run)), environment) for run in range(given.runs + 1)]
        found = {"first": times[0], "later": times[1:], "later_median": statistics.median(times[1:])}
        if given.profile:
            found["imports"] = imports(environment)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{given.config}: {times[0]:.2f} s to the first step with an empty compilation cache")
    print(f"then {statistics.median(times[1:]):.2f} s (median of {given.runs}; least {min(times[1:]):.2f} s)")
    for name, seconds in found.get("imports", ()):
        print(f"  {seconds:6.2f} s  import {name}")


if __name__ == "__main__":
    main()
