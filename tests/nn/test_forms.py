"""Each fast form of a layer gives the numbers of the plain one, and can be differentiated in every way that it can.

What the numbers are is held by the tests of the layers, which compare with formulas in float64; on a CPU they run the
fast forms. Here both forms run on a CPU, in the same program where it matters.
"""

import re
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layers import few_examples, run_compiled

from cnn_vit.nn import conv, forms, norm, pool
from cnn_vit.nn.conv import Conv, Slide
from cnn_vit.nn.forms import only_plain_forms


@dataclass(frozen=True)
class Case:
    """A layer in both forms.

    Attributes:
        plain, fast: functions of float32 arrays.
        shapes: of the arrays; the first is a batch, unless it is a vector.
    """

    plain: object
    fast: object
    shapes: tuple[tuple[int, ...], ...]


def slide(*, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=1):
    """How filters slide, with the layer's usual values for what is left out."""
    return Slide(stride, padding, dilation, groups)


def convolution(form, image, kernel, **keywords):
    """The case of a form of convolution."""
    how = slide(**keywords)
    return Case(partial(conv.plain_convolve, slide=how), partial(form, slide=how), ((2, *image), kernel))


def normalization(groups, channels=6):
    """The case of batch norm (no groups) or group norm."""
    keywords = {"groups": groups, "epsilon": 1e-5}
    plain = partial(norm.plain_normalize_channels, **keywords)
    fast = partial(norm.fast_normalize_channels, **keywords)
    return Case(plain, fast, ((3, 4, 5, channels), (channels,), (channels,)))


def pooling(image, size, stride, padding):
    """The case of max pooling."""
    plan = pool.plan_windows(image[:2], size, stride, padding)
    return Case(partial(pool.plain_max_pool, plan=plan), partial(pool.fast_max_pool, plan=plan), ((2, *image),))


def layer_norm(*shape):
    """The case of layer norm."""
    plain, fast = partial(norm.plain_layer_norm, epsilon=1e-6), partial(norm.fast_layer_norm, epsilon=1e-6)
    return Case(plain, fast, (shape, shape[-1:], shape[-1:]))


ONE_AROUND = ((1, 1), (1, 1))
CASES = {
    "bias": Case(forms.plain_add_bias, forms.fast_add_bias, ((2, 3, 4, 5), (5,))),
    "batch norm": normalization(None),
    "group norm": normalization(2),
    "bias of a vector": Case(forms.plain_add_bias, forms.fast_add_bias, ((5,), (5,))),
    "layer norm": layer_norm(2, 5, 8),
    "layer norm of a vector": layer_norm(8),
    "max pooling": pooling((6, 8, 3), 2, 2, 0),
    "max pooling that leaves pixels out": pooling((7, 8, 3), (2, 3), (2, 3), 0),
    "overlapping max pooling": pooling((7, 6, 3), 3, 2, 1),
    "1x1": convolution(conv.convolve_by_product, (4, 5, 3), (1, 1, 3, 4)),
    "1x1 with stride": convolution(conv.convolve_by_product, (5, 5, 3), (1, 1, 3, 4), stride=(2, 3)),
    "patches": convolution(conv.convolve_by_product, (7, 6, 3), (3, 2, 3, 4), stride=(3, 2)),
    "few channels": convolution(conv.convolve_by_columns, (6, 5, 2), (3, 3, 2, 4), padding=ONE_AROUND),
    "few channels, dilated": convolution(
        conv.convolve_by_columns, (7, 8, 2), (3, 2, 2, 4), padding=((2, 0), (1, 1)), stride=(2, 1), dilation=(2, 3)
    ),
    "ordinary": convolution(conv.convolve_apart, (6, 5, 3), (3, 2, 3, 4), padding=((1, 0), (2, 1)), stride=(2, 1)),
    "groups": convolution(
        conv.convolve_groups, (6, 5, 6), (3, 3, 2, 9), padding=((1, 0), (2, 1)), stride=(2, 1), groups=3
    ),
    "groups in two parts": convolution(
        conv.convolve_groups, (4, 5, 64), (2, 3, 16, 64), padding=ONE_AROUND, dilation=(2, 1), groups=4
    ),
    "depthwise": convolution(
        conv.convolve_channels, (6, 7, 4), (3, 3, 1, 4), padding=ONE_AROUND, stride=(1, 2), dilation=(2, 1), groups=4
    ),
}
for_each_form = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
# Other numbers of a form of which another case is here: their derivatives of higher order wait for the slow tests.
OTHER_NUMBERS = {
    *("bias of a vector", "layer norm of a vector", "max pooling that leaves pixels out", "max pooling"),
    *("1x1", "patches", "few channels", "groups in two parts", "group norm"),
}


def for_one_case_of_each_form(cases):
    """Parametrizes a test with cases by name, slow where they are OTHER_NUMBERS."""
    return pytest.mark.parametrize(
        "case",
        [pytest.param(case, id=name, marks=pytest.mark.slow if name in OTHER_NUMBERS else ())
         for name, case in cases.items()],
    )  # fmt: skip


BATCHES = {name: case for name, case in CASES.items() if not name.endswith("vector")}
for_one_form_of_batches = for_one_case_of_each_form(BATCHES)


def draw(seed, shapes, dtype=np.float32):
    """Draws normal arrays."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape).astype(np.float32), dtype) for shape in shapes]


def draw_like(function, arrays, seed):
    """Draws normal arrays like the outputs of a function."""
    outputs = jax.eval_shape(function, *arrays)
    leaves, tree = jax.tree.flatten(outputs)
    drawn = [draw(seed + i, [leaf.shape], leaf.dtype)[0] for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, drawn)


def assert_agree(first, second, tolerance=1e-5):
    """Asserts that two trees agree, each leaf to a share of its largest number."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for leaf, expected in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert leaf.dtype == expected.dtype
        leaf, expected = np.float64(np.asarray(leaf, np.float32)), np.float64(np.asarray(expected, np.float32))
        largest = max(1e-3, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=tolerance * largest)


def outputs_and_gradients(function, arrays, seed):
    """Runs a function and its gradient for random cotangents of all of its outputs."""

    def run(cotangents, *arrays):
        outputs, backward = jax.vjp(function, *arrays)
        return outputs, backward(cotangents)

    return run_compiled(run, draw_like(function, arrays, seed), *arrays)


def scalar(function):
    """Returns a function whose output is one number that depends on every output of another one."""

    def run(*arrays):
        total = jnp.zeros(())
        for leaf in jax.tree.leaves(function(*arrays)):
            waves = jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)
            total = total + (jnp.sin(leaf.astype(jnp.float32)) * waves).sum()
        return total

    return run


@for_each_form
def test_a_fast_form_has_the_outputs_and_gradients_of_the_plain_one(case):
    """The cotangents of a norm's mean and variance are among them."""
    arrays = draw(1, case.shapes)
    assert_agree(outputs_and_gradients(case.fast, arrays, 2), outputs_and_gradients(case.plain, arrays, 2))


@for_one_case_of_each_form(CASES)
def test_a_form_that_is_one_in_a_thousand_too_large_is_seen(case):
    """So the comparison above would notice; both a wrong output and a gradient that is wrong by itself."""
    arrays = draw(1, case.shapes)
    expected = outputs_and_gradients(case.plain, arrays, 2)

    def scale_outputs(*arrays):
        return jax.tree.map(lambda leaf: leaf * 1.001, case.fast(*arrays))

    @jax.custom_jvp
    def scale_tangents(*arrays):
        return case.fast(*arrays)

    @scale_tangents.defjvp
    def scale_tangents_jvp(primals, tangents):
        outputs, changes = jax.jvp(case.fast, primals, tangents)
        return outputs, jax.tree.map(lambda change: change * 1.001, changes)

    for wrong in (scale_outputs, scale_tangents):
        with pytest.raises(AssertionError):
            assert_agree(outputs_and_gradients(wrong, arrays, 2), expected)


@for_one_case_of_each_form(CASES)
def test_forward_derivatives_agree(case):
    arrays, changes = draw(3, case.shapes), draw(4, case.shapes)

    def run(function):
        return run_compiled(lambda arrays, changes: jax.jvp(function, arrays, changes), tuple(arrays), tuple(changes))

    assert_agree(run(case.fast), run(case.plain))


@for_one_case_of_each_form(CASES)
def test_second_derivatives_agree_in_both_orders(case):
    arrays, changes = draw(5, case.shapes), draw(6, case.shapes)
    every = tuple(range(len(arrays)))

    def run(function):
        gradient = jax.grad(scalar(function), every)

        def forward_over_reverse(arrays, changes):
            return jax.jvp(gradient, arrays, changes)[1]

        def reverse_over_reverse(arrays, changes):
            def along(*arrays):
                products = jax.tree.map(lambda first, second: (first * second).sum(), gradient(*arrays), changes)
                return sum(products, start=jnp.zeros(()))

            return jax.grad(along, every)(*arrays)

        return run_compiled(lambda *all_: (forward_over_reverse(*all_), reverse_over_reverse(*all_)), *to_tuples())

    def to_tuples():
        return tuple(arrays), tuple(changes)

    # 3e-5: a second derivative sums products of first ones, each with a rounding of its own.
    assert_agree(run(case.fast), run(case.plain), tolerance=3e-5)


@for_one_form_of_batches
def test_gradients_of_each_example_by_vmap_are_those_of_the_example_alone(case):
    """Of shared values too: a gradient of the kernel for each image."""
    images, *shared = draw(7, case.shapes)
    examples = images[:, None]  # so many batches of one
    gradient = jax.grad(scalar(case.fast), tuple(range(1 + len(shared))))
    in_axes = (0, *[None] * len(shared))
    at_once = run_compiled(jax.vmap(gradient, in_axes), examples, *shared)
    one_by_one = [run_compiled(gradient, example, *shared) for example in examples]
    assert_agree(at_once, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))


@for_one_form_of_batches
def test_gradients_pass_through_remat_scan_and_shard_map(case):
    images, *shared = draw(8, case.shapes)
    every = tuple(range(1 + len(shared)))
    function = scalar(case.fast)
    expected = run_compiled(jax.grad(function, every), images, *shared)
    assert_agree(run_compiled(jax.grad(jax.checkpoint(function), every), images, *shared), expected)

    def scanned(images, *shared):
        def add(total, batch):
            return total + function(batch, *shared), None

        return jax.lax.scan(add, jnp.zeros(()), jnp.stack([images, images]))[0] / 2

    assert_agree(run_compiled(jax.grad(scanned, every), images, *shared), expected)

    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    specs = (rows, *[whole] * len(shared))

    def on_device(*arrays):
        return jax.grad(lambda *arrays: function(*arrays), every)(*arrays)

    sharded = jax.shard_map(on_device, mesh=mesh, in_specs=specs, out_specs=specs)
    assert_agree(run_compiled(sharded, images, *shared), expected)


NOT_IN_BFLOAT16 = ("batch norm", "group norm", "layer norm")  # their layers compute in float32 always


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_IN_BFLOAT16])
def test_in_bfloat16_both_forms_agree_to_its_precision(name):
    """A bfloat16 has 8 bits: neighbors are 0.8 % apart, and sums are rounded in another order."""
    case = CASES[name]
    arrays = draw(9, case.shapes, jnp.bfloat16)
    if name == "bias":
        arrays[1] = arrays[1].astype(jnp.float32)  # a parameter, which the layer rounds
    assert_agree(outputs_and_gradients(case.fast, arrays, 2), outputs_and_gradients(case.plain, arrays, 2), 2e-2)


def pair(low, high):
    """Pairs of whole numbers, such as a height and a width."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


@settings(few_examples, max_examples=12)
@given(
    image=pair(1, 8),
    size=pair(1, 4),
    padding=st.tuples(pair(0, 2), pair(0, 2)),
    stride=pair(1, 3),
    dilation=pair(1, 2),
    groups=st.integers(1, 4),
    per_group=pair(1, 3),
    seed=st.integers(0, 999),
)
def test_any_convolution_has_the_numbers_of_its_plain_form(
    image, size, padding, stride, dilation, groups, per_group, seed
):
    for i in (0, 1):
        assume(image[i] + sum(padding[i]) > dilation[i] * (size[i] - 1))
    how = Slide(stride, padding, dilation, groups)
    kernel_shape = (*size, per_group[0], groups * per_group[1])
    arrays = draw(seed, ((2, *image, groups * per_group[0]), kernel_shape))
    fast = outputs_and_gradients(partial(conv.convolve, slide=how), arrays, seed)
    with only_plain_forms():
        plain = outputs_and_gradients(partial(conv.convolve, slide=how), arrays, seed)
    assert_agree(fast, plain)


@pytest.mark.parametrize(
    ("layer", "form"),
    [
        (Conv(64, 256, 1, padding=0), conv.convolve_by_product),
        (Conv(64, 128, 1, stride=2, padding=0), conv.convolve_by_product),
        (Conv(3, 96, 4, stride=4, padding=0), conv.convolve_by_product),
        (Conv(1, 32, 3, padding=1), conv.convolve_by_columns),
        (Conv(1, 6, 5, padding=2), conv.convolve_apart),  # 25 pixels a column: more memory, and no faster
        (Conv(128, 128, 3, padding=1, groups=32), conv.convolve_groups),
        (Conv(192, 192, 7, padding=3, groups=192), conv.convolve_channels),
        (Conv(64, 64, 3, padding=1), conv.convolve_apart),
        (Conv(3, 64, 7, stride=2, padding=3), conv.convolve_apart),
        (Conv(64, 64, 1, padding=1), conv.convolve_apart),
    ],
)
def test_a_convolution_has_the_form_of_the_table(layer, form):
    how = Slide(layer.stride, layer.padding, layer.dilation, layer.groups)
    in_channels = layer.kernel.shape[2] * layer.groups
    assert conv.choose_cpu_form(how, in_channels, layer.kernel.shape) is form


def count_calls(monkeypatch, module, name):
    """Puts a function in the place of a form that counts its calls; returns the list that they are added to."""
    form, calls = getattr(module, name), []

    def counted(*arrays, **settings):
        calls.append(settings)
        return form(*arrays, **settings)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_layers_of_equal_settings_and_shapes_trace_each_form_once(monkeypatch):
    norms = count_calls(monkeypatch, norm, "plain_layer_norm")
    convolutions = count_calls(monkeypatch, conv, "convolve_by_product")
    x, vector, kernel = jnp.ones((2, 3, 3, 4)), jnp.ones(4), jnp.ones((1, 1, 4, 4))

    def apply_layers(x, kernel):
        for epsilon in (1e-6, 1e-6, 1e-6, 1e-5):
            x = norm.layer_norm(x, vector, vector, epsilon=epsilon)
            x = conv.convolve(x, kernel, Slide((1, 1), ((0, 0), (0, 0)), (1, 1), 1))
        return x.sum()

    jax.make_jaxpr(jax.grad(apply_layers))(x, kernel)
    assert norms == [{"epsilon": 1e-6}, {"epsilon": 1e-5}]
    assert len(convolutions) == 1


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_other_platforms_run_the_plain_form(platform):
    """Seen in the program that is lowered for each: a 1x1 convolution is a product on a CPU alone."""
    how = slide()
    x, kernel = draw(0, ((2, 4, 4, 3), (1, 1, 3, 5)))
    traced = jax.jit(partial(conv.convolve, slide=how)).trace(x, kernel)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.dot_general" in program) == (platform == "cpu")
    assert ("stablehlo.convolution" in program) == (platform != "cpu")


def count_costly(function, arrays, changing):
    """Counts products, convolutions and loops in the program of a tangent where only some of the inputs change."""

    def change(tangents):
        def run(*chosen):
            inputs = list(arrays)
            for i, array in zip(changing, chosen, strict=True):
                inputs[i] = array
            return function(*inputs)

        return jax.jvp(run, tuple(arrays[i] for i in changing), tangents)[1]

    program = str(jax.make_jaxpr(change)(tuple(arrays[i] for i in changing)))
    return sum(program.count(f" {name}[") for name in ("dot_general", "conv_general_dilated", "scan"))


# A pooling has no parameters, a vector is not summed over, and a norm over pixels spreads as much without its own.
SPREADS_LESS = [name for name in CASES if not re.search("pooling|vector|batch norm|group norm", name)]


@pytest.mark.parametrize("name", SPREADS_LESS)
def test_less_is_computed_where_parameters_are_frozen(name):
    """Their tangents are symbolic zeros, and what would be multiplied by them is left out."""
    case = CASES[name]
    arrays = draw(0, case.shapes)
    everything = count_costly(case.fast, arrays, range(len(arrays)))
    assert count_costly(case.fast, arrays, [0]) < everything


def test_nothing_is_computed_for_a_frozen_norm():
    """No product with ones stands in the program of the input's gradient alone."""
    x, scale, bias = draw(0, ((2, 5, 8), (8,), (8,)))

    def change_of_x(dx):
        return jax.jvp(lambda x: norm.fast_layer_norm(x, scale, bias, 1e-6), (x,), (dx,))[1]

    assert "dot_general" not in str(jax.make_jaxpr(change_of_x)(x))

    def change_of_scale(dscale):
        return jax.jvp(lambda scale: norm.fast_layer_norm(x, scale, bias, 1e-6), (scale,), (dscale,))[1]

    assert "dot_general" in str(jax.make_jaxpr(change_of_scale)(scale))


@pytest.mark.parametrize(("size", "has_forms"), [((5, 5), True), ((6, 5), False)])
def test_a_large_window_is_left_to_xla(size, has_forms):
    """Written out place by place, its program would take many seconds to compile."""
    x = jnp.zeros((1, 8, 8, 1))
    program = jax.jit(lambda x: pool.max_pool(x, size, stride=1, padding=0)).lower(x).as_text()
    assert ("stablehlo.case" in program) == has_forms


def test_a_large_depthwise_filter_is_convolved_in_groups():
    how = slide(padding=((4, 4), (4, 4)), groups=6)
    assert conv.choose_cpu_form(how, 6, (7, 7, 1, 6)) is conv.convolve_channels
    assert conv.choose_cpu_form(how, 6, (9, 9, 1, 6)) is conv.convolve_groups


def test_a_depthwise_convolution_in_bfloat16_is_summed_in_float32():
    """Summed in bfloat16, the 49 products of a 7x7 filter were off by 1.7 % of the largest output, here by 0.4 %."""
    how = slide(padding=((3, 3), (3, 3)), groups=4)
    x, kernel = draw(0, ((16, 12, 12, 4), (7, 7, 1, 4)), jnp.bfloat16)
    exact = conv.plain_convolve(x.astype(jnp.float32), kernel.astype(jnp.float32), how)
    rounded = run_compiled(partial(conv.convolve_channels, slide=how), x, kernel)
    assert_agree(rounded.astype(jnp.float32), exact, 4e-3)


@pytest.mark.parametrize("window", [3, 7])
def test_the_gradient_of_a_depthwise_convolution_takes_the_memory_of_a_few_images(window):
    """Not of one for each weight: padded images, one product of them with the gradient, and the two gradients."""
    side = window // 2
    how = slide(padding=((side, side), (side, side)), groups=16)
    x, kernel = jnp.zeros((2, 64, 64, 16)), jnp.zeros((window, window, 1, 16))

    def total(x, kernel):
        return (conv.convolve_channels(jnp.sin(x), kernel, how) ** 2).sum()

    memory = jax.jit(jax.grad(total, (0, 1))).lower(x, kernel).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 5 * x.nbytes


def test_a_maximum_that_is_not_a_number_stays_one():
    """As with XLA's own pooling; a comparison would pass over it."""
    plan = pool.plan_windows((2, 2), 2, 2, 0)
    x = jnp.asarray([1.0, np.nan, 3.0, 2.0]).reshape(1, 2, 2, 1)
    assert np.isnan(run_compiled(partial(pool.fast_max_pool, plan=plan), x)).all()


REAL = {
    "batch norm of ResNet-50": (normalization(None, 256), (8, 56, 56, 256)),
    "group norm": (normalization(32, 256), (8, 28, 28, 256)),
    "layer norm of ViT-S/16": (layer_norm(8, 197, 384), (8, 197, 384)),
    "pooling of ResNet-50": (pooling((112, 112, 64), 3, 2, 1), (8, 112, 112, 64)),
    "pooling of a small CNN": (pooling((28, 28, 32), 2, 2, 0), (128, 28, 28, 32)),
    "1x1 of ResNet-50": (convolution(conv.convolve_by_product, (56, 56, 64), (1, 1, 64, 256)), (8, 56, 56, 64)),
    "stem of a small CNN": (
        convolution(conv.convolve_by_columns, (28, 28, 1), (3, 3, 1, 32), padding=ONE_AROUND),
        (128, 28, 28, 1),
    ),
    "groups of ResNeXt-50": (
        convolution(conv.convolve_groups, (14, 14, 512), (3, 3, 16, 512), padding=ONE_AROUND, groups=32),
        (2, 14, 14, 512),
    ),
    "depthwise of ConvNeXt-T": (
        convolution(conv.convolve_channels, (14, 14, 384), (7, 7, 1, 384), padding=((3, 3), (3, 3)), groups=384),
        (2, 14, 14, 384),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("case", "shape"), REAL.values(), ids=REAL)
def test_at_the_shapes_of_real_networks_the_forms_agree(case, shape):
    """The gradients of shared values sum up to 401,408 products in another order: 1e-5 of the largest covers it."""
    arrays = draw(1, (shape, *case.shapes[1:]))
    assert_agree(outputs_and_gradients(case.fast, arrays, 2), outputs_and_gradients(case.plain, arrays, 2))
