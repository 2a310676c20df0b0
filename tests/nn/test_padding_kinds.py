"""What stands in the padding of a convolution: each kind by hand, its gradients, and which commutes with shifts."""

import formulas
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layers import assert_equals_formula, call_layer, draw_normal, run_layer, to_float32

from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.padding import MODES
from cnn_vit.nn.values import functional

# Which pixel of a side of n stands at each place from -2 to n + 1, by hand for n = 4.
PLACES = {
    "circular": [2, 3, 0, 1, 2, 3, 0, 1],
    "reflect": [2, 1, 0, 1, 2, 3, 2, 1],
    "edge": [0, 0, 0, 1, 2, 3, 3, 3],
}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [  # of the row 1 2 4 8 and the filter 1 10 100
        ("zero", [210, 421, 842, 84]),
        ("circular", [218, 421, 842, 184]),
        ("reflect", [212, 421, 842, 484]),
        ("edge", [211, 421, 842, 884]),
    ],
)
def test_what_stands_beside_a_row_of_four_pixels(kind, expected):
    x = np.float32([1, 2, 4, 8]).reshape(1, 1, 4, 1)
    params = {"kernel": np.float32([1, 10, 100]).reshape(1, 3, 1, 1)}
    layer = Conv(1, 1, (1, 3), padding=((0, 0), (1, 1)), padding_kind=kind, bias=False)
    assert run_layer(layer, params, x).ravel().tolist() == expected


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("keywords", [{"groups": 1, "stride": (2, 1)}, {"groups": 2, "stride": (1, 2)}])
def test_a_convolution_with_pixels_in_its_padding_equals_its_formula_with_gradients(kind, keywords):
    """Padding of 2 above and 1 below, 0 left and 2 right; what the padding reads gets its gradient, too."""
    x, kernel, bias = draw_normal(0, (2, 4, 4, 2), (3, 2, 2 // keywords["groups"], 4), (4,))
    rows, columns = PLACES[kind][0:7], PLACES[kind][2:8]
    window = {"padding": ((0, 0), (0, 0)), "dilation": (1, 1), **keywords}
    y, backward = formulas.convolution(x[:, rows][:, :, columns], kernel, bias, **window)

    def backward_to_the_image(g):
        of_padded, *of_values = backward(g)
        of_x = np.zeros_like(x)
        np.add.at(of_x, np.ix_(range(2), rows, columns, range(2)), of_padded)
        return of_x, *of_values

    layer = Conv(2, 4, (3, 2), padding=((2, 1), (0, 2)), padding_kind=kind, **keywords)
    assert_equals_formula(layer, (y, backward_to_the_image), x, kernel, bias, seed=0)


@pytest.mark.parametrize("kind", MODES)
def test_circular_padding_alone_commutes_with_a_shift_and_the_others_break_at_the_border(kind):
    x, kernel = to_float32(draw_normal(0, (1, 9, 9, 2), (3, 3, 2, 4)))
    layer, params = Conv(2, 4, 3, padding=1, padding_kind=kind, bias=False), {"kernel": kernel}
    shifted_output = np.roll(run_layer(layer, params, x), (2, 3), axis=(1, 2))
    differences = np.abs(run_layer(layer, params, np.roll(x, (2, 3), axis=(1, 2))) - shifted_output).max((0, 3))
    # Broken are the first and last pixels, and those that the shift moved there: rows 0, 8, 1, 2; columns 0, 8, 2, 3.
    inside = differences[3:8, [1, 4, 5, 6, 7]]
    assert inside.max() <= 1e-5
    assert (differences[:, 0].min() > 1e-3) == (kind != "circular")
    assert (differences.max() <= 1e-5) == (kind == "circular")


def test_zero_padding_is_the_same_program_as_before():
    x, kernel = jnp.ones((1, 5, 5, 8)), jnp.ones((3, 3, 8, 4))
    programs = []
    for keywords in ({}, {"padding_kind": "zero"}):
        layer = Conv(8, 4, 3, padding=1, bias=False, **keywords)
        programs.append(str(jax.make_jaxpr(lambda x, layer=layer: call_layer(layer, {"kernel": kernel}, x))(x)))
    assert programs[0] == programs[1]
    assert "concatenate" not in programs[0]


@pytest.mark.parametrize(
    ("kind", "side", "sentence"),
    [
        ("circular", 1, "circular padding of 2 pixels needs an image of 2 pixels, not 1; make the padding smaller"),
        ("reflect", 2, "reflect padding of 2 pixels needs an image of 3 pixels, not 2"),
    ],
)
def test_an_image_with_too_few_pixels_for_its_padding_is_refused(kind, side, sentence):
    layer, params = (
        Conv(1, 1, 3, padding=2, padding_kind=kind, bias=False),
        {"kernel": np.ones((3, 3, 1, 1), np.float32)},
    )
    with pytest.raises(UserError, match=sentence):
        run_layer(layer, params, np.ones((1, side, 9, 1), np.float32))
    assert run_layer(layer, params, np.ones((1, side + 1, 9, 1), np.float32)).shape == (1, side + 3, 11, 1)


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(UserError, match="no kind of padding 'cirular'; did you mean circular"):
        Conv(1, 1, 3, padding=1, padding_kind="cirular")


def test_the_lecture_s_network_gives_each_convolution_its_kind_and_refuses_a_mask_with_it():
    network = build("cnn/test", 3, image_size=8, head="average", batch_norm=False, padding_kind="circular")
    assert [stage.convolutions[0].padding_kind for stage in network.stages] == ["circular", "circular"]
    parts = functional(network)
    images, mask = jax.ShapeDtypeStruct((2, 8, 8, 3), "float32"), jax.ShapeDtypeStruct((2, 8, 8), "bool")
    with pytest.raises(UserError, match="circular padding would take what lies beside an image"):
        jax.eval_shape(lambda images, mask: parts.apply(parts.params, parts.stats, images, mask=mask), images, mask)
