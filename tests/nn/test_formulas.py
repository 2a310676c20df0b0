"""The formulas that layers are held against have the gradients they say: central differences in float64 agree."""

import formulas
import numpy as np
import pytest


def differences(formula, given, g, step=1e-5):
    """Gradients of the sum of y times g, one number at a time."""
    gradients = []
    for array in given:
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            here, sums = array[place], []
            for moved in (here + step, here - step):
                array[place] = moved
                sums.append((formula(*given)[0] * g).sum())
            array[place] = here
            gradient[place] = (sums[0] - sums[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


AROUND = ((1, 0), (0, 2))
SOME = np.array([[[1, 0, 1], [0, 0, 0]]] * 2, bool)  # the second of two readers may read nothing
ALL = np.ones((2, 2, 3), bool)


@pytest.mark.parametrize(
    ("formula", "how", "shapes"),
    [
        (formulas.dense, {}, [(2, 3, 4), (4, 5), (5,)]),
        (
            formulas.convolution,
            {"padding": AROUND, "stride": (2, 1), "dilation": (1, 2), "groups": 1},
            [(2, 4, 3, 2), (2, 2, 2, 3), (3,)],
        ),
        (
            formulas.convolution,
            {"padding": AROUND, "stride": (1, 3), "dilation": (2, 1), "groups": 2},
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
        (formulas.normalization, {"axes": (0, 1, 2), "epsilon": 0.1}, [(2, 2, 3, 2), (2,), (2,)]),
        (formulas.normalization, {"axes": (-1,), "epsilon": 0.1}, [(2, 3, 4), (4,), (4,)]),
        (formulas.group_normalization, {"groups": 2, "epsilon": 0.1}, [(2, 2, 3, 4), (4,), (4,)]),
        (
            formulas.fixed_normalization,
            {"mean": np.array([1.0, 2.0]), "var": np.array([3.0, 0.5]), "epsilon": 0.1},
            [(2, 2, 3, 2), (2,), (2,)],
        ),
        (formulas.attention, {"mask": ALL}, [(2, 2, 2, 3), (2, 3, 2, 3), (2, 3, 2, 3)]),
        (formulas.attention, {"mask": SOME}, [(2, 2, 2, 3), (2, 3, 2, 3), (2, 3, 2, 3)]),
        (formulas.multi_head, {"heads": 2, "mask": ALL}, [(2, 2, 4), (2, 3, 4), *[(4, 4), (4,)] * 4]),
        (formulas.patch_embedding, {}, [(2, 4, 6, 2), (2, 2, 2, 3), (3,)]),
    ],
)
def test_a_formula_has_the_gradient_that_differences_show(formula, how, shapes):
    rng = np.random.default_rng(0)
    given = [rng.normal(size=shape) for shape in shapes]
    y, back = formula(*given, **how)
    g = rng.normal(size=y.shape)
    numeric = differences(lambda *arrays: formula(*arrays, **how), given, g)
    for found, expected in zip(back(g), numeric, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-8, rtol=1e-8)
