"""What attention costs: half of a block's products at 6 d tokens, and memory for all pairs only where they are held."""

import jax
import numpy as np
import pytest

from cnn_vit import compilation
from cnn_vit.analysis import flops
from cnn_vit.analysis.table import describe
from cnn_vit.compilation import ProgramKind
from cnn_vit.nn.attention import attend


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


HEADS, HEAD_WIDTH, BLOCK = 2, 16, 32


def attend_in_blocks(q, k, v):
    """Attention for BLOCK queries at a time."""
    queries = q.reshape(-1, 1, BLOCK, HEADS, HEAD_WIDTH)
    return jax.lax.map(lambda part: attend(part, k, v), queries).reshape(q.shape)


def compile_attention(function, tokens):
    shape = jax.ShapeDtypeStruct((1, tokens, HEADS, HEAD_WIDTH), np.float32)
    kind = ProgramKind("cpu", convolutional=False, dtype="float32")
    return compilation.jit(function, kind).lower(shape, shape, shape).compile()


@pytest.mark.parametrize(
    ("function", "growth"),
    [(attend, 4), (attend_in_blocks, 2)],  # twice the tokens: four times the pairs, twice the queries
    ids=["all_at_once", "in_blocks"],
)
def test_memory_of_attention_grows_with_the_square_only_where_all_scores_are_held(function, growth):
    small, large = (compile_attention(function, tokens).memory_analysis() for tokens in (1024, 2048))
    assert large.temp_size_in_bytes / small.temp_size_in_bytes == pytest.approx(growth, rel=0.1)


def test_attention_of_some_queries_at_a_time_is_attention():
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 128, HEADS, HEAD_WIDTH)).astype(np.float32)
    expected = np.empty((1, 128, HEADS, HEAD_WIDTH))
    for head in range(HEADS):
        scores = q[0, :, head] @ k[0, :, head].T.astype(float) / 4  # sqrt(16)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        expected[0, :, head] = weights / weights.sum(1, keepdims=True) @ v[0, :, head]
    np.testing.assert_allclose(compile_attention(attend_in_blocks, 128)(q, k, v), expected, rtol=1e-4, atol=1e-6)
