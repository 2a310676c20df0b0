"""Receptive fields agree with published ones, and with brute force for any chain of operations."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from published import describe_once, expected_by_check

from cnn_vit import models
from cnn_vit.analysis import checks, flops, reach, receptive
from cnn_vit.analysis.checks import DisagreementError, check
from cnn_vit.analysis.program import trace_network
from cnn_vit.analysis.reach import SlidingWindow
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import describe
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.pool import max_pool

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

LAST_LAYERS = {  # id of the published figure: network, image side, last layer of feature maps
    "rf-ResNet-18": ("resnet/18", "stages/3/blocks/1/norm2"),
    "rf-ResNet-50_v1.5_(stride_on_3x3)": ("resnet/50", "stages/3/blocks/2/norm3"),
    "rf-ResNet-50_v1_(stride_on_first_1x1)": ("resnet/50-v1", "stages/3/blocks/2/norm3"),
    "rf-ResNet-152_v1.5_(stride_on_3x3)": ("resnet/152", "stages/3/blocks/2/norm3"),
    "rf-ResNet-152_v1_(stride_on_first_1x1)": ("resnet/152-v1", "stages/3/blocks/2/norm3"),
    "rf-CIFAR_ResNet-20": ("cifar_resnet/20", "stages/2/blocks/2/norm2"),
    "rf-CIFAR_ResNet-32": ("cifar_resnet/32", "stages/2/blocks/4/norm2"),
    "rf-CIFAR_ResNet-56": ("cifar_resnet/56", "stages/2/blocks/8/norm2"),
    "rf-CIFAR_ResNet-110": ("cifar_resnet/110", "stages/2/blocks/17/norm2"),
    "rf-VGG-11_(pool5)": ("vgg/11", "stages/4/max_pool"),
    "rf-VGG-16_(pool5)": ("vgg/16", "stages/4/max_pool"),
    "rf-VGG-19_(pool5)": ("vgg/19", "stages/4/max_pool"),
    "rf-ConvNeXt-T": ("convnext/T", "stages/3/blocks/2/dense2"),
    "rf-ConvNeXt-B": ("convnext/B", "stages/3/blocks/2/dense2"),
}
FAMILIES_THAT_WE_LACK = {  # test_checks.py follows their layers
    "AlexNet_torchvision_(pool5)": "alexnet",
    "All-CNN-C_(conv9)": "all_cnn",
}


def figure_case(figure):
    """Returns a published figure as a test case, which is slow for networks of the same blocks as a smaller one."""
    larger = ("152", "_ResNet-32", "_ResNet-56", "110", "VGG-16", "VGG-19", "ConvNeXt-B")
    is_slow = any(name in figure for name in larger)
    return pytest.param(figure, marks=pytest.mark.slow if is_slow else ())


@pytest.mark.parametrize("figure", [figure_case(figure) for figure in LAST_LAYERS])
def test_fields_and_strides_are_those_published(figure):
    name, path = LAST_LAYERS[figure]
    size, stride = map(int, expected_by_check("receptive field")[figure].split(" / "))
    assert describe_once(name).row(path).field == (Field(size, stride),) * 2


def test_every_published_figure_is_checked_or_of_a_family_that_we_lack():
    unchecked = {f"rf-{name}": family for name, family in FAMILIES_THAT_WE_LACK.items()}
    figures = LAST_LAYERS.keys() | unchecked.keys() | {"rf-LeNet-5_(C5_unit)"}
    assert expected_by_check("receptive field").keys() == figures
    assert not set(unchecked.values()) & set(models.families()), "check the figures of this family"


def test_lenets_c5_sees_its_whole_image_of_32_pixels():
    """Published as 32 / 4: the pooling's 16 pixels and 4 strides of 4 more, here written as a dense layer."""
    description = describe_once("lenet/5")
    assert expected_by_check("receptive field")["rf-LeNet-5_(C5_unit)"] == "32 / 4"
    fields = [description.row(path).field[0] for path in ("conv1", "average_pool", "conv2", "average_pool#2")]
    assert fields == [Field(5, 1), Field(6, 2), Field(14, 2), Field(16, 4)]
    assert description.row("hidden/layers/0").field == (Field(None, None),) * 2


def test_mobilenets_last_layer_sees_315_pixels_in_steps_of_32():
    """Published in Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill 2019."""
    row = describe_once("mobilenet_v1/0.25").row("stages/4/blocks/1/pointwise_norm")
    assert row.field == (Field(315, 32),) * 2


def test_attention_sees_the_whole_image_and_layers_before_it_their_patch():
    description = describe_once("vit/B16", depth=2)
    fields = {row.path: row.field for row in description.rows if row.call is not None}
    patch, whole_image = (Field(16, 16),) * 2, (Field(None, None),) * 2
    layers_before = [
        "patches",
        "pos_embed",
        "blocks/0/norm1",
        "blocks/0/attention/query",
        "blocks/0/attention/key",
        "blocks/0/attention/value",
    ]
    assert [fields.pop(path) for path in layers_before] == [patch] * 6
    assert set(fields.values()) == {whole_image}


def test_a_learned_query_sees_no_pixel():
    description = describe("vit/mu16-map")
    assert description.row("map_head/attention/query").field == (Field(0, None),) * 2
    assert description.row("map_head/attention/attend").field == (Field(None, None),) * 2


def test_pixels_that_fill_no_patch_are_seen_by_none():
    """H14 at 384 pixels reads 27 patches a side."""
    description = describe("vit/H14", 384, depth=1)
    assert description.row("head").field == (Field(378, None),) * 2


def test_rows_and_columns_are_followed_separately():
    description = describe("vit/mu8", (16, 40))
    assert description.row("blocks/0/norm1").field == (Field(8, 8),) * 2
    assert description.row("blocks/0/attention/attend").field == (Field(None, None),) * 2

    class WideConv(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, (1, 5), padding=((0, 0), (2, 2)), stride=(1, 2), dilation=(1, 3))

        def __call__(self, x):
            return self.conv(x).mean((1, 2))

    assert describe(WideConv(), 32).row("conv").field == (Field(1, 1), Field(13, 2))


def test_the_field_behind_an_operation_without_a_rule_is_not_known():
    class ConvAroundSort(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, 3, padding=1)
            self.after = Conv(4, 4, 3, padding=1)

        def __call__(self, x):
            return self.after(jnp.sort(self.conv(x), axis=1)).mean((1, 2))

    description = describe(ConvAroundSort(), 16)
    assert description.row("conv").field == (Field(3, 1),) * 2
    assert description.row("after").field == (None, None)
    with pytest.raises(DisagreementError, match=r"after: .* not known"):
        check(description)


# Any chain of operations: NumPy counts which inputs each output adds up, and the ranges must agree


def sum_windows(x, taps, stride, dilation, before, after):
    """Row i of the output is the sum of `taps` rows of the padded input that are `dilation` rows apart."""
    padded = np.pad(x, ((before, after), (0, 0), (0, 0)))
    output_size = (len(padded) - dilation * (taps - 1) - 1) // stride + 1
    rows_of_taps = []
    for tap in range(taps):
        first = tap * dilation
        rows_of_taps.append(padded[first : first + (output_size - 1) * stride + 1 : stride])
    return sum(rows_of_taps)


def convolve(x, taps, stride, dilation, before, after):
    kernel = jnp.ones((taps, 1, 1, 1))
    return jax.lax.conv_general_dilated(
        x[None, :, :, None], kernel, (stride, 1), ((before, after), (0, 0)), rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0, :, :, 0]  # fmt: skip


def pool(x, taps, stride, before, after):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (taps, 1), (stride, 1), ((before, after), (0, 0)))


def operation(name, *ranges):
    """A strategy that draws the numbers of an operation from ranges."""
    return st.tuples(st.just(name), *(st.integers(low, high) for low, high in ranges))


OPERATIONS = st.one_of(
    operation("conv", (1, 3), (1, 3), (1, 2), (0, 2), (0, 2)),  # taps, stride, dilation, padding before and after
    operation("pool", (2, 3), (1, 2), (0, 1), (0, 1)),  # taps, stride, padding before and after
    operation("slice", (0, 2), (1, 2)),  # first, step
    operation("pad", (0, 2), (0, 2)),  # before, after
    operation("patch", (2, 3)),  # side
    operation("skip"),
)


def run_in_jax(operations, x):
    """Runs a chain on rows (H, W); W stands for features, and patches put into it what they take from H."""
    for name, *numbers in operations:
        if name == "conv":
            x = convolve(x, *numbers)
        elif name == "pool":
            x = pool(x, *numbers)
        elif name == "slice":
            first, step = numbers
            x = x[first::step]
        elif name == "pad":
            before, after = numbers
            x = jnp.concatenate([jnp.zeros((before, x.shape[1])), x, jnp.zeros((after, x.shape[1]))])
        elif name == "patch":
            (side,) = numbers
            x = x[: len(x) // side * side].reshape(-1, side, x.shape[1]).swapaxes(1, 2).reshape(-1, side * x.shape[1])
            x = x @ jnp.ones((x.shape[1], 2))
        else:
            x = jax.nn.relu(x) + x * 2
    return x


def count_in_numpy(operations, x):
    """Runs the same chain in NumPy on (H, W, inputs): how often each output counts each input."""
    for name, *numbers in operations:
        if name == "conv":
            x = sum_windows(x, *numbers)
        elif name == "pool":
            taps, stride, before, after = numbers
            x = sum_windows(x, taps, stride, 1, before, after)
        elif name == "slice":
            first, step = numbers
            x = x[first::step]
        elif name == "pad":
            before, after = numbers
            x = np.pad(x, ((before, after), (0, 0), (0, 0)))
        elif name == "patch":
            (side,) = numbers
            whole = x[: len(x) // side * side]
            feature = whole.reshape(-1, side, *x.shape[1:]).sum((1, 2))
            x = np.stack([feature, feature], axis=1)
    return x


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(st.integers(6, 24), st.lists(OPERATIONS, min_size=1, max_size=5))
def test_ranges_of_any_chain_hold_what_brute_force_finds(side, operations):
    """Where no border of image or padding cuts a range it is exact; where one does, it holds all that is seen."""
    try:
        program = jax.make_jaxpr(partial(run_in_jax, operations))(jax.ShapeDtypeStruct((side, 2), jnp.float32))
    except (TypeError, ValueError, ZeroDivisionError):
        return  # nothing was left of the image
    if 0 in program.out_avals[0].shape:
        return
    inputs = np.stack([np.eye(side)] * 2, axis=1)  # (H, W, inputs)
    counts_input = count_in_numpy(operations, inputs).any(1)  # (outputs, inputs)
    (output_reach,) = receptive.follow_jaxpr(program.jaxpr, [reach.image_reach(0, side)], {})
    assert output_reach is not None
    has_padding = any(name == "pad" for name, *_ in operations)
    for index, row in enumerate(counts_input):
        first, end = checks.extent(row)
        ranges = []
        for moving in output_reach:
            ranges += reach.pick_indices(moving, {0: index}) or ()
        if (first, end) == (0, 0):
            continue
        (pixel_range,) = ranges
        low, high = pixel_range.extent
        assert low <= first < end <= high
        if pixel_range.start >= pixel_range.low and not has_padding:
            assert first == pixel_range.start
        if pixel_range.start + pixel_range.size <= pixel_range.high and not has_padding:
            assert end == pixel_range.start + pixel_range.size


def test_the_worked_example_of_reach_is_true():
    image = reach.image_reach(0, 32)
    first = reach.slide_window(image, 0, SlidingWindow(32, output_size=16, taps=3, stride=2, before=1))
    second = reach.slide_window(first, 0, SlidingWindow(16, output_size=8, taps=3, stride=2, before=1))
    mean = reach.sum_over_axes(second, [0])
    ranges = [(pixel_range.start, pixel_range.size) for (pixel_range,) in (image, first, second, mean)]
    assert ranges == [(0, 1), (-1, 3), (-3, 7), (-3, 35)]
    strides = [pixel_range.digits[0].stride for (pixel_range,) in (image, first, second)]
    assert strides == [1, 2, 4]
    assert mean[0].extent == (0, 32)


def test_digits_follow_an_index_through_reshapes():
    """Patches become tokens behind a class token, in heads: each token still sees its rows and columns."""

    def tokens(x):  # (12, 8) -> (1 + 4 * 2, 2, 6): 4 times 2 patches of 3 rows and 4 columns, a token before them
        x = x.reshape(4, 3, 2, 4).swapaxes(1, 2).reshape(8, 12) @ jnp.ones((12, 12))
        return jnp.concatenate([jnp.zeros((1, 12)), x]).reshape(9, 2, 6)

    program = jax.make_jaxpr(tokens)(jnp.zeros((12, 8)))
    (rows_reach,) = receptive.follow_jaxpr(program.jaxpr, [reach.image_reach(0, 12)], {})
    (columns_reach,) = receptive.follow_jaxpr(program.jaxpr, [reach.image_reach(1, 8)], {})
    rows_of_token = reach.sum_over_axes(rows_reach, [1, 2])[0]
    columns_of_token = reach.sum_over_axes(columns_reach, [1, 2])[0]
    for token in range(1, 9):
        (row_range,) = reach.pick_indices(rows_of_token, {0: token})
        (column_range,) = reach.pick_indices(columns_of_token, {0: token})
        row, column = divmod(token - 1, 2)
        assert row_range.extent == (3 * row, 3 * row + 3)
        assert column_range.extent == (4 * column, 4 * column + 4)
    assert reach.pick_indices(rows_of_token, {0: 0}) == ()


# The second way


IMAGE_SIZES = {"lenet": (17, 22), "cnn": (12, 17), "vit": (8, 16), "mlp": (5, 7)}  # sides differ, odd where they may


# Of many layers, whose gradients take long to compile
COSTLY = ("convnext", "deit", "efficientnet", "mobilenet_v2", "vgg")


def family_case(family):
    """Returns a family as a test case, which is slow where its smallest network is costly."""
    return pytest.param(family, marks=pytest.mark.slow if family in COSTLY else ())


@pytest.mark.parametrize("family", [family_case(family) for family in models.families()])
def test_every_familys_numbers_pass_the_check_in_a_second_way(family):
    description = describe(f"{family}/test", IMAGE_SIZES.get(family, (16, 24)), num_classes=5)
    for row in description.rows:
        assert row.call is None or None not in row.field
    assert check(description)["receptive_field"] >= 2


@pytest.mark.parametrize(
    ("name", "image_size", "changes"),
    [
        ("cifar_resnet/test-b", 19, {}),
        ("vit/mu8-map", (16, 24), {}),
        ("vit/test-tok-pre_logits", 12, {"patch": 3}),
        ("vit/H5", 17, {"width": 8, "heads": 2, "hidden": 8, "depth": 1}),  # 2 pixels fill no patch
        ("cnn/test", (21, 18), {"kernel_size": (5, 2), "stride": (1, 3), "padding": (0, 1), "pooling": "average"}),
        ("cnn/test", (14, 11), {"pooling": "max_blur", "filters": (2, 2), "head": "average"}),
        ("cnn/test", 23, {"pooling": "none", "kernel_size": (1, 3), "stride": (3, 1), "head": "average"}),
        ("cnn/test", (12, 9), {"sharing": False, "batch_norm": False, "stride": (2, 1)}),
        pytest.param("mobilenet_v1/0.25", 352, {"width_multiplier": 0.04}, marks=pytest.mark.slow),
        pytest.param("vit/test-gap", 8, {"positions": "sincos", "norm": "post", "fused": True}, marks=pytest.mark.slow),
        pytest.param("resnet/test", (65, 96), {"version": "v1", "bottleneck": True}, marks=pytest.mark.slow),
        pytest.param("cifar_resnet/20", 96, {"filters": 2}, marks=pytest.mark.slow),
        pytest.param("lenet/5", 32, {}, marks=pytest.mark.slow),
        pytest.param("cnn/lecture", 32, {}, marks=pytest.mark.slow),
        pytest.param("resnet/18", 480, {"filters": 2}, marks=pytest.mark.slow),
        pytest.param("resnet/50", 480, {"filters": 2}, marks=pytest.mark.slow),
        pytest.param("resnet/50-v1", 512, {"filters": 2}, marks=pytest.mark.slow),
        pytest.param("vit/Ti16", 224, {"depth": 2}, marks=pytest.mark.slow),
        pytest.param("vit/B16-map", 64, {"depth": 2}, marks=pytest.mark.slow),
    ],
)
def test_numbers_of_networks_with_unusual_settings_pass_the_check(name, image_size, changes):
    """Images of the larger ones are wider than the field, so that both its borders show."""
    check(describe(name, image_size, num_classes=3, **changes))


def test_a_false_rule_for_pooling_is_caught(monkeypatch):
    true_rule = receptive.RULES["reduce_window_max"]

    def false_rule(equation, inputs):
        return reach.join_reaches([true_rule(equation, inputs), inputs[0]])

    monkeypatch.setitem(receptive.RULES, "reduce_window_max", false_rule)
    description = describe("resnet/test", (32, 48), num_classes=3)
    with pytest.raises(DisagreementError, match=r"^max_pool: .* by the table, .* by gradients"):
        check(description)


def test_a_window_that_is_too_narrow_is_caught(monkeypatch):
    def narrow_window(*args, taps=1, **kwargs):
        return SlidingWindow(*args, taps=min(2, taps), **kwargs)

    monkeypatch.setattr(receptive, "SlidingWindow", narrow_window)
    with pytest.raises(DisagreementError, match=r"^stem: "):
        check(describe("cifar_resnet/test", 12, num_classes=3))


def test_a_false_formula_is_caught(monkeypatch):
    monkeypatch.setitem(flops.MACS, Conv, lambda call: flops.conv_macs(call)[:0])
    with pytest.raises(DisagreementError, match=r"^stages/0/convolutions/0: MACs are 0 by the table's formula, \d+ by"):
        check(describe("cnn/test", 8, num_classes=3))
    monkeypatch.undo()
    monkeypatch.setitem(flops.PARAMETERS, Conv, lambda call: (flops.conv_weights(call),))
    with pytest.raises(DisagreementError, match=r"^stages/0/convolutions/0: parameters are 216 .* 224 by its arrays"):
        check(describe("cnn/test", 8, num_classes=3, batch_norm=False))


def test_macs_outside_every_layer_are_caught():
    class Loose(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, 3, padding=1)

        def __call__(self, x):
            y = self.conv(x).mean((1, 2))
            return y @ y.T

    with pytest.raises(DisagreementError, match="Loose: MACs are 0 by the table's formula, 4 by its program"):
        check(describe(Loose(), 8))


def test_maxima_and_norms_have_stand_ins_in_the_second_way():
    """A maximum would pass its gradient to one pixel of the window alone."""
    assert inspect.unwrap(max_pool) in checks.STAND_INS
    assert [kind.__name__ for kind in checks.STAND_INS if inspect.isclass(kind)] == [
        "BatchNorm",
        "LayerNorm",
        "GroupNorm",
    ]


def test_a_program_names_every_call():
    network = models.build("cnn/test", 3, image_size=8)
    program = trace_network(network, (8, 8, 3))
    assert sorted(receptive.follow_program(program)) == list(range(len(program.calls)))
    assert {program.calls[i].path for i in program.idle_calls} == {"dropout", "hidden"}
