"""What has to be equal before anything is timed: parameters, scores, losses, threads."""

from typing import Any

import numpy as np

# Shares of the largest score, and of the loss. Sums of thousands of float32 products in another order differ by 1e-7 to
# 1e-5 of the largest score, and each layer adds to that; three updates multiply it. A bfloat16 has 8 bits.
TOLERANCES = {"float32": (1e-3, 1e-2), "bfloat16": (5e-2, 5e-2)}


def find_difference(ready: dict[str, Any], expected: dict[str, Any], *, is_bfloat16: bool = False) -> str:
    """Returns what keeps an arm from being compared with another, a sentence; "" where nothing does.

    Args:
        ready: what the arm said when it was ready.
        expected: what the arm said that it is compared with.
        is_bfloat16: whether one of the two computes in bfloat16.
    """
    most_score_difference, most_loss_difference = TOLERANCES["bfloat16" if is_bfloat16 else "float32"]
    for name in ("parameters", "cores", "threads"):
        if ready[name] != expected[name]:
            return f"it has {ready[name]:,} {name}, not {expected[name]:,}"
    scores, expected_scores = np.asarray(ready["scores"]), np.asarray(expected["scores"])
    if scores.shape != expected_scores.shape:
        return f"its scores are {scores.shape}, not {expected_scores.shape}"
    difference = float(np.abs(scores - expected_scores).max() / np.abs(expected_scores).max())
    if not difference <= most_score_difference:  # nan is no small difference either
        return f"its scores differ by {difference:.2g} of the largest, more than {most_score_difference:g}"
    for number, (loss, expected_loss) in enumerate(zip(ready["losses"], expected["losses"], strict=True), 1):
        if not abs(loss - expected_loss) <= most_loss_difference * abs(expected_loss):
            return f"its loss is {loss:.4f} at step {number}, not {expected_loss:.4f}"
    return ""
