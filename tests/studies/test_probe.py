"""Probes against plain scikit-learn and NumPy, on features that NumPy computes; chance; choices, ties and notes."""

from dataclasses import replace

import numpy as np
import pytest
import threadpoolctl
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from stepping import make_network_spec

from cnn_vit import data
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.reports.intervals import wilson_interval
from cnn_vit.studies import probe
from cnn_vit.training import forward
from cnn_vit.training.trained import Trained

DIMENSIONS = 16
TRAIN, TESTED = 300, 200  # images


def make_trained():
    """An untrained network for the digits: its features are 16 random directions, rectified."""
    spec = make_network_spec("mlp/test", classes=4, side=8, hidden=(DIMENSIONS,))
    params, stats = initial_values(forward.get_network(spec), seed=1)
    preprocessing = dict(mean=[0.3], std=[0.4], image_size=[8, 8], channels=1, fit="crop", levels=None)
    return Trained(spec, params, stats, ("a", "b", "c", "d"), preprocessing | {"max_pixels": 50_000_000})


def compute_features(network, split):
    """The features of a split, by NumPy in float64."""
    images = split.read(np.arange(len(split))).astype(np.float64)
    pixels = ((images / 255 - 0.3) / 0.4).reshape(len(split), -1)
    layer = network.params["hidden"]["layers"][0]
    return np.maximum(pixels @ layer["kernel"] + layer["bias"], 0)


@pytest.fixture(scope="module")
def digits():
    """Some of the digits, without a fingerprint, so that no features are kept."""
    dataset = data.load({"name": "digits"})
    parts = {"train": TRAIN, "validation": 144, "test": TESTED}
    splits = {name: dataset.splits[name].select(np.arange(count)) for name, count in parts.items()}
    return replace(dataset, splits=splits, fingerprint="")


@pytest.fixture(scope="module")
def network():
    return make_trained()


@pytest.fixture(scope="module")
def result(network, digits):
    return probe.probe(network, digits, draws=3)


def with_labels(dataset, split, labels):
    """The data set with other labels in a split."""
    return replace(dataset, splits=dataset.splits | {split: replace(dataset.splits[split], labels=labels)})


# Against other implementations ----------------------------------------------------------------------------------------


def test_the_linear_probe_is_scikit_learn_s_on_features_of_numpy(network, digits, result):
    rows = {name: compute_features(network, split) for name, split in digits.splits.items()}
    labels = {name: split.labels for name, split in digits.splits.items()}
    correct = {}
    for strength in probe.STRENGTHS:
        logistic = LogisticRegression(C=1 / (strength * TRAIN), max_iter=5000, tol=1e-6)
        with probe.one_thread():
            classifier = make_pipeline(StandardScaler(), logistic).fit(rows["train"], labels["train"])
        correct[strength] = [int((classifier.predict(rows[s]) == labels[s]).sum()) for s in ("validation", "test")]
    # An image on the border between two classes may fall to either side by rounding.
    for strength, accuracy in result.linear.tried.items():
        assert abs(accuracy.correct - correct[strength][0]) <= 1
    assert abs(result.linear.test.correct - correct[result.linear.chosen][1]) <= 1
    assert (result.linear.test.split, result.linear.test.n) == ("test", TESTED)
    assert result.linear.test.correct > 0.6 * TESTED
    assert result.linear.test.interval == wilson_interval(result.linear.test.correct, TESTED)
    assert result.linear.to_json()["test"]["accuracy"] == result.linear.test.correct / TESTED


def test_the_strength_weighs_the_squared_weights_against_the_mean_loss():
    """At the minimum of mean cross-entropy + s/2 |W|^2, the gradient by hand is zero."""
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(90, 4)), rng.integers(0, 3, 90)
    strength = 0.03
    classifier, is_converged = probe.fit_linear(rows, labels, strength)
    assert is_converged
    scores = rows @ classifier.coef_.T + classifier.intercept_
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    errors = probabilities - np.eye(3)[labels]
    np.testing.assert_allclose(errors.T @ rows / 90 + strength * classifier.coef_, 0, atol=1e-4)
    np.testing.assert_allclose(errors.mean(0), 0, atol=1e-4)
    assert np.abs(strength * classifier.coef_).max() > 2e-3  # so that another strength would be seen


def classify_by_brute_force(train_rows, train_labels, rows, k):
    """K-nearest by the book: every cosine, a sort, a count; of equal counts the class whose image comes first."""
    predicted = []
    for row in rows:
        cosines = [row @ other / (np.linalg.norm(row) * np.linalg.norm(other)) for other in train_rows]
        nearest = train_labels[np.argsort(-np.array(cosines), kind="stable")[:k]].tolist()
        most = max(nearest.count(label) for label in nearest)
        predicted.append(next(label for label in nearest if nearest.count(label) == most))
    return np.array(predicted)


def test_k_nearest_is_that_by_brute_force(network, digits, result):
    train, test = digits.splits["train"], digits.splits["test"].select(np.arange(60))
    train_rows, rows = compute_features(network, train), compute_features(network, test)
    examples = probe.Examples("train", train_rows.astype(np.float32), train.labels)
    for k in (1, 5, 20):
        expected = classify_by_brute_force(train_rows, train.labels, rows, k)
        predicted = probe.vote(probe.find_nearest_labels(examples, rows.astype(np.float32), k))
        np.testing.assert_array_equal(predicted, expected)
    assert list(result.knn.tried) == [1, 5, 10, 20, 50, 100, 200]
    assert result.knn.test.correct > 0.6 * TESTED


def test_similarities_are_computed_in_blocks(digits, network, monkeypatch):
    rows = compute_features(network, digits.splits["test"]).astype(np.float32)
    train = probe.Examples("train", rows[50:], digits.splits["test"].labels[50:])
    whole = probe.find_nearest_labels(train, rows[:50], 7)
    monkeypatch.setattr(probe, "SIMILARITIES", 8 * len(rows[50:]))
    np.testing.assert_array_equal(probe.find_nearest_labels(train, rows[:50], 7), whole)


def test_fits_run_on_one_thread_whatever_the_number_of_cores(network, digits, monkeypatch):
    threads = set()
    fit_linear = probe.fit_linear

    def count_threads(*words):
        threads.update(library["num_threads"] for library in threadpoolctl.threadpool_info())
        return fit_linear(*words)

    monkeypatch.setattr(probe, "fit_linear", count_threads)
    with threadpoolctl.threadpool_limits(2):
        probe.probe(network, digits, methods=["few_shot"], draws=2)
    assert threads == {1}


# Chance ---------------------------------------------------------------------------------------------------------------


def test_of_shuffled_labels_nothing_is_learned(network, digits):
    rng = np.random.default_rng(0)
    shuffled = digits
    for name, split in digits.splits.items():
        shuffled = with_labels(shuffled, name, rng.permutation(split.labels))
    result = probe.probe(network, shuffled, draws=2)
    standard_deviation = np.sqrt(0.1 * 0.9 / TESTED)
    for accuracy in (result.linear.test, result.knn.test):
        assert abs(accuracy.interval.estimate - 0.1) < 4 * standard_deviation
    for few_shot in result.few_shot:
        assert abs(few_shot.interval.estimate - 0.1) < 4 * standard_deviation


def test_the_majority_is_the_share_of_train_s_most_frequent_class(digits, result):
    most_frequent = np.bincount(digits.splits["train"].labels).argmax()
    assert result.majority.correct == (digits.splits["test"].labels == most_frequent).sum()


# Choices --------------------------------------------------------------------------------------------------------------


def test_the_test_split_chooses_nothing(network, digits, result):
    labels = np.roll(digits.splits["test"].labels, 1)
    other = probe.probe(network, with_labels(digits, "test", labels), methods=["linear", "knn"])
    assert (other.linear.tried, other.knn.tried) == (result.linear.tried, result.knn.tried)
    assert (other.linear.chosen, other.knn.chosen) == (result.linear.chosen, result.knn.chosen)
    assert other.linear.test.correct < result.linear.test.correct
    assert other.few_shot == ()


def test_the_chosen_number_has_the_highest_accuracy_and_is_the_first_of_equal_ones():
    counts = {100.0: 3, 10.0: 7, 1.0: 7, 0.1: 5}
    tried = {value: probe.Accuracy("validation", correct, 9) for value, correct in counts.items()}
    assert probe.choose_first_best(tried) == 10.0


def test_of_equally_frequent_classes_that_of_the_nearest_image_wins():
    nearest_labels = np.array([[2, 0, 0, 2, 1], [1, 0, 0, 2, 2], [3, 1, 1, 1, 3], [4, 3, 2, 1, 0]])
    assert probe.vote(nearest_labels).tolist() == [2, 0, 1, 4]


def test_of_equally_similar_images_the_earlier_is_nearer():
    values = np.array([[1.0, 3, 2, 3, 2, 2, 0], [5, 5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5, 6]])
    expected = [[1, 3, 2, 4], [0, 1, 2, 3], [6, 5, 4, 3]]
    assert probe.find_largest(values, 4).tolist() == expected
    assert probe.find_largest(values, 7)[:, :4].tolist() == expected
    often_equal = np.random.default_rng(0).integers(0, 4, (40, 60)).astype(np.float64)
    sorted_wholly = np.argsort(-often_equal, axis=1, kind="stable")
    for k in (1, 5, 20, 60):
        np.testing.assert_array_equal(probe.find_largest(often_equal, k), sorted_wholly[:, :k])


def test_a_row_of_zeros_is_as_similar_to_all():
    train = probe.Examples("train", np.float32([[1, 0], [0, 1], [0, 0]]), np.array([2, 1, 0]))
    assert probe.find_nearest_labels(train, np.float32([[0, 0]]), 3).tolist() == [[2, 1, 0]]
    train = probe.Examples("train", np.float32([[-1, 0], [0, 0], [1, 0]]), np.array([2, 1, 0]))
    assert probe.find_nearest_labels(train, np.float32([[1, 0]]), 3).tolist() == [[0, 1, 2]]  # cosines 1, 0, -1


def test_features_that_are_constant_but_for_rounding_become_zero():
    rows = np.array([[1.0, 5, 7], [3, 5, 7 + 1e-9], [5, 5, 7]], np.float64)
    standardized = probe.fit_standardizer(rows)(rows)
    root = np.sqrt(1.5)  # of 1, 3, 5: mean 3, standard deviation sqrt(8/3)
    np.testing.assert_allclose(standardized, [[-root, 0, 0], [0, 0, 0], [root, 0, 0]], atol=1e-12)


def make_line(counts, *, noise, seed=0):
    """Examples of two classes on a line, which the sign of a number tells but for noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], counts).astype(np.int32)
    rows = (2 * labels[:, None] - 1 + noise * rng.normal(size=(len(labels), 1))).astype(np.float32)
    return rows, labels


class OnlyWeakest:
    """A classifier of `make_line` that is right at the weakest regularization, and wrong at all others."""

    def __init__(self, strength):
        self.is_right = strength == probe.STRENGTHS[-1]

    def predict(self, rows):
        return (rows[:, 0] > 0) == self.is_right

    def decision_function(self, rows):
        return np.where(self.predict(rows), 1.0, -1.0)


def test_scores_of_neighbors_are_votes_with_one_more_for_each_class():
    train = probe.Examples("train", np.zeros((3, 1), np.float32), np.array([0, 1, 2]))
    answers = probe.answer_by_vote(np.array([[0, 0, 1], [2, 1, 1]]), train)
    # 2, 1 and 0 of 3 votes become 3, 2 and 1 of 6
    np.testing.assert_allclose(np.exp(answers.scores), [[3 / 6, 2 / 6, 1 / 6], [1 / 6, 3 / 6, 2 / 6]])
    np.testing.assert_array_equal(answers.predicted, [0, 1])
    tied = probe.answer_by_vote(np.array([[2, 1]]), train)
    np.testing.assert_array_equal(tied.predicted, [2])  # of equal votes the nearest


def test_scores_of_two_classes_are_zero_and_that_of_the_second():
    rows, labels = make_line((5, 5), noise=0.1)
    classifier, _ = probe.fit_linear(rows, labels, 0.1)
    answers = probe.answer_linearly(classifier, rows)
    probabilities = np.exp(answers.scores) / np.exp(answers.scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, classifier.predict_proba(rows), rtol=1e-6)
    np.testing.assert_array_equal(answers.predicted, answers.scores.argmax(1))


def test_a_choice_at_the_edge_of_what_was_tried_is_said(monkeypatch):
    rows, labels = make_line((5, 5), noise=0.1)
    train = probe.Examples("train", rows, labels)
    easy = probe.probe_linearly(train, probe.Examples("validation", rows, labels), None)
    assert (easy.chosen, easy.notes, easy.test) == (100.0, (), None)  # all are as good, so that no edge matters
    monkeypatch.setattr(probe, "fit_linear", lambda _rows, _labels, strength: (OnlyWeakest(strength), False))
    edge = probe.probe_linearly(train, probe.Examples("validation", rows, labels), None)
    assert edge.chosen == 1e-5
    assert edge.notes == (
        "the regularization 1e-05 lies at the edge of what was tried, 100 to 1e-05; beyond it the linear probe may be "
        "better",
        "the linear probe was still improving after 2,000 steps of L-BFGS",
    )


def test_the_largest_k_is_said_to_be_the_largest_only_where_it_is_better():
    rows = np.float32([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4]])
    train = probe.Examples("train", rows, np.array([0, 1, 1, 1, 1]))
    query = np.float32([[1, -0.1]])  # nearest to the first, whose class is 0
    largest = probe.probe_neighbors(train, probe.Examples("validation", query, np.array([1])), None)
    assert (list(largest.tried), largest.chosen) == ([1, 5], 5)
    assert largest.notes == ("k=5 is the largest that was tried; with more neighbors k-nearest may be better",)
    smallest = probe.probe_neighbors(train, probe.Examples("validation", query, np.array([0])), None)
    assert (smallest.chosen, smallest.notes) == (1, ())


# Few-shot -------------------------------------------------------------------------------------------------------------


def test_few_shot_is_fitted_on_so_many_images_of_each_class_and_draws_hold_one_another(monkeypatch):
    rows = np.arange(120, dtype=np.float32)[:, None]  # each image is its own number
    train = probe.Examples("train", rows, np.repeat([0, 1, 2], 40).astype(np.int32))
    fits = []
    fit_linear = probe.fit_linear

    def record_fit(rows, labels, strength):
        assert strength == probe.FEW_SHOT_STRENGTH
        fits.append((np.round(rows[:, 0], 6), labels))
        return fit_linear(rows, labels, strength)

    monkeypatch.setattr(probe, "fit_linear", record_fit)
    probes, notes = probe.probe_few_shot(train, train, ("a", "b", "c"), seed=0, draws=2)
    assert [few_shot.shots for few_shot in probes] == [1, 5, 10, 25]
    assert [np.bincount(labels).tolist() for _, labels in fits] == [[s] * 3 for s in (1, 1, 5, 5, 10, 10, 25, 25)]
    for draw in (0, 1):
        drawn = [set(fits[2 * number + draw][0].tolist()) for number in range(4)]
        assert [len(images) for images in drawn] == [3, 15, 30, 75]
        assert drawn[0] < drawn[1] < drawn[2] < drawn[3]
    assert set(fits[2][0].tolist()) != set(fits[3][0].tolist())
    assert notes[0] == (
        "few-shot with 25 images a class takes more than half of the 40 training images of a: its draws share images, "
        "and its interval is too narrow"
    )


def test_the_interval_is_student_s_over_draws(result):
    few_shot = result.few_shot[0]
    assert (few_shot.shots, few_shot.split, few_shot.n, len(few_shot.accuracies)) == (1, "test", TESTED, 3)
    mean, error = np.mean(few_shot.accuracies), stats.sem(few_shot.accuracies)
    half = 4.302652729911275 * error  # Student's 97.5 % quantile at two degrees of freedom, of any table
    np.testing.assert_allclose(few_shot.interval, (mean, mean - half, mean + half), rtol=1e-9)
    means = [shots.interval.estimate for shots in result.few_shot]
    assert means[-1] > means[0] + 0.1  # more images a class tell more


def test_few_tested_images_are_said_to_leave_more_open_than_the_draws_do(monkeypatch):
    rows, labels = make_line((30, 30), noise=0.0)
    train = probe.Examples("train", rows, labels)
    tested = probe.Examples("test", rows[26:34], labels[26:34])
    probes, notes = probe.probe_few_shot(train, tested, ("a", "b"), seed=0, draws=3)
    assert probes[-1].interval == (1, 1, 1)  # each draw is right on all of the eight images
    # Wilson's interval of 8 of 8: its lower end is 8 / (8 + 1.96^2) = 67.6 %
    assert notes[-1] == (
        "the intervals of few-shot are over draws alone: that no more than 8 images were tested leaves the accuracy of "
        "25 images a class open from 67.6 to 100.0 %"
    )
    many = probe.Examples("test", np.tile(rows, (500, 1)), np.tile(labels, 500))
    monkeypatch.setattr(probe, "student_interval", lambda accuracies: probe.Interval(1.0, 0.9, 1.1))
    assert not any("draws alone" in note for note in probe.probe_few_shot(train, many, "ab", seed=0, draws=2)[1])


def test_the_same_seed_draws_the_same_and_another_seed_others(network, digits, result):
    again = probe.probe(network, digits, methods=["few_shot"], draws=3)
    assert again.few_shot == result.few_shot
    assert (again.linear, again.knn) == (None, None)
    other = probe.probe(network, digits, methods=["few_shot"], draws=3, seed=1)
    assert other.few_shot[0].accuracies != result.few_shot[0].accuracies


def test_shots_that_a_class_has_no_images_for_are_left_out_with_a_note():
    rows, labels = make_line((10, 30), noise=1.0)
    train = probe.Examples("train", rows, labels)
    probes, notes = probe.probe_few_shot(train, train, ("rare", "frequent"), seed=0, draws=2)
    assert [few_shot.shots for few_shot in probes] == [1, 5]
    assert notes[0] == (
        "few-shot with 10 and 25 images a class is left out: rare has 10 training images, so that each draw would take "
        "the same"
    )


# Splits, classes and refusals -----------------------------------------------------------------------------------------


def test_without_a_test_split_validation_is_shown_and_said_to_be_too_high(network, digits):
    splits = {name: digits.splits[name] for name in ("train", "validation")}
    result = probe.probe(network, replace(digits, splits=splits), draws=2)
    assert (result.linear.test, result.knn.test) == (None, None)
    assert {few_shot.split for few_shot in result.few_shot} == {"validation"}
    assert result.majority.split == "validation"
    assert any("the data have no test split: linear and knn stand at the best" in note for note in result.notes)
    alone = probe.probe(network, replace(digits, splits=splits), methods=["few_shot"], draws=2)
    assert not any("no test split" in note for note in alone.notes)  # of few-shot nothing is chosen


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        (dict(methods=["lienar"]), "no method of probe 'lienar'; did you mean linear"),
        (dict(methods=[]), "methods names none; give some of linear, knn, few_shot"),
        (dict(draws=1), "draws=1 gives no interval"),
        (dict(seed=-1), "seed=-1 is negative"),
        (dict(layer="hidden/layer/0"), "did you mean hidden/layers/0"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(network, digits, keywords, sentence):
    with pytest.raises(UserError, match=sentence):
        probe.probe(network, digits, **keywords)


def test_numbers_that_are_not_finite_are_refused(network, digits):
    params = {**network.params, "hidden": {"layers": {0: {**network.params["hidden"]["layers"][0]}}}}
    params["hidden"]["layers"][0]["bias"] = np.full(DIMENSIONS, np.nan, np.float32)
    with pytest.raises(UserError, match="features of mlp/test has numbers that are not finite"):
        probe.probe(replace(network, params=params), digits)
