"""The formulas that layers are compared with have the right gradients: central differences in float64 agree."""

import formulas
import numpy as np
import pytest


def differences(formula, inputs, g, step=1e-5):
    """Estimates the gradients of the sum of y times g, one number at a time."""
    gradients = []
    for array in inputs:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            number, sums = array[index], []
            for moved in (number + step, number - step):
                array[index] = moved
                y, _ = formula(*inputs)
                sums.append((y * g).sum())
            array[index] = number
            gradient[index] = (sums[0] - sums[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


PADDING = ((1, 0), (0, 2))
SOME_READ = np.array([[[1, 0, 1], [0, 0, 0]]] * 2, bool)  # the second of two readers may read nothing
ALL_READ = np.ones((2, 2, 3), bool)


@pytest.mark.parametrize(
    ("formula", "keywords", "shapes"),
    [
        (formulas.dense, {}, [(2, 3, 4), (4, 5), (5,)]),
        (formulas.squeeze_excitation, {}, [(2, 3, 2, 4), (4, 3), (3,), (3, 4), (4,)]),
        (
            formulas.convolution,
            {"padding": PADDING, "stride": (2, 1), "dilation": (1, 2), "groups": 1},
            [(2, 4, 3, 2), (2, 2, 2, 3), (3,)],
        ),
        (
            formulas.convolution,
            {"padding": PADDING, "stride": (1, 3), "dilation": (2, 1), "groups": 2},
            [(1, 4, 4, 4), (2, 3, 2, 4), (4,)],
        ),
        (formulas.max_pooling, {"size": (3, 2), "stride": (2, 1), "padding": ((2, 0), (0, 1))}, [(1, 4, 4, 2)]),
        (
            formulas.average_pooling,
            {"size": (3, 2), "stride": (2, 1), "padding": ((2, 0), (0, 1)), "count_padding": True},
            [(1, 4, 4, 2)],
        ),
        (
            formulas.average_pooling,
            {"size": (2, 3), "stride": (1, 2), "padding": ((0, 1), (1, 2)), "count_padding": False},
            [(1, 4, 4, 2)],
        ),
        (formulas.blur_pooling, {"size": (3, 2), "stride": (2, 1), "padding": ((2, 0), (0, 1))}, [(1, 4, 4, 2)]),
        (formulas.normalization, {"axes": (0, 1, 2), "epsilon": 0.1}, [(2, 2, 3, 2), (2,), (2,)]),
        (formulas.normalization, {"axes": (-1,), "epsilon": 0.1}, [(2, 3, 4), (4,), (4,)]),
        (formulas.group_normalization, {"groups": 2, "epsilon": 0.1}, [(2, 2, 3, 4), (4,), (4,)]),
        (
            formulas.fixed_normalization,
            {"mean": np.array([1.0, 2.0]), "var": np.array([3.0, 0.5]), "epsilon": 0.1},
            [(2, 2, 3, 2), (2,), (2,)],
        ),
        (formulas.attention, {"mask": ALL_READ}, [(2, 2, 2, 3), (2, 3, 2, 3), (2, 3, 2, 3)]),
        (formulas.attention, {"mask": SOME_READ}, [(2, 2, 2, 3), (2, 3, 2, 3), (2, 3, 2, 3)]),
        (formulas.multi_head, {"heads": 2, "mask": ALL_READ}, [(2, 2, 4), (2, 3, 4), *[(4, 4), (4,)] * 4]),
        (formulas.patch_embedding, {}, [(2, 4, 6, 2), (2, 2, 2, 3), (3,)]),
    ],
)
def test_a_formula_has_the_gradient_that_differences_show(formula, keywords, shapes):
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=shape) for shape in shapes]
    y, backward = formula(*inputs, **keywords)
    g = rng.normal(size=y.shape)
    numeric = differences(lambda *arrays: formula(*arrays, **keywords), inputs, g)
    for gradient, expected in zip(backward(g), numeric, strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-8, rtol=1e-8)
