"""Successive halving: all trials begin, and after each rung the best of them go on.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
arXiv:1502.07943. Rungs are synchronous: all trials of a rung are over before anything is decided, so that neither speed
nor number of workers decides anything. A trial that goes on does so from its checkpoint, with the schedule of its full
duration; one that does not is pruned, and keeps the numbers that it had.
"""

from collections.abc import Mapping, Sequence

from cnn_vit.studies.sweeping.ledger import Plan, PlanRow


def common_rungs(plan: Plan) -> tuple[int, ...]:
    """Returns the steps at which the rungs of all trials end, the last one being their end; () without halving."""
    return next((row.rungs for row in plan.rows if row.rungs), ())


def count_rungs(plan: Plan) -> int:
    """Returns how many rungs the trials of a plan have; 1 without halving."""
    return len(common_rungs(plan)) or 1


def candidates(plan: Plan, rung: int) -> list[int]:
    """Returns the suggestions that take part in a rung; those of the rungs before are decided."""
    if rung == 0:
        return list(range(plan.suggestions))
    return list(plan.rungs[rung - 1].suggestions)


def is_decided(plan: Plan, suggestion: int) -> bool:
    """Whether a suggestion did not go on beyond a rung, so that none of its trials is done any more."""
    return bool(plan.rungs) and suggestion not in plan.rungs[-1].suggestions


def last_step(row: PlanRow, rung: int) -> int | None:
    """Returns the step at which a trial waits in a rung; None where that rung is its last."""
    if rung >= len(row.rungs) - 1:
        return None
    return row.rungs[rung]


def choose_survivors(metrics: Mapping[int, float | None], eta: int) -> tuple[int, ...]:
    """Returns the suggestions that go on: one in `eta`, rounded down, but at least one that has a number.

    Args:
        metrics: by suggestion, larger is better; None of one that has failed. Of equal ones the earlier is better.
        eta: of the halving.
    """
    ranked: list[tuple[float, int]] = []
    for suggestion, metric in metrics.items():
        if metric is not None:
            ranked.append((-metric, suggestion))
    ranked.sort()
    survivors = max(1, len(metrics) // eta)
    return tuple(suggestion for _, suggestion in ranked[:survivors])


def describe_pruning(plan: Plan, rung: int, row: PlanRow, survivors: Sequence[int]) -> str:
    """Says why a trial was pruned at the end of a rung."""
    entered = len(candidates(plan, rung))
    return (
        f"not among the best {len(survivors)} of {entered} at step {row.rungs[rung]}, the end of rung {rung + 1} of "
        f"{len(row.rungs)}"
    )


def expected_steps(plan: Plan, eta: int, trials: int, seeds: int) -> int:
    """Returns how many steps all trials of a halving will train together, as if each had the steps of the first."""
    total = 0
    suggestions, before = trials, 0
    for step in common_rungs(plan) or (1,):
        total += suggestions * seeds * (step - before)
        suggestions, before = max(1, suggestions // eta), step
    return total
