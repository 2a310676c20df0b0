"""A described network adds up, tells the truth of its layers, compiles nothing, and is readable in any terminal."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from published import describe_once

import cnn_vit
from cnn_vit import models
from cnn_vit.analysis import flops, formatting
from cnn_vit.analysis.arithmetic import explain_row
from cnn_vit.analysis.checks import check
from cnn_vit.analysis.table import as_json, describe, find_differences
from cnn_vit.errors import UserError
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.values import declare, functional
from cnn_vit.trees import count

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A list that receives an entry for each compilation of JAX while the test runs."""
    events = []

    def listen(event, _seconds, **_):
        if event == COMPILED:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_description_compiles_nothing(compilations):
    for name in ("resnet/50", "vit/B16", "lenet/5"):
        describe(name).to_json()
    assert compilations == []
    jax.jit(lambda x: x * 3 + 17)(np.float32(1))
    assert compilations  # the listener does hear of compilations


@pytest.mark.parametrize("family", models.families())
def test_rows_add_up_to_the_network(family):
    description = describe_once(f"{family}/test").to_json()
    layers = description["layers"]
    network = models.build(f"{family}/test", description["classes"])
    assert description["parameters"] == sum(row["parameters"] for row in layers) == count(functional(network).params)
    assert description["macs"] == sum(row["macs"] for row in layers)
    assert description["activation_bytes"] == sum(row["activation_bytes"] for row in layers)
    assert len({row["path"] for row in layers}) == len(layers)
    assert layers[-1]["output"] == [description["classes"]]
    json.dumps(description, allow_nan=False)


def test_a_row_has_the_numbers_of_hand_arithmetic():
    assert as_json(describe_once("resnet/50").row("stages/1/blocks/0/conv2")) == {
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
    in_float32, in_bfloat16 = (describe("vit/test", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert in_float32.row("norm").activation_bytes == 17 * 8 * 4 == 2 * in_bfloat16.row("norm").activation_bytes
    assert (in_float32.parameters, in_float32.macs) == (in_bfloat16.parameters, in_bfloat16.macs)
    with pytest.raises(UserError, match="no dtype 'float23'; did you mean float32"):
        describe("vit/test", dtype="float23")


def test_classes_size_and_colors_have_the_networks_own_defaults():
    assert (describe_once("resnet/50").num_classes, describe_once("resnet/50").image_shape) == (1000, (224, 224, 3))
    assert (describe_once("lenet/5").num_classes, describe_once("lenet/5").image_shape) == (10, (32, 32, 1))
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
    description = describe("vit/test-map")
    query = description.row("map_head/query")
    assert as_json(query) | {"path": ""} == {
        "path": "", "kind": "parameter", "output": None, "parameters": 8, "macs": 0, "activation_bytes": 0,
        "receptive_field": None, "stride": None,
    }  # fmt: skip
    paths = [row.path for row in description.rows]
    assert paths.index("map_head/query") < paths.index("map_head/attention/query")


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
    description = describe(Odd(), 8)
    counts = {}
    for row in description.rows:
        counts[row.path] = flops.compute_formula(row.parameters), flops.compute_formula(row.macs)
    conv_macs = 8 * 8 * 3 * 27
    assert counts == {
        "idle/kernel": (20, 0),
        "idle/bias": (5, 0),
        "conv": (84, conv_macs),
        "conv#2": (0, conv_macs),
        "gain": (3, 0),
    }
    assert description.row("conv#2").field[0].size == 5
    assert check(description)["parameters"] == 5


def test_a_path_that_is_none_names_the_nearest():
    with pytest.raises(
        UserError, match=r"no layer of resnet/50 'stages/1/block/0/conv2'; did you mean stages/1/blocks/0/"
    ):
        describe_once("resnet/50").row("stages/1/block/0/conv2")


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
        (lambda: describe(5), "int is not a network; give a name such as resnet/50"),
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
    differences = find_differences(describe_once("cnn/test"), describe("cnn/test"))
    assert differences["layers"] == []
    assert formatting.format_differences(differences).endswith("no layer differs")


def test_v1_and_v15_differ_where_the_stride_stands():
    differences = find_differences(describe_once("resnet/50"), describe_once("resnet/50-v1"))
    assert differences["parameters"][0] == differences["parameters"][1]
    first = differences["layers"][0]
    assert (first["path"], first["in"]) == ("stages/1/blocks/0/conv1", [True, True])
    assert first["differs"]["output"] == [[56, 56, 128], [28, 28, 128]]
    costing_more = [layer["path"] for layer in differences["layers"] if "macs" in layer["differs"]]
    assert costing_more == [f"stages/{stage}/blocks/0/conv1" for stage in (1, 2, 3)]


def test_layers_that_one_network_lacks_are_marked():
    differences = find_differences(describe_once("cifar_resnet/20"), describe_once("cifar_resnet/20-b"))
    in_one_only = {layer["path"]: layer["in"] for layer in differences["layers"] if layer["in"] != [True, True]}
    assert in_one_only == {
        "stages/1/blocks/0/projection/conv": [False, True],
        "stages/1/blocks/0/projection/norm": [False, True],
        "stages/2/blocks/0/projection/conv": [False, True],
        "stages/2/blocks/0/projection/norm": [False, True],
    }
    text = formatting.format_differences(differences)
    assert "stages/1/blocks/0/projection/conv  only in B" in text
    assert re.search(r"parameters +269,722 +272,474\n", text)


# Text


@pytest.mark.parametrize(
    "name", [f"{family}/test" for family in models.families()] + ["resnet/50", "vit/B16", "vit/H14"]
)
def test_a_table_fits_80_columns_and_shows_all_in_200(name):
    description = describe_once(name)
    narrow, wide = (formatting.format_table(description, width=width).splitlines() for width in (80, 200))
    assert max(map(len, narrow)) <= 80
    assert max(map(len, wide)) <= 200
    assert wide[2].split() == ["layer", "kind", "output", "parameters", "MACs", "bytes", "field", "stride"]
    first_words = [line.split()[0] for line in narrow if line.split()]
    for row in description.rows:
        assert [line for line in wide if line.startswith(f"{row.path} ")]
        assert [word for word in first_words if row.path.endswith(word)]
    total = next(line for line in narrow if line.startswith("total"))
    assert f"{description.parameters:,}" in total
    assert f"{description.macs:,}" in total


def test_layers_of_a_block_stand_under_its_path():
    lines = formatting.format_table(describe_once("resnet/50"), width=80).splitlines()
    first_block, last_block = lines.index("stages/1/blocks/0"), lines.index("stages/3/blocks/2")
    assert re.fullmatch(r"  conv1 +56x56x128 +32,768 +102,760,448 +35 +4", lines[first_block + 1])
    assert re.match(r"head +1000 +2,049,000 +2,048,000 +all$", lines[last_block + 7])


@pytest.mark.parametrize("name", ["lenet/5", "vit/B16", "cnn/lecture", "resnet/50-32x4d"])
def test_the_arithmetic_of_every_row_is_true(name):
    """Each line that is an equation is computed from its own text."""
    description = describe_once(name)
    equations = 0
    for row in description.rows:
        lines = dict(explain_row(description, row))
        for text in lines.values():
            without_words = re.sub(r"\([a-z][^)]*\)|,(?=\d{3})", "", text)  # "3 (rows) * 1,024" becomes "3 * 1024"
            for left, right in re.findall(r"^([^=]+) = ([\d,]+)", without_words):
                computed = eval(left.replace("floor", "int"), {"int": int})
                assert computed == int(right), text
                equations += 1
        if row.call is not None:
            number = f"{flops.compute_formula(row.parameters):,}"
            assert lines["parameters"] == "none" or lines["parameters"].endswith(number)
    assert equations > 2 * len(description.rows)


def explain(name, path):
    """Returns the explanation of a row as {name of the line: text}."""
    description = describe_once(name)
    return dict(explain_row(description, description.row(path)))


def test_a_rows_arithmetic_reads_as_it_is_taught():
    lines = explain("resnet/50", "stages/1/blocks/0/conv2")
    assert lines["pixels"] == "floor((56 + 1 + 1 - 1 * (3 - 1) - 1) / 2) + 1 = 28"
    assert lines["field"] == "35 + (3 - 1) * 1 * 4 = 43 pixels, stride 4 * 2 = 8"
    assert lines["parameters"] == (
        "3 (kernel rows) * 3 (kernel columns) * 128 (channels that each filter reads) * 128 (filters) = 147,456"
    )
    assert lines["bytes"] == "28 * 28 * 128 * 4 = 401,408"
    attend = explain("vit/B16", "blocks/0/attention/attend")
    assert attend["field"].startswith("all of the image: ")
    assert "12 (heads) * 197 (query tokens) * 197 (key tokens) * 64" in attend["MACs"]
    cls_token = explain("vit/B16", "cls_token")
    assert cls_token["parameters"] == "1 (axis 0) * 768 (axis 1) = 768"
    assert "takes" not in cls_token
