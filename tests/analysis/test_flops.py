"""Parameters and MACs agree with published tables, formulas with hand arithmetic, and the walk counts every product."""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from published import describe_once, expected_by_check, read_table

import cnn_vit.nn
from cnn_vit import models
from cnn_vit.analysis import flops
from cnn_vit.analysis.flops import Factor
from cnn_vit.analysis.program import trace_network
from cnn_vit.analysis.table import describe
from cnn_vit.nn.attention import Attention
from cnn_vit.nn.conv import Conv

OUT_OF_SCOPE = {"", "lenet/1998"}  # a network without a name here; a LeNet whose sub-sampling has parameters
FAST = {
    ("lenet/5", "10"),
    ("lenet/5-valid", "10"),
    ("cifar_resnet/20", "10"),
    ("cifar_resnet/20-b", "10"),
    ("resnet/50", "1000"),
    ("resnet/50-v1", "1000"),
    ("resnet/50-32x4d", "10"),
    ("mobilenet_v1/0.25", "1000"),
    ("vgg/16-bn", "1000"),
    ("vit/B16", "21843"),
    ("vit/Ti16-map", "1000"),
    ("vit/S32-tok", "1000"),
}


def row_case(row):
    """Returns a published row as a test case, which is slow where FAST does not name it."""
    is_fast = (row["name"], row["num_classes"]) in FAST and row["image_size"] in ("28", "32", "224")
    name = f"{row['name']}@{row['image_size']}x{row['num_classes']}"
    return pytest.param(row, id=name, marks=() if is_fast else pytest.mark.slow)


@pytest.mark.parametrize("row", [row_case(row) for row in read_table("params")])
def test_parameters_and_macs_are_those_of_the_table(row):
    channels = 1 if row["name"].startswith("lenet/") else 3
    description = describe(row["name"], int(row["image_size"]), num_classes=int(row["num_classes"]), channels=channels)
    assert (description.parameters, description.macs) == (int(row["params"]), int(row["macs"]))


def test_every_published_row_is_checked_or_of_a_family_that_we_lack():
    """A new family's rows move from params_later.csv to params.csv, where the test above reads them."""
    checked, later = read_table("params"), read_table("params_later")
    assert len(checked) + len(later) == 372 + 4  # MobileNetV1 came from Keras
    families = set(models.families())
    assert {row["name"].partition("/")[0] for row in checked} <= families
    missing = sorted({row["name"] for row in later} - OUT_OF_SCOPE)
    assert not [name for name in missing if name.partition("/")[0] in families], "move these rows to params.csv"


# Traps: four networks called ViT-B/16, papers that round, two ResNets of equal parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vit/B16", 86_567_656), ("vit/B16-tok", 86_566_888), ("vit/B16-gap", 86_566_120), ("vit/B16-map", 93_653_224)],
)
def test_four_networks_are_called_vit_b16(name, parameters):
    description = describe_once(name)
    assert description.parameters == parameters
    cls_token_rows = [row for row in description.rows if row.path == "cls_token"]
    expected = 768 if name in ("vit/B16", "vit/B16-tok") else 0
    assert sum(flops.compute_formula(row.parameters) for row in cls_token_rows) == expected


def test_v1_and_v15_differ_in_three_first_convolutions_only():
    v15, v1 = describe_once("resnet/50"), describe_once("resnet/50-v1")
    assert v15.parameters == v1.parameters
    assert v15.macs - v1.macs == 3 * 77_070_336


def test_a_large_vit_is_smaller_than_its_paper_rounds():
    assert 304.2e6 < describe_once("vit/L16").parameters < 304.4e6  # "307M" in its table


# Costs that are arithmetic


@pytest.mark.parametrize("check", sorted(expected_by_check("attention cost")))
def test_the_share_of_attention_is_that_computed(check):
    size, _, side = check.removeprefix("att-").partition("@")
    description = describe("vit/B1" if size == "pixel-B" else f"vit/{size}", int(side), depth=1)
    block_rows = [row for row in description.rows if row.path.startswith("blocks/0/")]
    macs = {row.path: flops.compute_formula(row.macs) for row in block_rows}
    share = macs["blocks/0/attention/attend"] / sum(macs.values())
    assert share == pytest.approx(float(expected_by_check("attention cost")[check]), abs=1e-6)


@pytest.mark.parametrize("check", sorted(expected_by_check("compute accounting")))
def test_macs_account_for_the_vit_papers_training_compute(check):
    """Its table 6, in exaFLOPs: 6 times MACs times 303 million images times 7 epochs."""
    size = check.split("-")[2]  # of "exa-ViT-B16-7"
    exaflops = 6 * describe_once(f"vit/{size}").macs * 303e6 * 7 / 1e18
    expected = float(expected_by_check("compute accounting")[check])
    assert exaflops == pytest.approx(expected, rel=0.025 if size == "B32" else 0.005)


# Formulas


class GroupedConv(nnx.Module):
    """A convolution with every setting that its cost depends on."""

    def __init__(self):
        self.conv = Conv(6, 4, (3, 5), padding=((1, 0), (2, 2)), stride=(2, 1), dilation=(1, 2), groups=2)

    def __call__(self, x):
        return self.conv(x).mean((1, 2))


def test_a_grouped_convolution_is_counted_by_hand():
    program = trace_network(GroupedConv(), (9, 12, 6))
    call = program.calls[1]
    assert call.outputs.shape == (1, 4, 8, 4)  # rows (9+1-3)//2+1, columns 12+4-2*4-1+1
    assert flops.compute_formula(flops.parameter_formula(call)) == 3 * 5 * 3 * 4 + 4
    macs = flops.compute_formula(flops.mac_formula(call))
    assert macs == 4 * 8 * 4 * 3 * 5 * 3 == flops.count_program_macs(program)[1]


class CrossAttention(nnx.Module):
    """Attention from 3 query tokens to 5 key tokens."""

    def __init__(self):
        self.attention = Attention(8, 2)

    def __call__(self, x):
        return self.attention(x[:, 0, :3], x[:, 0]).mean(1)


def test_attention_to_a_context_is_counted_by_hand():
    program = trace_network(CrossAttention(), (1, 5, 8))
    macs = {call.path: flops.compute_formula(flops.mac_formula(call)) for call in program.calls}
    assert macs["attention/attend"] == 2 * (2 * 3 * 5 * 4)  # heads, queries, keys, head width; scores and sums
    assert (macs["attention/query"], macs["attention/key"]) == (3 * 64, 5 * 64)
    assert sum(macs.values()) == flops.count_program_macs(program).total()


def test_every_layer_with_parameters_has_a_formula():
    """A layer that only holds other layers (attention) needs none."""
    layers = set()
    for path in Path(cnn_vit.nn.__file__).parent.glob("[!_]*.py"):
        module = importlib.import_module(f"cnn_vit.nn.{path.stem}")
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, nnx.Module) and kind.__module__.startswith("cnn_vit.nn."):
                layers.add(kind)
    declaring = {kind for kind in layers if "declare(" in inspect.getsource(kind)}
    assert len(declaring) >= 7
    assert declaring <= flops.PARAMETERS.keys()


def test_a_formula_in_words_ends_with_its_number():
    formula = ((Factor(3, "rows"), Factor(64, "filters")), (Factor(64, "biases"),))
    assert flops.formula_text(formula) == "3 (rows) * 64 (filters) + 64 (biases) = 256"
    assert flops.formula_text(()) == "none"


# The walk through a program


def count_macs(function, *shapes):
    """Returns the MACs of a function of arrays, counted in its program."""
    arrays = [jnp.zeros(shape) for shape in shapes]
    return flops.count_jaxpr_macs(jax.make_jaxpr(function)(*arrays).jaxpr, None).total()


@jax.custom_vjp
def multiply_with_custom_vjp(x, y):
    return x @ y


multiply_with_custom_vjp.defvjp(lambda x, y: (x @ y, None), lambda _, gradient: (gradient, gradient))


@jax.custom_jvp
def multiply_with_custom_jvp(x, y):
    return x @ y


multiply_with_custom_jvp.defjvps(lambda tangent, _, x, y: tangent @ y, lambda tangent, _, x, y: x @ tangent)


def multiply_five_times(x, y):
    return jax.lax.scan(lambda carry, _: (carry @ y, None), x, None, length=5)[0]


def multiply_once_or_twice(x, y):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: (x @ y) @ y)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: x @ y, 27),
        (jax.jit(lambda x, y: jax.jit(jnp.matmul)(x, y)), 27),
        (jax.checkpoint(lambda x, y: x @ y), 27),
        (multiply_with_custom_vjp, 27),
        (multiply_with_custom_jvp, 27),
        (multiply_five_times, 5 * 27),
        (multiply_once_or_twice, 2 * 27),
        (lambda x, y: x * y + x, 0),
    ],
    ids=["plain", "jit", "remat", "custom_vjp", "custom_jvp", "scan", "cond", "elementwise"],
)
def test_the_walk_goes_into_every_program_inside_a_program(function, expected):
    assert count_macs(function, (3, 3), (3, 3)) == expected


def test_a_loop_without_a_known_length_is_refused():
    with pytest.raises(ValueError, match="'while' cannot be counted"):
        count_macs(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y @ y, x), (3, 3))


def test_batched_products_are_counted_once_each():
    assert count_macs(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (2, 3, 4), (2, 4, 5)) == 2 * 3 * 4 * 5
