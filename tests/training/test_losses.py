"""Losses against hand arithmetic and float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.utils.class_weight import compute_class_weight

from cnn_vit.errors import UserError
from cnn_vit.training import losses

few_examples = settings(max_examples=20, deadline=None, derandomize=True, database=None)
SCORES = hnp.arrays(np.float32, (3, 4), elements=st.floats(-80, 80, width=32))
WEIGHTS = hnp.arrays(np.float32, (3, 4), elements=st.floats(0.125, 1, width=32))


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def to_distribution(weights):
    """Divides each row by its sum."""
    return weights / weights.sum(1, keepdims=True)


@few_examples
@given(scores=SCORES, weights=WEIGHTS)
def test_softmax_is_minus_the_expected_log_probability(scores, weights):
    target, exact_scores = to_distribution(weights), np.float64(scores)
    highest = exact_scores.max(1)
    log_sum = np.log(np.exp(exact_scores - highest[:, None]).sum(1)) + highest
    expected = log_sum - (np.float64(target) * exact_scores).sum(1)
    np.testing.assert_allclose(losses.softmax_cross_entropy(scores, target), expected, rtol=1e-5, atol=1e-4)


@few_examples
@given(scores=SCORES, weights=WEIGHTS)
def test_sigmoid_sums_a_binary_cross_entropy_of_each_class(scores, weights):
    target, exact_scores = np.float64(to_distribution(weights)), np.float64(scores)
    log_yes, log_no = -np.logaddexp(0, -exact_scores), -np.logaddexp(0, exact_scores)
    expected = -(target * log_yes + (1 - target) * log_no).sum(1)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(scores, np.float32(target)), expected, rtol=1e-5, atol=1e-4)


@few_examples
@given(scores=SCORES, gamma=st.sampled_from([0.0, 0.5, 2.0, 5.0]), alpha=st.sampled_from([None, 0.25]))
def test_focal_is_the_papers_sum_over_classes(scores, gamma, alpha):
    """Lin et al., equation 5: -alpha_t (1 - p_t)^gamma log p_t, p_t the probability of what is true of each class."""
    target, exact_scores = np.eye(4)[[2, 0, 3]], np.float64(scores)
    sign = 2 * target - 1
    log_true, log_false = -np.logaddexp(0, -sign * exact_scores), -np.logaddexp(0, sign * exact_scores)
    balance = 1 if alpha is None else np.where(target == 1, alpha, 1 - alpha)
    expected = (-balance * np.exp(gamma * log_false) * log_true).sum(1)
    focal = losses.sigmoid_focal(scores, np.float32(target), gamma=gamma, alpha=alpha)
    np.testing.assert_allclose(focal, expected, rtol=1e-4, atol=1e-4)


def test_focal_without_gamma_is_the_sigmoid_loss_also_of_mixtures_and_weights():
    rng = np.random.default_rng(0)
    scores, weight = rng.normal(0, 3, (20, 5)).astype(np.float32), rng.uniform(0.5, 2, 5).astype(np.float32)
    target = to_distribution(rng.random((20, 5), np.float32))
    expected = losses.sigmoid_cross_entropy(scores, target, weight)
    np.testing.assert_allclose(losses.sigmoid_focal(scores, target, weight, gamma=0.0), expected, rtol=1e-5)


def test_a_loss_brings_its_probabilities():
    scores = jnp.array([[0.0, np.log(3.0)]])
    expected = {"softmax": [0.25, 0.75], "sigmoid": [0.5, 0.75], "focal": [0.5, 0.75]}
    assert expected.keys() == losses.LOSSES.keys()
    for name, probabilities in expected.items():
        np.testing.assert_allclose(losses.get_loss(name).probabilities(scores), [probabilities], rtol=1e-6)
    with pytest.raises(UserError, match="no loss 'softmx'; did you mean softmax"):
        losses.get_loss("softmx")


def test_equal_scores_cost_log_k_and_k_log_2():
    scores, target = jnp.zeros((2, 10)), jnp.eye(2, 10)
    np.testing.assert_allclose(losses.softmax_cross_entropy(scores, target), [np.log(10)] * 2, rtol=1e-6)
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(scores, target), [10 * np.log(2)] * 2, rtol=1e-6)


def test_the_gradient_of_softmax_is_probability_minus_target():
    scores, target = jnp.array([[1.0, -2.0, 0.5]]), jnp.array([[0.2, 0.1, 0.7]])
    gradient = jax.grad(lambda scores: losses.softmax_cross_entropy(scores, target).sum())(scores)
    probabilities = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(gradient, probabilities - target, atol=1e-6)


@pytest.mark.parametrize("name", list(losses.LOSSES))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loss_is_float32_one_number_per_example_and_finite_far_out(name, dtype):
    scores = jnp.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    loss = losses.LOSSES[name].cost(scores, jnp.eye(2))
    assert (loss.shape, loss.dtype) == ((2,), jnp.float32)
    np.testing.assert_allclose(loss, [0, 0], atol=1e-6)
    assert np.isfinite(losses.LOSSES[name].cost(scores, 1 - jnp.eye(2))).all()


def test_smoothing_spreads_a_tenth_over_all_ten_classes():
    smoothed = losses.smooth_labels(jnp.eye(3, 10), 0.1)
    expected = np.full((3, 10), 0.01)
    expected[range(3), range(3)] = 0.91  # Szegedy et al., section 7: (1 - e) + e / K
    np.testing.assert_allclose(smoothed, expected, atol=1e-7)


def test_the_least_loss_under_smoothing_is_the_targets_entropy():
    target = losses.smooth_labels(jnp.eye(1, 10), 0.1)
    np.testing.assert_allclose(losses.softmax_cross_entropy(jnp.log(target), target), [0.500288], atol=1e-6)


def test_smoothing_by_zero_keeps_a_mixed_target_and_another_amount_traces_nothing_anew():
    traces = []

    @jax.jit
    def smooth(target, amount):
        traces.append(amount)
        return losses.smooth_labels(target, amount)

    target = jnp.array([[0.25, 0.75, 0.0]])
    np.testing.assert_array_equal(smooth(target, 0.0), target)
    np.testing.assert_allclose(smooth(target, 0.6), [[0.3, 0.5, 0.2]], atol=1e-6)
    assert len(traces) == 1


# Weights of classes ---------------------------------------------------------------------------------------------------


def test_a_class_counts_with_its_weight_and_a_mixture_with_those_of_its_parts():
    """The scores ln 3 and 0 are probabilities 3/4 and 1/4 of a softmax, 3/4 and 1/2 of sigmoids."""
    scores, weight = jnp.log(jnp.array([[3.0, 1.0]] * 3)), jnp.array([2.0, 4.0])
    target = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    first, second = np.log(4 / 3), np.log(4)
    expected = [2 * first, 4 * second, 0.25 * 2 * first + 0.75 * 4 * second]
    np.testing.assert_allclose(losses.softmax_cross_entropy(scores, target, weight), expected, rtol=1e-6)
    first, second = np.log(4 / 3) + np.log(2), np.log(4) + np.log(2)
    expected = [2 * first, 4 * second, 0.25 * 2 * first + 0.75 * 4 * second]
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(scores, target, weight), expected, rtol=1e-6)


@few_examples
@given(scores=SCORES, weights=WEIGHTS, counts=hnp.arrays(np.float32, 4, elements=st.floats(0.125, 8, width=32)))
def test_a_weighted_loss_is_the_sum_of_what_each_class_would_cost(scores, weights, counts):
    target = to_distribution(weights)
    for name, loss in losses.LOSSES.items():
        costs = []
        for label in range(4):
            only_this_class = np.eye(4, dtype=np.float32)[[label] * 3]
            costs.append(loss.cost(scores, only_this_class))
        expected = (np.float64(target) * counts * np.stack(costs, 1)).sum(1)
        np.testing.assert_allclose(loss.cost(scores, target, counts), expected, rtol=1e-5, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", list(losses.LOSSES))
def test_weights_of_one_change_no_bit(name):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 9, (50, 7)).astype(np.float32)
    target = to_distribution(rng.random((50, 7), np.float32))
    loss = jax.jit(losses.LOSSES[name].cost)
    np.testing.assert_array_equal(loss(scores, target, np.ones(7, np.float32)), loss(scores, target))


def test_balanced_weights_are_those_of_scikit_learn_and_one_on_average():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = losses.balanced_class_weights(labels, 3)
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 3], rtol=1e-6)  # n / (classes x count)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)
