"""Building and first values: CPU-seconds of a network from its name to NumPy arrays, imports not counted.

    python experiments/speed/build.py [--models resnet/50 vit/B16] [--json]

Claim: ResNet-50 and ViT-B/16 take less than 3 CPU-seconds. Layers only declare their parameters, so that building runs
no operation on a device and compiles nothing; the values are drawn by NumPy. The first network pays for what is set up
once.
"""

import argparse
import json
import time

import jax

from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values

CLASSES = 1000


def measured(name: str) -> dict[str, float]:
    """CPU-seconds of building and of drawing, and millions of parameters."""
    began = time.process_time()
    network = functional(build(name, CLASSES))
    built = time.process_time()
    params, _ = initial_values(network, seed=0)
    drawn = time.process_time()
    millions = sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6
    return {
        "build": built - began,
        "first_values": drawn - built,
        "total": drawn - began,
        "million_parameters": millions,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet/50", "vit/B16"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    found = {name: measured(name) for name in given.models}
    if given.json:
        print(json.dumps(found))
        return
    for name, one in found.items():
        print(
            f"{name:12} {one['million_parameters']:6.1f} M parameters   build {one['build']:.2f}   "
            f"first values {one['first_values']:.2f}   together {one['total']:.2f} CPU-seconds"
        )
    print(f"{'all':12} {sum(one['total'] for one in found.values()):.2f} CPU-seconds")


if __name__ == "__main__":
    main()
