"""Parameters and MACs are those published; formulas are those of hand arithmetic; the walk counts what it should."""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from published import checks, described, rows

import cnn_vit.nn
from cnn_vit import models
from cnn_vit.analysis import flops
from cnn_vit.analysis.flops import Factor
from cnn_vit.analysis.program import traced
from cnn_vit.analysis.table import describe
from cnn_vit.nn.attention import Attention
from cnn_vit.nn.conv import Conv

OUT_OF_SCOPE = {"", "lenet/1998"}  # no name here; its sub-sampling learns
FAST = {
    ("lenet/5", "10"),
    ("lenet/5-valid", "10"),
    ("cifar_resnet/20", "10"),
    ("cifar_resnet/20-b", "10"),
    ("resnet/50", "1000"),
    ("resnet/50-v1", "1000"),
    ("resnet/50-32x4d", "10"),
    ("vit/B16", "21843"),
    ("vit/Ti16-map", "1000"),
    ("vit/S32-tok", "1000"),
}


def case(row):
    fast = (row["name"], row["num_classes"]) in FAST and row["image_size"] in ("28", "32", "224")
    name = f"{row['name']}@{row['image_size']}x{row['num_classes']}"
    return pytest.param(row, id=name, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize("row", [case(row) for row in rows("params")])
def test_parameters_and_macs_are_those_of_the_table(row):
    channels = 1 if row["name"].startswith("lenet/") else 3
    found = describe(row["name"], int(row["image_size"]), num_classes=int(row["num_classes"]), channels=channels)
    assert (found.parameters, found.macs) == (int(row["params"]), int(row["macs"]))


def test_every_published_row_is_checked_or_of_a_family_not_yet_here():
    """A new family's rows move from params_later.csv to params.csv, where the test above takes them."""
    checked, later = rows("params"), rows("params_later")
    assert len(checked) + len(later) == 372
    here = set(models.families())
    assert {row["name"].partition("/")[0] for row in checked} <= here
    not_yet = sorted({row["name"] for row in later} - OUT_OF_SCOPE)
    assert not [name for name in not_yet if name.partition("/")[0] in here], "move these rows to params.csv"


# Traps: four networks called ViT-B/16, papers that round, two ResNets of equal parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vit/B16", 86_567_656), ("vit/B16-tok", 86_566_888), ("vit/B16-gap", 86_566_120), ("vit/B16-map", 93_653_224)],
)
def test_four_networks_are_called_vit_b16(name, parameters):
    found = described(name)
    assert found.parameters == parameters
    assert sum(flops.value(row.parameters) for row in found.rows if row.path == "cls_token") == (
        768 if name in ("vit/B16", "vit/B16-tok") else 0
    )


def test_v1_and_v15_differ_in_three_first_convolutions_only():
    one, other = described("resnet/50"), described("resnet/50-v1")
    assert one.parameters == other.parameters
    assert one.macs - other.macs == 3 * 77_070_336


def test_a_large_vit_is_smaller_than_its_paper_rounds():
    assert 304.2e6 < described("vit/L16").parameters < 304.4e6  # "307M" in its table


# Costs that are arithmetic

WITH = {"avg": {"pooling": "average"}, "max": {"pooling": "max"}, "none": {"pooling": "none"},
        "conv": {"filters": (32, 32, 64, 64, 128), "stride": (1, 2, 1, 2, 1), "pooling": "none"}}  # fmt: skip
HEADS = {"flat128": {"hidden": (128,)}, "gap": {"head": "average", "hidden": ()}}


@pytest.mark.parametrize("check", sorted(checks("pooling/padding cost")))
def test_costs_of_pooling_and_padding_are_those_computed(check):
    _, head, padding, down = check.split("-")
    expected = checks("pooling/padding cost")[check].split(" / ")
    found = describe(
        "cnn/lecture", 32, num_classes=10, padding=1 if padding == "SAME" else 0, **WITH[down], **HEADS[head]
    )
    assert [found.parameters, found.macs] == list(map(int, expected))


@pytest.mark.parametrize("check", sorted(checks("attention cost")))
def test_the_share_of_attention_is_that_computed(check):
    name, _, side = check.removeprefix("att-").partition("@")
    found = describe("vit/B1" if name == "pixel-B" else f"vit/{name}", int(side), depth=1)
    block = {row.path: flops.value(row.macs) for row in found.rows if row.path.startswith("blocks/0/")}
    share = block["blocks/0/attention/attend"] / sum(block.values())
    assert share == pytest.approx(float(checks("attention cost")[check]), abs=1e-6)


@pytest.mark.parametrize("check", sorted(checks("compute accounting")))
def test_macs_account_for_the_vit_papers_training_compute(check):
    """Its table 6, in exaFLOPs: 6 times MACs times 303 million images times 7 epochs."""
    size = check.split("-")[2]  # exa-ViT-B16-7
    exa = 6 * described(f"vit/{size}").macs * 303e6 * 7 / 1e18
    assert exa == pytest.approx(float(checks("compute accounting")[check]), rel=0.025 if size == "B32" else 0.005)


# Formulas


class Grouped(nnx.Module):
    """Every setting of a convolution that its cost sees."""

    def __init__(self):
        self.conv = Conv(6, 4, (3, 5), padding=((1, 0), (2, 2)), stride=(2, 1), dilation=(1, 2), groups=2)

    def __call__(self, x):
        return self.conv(x).mean((1, 2))


def test_a_grouped_convolution_is_counted_by_hand():
    network = Grouped()
    program = traced(network, (9, 12, 6))
    call = program.calls[1]
    assert call.outputs.shape == (1, 4, 8, 4)  # rows (9+1-3)//2+1, columns 12+4-2*4-1+1
    assert flops.value(flops.parameters(call)) == 3 * 5 * 3 * 4 + 4
    assert flops.value(flops.macs(call)) == 4 * 8 * 4 * 3 * 5 * 3 == flops.products(program)[1]


class Reads(nnx.Module):
    """More tokens are read than read."""

    def __init__(self):
        self.attention = Attention(8, 2)

    def __call__(self, x):
        return self.attention(x[:, 0, :3], x[:, 0]).mean(1)


def test_attention_to_a_context_is_counted_by_hand():
    program = traced(Reads(), (1, 5, 8))
    macs = {call.path: flops.value(flops.macs(call)) for call in program.calls}
    assert macs["attention/attend"] == 2 * (2 * 3 * 5 * 4)  # heads, readers, read, width; scores and sums
    assert (macs["attention/query"], macs["attention/key"]) == (3 * 64, 5 * 64)
    assert sum(macs.values()) == flops.products(program).total()


def test_every_layer_with_parameters_has_a_formula():
    """One that holds layers instead (attention) has theirs."""
    folder = Path(cnn_vit.nn.__file__).parent
    kinds = {
        kind
        for path in folder.glob("[!_]*.py")
        for kind in vars(__import__(f"cnn_vit.nn.{path.stem}", fromlist=["x"])).values()
        if inspect.isclass(kind) and issubclass(kind, nnx.Module) and kind.__module__.startswith("cnn_vit.nn.")
    }
    declares = {kind for kind in kinds if "declare(" in inspect.getsource(kind)}
    assert len(declares) >= 7
    assert declares <= flops.PARAMETERS.keys()


def test_a_formula_in_words_ends_with_its_number():
    formula = ((Factor(3, "rows"), Factor(64, "filters")), (Factor(64, "biases"),))
    assert flops.written(formula) == "3 (rows) * 64 (filters) + 64 (biases) = 256"
    assert flops.written(()) == "none"


# The walk


def counted(function, *shapes):
    return flops.walked(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)).jaxpr, None).total()


@jax.custom_vjp
def custom(x, y):
    return x @ y


custom.defvjp(lambda x, y: (x @ y, None), lambda _, g: (g, g))


@jax.custom_jvp
def forward(x, y):
    return x @ y


forward.defjvps(lambda g, _, x, y: g @ y, lambda g, _, x, y: x @ g)


def looped(x, y):
    return jax.lax.scan(lambda carry, _: (carry @ y, None), x, None, length=5)[0]


def either(x, y):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: (x @ y) @ y)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: x @ y, 27),
        (jax.jit(lambda x, y: jax.jit(jnp.matmul)(x, y)), 27),
        (jax.checkpoint(lambda x, y: x @ y), 27),
        (custom, 27),
        (forward, 27),
        (looped, 5 * 27),
        (either, 2 * 27),
        (lambda x, y: x * y + x, 0),
    ],
    ids=["plain", "jit", "remat", "custom_vjp", "custom_jvp", "scan", "cond", "elementwise"],
)
def test_the_walk_goes_into_every_program_inside_a_program(function, expected):
    assert counted(function, (3, 3), (3, 3)) == expected


def test_a_loop_without_a_known_length_is_refused():
    with pytest.raises(ValueError, match="'while' cannot be counted"):
        counted(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x), (3, 3))


def test_batched_products_are_counted_once_each():
    assert counted(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (2, 3, 4), (2, 4, 5)) == 2 * 3 * 4 * 5
