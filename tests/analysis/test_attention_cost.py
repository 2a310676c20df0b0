"""What attention costs: half of a block's products at 6 d tokens, and memory for all pairs only where they are held."""

from pathlib import Path

import numpy as np
import pytest

from cnn_vit.analysis import flops
from cnn_vit.analysis.table import describe
from cnn_vit.studies.lab import load_experiment

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def attention_cost():
    """The module of experiments/attention_cost."""
    return load_experiment(TOP / "experiments" / "attention_cost").module


@pytest.mark.parametrize(
    ("side", "width", "share"),
    [
        (24, 96, 1 / 2),  # 576 = 6 * 96 tokens: N / (6 d + N) is a half
        (24, 288, 1 / 4),  # a third of 6 * 288 = 1728
        (12, 24, 1 / 2),
        (24, 32, 3 / 4),  # three times 6 * 32 = 192
    ],
)
def test_attention_is_half_of_a_block_s_products_at_6_d_tokens(side, width, share):
    changes = {"width": width, "heads": 2, "hidden": 4 * width, "depth": 1, "pool": "average"}
    rows = describe("vit/Ti1", side, **changes).rows
    macs = {row.path: flops.compute_formula(row.macs) for row in rows if row.path.startswith("blocks/0/")}
    assert macs["blocks/0/attention/attend"] == 2 * side**4 * width  # 2 N^2 d, N = side^2
    assert macs["blocks/0/attention/attend"] == share * sum(macs.values())


@pytest.mark.parametrize(
    ("form", "growth"),
    # twice the tokens: four times the pairs, twice the queries
    [("all at once", 4), ("128 queries at a time", 2)],
)
def test_memory_of_attention_grows_with_the_square_only_where_all_scores_are_held(attention_cost, form, growth):
    """From 2,048 tokens on the CPU compiler of jax 0.12 never holds all scores, whatever the program says."""
    programs = [attention_cost.compile_attention(form, tokens) for tokens in (512, 1024)]
    small, large = map(attention_cost.planned_bytes, programs)
    assert large / small == pytest.approx(growth, rel=0.1)


@pytest.mark.parametrize("form", ["all at once", "JAX's function", "128 queries at a time"])
def test_each_form_of_attention_is_attention(attention_cost, form):
    tokens, heads, head_width = 256, 2, 64  # two blocks of 128 queries
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, tokens, heads, head_width)).astype(np.float32)
    expected = np.empty((1, tokens, heads, head_width))
    for head in range(heads):
        scores = q[0, :, head] @ k[0, :, head].T.astype(float) / 8  # sqrt(64)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        expected[0, :, head] = weights / weights.sum(1, keepdims=True) @ v[0, :, head]
    np.testing.assert_allclose(attention_cost.compile_attention(form, tokens)(q, k, v), expected, rtol=1e-4, atol=1e-6)


def test_a_ratio_far_below_four_is_as_far_from_four_as_one_far_above(attention_cost):
    """Patches of half the side that cost 1.5 times, and pixels that cost 13 times, are both not four times."""
    networks = {16: 1.0, 8: 1.5, 4: 6.0, 2: 24.0, 1: 312.0}
    rows = []
    for seed in range(3):
        for patch, seconds in networks.items():
            tokens = (64 // patch) ** 2
            rows.append(
                {"what": "vit", "image": 64, "patch": patch, "tokens": tokens, "seconds": seconds, "seed": seed}
            )
        for tokens in (16, 64):
            row = {"what": "vit", "image": 4 * int(tokens**0.5), "patch": 4, "tokens": tokens, "seconds": 1.0}
            rows.append(row | {"seed": seed})
        for tokens in (256, 4096):
            row = {"tokens": tokens, "seconds": float(tokens), "seed": seed}
            rows += [row | {"what": "attention", "form": "all at once"}, row | {"what": "block", "form": "all at once"}]
    below, above = attention_cost.weigh_times(rows)["patch"]
    assert (below.values, below.outcome) == ((2.5,) * 3, "false")
    assert (above.values, above.outcome) == ((9.0,) * 3, "false")
