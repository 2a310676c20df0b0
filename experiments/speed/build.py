"""What do large networks cost before they run? CPU-seconds from a network's name to its initial values in NumPy arrays.

    python experiments/speed/build.py [--models resnet/50 vit/B16] [--json]

Claim: ResNet-50 and ViT-B/16 take less than 3 CPU-seconds. Layers only declare their parameters, so that building runs
no operation on a device and compiles nothing; the values are drawn by NumPy. Imports are not counted. The first network
also pays for what is set up once.
"""

import argparse
import json
import time

import jax

from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values

CLASSES = 1000


def measure_network(name: str) -> dict[str, float]:
    """Returns CPU-seconds of building a network and of drawing its initial values, and its millions of parameters."""
    began = time.process_time()
    network = functional(build(name, CLASSES))
    built = time.process_time()
    params, _ = initial_values(network, seed=0)
    drawn = time.process_time()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "build": built - began,
        "first_values": drawn - built,
        "total": drawn - began,
        "million_parameters": parameters / 1e6,
    }


def main() -> None:
    """Measures the networks of the command line and prints a line for each, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet/50", "vit/B16"], metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    costs = {name: measure_network(name) for name in args.models}
    if args.json:
        print(json.dumps(costs))
        return
    for name, cost in costs.items():
        print(
            f"{name:12} {cost['million_parameters']:6.1f} M parameters   build {cost['build']:.2f}   "
            f"initial values {cost['first_values']:.2f}   together {cost['total']:.2f} CPU-seconds"
        )
    total = sum(cost["total"] for cost in costs.values())
    print(f"{'all':12} {total:.2f} CPU-seconds")


if __name__ == "__main__":
    main()
