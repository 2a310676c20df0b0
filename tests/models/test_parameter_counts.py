"""Networks are their papers' networks: parameters and MACs as published, counted without drawing a value."""

import csv
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cnn_vit.models import build, variant
from cnn_vit.nn.forms import only_plain_forms
from cnn_vit.nn.values import functional
from cnn_vit.trees import count

ROWS = list(csv.DictReader((Path(__file__).parents[1] / "tables" / "params.csv").open(newline="")))
FAST = {
    ("lenet/5", 10),
    ("lenet/5-valid", 10),
    ("cifar_resnet/20", 10),
    ("cifar_resnet/20-b", 10),
    ("resnet/18", 1000),
    ("resnet/50", 1000),
    ("mobilenet_v1/0.25", 1000),
    ("convnext/T", 100),
    ("deit/S16-distilled", 1000),
    ("vgg/16", 1000),
    ("vgg/19-bn", 1000),
    ("mobilenet_v2/1.0", 1000),
    ("vit/B16", 1000),
    ("vit/B16-pre_logits", 21843),
    ("vit/S32-tok", 1000),
    ("vit/Ti16-map", 1000),
    ("vit/Ti8-gap", 1000),
}


def image_keywords(row) -> dict:
    """Size and colors of a row's images: 1 color for digits, 3 otherwise."""
    return {"image_size": int(row["image_size"]), "channels": 1 if row["name"].startswith("lenet/") else 3}


def count_parameters(name, num_classes, **changes) -> int:
    return count(functional(build(name, num_classes, **changes)).params)


def as_case(row):
    """A row as a case of a test, marked slow where it is."""
    is_fast = (row["name"], int(row["num_classes"])) in FAST and row["image_size"] in ("28", "32", "224")
    name = f"{row['name']}@{row['image_size']}x{row['num_classes']}"
    return pytest.param(row, id=name, marks=() if is_fast else pytest.mark.slow)


@pytest.mark.parametrize("row", [as_case(row) for row in ROWS])
def test_parameters_are_those_of_the_table(row):
    assert count_parameters(row["name"], int(row["num_classes"]), **image_keywords(row)) == int(row["params"])


def test_the_table_holds_every_published_row_of_these_families():
    assert len(ROWS) == 190 + 4 + 20 + 20  # MobileNetV1 came from Keras, the others later
    families = {"convnext", "deit", "lenet", "cifar_resnet", "mobilenet_v1", "resnet", "vgg", "vit"}
    families |= {"efficientnet", "mobilenet_v2"}
    assert {row["name"].partition("/")[0] for row in ROWS} == families


def closed_form(name, num_classes, image_size) -> int:
    """Parameters of a ViT by hand: patches, token, positions, blocks, last norm, MAP head, two dense layers."""
    keywords = variant(name).keywords
    width, hidden, patch = keywords["width"], keywords["hidden"], keywords["patch"]
    pool = keywords.get("pool", "token")
    patches = (image_size // patch) ** 2
    attention = 4 * (width * width + width)
    mlp = 2 * width * hidden + hidden + width
    norm = 2 * width
    total = (3 * patch * patch + 1) * width  # embedding of the patches
    total += patches * width  # positions
    total += keywords["depth"] * (attention + mlp + 2 * norm) + norm
    total += (width + 1) * num_classes  # head
    if pool == "token":
        total += width
        if keywords.get("token_position", True):
            total += width
    if pool == "attention":
        total += width + attention + norm + mlp
    if keywords.get("pre_logits"):
        total += width * width + width
    return total


@pytest.mark.parametrize("name", ["Ti16", "S7-gap", "mu16-map", "M32-tok-pre_logits", "B8-gap-pre_logits"])
def test_a_vit_follows_the_closed_form(name):
    assert count_parameters(f"vit/{name}", 7, image_size=224) == closed_form(f"vit/{name}", 7, 224)


def test_the_position_table_of_a_vit_covers_unequal_sides():
    large = count_parameters("vit/Ti16-gap", 10, image_size=(32, 64))
    small = count_parameters("vit/Ti16-gap", 10, image_size=(16, 32))
    assert large - small == (2 * 4 - 1 * 2) * 192


def test_a_small_mobilenet_has_the_parameters_of_table_1_with_a_quarter_of_the_filters():
    """Howard et al. 2017, Table 1: 3x3 filters of each channel, then 1x1 filters, two norms; no bias but the head's."""
    widths = [8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256]  # of the stem and of 13 blocks
    stem = 3 * 3 * 3 * 8 + 2 * 8
    blocks = 0
    for narrow, wide in itertools.pairwise(widths):
        blocks += 3 * 3 * narrow + 2 * narrow + narrow * wide + 2 * wide
    head = 256 * 1000 + 1000
    assert stem + blocks + head == 470_072
    assert count_parameters("mobilenet_v1/0.25", 1000) == 470_072


def test_the_test_variant_of_convnext_has_one_block_in_each_of_two_stages():
    stem = 4 * 4 * 3 * 8 + 8 + 2 * 8
    first = 9 * 8 + 8 + 2 * 8 + 8 * 32 + 32 + 32 * 8 + 8 + 8  # filters, norm, two dense layers, scale
    halving = 2 * 8 + 2 * 2 * 8 * 16 + 16
    second = 9 * 16 + 16 + 2 * 16 + 16 * 64 + 64 + 64 * 16 + 16 + 16
    assert count_parameters("convnext/test", 10) == stem + first + halving + second + 2 * 16 + 16 * 10 + 10


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # num_params of torchvision 0.28.0's weights
        ("convnext/T", 28_589_128),
        ("convnext/L", 197_767_336),
        # Touvron et al., Table 1: 5, 22 and 86 million; the classes of timm 1.0.31 count the same as ViT's
        ("deit/Ti16", 5_717_416),
        ("deit/B16", 86_567_656),
        ("deit/Ti16-distilled", 5_717_416 + 192 + 192 + 193 * 1000),  # a token, its row of positions, its head
    ],
)
def test_convnext_and_deit_have_the_parameters_that_are_published(name, published):
    assert count_parameters(name, 1000) == published


def test_the_test_variant_of_mobilenet_has_one_block_in_each_of_two_stages():
    first, second = 9 * 8 + 16 + 8 * 16 + 32, 9 * 16 + 32 + 16 * 32 + 64
    assert count_parameters("mobilenet_v1/test", 10) == 27 * 8 + 16 + first + second + 32 * 10 + 10


def test_the_test_variant_of_vgg_has_two_convolutions_and_two_dense_layers():
    stages = 27 * 8 + 8 + 72 * 12 + 12
    dense = 7 * 7 * 12 * 16 + 16 + 16 * 20 + 20
    assert count_parameters("vgg/test", 10) == stages + dense + 20 * 10 + 10
    assert count_parameters("vgg/test-bn", 10) == stages + 2 * (8 + 12) + dense + 20 * 10 + 10


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # num_params of torchvision 0.28.0's weights
        ("mobilenet_v2/1.0", 3_504_872),
        ("efficientnet/B0", 5_288_548),
        pytest.param("efficientnet/B1", 7_794_184, marks=pytest.mark.slow),
        pytest.param("efficientnet/B2", 9_109_994, marks=pytest.mark.slow),
        ("efficientnet/B3", 12_233_232),
        pytest.param("efficientnet/B4", 19_341_616, marks=pytest.mark.slow),
        pytest.param("efficientnet/B5", 30_389_784, marks=pytest.mark.slow),
        pytest.param("efficientnet/B6", 43_040_704, marks=pytest.mark.slow),
        pytest.param("efficientnet/B7", 66_347_960, marks=pytest.mark.slow),
        # of the classes of timm 1.0.31; results-imagenet.csv rounds to 1.97, 4.52, 5.83 and 6.11 million
        ("mobilenet_v2/0.35", 1_677_128),
        pytest.param("mobilenet_v2/0.5", 1_968_680, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2/0.75", 2_636_424, marks=pytest.mark.slow),
        ("mobilenet_v2/1.1d", 4_516_520),
        pytest.param("mobilenet_v2/1.2d", 5_831_144, marks=pytest.mark.slow),
        pytest.param("mobilenet_v2/1.4", 6_108_776, marks=pytest.mark.slow),
    ],
)
def test_parameters_are_those_that_torchvision_and_timm_publish(name, published):
    assert count_parameters(name, 1000) == published


def test_the_test_variant_of_mobilenet_v2_has_one_block_in_each_of_two_stages():
    stem = 27 * 8 + 16
    first = 9 * 8 + 16 + 8 * 8 + 16  # not widened inside
    second = 8 * 48 + 96 + 9 * 48 + 96 + 48 * 8 + 16
    last = 8 * 1280 + 2 * 1280
    assert count_parameters("mobilenet_v2/test", 10) == stem + first + second + last + 1280 * 10 + 10


def test_the_test_variant_of_efficientnet_has_one_block_in_each_of_two_stages():
    def excitation(inner):
        return inner * 2 + 2 + 2 * inner + inner  # squeezed to a quarter of the 8 channels that the block reads

    stem = 27 * 8 + 16
    first = 9 * 8 + 16 + excitation(8) + 8 * 8 + 16
    second = 8 * 48 + 96 + 9 * 48 + 96 + excitation(48) + 48 * 8 + 16
    last = 8 * 320 + 640
    assert count_parameters("efficientnet/test", 10) == stem + first + second + last + 320 * 10 + 10


def test_the_test_variant_of_resnet_has_one_block_a_stage():
    stem = 7 * 7 * 3 * 8 + 16
    stages = [
        2 * 576 + 2 * 16,
        1152 + 2304 + 2 * 32 + 128 + 32,
        4608 + 9216 + 2 * 64 + 512 + 64,
        18432 + 36864 + 2 * 128 + 2048 + 128,
    ]
    assert count_parameters("resnet/test", 10) == stem + sum(stages) + 64 * 10 + 10


GRAY = {"channels": 1, "image_size": 28}
# A ViT whose four heads of 64 are together four times as wide as its tokens.
WIDE_HEADS = {"width": 64, "depth": 6, "heads": 4, "head_width": 64, "hidden": 128, "qkv_bias": False}
TUTORIAL = {"filters": (32, 64, 64), "padding": 0, "batch_norm": False, "hidden": (64,)}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        # conv 32-64-128 of 3x3 with batch norm on 32x32x3 and 10 classes, by pooling, padding and head: checks of the
        # cost table; conv alone 93,472, average head 1,290, dense head of 128 units 1,418 + 128 per input value
        ("cnn/lecture", {"head": "average", "hidden": ()}, 94_762),
        ("cnn/lecture", {"head": "average", "hidden": (), "pooling": "none"}, 94_762),
        ("cnn/lecture", {"head": "average", "hidden": (), "padding": 0, "pooling": "average"}, 94_762),
        ("cnn/lecture", {}, 1_143_466),
        ("cnn/lecture", {"pooling": "average"}, 1_143_466),
        ("cnn/lecture", {"pooling": "none"}, 16_872_106),
        ("cnn/lecture", {"padding": 0}, 357_034),
        ("cnn/lecture", {"padding": 0, "pooling": "none"}, 11_170_474),
        # two more convolutions with stride 2 instead of the poolings
        ("cnn/lecture", {"filters": (32, 32, 64, 64, 128), "stride": (1, 2, 1, 2, 1), "pooling": "none"}, 1_189_738),
        # networks of the TensorFlow and Keras tutorials, as their summaries print them
        ("cnn/lecture", TUTORIAL, 122_570),
        ("cnn/lecture", TUTORIAL | GRAY, 93_322),
        ("cnn/lecture", GRAY | TUTORIAL | {"filters": (32, 64), "hidden": (), "pool_last": True}, 34_826),
        ("mlp/lecture", GRAY, 669_706),
        ("mlp/small", {"channels": 1, "image_size": 8}, 50_826),  # 64*256+256 + 256*128+128 + 128*10+10
        ("mlp/test", {"channels": 1, "image_size": (2, 3), "hidden": ()}, 70),  # 6*10 + 10
        # patches 1,088, token 64, positions 3,200; a block 2 * 128 + 3 * 64 * 256 + 16,448 + 8,320 + 8,256; 128; 650
        ("vit/mu4", GRAY | WIDE_HEADS, 499_722),
        ("lenet/5", {"image_size": 28}, 61_706),
        ("lenet/5", {"image_size": 32}, 61_706),
    ],
)
def test_parameters_are_those_of_hand_arithmetic(name, changes, expected):
    assert count_parameters(name, 10, **changes) == expected


def count_macs(jaxpr) -> int:
    """Counts the multiply-accumulates that matrix products and convolutions of a program make, padding's zeros too."""
    total = 0
    for equation in jaxpr.eqns:
        output = equation.outvars[0].aval
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            total += math.prod(output.shape) * math.prod(left.shape[axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            total += math.prod(output.shape) * math.prod(kernel.shape[:-1])
        # Programs inside this one, such as that of a jitted function, are among its parameters.
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                total += count_macs(inner)
    return total


@pytest.mark.parametrize(
    "name",
    [
        "lenet/5",
        "lenet/5-valid",
        "cifar_resnet/20",
        "cifar_resnet/20-b",
        "resnet/18",
        pytest.param("resnet/26", marks=pytest.mark.slow),
        pytest.param("resnet/50", marks=pytest.mark.slow),
        pytest.param("resnet/50-v1", marks=pytest.mark.slow),
        pytest.param("resnet/50-32x4d", marks=pytest.mark.slow),
        pytest.param("resnet/50-wide2", marks=pytest.mark.slow),
        "vgg/11",
        pytest.param("vgg/19-bn", marks=pytest.mark.slow),
        "mobilenet_v1/0.25",
        pytest.param("mobilenet_v1/1.0", marks=pytest.mark.slow),
        pytest.param("convnext/T", marks=pytest.mark.slow),
        pytest.param("deit/S16-distilled", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2/1.0", marks=pytest.mark.slow),
        pytest.param("efficientnet/B0", marks=pytest.mark.slow),
        pytest.param("efficientnet/B2", marks=pytest.mark.slow),
        pytest.param("vit/Ti16", marks=pytest.mark.slow),
        pytest.param("vit/Ti16-tok", marks=pytest.mark.slow),
        "vit/mu16-gap",
        "vit/mu16-map",
    ],
)
def test_macs_are_those_of_the_table(name):
    """Strides, versions and pooling show here, which the count of parameters does not see."""
    row = next(row for row in ROWS if row["name"] == name)
    keywords = image_keywords(row)
    network = functional(build(name, int(row["num_classes"]), **keywords))
    image = jnp.zeros((1, keywords["image_size"], keywords["image_size"], keywords["channels"]))

    def score(params, stats):
        scores, _ = network.apply(params, stats, image)
        return scores

    with only_plain_forms():  # a faster form of a layer multiplies in another way, but stands for the same arithmetic
        program = jax.make_jaxpr(score)(network.params, network.stats)
    assert count_macs(program.jaxpr) == int(row["macs"])
