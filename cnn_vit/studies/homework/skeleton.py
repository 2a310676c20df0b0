"""Writes the file that a learner fills: the functions of `analysis/backprop.py` with docstrings, without bodies."""

import ast
from pathlib import Path

from cnn_vit.analysis import backprop
from cnn_vit.studies.homework.exercises import GOOD_START, OUTPUTS

HEAD = '''"""Backpropagation by hand: fill in the functions below, in any order, with NumPy alone.

Each raises NotImplementedError until you write it. Its docstring has the formula and the shapes. Check what you have:

    {check}
    {check} --only=relu_backward      one function
    {check} --only=conv               both of a layer

That runs this file, in a process with limits of time and memory, and says of each function whether it is right, and
what went wrong where it is not. `cnn-vit backprop trace` shows all of it on an image.

A network turns its input into one number, the loss L. A layer computes y from x and from its parameters. Its backward
function gets g = dL/dy, which has the shape of y, and returns dL/dx, and dL/dw for each parameter w, each of the shape
of what it is derived by. The dL/dx of a layer is the g of the layer below it, down to the image.

Axes:
    B batch    H, W input height and width    C channels    Y, X output height and width    O filters
    U, V height and width of a kernel    D, K numbers before and after a dense layer, K also classes
    T tokens that ask    S tokens that are asked    E width of a query and key    F width of a value

Arrays are float64. Do not change those that you get. Functions of your own are welcome, and so is print. Return None
for a gradient that you have not written yet. Images are (B, H, W, C), kernels (U, V, C, O), and padding is
((top, bottom), (left, right)).

A good start: {start}.
"""

import numpy as np
'''
TITLES = {  # above the first function of a layer
    "relu": "ReLU",
    "dense": "Dense",
    "conv": "Convolution",
    "max_pool": "Max pooling",
    "average_pool": "Average pooling",
    "softmax_cross_entropy": "Softmax cross-entropy",
    "batch_norm": "Batch norm",
    "layer_norm": "Layer norm",
    "attention": "Attention",
}
RULE_WIDTH = 120  # characters of a line above a layer


def write_skeleton(check: str) -> str:
    """Returns the text of the file.

    Args:
        check: the command that checks it.
    """
    tree = ast.parse(Path(backprop.__file__).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    start = f"{', '.join(GOOD_START[:-1])}, then {GOOD_START[-1]}"
    parts = [HEAD.format(check=check, start=start)]
    for name in OUTPUTS:
        if name.endswith("_forward"):
            title = f"# {TITLES[name.removesuffix('_forward')]} "
            parts.append(f"\n\n{title.ljust(RULE_WIDTH, '-')}\n")
        parts.append(write_function(functions[name]))
    return "".join(parts)


def write_function(function: ast.FunctionDef) -> str:
    """Returns a function with the parameters and the docstring of a right one, which is not written yet."""
    parameters = ", ".join(argument.arg for argument in function.args.args)
    docstring = ast.get_docstring(function) or ""
    lines = [f"    {line}" if line else "" for line in docstring.splitlines()]
    lines[0] = f'    """{lines[0].strip()}'
    if len(lines) == 1:
        lines[0] += '"""'
    else:
        lines.append('    """')
    body = "\n".join(lines)
    return f"\n\ndef {function.name}({parameters}):\n{body}\n    raise NotImplementedError\n"
