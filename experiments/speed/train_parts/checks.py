"""What has to be equal before anything is timed: parameters, scores, losses, threads."""

from typing import Any

import numpy as np

# The most by which an arm may differ, by whether it computes in bfloat16, whose numbers have 8 bits.
# Of the largest score: sums of thousands of float32 products in another order differ by 1e-7 to 1e-5 of it.
MOST_SCORES = {False: 1e-3, True: 5e-2}
# In float32 of what three steps change the loss by: rounding is below 1e-3 of that, a missing momentum a third. In
# bfloat16 of the loss itself, because rounding alone may be as large as the change.
MOST_LOSSES = {False: 1e-2, True: 5e-2}


def find_difference(ready: dict[str, Any], expected: dict[str, Any], *, is_bfloat16: bool = False) -> str:
    """Returns what keeps an arm from being compared with another, a sentence; "" where nothing does.

    Args:
        ready: what the arm said when it was ready.
        expected: what the arm said that it is compared with.
        is_bfloat16: whether one of the two computes in bfloat16.
    """
    if ready["device"] != expected["device"]:
        return f"it runs on a {ready['device']}, not on a {expected['device']}"
    for name in ("parameters", "cores", "threads"):
        if ready[name] != expected[name]:
            return f"it has {ready[name]:,} {name}, not {expected[name]:,}"
    scores, expected_scores = np.asarray(ready["scores"]), np.asarray(expected["scores"])
    if scores.shape != expected_scores.shape:
        return f"its scores are {scores.shape}, not {expected_scores.shape}"
    difference = float(np.abs(scores - expected_scores).max() / np.abs(expected_scores).max())
    if not difference <= MOST_SCORES[is_bfloat16]:  # nan is no small difference either
        return f"its scores differ by {difference:.2g} of the largest, more than {MOST_SCORES[is_bfloat16]:g}"
    losses, expected_losses = ready["losses"], expected["losses"]
    scale = expected_losses[0] if is_bfloat16 else max(expected_losses) - min(expected_losses)
    for number, (loss, expected_loss) in enumerate(zip(losses, expected_losses, strict=True), 1):
        if not abs(loss - expected_loss) <= MOST_LOSSES[is_bfloat16] * scale:
            return f"its loss is {loss:.5f} at step {number}, not {expected_loss:.5f}"
    return ""
