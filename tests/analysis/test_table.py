"""A described network adds up, tells the truth of its layers, compiles nothing, and is readable in any terminal."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from published import described

import cnn_vit
from cnn_vit import models
from cnn_vit.analysis import flops, formatting
from cnn_vit.analysis.arithmetic import explain_row
from cnn_vit.analysis.checks import check
from cnn_vit.analysis.table import as_json, describe, differences
from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.values import declare, functional
from cnn_vit.trees import count

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """Names of what JAX compiles meanwhile."""
    found = []

    def listen(event, _seconds, **_):
        if event == COMPILED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_description_compiles_nothing(compilations):
    for name in ("resnet/50", "vit/B16", "lenet/5"):
        describe(name).to_json()
    assert compilations == []
    jax.jit(lambda x: x * 3 + 17)(np.float32(1))
    assert compilations  # the listener hears


@pytest.mark.parametrize("family", models.families())
def test_rows_add_up_to_the_network(family):
    found = described(f"{family}/test").to_json()
    network = models.build(f"{family}/test", found["classes"])
    assert found["parameters"] == sum(row["parameters"] for row in found["layers"]) == count(functional(network).params)
    assert found["macs"] == sum(row["macs"] for row in found["layers"])
    assert found["activation_bytes"] == sum(row["activation_bytes"] for row in found["layers"])
    assert len({row["path"] for row in found["layers"]}) == len(found["layers"])
    assert found["layers"][-1]["output"] == [found["classes"]]
    json.dumps(found, allow_nan=False)


def test_a_row_has_the_numbers_of_hand_arithmetic():
    assert as_json(described("resnet/50").row("stages/1/blocks/0/conv2")) == {
        "path": "stages/1/blocks/0/conv2",
        "kind": "Conv",
        "output": [28, 28, 128],
        "parameters": 3 * 3 * 128 * 128,
        "macs": 28 * 28 * 128 * 3 * 3 * 128,
        "activation_bytes": 28 * 28 * 128 * 4,
        "receptive_field": [43, 43],
        "stride": [8, 8],
    }


def test_bytes_follow_the_dtype():
    whole, half = (describe("vit/test", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert whole.row("norm").activation_bytes == 17 * 8 * 4 == 2 * half.row("norm").activation_bytes
    assert (whole.parameters, whole.macs) == (half.parameters, half.macs)
    with pytest.raises(UserError, match="no dtype 'float23'; did you mean float32"):
        describe("vit/test", dtype="float23")


def test_classes_size_and_colors_have_the_networks_own_defaults():
    assert (described("resnet/50").num_classes, described("resnet/50").image_shape) == (1000, (224, 224, 3))
    assert (described("lenet/5").num_classes, described("lenet/5").image_shape) == (10, (32, 32, 1))
    changed = describe("vit/Ti16", (32, 64), num_classes=7, channels=1, depth=2)
    assert (changed.num_classes, changed.image_shape, changed.row("patches").output) == (7, (32, 64, 1), (8, 192))


def test_a_built_network_is_described_as_its_name_is():
    named = describe("cnn/test", 16, num_classes=5)
    built = cnn_vit.describe(models.build("cnn/test", 5, image_size=16))
    assert built.to_json() == named.to_json() | {"model": "CNN"}
    parameters = 27 * 8 + 2 * 8 + 72 * 8 + 2 * 8 + (8 * 8 * 8 + 1) * 5
    macs = 16 * 16 * 27 * 8 + 8 * 8 * 72 * 8 + 8 * 8 * 8 * 5
    assert repr(built) == f"<CNN on 16x16x3: {parameters:,} parameters, {macs:,} MACs, 6 rows>"


def test_parameters_of_larger_modules_have_rows_of_their_own():
    found = describe("vit/test-map")
    query = found.row("map_head/query")
    assert as_json(query) | {"path": ""} == {
        "path": "", "kind": "parameter", "output": None, "parameters": 8, "macs": 0, "activation_bytes": 0,
        "receptive_field": None, "stride": None,
    }  # fmt: skip
    assert [row.path for row in found.rows].index("map_head/query") < [row.path for row in found.rows].index(
        "map_head/attention/query"
    )


class Odd(nnx.Module):
    """A layer called twice, one of an unknown kind, and one that nobody calls."""

    def __init__(self):
        self.conv = Conv(3, 3, 3, padding=1)
        self.gain = Gain()
        self.idle = Dense(4, 5)

    def __call__(self, x):
        return self.gain(self.conv(self.conv(x))).mean((1, 2))


class Gain(nnx.Module):
    def __init__(self):
        self.gamma = declare(nnx.Param, (3,), "ones")

    def __call__(self, x):
        return x * self.gamma[...]


def test_shared_unknown_and_idle_layers_are_counted_once():
    found = describe(Odd(), 8)
    numbers = {row.path: (flops.value(row.parameters), flops.value(row.macs)) for row in found.rows}
    one = 8 * 8 * 3 * 27
    assert numbers == {
        "idle/kernel": (20, 0), "idle/bias": (5, 0), "conv": (84, one), "conv#2": (0, one), "gain": (3, 0),
    }  # fmt: skip
    assert found.row("conv#2").field[0].size == 5
    assert check(found)["parameters"] == 5


def test_a_path_that_is_none_names_the_nearest():
    with pytest.raises(
        UserError, match=r"no layer of resnet/50 'stages/1/block/0/conv2'; did you mean stages/1/blocks/0/"
    ):
        described("resnet/50").row("stages/1/block/0/conv2")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: describe("resnett/50"), "no model family 'resnett'; did you mean resnet?"),
        (lambda: describe("vit/B16", 100), "100x100 pixels are not whole 16-pixel patches"),
        (lambda: describe(models.build("cnn/test", 5)), None),
        (lambda: describe(models.build("resnet/18", 5)), "ResNet takes images of any size; say image_size"),
        (lambda: describe(models.build("cnn/test", 5), 40), "images of 40x40 pixels; this network is built for 32x32"),
        (
            lambda: describe(models.build("cnn/test", 5), channels=1),
            "CNN does not take images of 32x32x1: .* say image_",
        ),
        (lambda: describe(models.build("cnn/test", 5), num_classes=5), "a built network has its classes"),
        (lambda: describe(5), "int is no network; give a name such as resnet/50"),
    ],
)
def test_what_cannot_be_described_gets_a_sentence(call, sentence):
    if sentence is None:
        assert call().num_classes == 5
        return
    with pytest.raises(UserError, match=sentence):
        call()


# What differs


def test_two_equal_networks_differ_in_nothing():
    found = differences(described("cnn/test"), describe("cnn/test"))
    assert found["layers"] == []
    assert formatting.format_differences(found).endswith("no layer differs")


def test_v1_and_v15_differ_where_the_stride_stands():
    found = differences(described("resnet/50"), described("resnet/50-v1"))
    assert found["parameters"][0] == found["parameters"][1]
    first = found["layers"][0]
    assert (first["path"], first["in"]) == ("stages/1/blocks/0/conv1", [True, True])
    assert first["differs"]["output"] == [[56, 56, 128], [28, 28, 128]]
    moved = [layer["path"] for layer in found["layers"] if "macs" in layer["differs"]]
    assert moved == [f"stages/{stage}/blocks/0/conv1" for stage in (1, 2, 3)]


def test_layers_that_one_lacks_are_said_to_be_the_others():
    found = differences(described("cifar_resnet/20"), described("cifar_resnet/20-b"))
    only = {layer["path"]: layer["in"] for layer in found["layers"] if layer["in"] != [True, True]}
    assert only == {
        f"stages/{stage}/blocks/0/projection/{part}": [False, True] for stage in (1, 2) for part in ("conv", "norm")
    }
    text = formatting.format_differences(found)
    assert "stages/1/blocks/0/projection/conv  only in B" in text
    assert re.search(r"parameters +269,722 +272,474\n", text)


# Text


@pytest.mark.parametrize(
    "name", [f"{family}/test" for family in models.families()] + ["resnet/50", "vit/B16", "vit/H14"]
)
def test_a_table_fits_80_columns_and_shows_all_in_200(name):
    found = described(name)
    narrow, wide = (formatting.format_table(found, width=width).splitlines() for width in (80, 200))
    assert max(map(len, narrow)) <= 80
    assert max(map(len, wide)) <= 200
    assert wide[2].split() == ["layer", "kind", "output", "parameters", "MACs", "bytes", "field", "stride"]
    for row in found.rows:
        assert [line for line in wide if line.startswith(f"{row.path} ")]
        assert [line for line in narrow if line.split() and row.path.endswith(line.split()[0])]
    total = next(line for line in narrow if line.startswith("total"))
    assert f"{found.parameters:,}" in total
    assert f"{found.macs:,}" in total


def test_layers_of_a_block_stand_under_its_path():
    lines = formatting.format_table(described("resnet/50"), width=80).splitlines()
    at = lines.index("stages/1/blocks/0")
    assert re.fullmatch(r"  conv1 +56x56x128 +32,768 +102,760,448 +35 +4", lines[at + 1])
    assert re.match(r"head +1000 +2,049,000 +2,048,000 +all$", lines[lines.index("stages/3/blocks/2") + 7])


@pytest.mark.parametrize("name", ["lenet/5", "vit/B16", "cnn/lecture", "resnet/50-32x4d"])
def test_the_arithmetic_of_every_row_is_true(name):
    """Each line that is an equation is computed from its own text."""
    found = described(name)
    equations = 0
    for row in found.rows:
        lines = dict(explain_row(found, row))
        for text in lines.values():
            for left, right in re.findall(r"^([^=]+) = ([\d,]+)", re.sub(r"\([a-z][^)]*\)|,(?=\d{3})", "", text)):
                value = eval(left.replace("floor", "int"), {"int": int})
                assert value == int(right), text
                equations += 1
        if row.call is not None:
            assert lines["parameters"] == "none" or lines["parameters"].endswith(f"{flops.value(row.parameters):,}")
    assert equations > 2 * len(found.rows)


def test_a_rows_arithmetic_reads_as_it_is_taught():
    lines = dict(explain_row(described("resnet/50"), described("resnet/50").row("stages/1/blocks/0/conv2")))
    assert lines["pixels"] == "floor((56 + 1 + 1 - 1 * (3 - 1) - 1) / 2) + 1 = 28"
    assert lines["field"] == "35 + (3 - 1) * 1 * 4 = 43 pixels, stride 4 * 2 = 8"
    assert lines["parameters"] == (
        "3 (kernel rows) * 3 (kernel columns) * 128 (channels each reads) * 128 (filters) = 147,456"
    )
    assert lines["bytes"] == "28 * 28 * 128 * 4 = 401,408"
    query = dict(explain_row(described("vit/B16"), described("vit/B16").row("blocks/0/attention/attend")))
    assert query["field"].startswith("all of the image: ")
    assert "12 (heads) * 197 (tokens that read) * 197 (tokens read) * 64" in query["MACs"]
    token = dict(explain_row(described("vit/B16"), described("vit/B16").row("cls_token")))
    assert token["parameters"] == "1 (axis 0) * 768 (axis 1) = 768"
    assert "takes" not in token
