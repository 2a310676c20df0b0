"""Receptive fields are those published, and those of brute force for any chain of operations."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from published import checks, described

from cnn_vit import models
from cnn_vit.analysis import checks as second
from cnn_vit.analysis import flops, reach, receptive
from cnn_vit.analysis.checks import DisagreementError, check
from cnn_vit.analysis.program import traced
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import describe
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.pool import max_pool

LAST = {  # id of the published figure: network, image side, last layer of feature maps
    "rf-ResNet-18": ("resnet/18", "stages/3/blocks/1/norm2"),
    "rf-ResNet-50_v1.5_(stride_on_3x3)": ("resnet/50", "stages/3/blocks/2/norm3"),
    "rf-ResNet-50_v1_(stride_on_first_1x1)": ("resnet/50-v1", "stages/3/blocks/2/norm3"),
    "rf-ResNet-152_v1.5_(stride_on_3x3)": ("resnet/152", "stages/3/blocks/2/norm3"),
    "rf-ResNet-152_v1_(stride_on_first_1x1)": ("resnet/152-v1", "stages/3/blocks/2/norm3"),
    "rf-CIFAR_ResNet-20": ("cifar_resnet/20", "stages/2/blocks/2/norm2"),
    "rf-CIFAR_ResNet-32": ("cifar_resnet/32", "stages/2/blocks/4/norm2"),
    "rf-CIFAR_ResNet-56": ("cifar_resnet/56", "stages/2/blocks/8/norm2"),
    "rf-CIFAR_ResNet-110": ("cifar_resnet/110", "stages/2/blocks/17/norm2"),
}
FAMILY = {
    "AlexNet_torchvision_(pool5)": "alexnet",
    "All-CNN-C_(conv9)": "all_cnn",
    "ConvNeXt-B": "convnext",
    "ConvNeXt-T": "convnext",
    "VGG-11_(pool5)": "vgg",
    "VGG-16_(pool5)": "vgg",
    "VGG-19_(pool5)": "vgg",
}


@pytest.mark.parametrize(
    "figure", [pytest.param(key, marks=pytest.mark.slow if "152_v1_" in key or "110" in key else ()) for key in LAST]
)
def test_fields_and_strides_are_those_published(figure):
    name, path = LAST[figure]
    size, stride = map(int, checks("receptive field")[figure].split(" / "))
    assert described(name).row(path).field == (Field(size, stride),) * 2


def test_every_published_figure_is_checked_or_of_a_family_not_yet_here():
    later = {f"rf-{name}": family for name, family in FAMILY.items()}
    assert checks("receptive field").keys() == LAST.keys() | later.keys() | {"rf-LeNet-5_(C5_unit)"}
    assert not set(later.values()) & set(models.families()), "check the figures of this family"


def test_lenets_c5_sees_its_whole_image_of_32_pixels():
    """Published as 32 / 4: the pooling's 16 pixels and 4 strides of 4 more, here written as a dense layer."""
    found = described("lenet/5")
    assert checks("receptive field")["rf-LeNet-5_(C5_unit)"] == "32 / 4"
    assert [found.row(path).field[0] for path in ("conv1", "average_pool", "conv2", "average_pool#2")] == [
        Field(5, 1), Field(6, 2), Field(14, 2), Field(16, 4),
    ]  # fmt: skip
    assert found.row("hidden/layers/0").field == (Field(None, None),) * 2


def test_what_is_global_sees_all_and_what_stands_before_it_its_patch():
    found = described("vit/B16", depth=2)
    fields = {row.path: row.field for row in found.rows if row.call is not None}
    patch, everything = (Field(16, 16),) * 2, (Field(None, None),) * 2
    before = [
        "patches",
        "pos_embed",
        "blocks/0/norm1",
        *(f"blocks/0/attention/{name}" for name in ("query", "key", "value")),
    ]
    assert [fields.pop(path) for path in before] == [patch] * 6
    assert set(fields.values()) == {everything}


def test_a_learned_query_sees_no_pixel():
    found = describe("vit/mu16-map")
    assert found.row("map_head/attention/query").field == (Field(0, None),) * 2
    assert found.row("map_head/attention/attend").field == (Field(None, None),) * 2


def test_pixels_that_fill_no_patch_are_seen_by_none():
    """H14 at 384 pixels reads 27 patches a side."""
    found = describe("vit/H14", 384, depth=1)
    assert found.row("head").field == (Field(378, None),) * 2


def test_sides_are_followed_apart():
    found = describe("vit/mu8", (16, 40))
    assert found.row("blocks/0/norm1").field == (Field(8, 8),) * 2
    assert found.row("blocks/0/attention/attend").field == (Field(None, None),) * 2

    class Wide(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, (1, 5), padding=((0, 0), (2, 2)), stride=(1, 2), dilation=(1, 3))

        def __call__(self, x):
            return self.conv(x).mean((1, 2))

    assert describe(Wide(), 32).row("conv").field == (Field(1, 1), Field(13, 2))


def test_an_operation_that_no_rule_knows_is_not_guessed_at():
    class Sorted(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, 3, padding=1)
            self.after = Conv(4, 4, 3, padding=1)

        def __call__(self, x):
            return self.after(jnp.sort(self.conv(x), axis=1)).mean((1, 2))

    found = describe(Sorted(), 16)
    assert found.row("conv").field == (Field(3, 1),) * 2
    assert found.row("after").field == (None, None)
    with pytest.raises(DisagreementError, match=r"after: .* not known"):
        check(found)


# Any chain of operations, against which inputs change the output when they are counted by NumPy


def summed_windows(x, taps, step, spread, before, after):
    """Row i of the output: the sum of `taps` rows, `spread` apart, of the padded input."""
    padded = np.pad(x, ((before, after), (0, 0), (0, 0)))
    places = (len(padded) - spread * (taps - 1) - 1) // step + 1
    return sum(padded[t * spread : t * spread + (places - 1) * step + 1 : step] for t in range(taps))


def convolution(x, taps, step, spread, before, after):
    kernel = jnp.ones((taps, 1, 1, 1))
    return jax.lax.conv_general_dilated(
        x[None, :, :, None], kernel, (step, 1), ((before, after), (0, 0)), rhs_dilation=(spread, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0, :, :, 0]  # fmt: skip


def pooling(x, taps, step, before, after):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (taps, 1), (step, 1), ((before, after), (0, 0)))


def step(name, *ranges):
    """An operation with its numbers."""
    return st.tuples(st.just(name), *(st.integers(low, high) for low, high in ranges))


STEPS = st.one_of(
    step("conv", (1, 3), (1, 3), (1, 2), (0, 2), (0, 2)),  # taps, step, spread, padding before and after
    step("pool", (2, 3), (1, 2), (0, 1), (0, 1)),  # taps, step, padding before and after
    step("slice", (0, 2), (1, 2)),  # first, step
    step("pad", (0, 2), (0, 2)),  # before, after
    step("patch", (2, 3)),  # side
    step("skip"),
)


def traceable(steps, x):
    """A chain on rows (H, W); W stands for features, and takes what patches leave over."""
    for name, *numbers in steps:
        if name == "conv":
            x = convolution(x, *numbers)
        elif name == "pool":
            x = pooling(x, *numbers)
        elif name == "slice":
            x = x[numbers[0] :: numbers[1]]
        elif name == "pad":
            x = jnp.concatenate([jnp.zeros((numbers[0], x.shape[1])), x, jnp.zeros((numbers[1], x.shape[1]))])
        elif name == "patch":
            side = numbers[0]
            x = x[: len(x) // side * side].reshape(-1, side, x.shape[1]).swapaxes(1, 2).reshape(-1, side * x.shape[1])
            x = x @ jnp.ones((x.shape[1], 2))
        else:
            x = jax.nn.relu(x) + x * 2
    return x


def counted(steps, x):
    """The same chain in NumPy on (H, W, inputs): how often each output counts each input."""
    for name, *numbers in steps:
        if name == "conv":
            x = summed_windows(x, *numbers)
        elif name == "pool":
            x = summed_windows(x, numbers[0], numbers[1], 1, numbers[2], numbers[3])
        elif name == "slice":
            x = x[numbers[0] :: numbers[1]]
        elif name == "pad":
            x = np.pad(x, ((numbers[0], numbers[1]), (0, 0), (0, 0)))
        elif name == "patch":
            whole = x[: len(x) // numbers[0] * numbers[0]]
            one = whole.reshape(-1, numbers[0], *x.shape[1:]).sum((1, 2))
            x = np.stack([one, one], axis=1)
    return x


@settings(deadline=None, derandomize=True, database=None, max_examples=150)
@given(st.integers(6, 24), st.lists(STEPS, min_size=1, max_size=5))
def test_windows_of_any_chain_hold_what_brute_force_finds(side, steps):
    """Where no border of image or padding cuts a window it is exact; where one does, it holds all that is seen."""
    truth = np.stack([np.eye(side)] * 2, axis=1)  # (H, W, inputs)
    try:
        program = jax.make_jaxpr(partial(traceable, steps))(jax.ShapeDtypeStruct((side, 2), jnp.float32))
    except (TypeError, ValueError, ZeroDivisionError):
        return  # nothing was left of the image
    if 0 in program.out_avals[0].shape:
        return
    truth = counted(steps, truth).any(1)  # (places, inputs)
    (found,) = receptive.follow(program.jaxpr, [reach.image(0, side)], {})
    assert found is not None
    for place, row in enumerate(truth):
        seen = second.extent(row)
        windows = [one for window in found for one in reach.at(window, {0: place}) or ()]
        if seen == (0, 0):
            continue
        (window,) = windows
        low, high = window.extent
        assert low <= seen[0] < seen[1] <= high
        if window.start >= window.low and not any(name == "pad" for name, *_ in steps):
            assert seen[0] == window.start
        if window.start + window.size <= window.high and not any(name == "pad" for name, *_ in steps):
            assert seen[1] == window.start + window.size


def test_digits_follow_an_index_through_reshapes():
    """Patches as tokens behind a class token, in heads: which token sees which rows and columns."""

    def tokens(x):  # (12, 8) -> (1 + 4 * 2, 2, 6): 4 times 2 patches of 3 rows and 4 columns, a token before them
        x = x.reshape(4, 3, 2, 4).swapaxes(1, 2).reshape(8, 12) @ jnp.ones((12, 12))
        return jnp.concatenate([jnp.zeros((1, 12)), x]).reshape(9, 2, 6)

    program = jax.make_jaxpr(tokens)(jnp.zeros((12, 8)))
    rows = receptive.follow(program.jaxpr, [reach.image(0, 12)], {})[0]
    columns = receptive.follow(program.jaxpr, [reach.image(1, 8)], {})[0]
    whole = [reach.summed(seen, [1, 2]) for seen in (rows, columns)]
    for token in range(1, 9):
        found = [reach.at(seen[0], {0: token})[0].extent for seen in whole]
        row, column = divmod(token - 1, 2)
        assert found == [(3 * row, 3 * row + 3), (4 * column, 4 * column + 4)]
    assert reach.at(whole[0][0], {0: 0}) == ()


# The second way


SHAPES = {"lenet": (17, 22), "cnn": (12, 17), "vit": (8, 16), "mlp": (5, 7)}  # sides differ, odd where they may


@pytest.mark.parametrize("family", models.families())
def test_every_familys_numbers_are_found_again_in_a_second_way(family):
    found = describe(f"{family}/test", SHAPES.get(family, (16, 24)), num_classes=5)
    assert None not in [field for row in found.rows if row.call is not None for field in row.field]
    assert check(found)["receptive_field"] >= 2


@pytest.mark.parametrize(
    ("name", "image_size", "changes"),
    [
        ("cifar_resnet/test-b", 19, {}),
        ("vit/mu8-map", (16, 24), {}),
        ("vit/test-tok-pre_logits", 12, {"patch": 3}),
        ("vit/H5", 17, {"width": 8, "heads": 2, "hidden": 8, "depth": 1}),  # 2 pixels fill no patch
        ("cnn/test", (21, 18), {"kernel_size": (5, 2), "stride": (1, 3), "padding": (0, 1), "pooling": "average"}),
        ("cnn/test", 23, {"pooling": "none", "kernel_size": (1, 3), "stride": (3, 1), "head": "average"}),
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
def test_numbers_of_other_forms_are_found_again(name, image_size, changes):
    """Images of the larger ones are wider than the field, so that both its borders show."""
    check(describe(name, image_size, num_classes=3, **changes))


def test_a_false_window_is_caught(monkeypatch):
    honest = receptive.RULES["reduce_window_max"]
    monkeypatch.setitem(
        receptive.RULES,
        "reduce_window_max",
        lambda equation, taken: reach.joined([honest(equation, taken), *taken[:1]]),
    )
    found = describe("resnet/test", (32, 48), num_classes=3)
    with pytest.raises(DisagreementError, match=r"^max_pool: .* by the table, .* by gradients"):
        check(found)


def test_a_window_that_is_too_narrow_is_caught(monkeypatch):
    monkeypatch.setattr(receptive, "Slide", lambda *a, **k: reach.Slide(*a, **k | {"taps": min(2, k.get("taps", 1))}))
    with pytest.raises(DisagreementError, match=r"^stem: "):
        check(describe("cifar_resnet/test", 12, num_classes=3))


def test_a_false_formula_is_caught(monkeypatch):
    monkeypatch.setitem(flops.MACS, Conv, lambda call: flops.conv_macs(call)[:0])
    with pytest.raises(DisagreementError, match=r"^stages/0/convolutions/0: MACs are 0 by the table's formula, \d+ by"):
        check(describe("cnn/test", 8, num_classes=3))
    monkeypatch.undo()
    monkeypatch.setitem(flops.PARAMETERS, Conv, lambda call: (flops.filters(call),))
    with pytest.raises(DisagreementError, match=r"^stages/0/convolutions/0: parameters are 216 .* 224 by its arrays"):
        check(describe("cnn/test", 8, num_classes=3, batch_norm=False))


def test_products_outside_every_layer_are_caught():
    class Loose(nnx.Module):
        def __init__(self):
            self.conv = Conv(3, 4, 3, padding=1)

        def __call__(self, x):
            y = self.conv(x).mean((1, 2))
            return y @ y.T

    with pytest.raises(DisagreementError, match="Loose: MACs are 0 by the table's formula, 4 by its program"):
        check(describe(Loose(), 8))


def test_pooling_is_read_as_a_mean_and_norms_as_nothing():
    """A maximum would pass its gradient to one pixel of the window alone."""
    assert inspect.unwrap(max_pool) in second.READ
    assert [kind.__name__ for kind in second.READ if inspect.isclass(kind)] == ["BatchNorm", "LayerNorm", "GroupNorm"]


def test_a_program_names_every_call():
    network = models.build("cnn/test", 3, image_size=8)
    program = traced(network, (8, 8, 3))
    assert sorted(receptive.seen(program)) == list(range(len(program.calls)))
    assert {program.calls[i].path for i in program.idle} == {"dropout", "hidden"}
