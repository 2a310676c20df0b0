"""One side of a convolution or pooling agrees with JAX, with brute force and with published checks."""

import json
import re

import jax
import numpy as np
import pytest
from published import expected_by_check

from cnn_vit.analysis.arithmetic import definition_list, explain_window
from cnn_vit.analysis.calculator import calculate
from cnn_vit.errors import UserError

CASES = 1_500  # of each kind


def explain(calculation):
    """Returns the explanation of a calculation as {name of the line: text}."""
    return dict(explain_window(calculation))


def random_cases(kind, seed=0):
    """Yields random arguments of `calculate`, some of which make no window."""
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        n, k, s = (int(rng.integers(1, high)) for high in (40, 8, 6))
        if kind == "pool":
            yield dict(n=n, k=k, s=s, padding=tuple(map(int, rng.integers(0, k, 2))))
        else:
            yield dict(n=n, k=k, s=s, padding=tuple(map(int, rng.integers(0, 6, 2))), d=int(rng.integers(1, 4)))


def output_of_jax(kind, *, n, k, s, padding, d=1):
    """Returns the output side of the shapes that JAX infers; 0 or less where nothing fits."""
    image = jax.ShapeDtypeStruct((1, n, 1, 1), np.float32)
    if kind == "pool":

        def pool(x):
            return jax.lax.reduce_window(
                x, -np.inf, jax.lax.max, (1, k, 1, 1), (1, s, 1, 1), ((0, 0), padding, *[(0, 0)] * 2)
            )

        return jax.eval_shape(pool, image).shape[1]

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (s, 1), (padding, (0, 0)), rhs_dilation=(d, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return jax.eval_shape(convolve, image, jax.ShapeDtypeStruct((k, 1, 1, 1), np.float32)).shape[1]


@pytest.mark.parametrize("kind", ["conv", "pool"])
def test_outputs_are_those_of_jax_in_1500_random_cases(kind):
    fitting = 0
    for case in random_cases(kind):
        expected = output_of_jax(kind, **case)
        if expected < 1:
            with pytest.raises(UserError, match="does not fit"):
                calculate(kind, **case)
        else:
            assert calculate(kind, **case).output == expected, case
            fitting += 1
    assert CASES * 0.8 < fitting < CASES


def test_same_is_that_of_jax_in_1500_random_cases():
    uneven = 0
    for case in random_cases("conv", seed=1):
        n, k, s, d = (case[name] for name in ("n", "k", "s", "d"))
        span = d * (k - 1) + 1
        (edges,) = jax.lax.padtype_to_pads((n,), (span,), (s,), "SAME")
        same = calculate("conv", **case | {"padding": (span, span)}).same
        assert same == (output_of_jax("conv", **case | {"padding": edges}), tuple(map(int, edges))), case
        before, after = same.padding
        uneven += before != after
    assert uneven > 200


def test_valid_is_that_of_jax():
    for case in random_cases("conv", seed=2):
        expected = max(0, output_of_jax("conv", **case | {"padding": (0, 0)}))
        assert calculate("conv", **case | {"padding": (20, 20)}).valid == expected, case


@pytest.mark.parametrize("kind", ["conv", "pool"])
def test_borders_and_unread_pixels_are_those_of_brute_force(kind):
    for case in list(random_cases(kind, seed=3))[:300]:
        n, k, s, d = case["n"], case["k"], case["s"], case.get("d", 1)
        before, after = case["padding"]
        pixels = list(range(-before, n + after))
        windows = [pixels[i::d][:k] for i in range(0, len(pixels), s) if len(pixels[i::d]) >= k]
        if not windows:
            continue
        calculation = calculate(kind, **case)
        assert (calculation.first.reads, calculation.last.reads) == (windows[0], windows[-1]), case
        assert calculation.last.output == len(windows) - 1
        assert calculation.first.padding == sum(pixel not in range(n) for pixel in windows[0])
        assert calculation.last.padding == sum(pixel not in range(n) for pixel in windows[-1])
        assert calculation.unread == sorted(set(range(n)).difference(*windows)), case


def test_the_textbook_is_always_right_at_stride_1_and_nowhere_else_but_by_accident():
    right = dict.fromkeys((1, 2, 3, 4), 0)
    cases = dict(right)
    for s in right:
        for n in range(1, 33):
            for k in range(1, min(n, 8)):
                calculation = calculate("conv", n=n, k=k, s=s, padding=0)
                cases[s] += 1
                right[s] += n / s - k + 1 == calculation.output
                assert calculation.to_json()["textbook"]["right"] == (n / s - k + 1 == calculation.output)
    assert right[1] == cases[1]
    assert all(0 < right[s] < 0.3 * cases[s] for s in (2, 3, 4))


@pytest.mark.parametrize("check", [key for key in expected_by_check("output size") if key.startswith("out-")])
def test_outputs_are_those_of_the_published_checks(check):
    n, k, s, padding, d = map(int, check.split("-")[1:])
    calculation = calculate("conv", n=n, k=k, s=s, padding=padding, d=d)
    assert calculation.output == int(expected_by_check("output size")[check])
    assert re.search(rf"= {calculation.output}$", explain(calculation)[""])


@pytest.mark.parametrize("check", [key for key in expected_by_check("output size") if key.startswith("same-")])
def test_same_is_that_of_the_published_checks(check):
    n, k, s, d = map(int, check.split("-")[1:])
    output, (before, after) = calculate("conv", n=n, k=k, s=s, padding=k * d, d=d).same
    assert f"({output}, {before}, {after})" == expected_by_check("output size")[check]


def output_of_ceil_mode(n, k, s, padding):
    """Returns PyTorch's output: windows go on until the padded image ends, and none begins behind the image."""
    before, after = padding
    starts = [0]
    while starts[-1] + k < before + n + after:
        starts.append(starts[-1] + s)
    return len([start for start in starts if start < before + n])


def test_ceil_mode_is_pytorchs_and_its_padding_makes_it_here():
    larger_outputs = 0
    for case in random_cases("pool", seed=4):
        if case["n"] + sum(case["padding"]) < case["k"]:
            continue
        calculation = calculate("pool", **case)
        output, padding = calculation.ceil_mode
        assert output == output_of_ceil_mode(**case), case
        assert calculate("pool", **case | {"padding": padding}).output == output
        larger_outputs += output > calculation.output
    assert larger_outputs > 200


# How it is explained


def test_a_torch_padding_at_stride_2_reads_other_pixels_than_same():
    text = explain(calculate("conv", n=32, k=3, s=2, padding=1))
    assert text["first"] == "output 0 reads pixels -1 0 1; padding is -1 (1 of 3)"
    assert text["last"] == "output 15 reads pixels 29 30 31; none is padding"
    assert "0 before, 1 after" in text["SAME"]
    assert "as many outputs as here, but each reads 1 pixel further right, so their values differ" in text["SAME"]
    assert text["textbook"].startswith("n/s - k + 1 = 32/2 - 3 + 1 = 14: wrong, 16 is right; ")
    assert "ignores padding" in text["textbook"]


def test_a_torch_padding_of_an_odd_side_is_same():
    assert explain(calculate("conv", n=33, k=3, s=2, padding=1))["SAME"].endswith("the same as here")


def test_what_fills_no_window_is_named():
    text = explain(calculate("pool", n=31, k=2, s=2, padding=0))
    assert text["unread"] == "pixel 30: no window reads it"
    assert text["ceil_mode"] == "16 outputs, as padding 0 before and 1 after here (PyTorch)"
    assert "ceil_mode" not in explain(calculate("conv", n=31, k=2, s=2, padding=0))


def test_a_right_textbook_says_whether_it_is_by_accident():
    always = explain(calculate("conv", n=28, k=5, s=1, padding=0))["textbook"]
    assert always.endswith("= 24: right, as always at stride 1 without padding")
    assert "= 3: right by accident; one tap" in explain(calculate("conv", n=6, k=1, s=2, padding=0))["textbook"]
    # 2 pixels of padding make up for 2 pixels of holes
    dilated = explain(calculate("conv", n=9, k=3, s=1, padding=1, d=2))["textbook"]
    assert "= 7: right by accident; it ignores padding; it ignores dilation" in dilated


def test_many_pixels_are_cut_short_and_lines_keep_their_width():
    calculation = calculate("conv", n=300, k=100, s=3, padding=7)
    assert "-7 -6 -5 -4 ... 89 90 91 92 (100 of them)" in explain(calculation)["first"]
    assert max(map(len, definition_list(explain_window(calculation), width=80).splitlines())) <= 80
    assert json.loads(json.dumps(calculation.to_json()))["first"]["reads"] == list(range(-7, 93))


@pytest.mark.parametrize(
    ("kind", "numbers", "sentence"),
    [
        ("conv", dict(n=0, k=3, s=1, padding=1), "n=0 (pixels of the side) is not from 1 to 10,000"),
        ("conv", dict(n=8, k=-3, s=1, padding=1), "k=-3 (taps of the window) is not from 1 to 10,000"),
        ("conv", dict(n=8, k=3, s=0, padding=1), "s=0 (stride) is not from 1 to 10,000"),
        ("conv", dict(n=8, k=3, s=1, padding=1, d=0), "d=0 (dilation) is not from 1 to 10,000"),
        ("conv", dict(n=10**9, k=3, s=1, padding=1), "n=1000000000 (pixels of the side) is not from 1 to 10,000"),
        ("conv", dict(n=8, k=3, s=1, padding=(0, -1)), "padding=-1 is not from 0 to 10,000 pixels"),
        ("conv", dict(n=2, k=5, s=1, padding=1), "a window of 5 pixels does not fit into 2 with 2 of padding"),
        ("conv", dict(n=8, k=3, s=1, padding=0, d=4), "a window of 9 pixels does not fit into 8 with 0 of padding"),
        ("pool", dict(n=8, k=2, s=2, padding=2), "padding=2 is as large as the pooling's window of 2 pixels"),
        ("pool", dict(n=8, k=2, s=2, padding=0, d=2), "d=2 spreads the taps of a convolution"),
    ],
)
def test_numbers_that_make_no_window_get_a_sentence(kind, numbers, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        calculate(kind, **numbers)
