"""Probes: what the features of a trained network tell about the classes of any data, without training the network.

A linear probe fits one linear layer on the features (logistic regression) and so tells how much of the classes a plane
can separate. K-nearest compares images by the cosine of their features alone; nothing is fitted. Few-shot fits the
linear layer on a few images a class, drawn several times. What is chosen is chosen on validation; the test split, where
there is one, is read once for each method.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cnn_vit import data, stops
from cnn_vit.errors import UserError, printable_name, unknown
from cnn_vit.reports.intervals import Interval, student_interval, wilson_interval
from cnn_vit.training import evaluation, features
from cnn_vit.training.trained import Trained, refuse_untrained

METHODS = ("linear", "knn", "few_shot")
# Strengths s of the regularization: the mean loss of an image + s/2 times the squared weights is minimized.
STRENGTHS = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)
NEIGHBORS = (1, 5, 10, 20, 50, 100, 200)
SHOTS = (1, 5, 10, 25)  # images a class
# Fixed, since so few images leave none to choose it with. Of strengths from 0.001 to 10 it lost at most 2.5 points of
# mean validation accuracy to the best one: a ResNet-20 of CIFAR-10 on CIFAR-10, flowers, hymenoptera; an MLP on digits.
FEW_SHOT_STRENGTH = 0.1
DRAWS = 10
MOST_STEPS = 2_000  # of L-BFGS
TOLERANCE = 1e-5  # largest component of the gradient at which L-BFGS ends
FLAT = 1e-6  # share of the largest standard deviation below which a feature counts as constant
SIMILARITIES = 2**24  # cosines that are held at once


@dataclass(frozen=True)
class Accuracy:
    """How many images of a split were classified correctly.

    Attributes:
        split: validation or test.
        correct: number of images whose class is the predicted one.
        n: number of images.
    """

    split: str
    correct: int
    n: int

    @property
    def interval(self) -> Interval:
        """The share with its 95 % interval (Wilson), over other images of the same kind."""
        return wilson_interval(self.correct, self.n)

    def to_json(self) -> dict[str, Any]:
        """Returns the accuracy as plain values."""
        return {"accuracy": self.interval.estimate, "low": self.interval.low, "high": self.interval.high, "n": self.n}


class Answers(NamedTuple):
    """What a probe says of the images of a split, in the split's order.

    Attributes:
        predicted: (N,) the class that it answers.
        scores: (N, K), of which a softmax gives probabilities. Those of k-nearest are the logarithms of the classes'
            shares of the k votes, each class with one vote more, so that none is impossible (Laplace's rule).
    """

    predicted: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ChosenProbe:
    """A probe of which one number was chosen on validation.

    Attributes:
        method: "linear" or "knn".
        chosen: the strength of the regularization, or the number of neighbors.
        tried: validation accuracy of each number that was tried, in their order.
        test: accuracy with the chosen number; None where the data have no test split.
        notes: what one who reads the accuracy should know, a sentence each.
        answers: with the chosen number, of validation and of test where there is one.
    """

    method: str
    chosen: float
    tried: Mapping[float, Accuracy]
    test: Accuracy | None
    notes: tuple[str, ...]
    answers: Mapping[str, Answers] = field(default_factory=dict)

    @property
    def validation(self) -> Accuracy:
        """The accuracy by which the number was chosen."""
        return self.tried[self.chosen]

    def to_json(self) -> dict[str, Any]:
        """Returns the probe as plain values."""
        tried = [{"value": value, "accuracy": accuracy.interval.estimate} for value, accuracy in self.tried.items()]
        return {
            "chosen": self.chosen,
            "tried": tried,
            "validation": self.validation.to_json(),
            "test": None if self.test is None else self.test.to_json(),
        }


@dataclass(frozen=True)
class FewShotProbe:
    """Linear probes on a few images of each class, which were drawn several times.

    Attributes:
        shots: images of each class.
        split: that they were tested on: test, or validation where there is no test split.
        n: number of its images.
        accuracies: of each draw.
        interval: their mean with its 95 % interval (Student) over draws; the tested images are the same in each.
    """

    shots: int
    split: str
    n: int
    accuracies: tuple[float, ...]
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Returns the probes as plain values."""
        return {
            "shots": self.shots,
            "split": self.split,
            "n": self.n,
            "accuracies": list(self.accuracies),
            "mean": self.interval.estimate,
            "low": self.interval.low,
            "high": self.interval.high,
        }


@dataclass(frozen=True)
class ProbeResult:
    """What the probes of a network say about a data set.

    Attributes:
        model: name of the network.
        layer: whose output was probed; `features` is what the head sees.
        dimensions: numbers of an image.
        classes: of the data, in the order of the labels.
        counts: images of each split.
        fingerprint: of the data.
        from_cache: the splits whose features were computed before.
        linear, knn: None where they were not asked for.
        few_shot: by the number of shots, in their order; none where they were not asked for.
        majority: accuracy of always answering the most frequent class of train, for comparison.
        notes: what one who reads the accuracies should know, a sentence each.
    """

    model: str
    layer: str
    dimensions: int
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    fingerprint: str
    from_cache: tuple[str, ...]
    linear: ChosenProbe | None
    knn: ChosenProbe | None
    few_shot: tuple[FewShotProbe, ...]
    majority: Accuracy
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain values."""
        return {
            "model": self.model,
            "layer": self.layer,
            "dimensions": self.dimensions,
            "classes": list(self.classes),
            "counts": dict(self.counts),
            "fingerprint": self.fingerprint,
            "from_cache": list(self.from_cache),
            "linear": None if self.linear is None else self.linear.to_json(),
            "knn": None if self.knn is None else self.knn.to_json(),
            "few_shot": [few_shot.to_json() for few_shot in self.few_shot],
            "majority": {"split": self.majority.split, **self.majority.to_json()},
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Examples:
    """The features of a split with their labels.

    Attributes:
        split: train, validation or test.
        rows: (N, D) float32.
        labels: (N,) int32.
    """

    split: str
    rows: np.ndarray
    labels: np.ndarray

    def measure(self, predicted: np.ndarray) -> Accuracy:
        """Returns the accuracy of predicted labels, (N,)."""
        return Accuracy(self.split, int((predicted == self.labels).sum()), len(self.labels))


def probe(
    network: Trained,
    source: Any,
    *,
    layout: str | None = None,
    methods: Sequence[str] = METHODS,
    layer: str = features.FEATURES,
    seed: int = 0,
    draws: int = DRAWS,
    batch_size: int = evaluation.BATCH_SIZE,
) -> ProbeResult:
    """Probes the features of a trained network on data, whose classes need not be the network's.

    Each method that reads a test split adds a line to the test_reads.jsonl of the network's run.

    Args:
        network: what `load` returned.
        source: data as of `features.load_dataset`: a data set, the name of a data source, a path or a data section.
        layout: what the folders at a path are, "classes" or "splits"; None: their names tell.
        methods: some of METHODS.
        layer: path of the layer whose output is probed, averaged over pixels or tokens; `features`: what the head sees.
        seed: of the draws of few-shot, which alone are random.
        draws: how often few-shot draws its images.
        batch_size: images that are computed at once.

    Raises:
        UserError: an unknown method or layer, fewer than two draws, a negative seed, features that are not finite, or
            as `data.load`.
    """
    refuse_wrong_words(methods, seed, draws)
    refuse_untrained(network)
    features.check_layer(network.spec, layer, "mean", has_several_sizes=False)  # before the data, which may be large
    dataset = features.load_dataset(network, source, layout=layout)
    examples, from_cache = extract_examples(network, dataset, layer, batch_size=batch_size)
    train, validation, test = (examples.get(name) for name in ("train", "validation", "test"))
    if train is None or validation is None:
        raise UserError(f"probes need train and validation splits, and the data have {', '.join(examples)}")
    tested = validation if test is None else test

    linear: ChosenProbe | None = None
    knn: ChosenProbe | None = None
    few_shot: tuple[FewShotProbe, ...] = ()
    notes = dataset.warnings() + features.describe_trained_on(network, source, tested.split, layout=layout)
    if test is None and ("linear" in methods or "knn" in methods):
        notes.append(
            "the data have no test split: linear and knn stand at the best of what was tried on validation, which is "
            "higher than on new images"
        )
    if "linear" in methods:
        with one_thread():
            linear = probe_linearly(train, validation, test)
        notes += linear.notes
    if "knn" in methods:
        knn = probe_neighbors(train, validation, test)
        notes += knn.notes
    if "few_shot" in methods:
        with one_thread():
            few_shot, few_shot_notes = probe_few_shot(train, tested, dataset.classes, seed=seed, draws=draws)
        notes += few_shot_notes
    most_frequent = np.bincount(train.labels).argmax()
    result = ProbeResult(
        model=network.spec.model,
        layer=layer,
        dimensions=train.rows.shape[1],
        classes=dataset.classes,
        counts={name: len(split.labels) for name, split in examples.items()},
        fingerprint=dataset.fingerprint,
        from_cache=from_cache,
        linear=linear,
        knn=knn,
        few_shot=few_shot,
        majority=tested.measure(np.full(len(tested.labels), most_frequent)),
        notes=tuple(notes),
    )
    record_test_reads(network, result, source)
    return result


def refuse_wrong_words(methods: Sequence[str], seed: int, draws: int) -> None:
    """Raises UserError for arguments of `probe` that mean nothing, before anything is read."""
    for method in methods:
        if method not in METHODS:
            raise unknown("method of probe", method, METHODS)
    if not methods:
        raise UserError(f"methods names none; give some of {', '.join(METHODS)}")
    if draws < 2:
        raise UserError(f"draws={draws} gives no interval; make it at least 2")
    if seed < 0:
        raise UserError(f"seed={seed} is negative; make it at least 0")


def extract_examples(
    network: Trained, dataset: data.Dataset, layer: str, *, batch_size: int
) -> tuple[dict[str, Examples], tuple[str, ...]]:
    """Returns the features of each split with their labels, and the splits whose features were computed before.

    Raises:
        UserError: as `features.extract`, or features are not finite.
    """
    examples = {}
    from_cache = []
    for name, split in dataset.splits.items():
        extracted = features.extract(network, dataset, name, layer=layer, batch_size=batch_size)
        if not np.isfinite(extracted.rows).all():
            raise UserError(f"{layer} of {network.spec.model} has numbers that are not finite; take another network")
        examples[name] = Examples(name, extracted.rows, split.labels)
        if extracted.is_from_cache:
            from_cache.append(name)
    return examples, tuple(from_cache)


def record_test_reads(network: Trained, result: ProbeResult, source: Any) -> None:
    """Appends a line to the test_reads.jsonl of the network's run for each method that read a test split."""
    if network.run is None:
        return
    accuracies = {}
    for probed in (result.linear, result.knn):
        if probed is not None and probed.test is not None:
            accuracies[probed.method] = probed.test.interval.estimate
    if result.few_shot and result.few_shot[-1].split == "test":
        accuracies["few_shot"] = result.few_shot[-1].interval.estimate
    path = evaluation.path_of_source(source)
    for method, accuracy in accuracies.items():
        evaluation.record_test_read(
            network.run, by="probe", method=method, layer=result.layer, accuracy=accuracy, data=path
        )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """While open, scikit-learn and the linear algebra under it use one thread.

    The sums of a fit then do not depend on the number of cores. Fits of a thousand images are also faster so: L-BFGS
    takes hundreds of steps, each far shorter than what threads take to meet.
    """
    import sklearn.linear_model  # noqa: F401  (only threads of libraries that are loaded can be limited)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


# Linear ---------------------------------------------------------------------------------------------------------------


def probe_linearly(train: Examples, validation: Examples, test: Examples | None) -> ChosenProbe:
    """Fits a linear layer for each of STRENGTHS, and chooses the one with the highest accuracy on validation.

    Of equally accurate ones the strongest regularization is chosen.
    """
    standardize = fit_standardizer(train.rows)
    train_rows, validation_rows = standardize(train.rows), standardize(validation.rows)
    tried = {}
    classifiers = {}
    notes = []
    unfinished = []
    for strength in STRENGTHS:
        stops.raise_if_requested()
        classifier, is_converged = fit_linear(train_rows, train.labels, strength)
        if not is_converged:
            unfinished.append(strength)
        tried[strength] = validation.measure(classifier.predict(validation_rows))
        classifiers[strength] = classifier
    chosen = choose_first_best(tried)
    best_strengths = {strength for strength in STRENGTHS if tried[strength].correct == tried[chosen].correct}
    if best_strengths <= {STRENGTHS[0], STRENGTHS[-1]}:
        notes.append(
            f"the regularization {chosen:g} lies at the edge of what was tried, {STRENGTHS[0]:g} to {STRENGTHS[-1]:g}; "
            "beyond it the linear probe may be better"
        )
    if chosen in unfinished:
        notes.append(f"the linear probe was still improving after {MOST_STEPS:,} steps of L-BFGS")
    answers = {validation.split: answer_linearly(classifiers[chosen], validation_rows)}
    test_accuracy = None
    if test is not None:
        answers[test.split] = answer_linearly(classifiers[chosen], standardize(test.rows))
        test_accuracy = test.measure(answers[test.split].predicted)
    return ChosenProbe("linear", chosen, tried, test_accuracy, tuple(notes), answers)


def answer_linearly(classifier: Any, rows: np.ndarray) -> Answers:  # (N, D)
    """Returns what a fitted linear layer says of features; of two classes the first one's score is 0."""
    scores = classifier.decision_function(rows)
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    return Answers(classifier.predict(rows), scores)


def fit_linear(rows: np.ndarray, labels: np.ndarray, strength: float) -> tuple[Any, bool]:
    """Fits a linear layer by L-BFGS: it minimizes the mean cross-entropy + strength/2 times the squared weights.

    Biases are not regularized. Of two classes there is one score, so that the squared weights are those of one class.

    Args:
        rows: (N, D) float64.
        labels: (N,).
        strength: of the regularization.

    Returns:
        scikit-learn's classifier, and whether L-BFGS came to its end.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # scikit-learn divides the regularization by C and by the number of rows
    inverse = 1 / (strength * len(rows))
    classifier = LogisticRegression(C=inverse, solver="lbfgs", max_iter=MOST_STEPS, tol=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is said in a sentence where the fit is chosen
        classifier.fit(rows, labels)
    return classifier, bool(classifier.n_iter_.max() < MOST_STEPS)


def fit_standardizer(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function that gives features the mean 0 and the standard deviation 1 that they have in these rows.

    Features that are constant but for rounding become 0.
    """
    mean = rows.mean(0, dtype=np.float64)  # (D,)
    std = rows.std(0, dtype=np.float64)
    is_flat = std <= FLAT * std.max()
    scale = np.where(is_flat, 0, 1 / np.where(is_flat, 1, std))

    def standardize(rows: np.ndarray) -> np.ndarray:  # (N, D) -> (N, D)
        return (rows - mean) * scale

    return standardize


def choose_first_best(tried: Mapping[float, Accuracy]) -> float:
    """Returns the number with the highest accuracy, the first of equal ones."""
    return max(tried, key=lambda value: tried[value].correct)


# K-nearest ------------------------------------------------------------------------------------------------------------


def probe_neighbors(train: Examples, validation: Examples, test: Examples | None) -> ChosenProbe:
    """Classifies by the k training images with the most similar features, and chooses k on validation.

    Of equally accurate ones the smallest k is chosen.
    """
    ks = [k for k in NEIGHBORS if k <= len(train.labels)]
    nearest_labels = find_nearest_labels(train, validation.rows, ks[-1])
    tried: dict[float, Accuracy] = {k: validation.measure(vote(nearest_labels[:, :k])) for k in ks}
    chosen = choose_first_best(tried)
    notes = []
    if chosen == ks[-1] and len(ks) > 1:
        notes.append(f"k={chosen:g} is the largest that was tried; with more neighbors k-nearest may be better")
    answers = {validation.split: answer_by_vote(nearest_labels[:, : int(chosen)], train)}
    test_accuracy = None
    if test is not None:
        answers[test.split] = answer_by_vote(find_nearest_labels(train, test.rows, int(chosen)), train)
        test_accuracy = test.measure(answers[test.split].predicted)
    return ChosenProbe("knn", chosen, tried, test_accuracy, tuple(notes), answers)


def answer_by_vote(nearest_labels: np.ndarray, train: Examples) -> Answers:  # (N, k)
    """Returns what the labels of the nearest training images say."""
    n, k = nearest_labels.shape
    classes = int(train.labels.max()) + 1
    votes = np.zeros((n, classes))
    np.add.at(votes, (np.arange(n)[:, None], nearest_labels), 1)
    return Answers(vote(nearest_labels), np.log((votes + 1) / (k + classes)))


def find_nearest_labels(train: Examples, rows: np.ndarray, k: int) -> np.ndarray:  # -> (N, k)
    """Returns the labels of the k training images that are most similar to each row, the most similar first.

    Similar is what has a large cosine. Of equally similar images the earlier comes first; a row of zeros is as similar
    to all.
    """
    train_directions = to_unit_length(train.rows)
    directions = to_unit_length(rows)
    rows_at_once = max(1, SIMILARITIES // len(train_directions))
    parts = []
    for start in range(0, len(directions), rows_at_once):
        stops.raise_if_requested()
        cosines = directions[start : start + rows_at_once] @ train_directions.T
        parts.append(train.labels[find_largest(cosines, k)])
    return np.concatenate(parts)


def to_unit_length(rows: np.ndarray) -> np.ndarray:  # (N, D) -> (N, D)
    """Divides each row by its length; a row of zeros stays."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def find_largest(values: np.ndarray, k: int) -> np.ndarray:  # (N, M) -> (N, k)
    """Returns the indices of the k largest values of each row, the largest first, of equal ones the lower index."""
    if k == values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")
    # A partition is linear in M, but leaves open which of several values equal to the k-th it takes.
    indices = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    largest = np.take_along_axis(values, indices, 1)
    order = np.argsort(-largest, axis=1, kind="stable")
    indices = np.take_along_axis(indices, order, 1)
    kth = largest.min(1, keepdims=True)
    for row in np.flatnonzero((values >= kth).sum(1) > k):
        indices[row] = np.argsort(-values[row], kind="stable")[:k]
    return indices


def vote(nearest_labels: np.ndarray) -> np.ndarray:  # (N, k) -> (N,)
    """Returns the most frequent label of each row; of equally frequent ones that of the nearest image.

    Args:
        nearest_labels: labels of the neighbors, the nearest first.
    """
    n, _ = nearest_labels.shape
    votes = np.zeros((n, nearest_labels.max() + 1), np.int32)  # (N, K)
    np.add.at(votes, (np.arange(n)[:, None], nearest_labels), 1)
    votes_for_neighbor = np.take_along_axis(votes, nearest_labels, 1)  # (N, k)
    is_most_frequent = votes_for_neighbor == votes_for_neighbor.max(1, keepdims=True)
    nearest = is_most_frequent.argmax(1)  # of booleans: the first True
    return nearest_labels[np.arange(n), nearest]


# Few-shot -------------------------------------------------------------------------------------------------------------


def probe_few_shot(
    train: Examples, tested: Examples, classes: Sequence[str], *, seed: int, draws: int
) -> tuple[tuple[FewShotProbe, ...], list[str]]:
    """Fits a linear layer on a few drawn images of each class, for each of SHOTS, and measures it on a split.

    Features are standardized by all of train, which takes no labels. Draw d of 5 images a class holds draw d of 1.

    Returns:
        A probe for each number of shots that every class has images for, and notes.
    """
    standardize = fit_standardizer(train.rows)
    train_rows, tested_rows = standardize(train.rows), standardize(tested.rows)
    rows_by_class = [np.flatnonzero(train.labels == label) for label in range(len(classes))]
    fewest = min(map(len, rows_by_class))
    orders = []  # of each draw: the rows of each class, shuffled
    for draw in range(draws):
        rng = np.random.default_rng([seed, draw])
        orders.append([rng.permutation(rows) for rows in rows_by_class])
    probes = []
    for shots in SHOTS:
        if shots >= fewest:  # each draw would take all images of the smallest class
            continue
        accuracies = []
        for order in orders:
            stops.raise_if_requested()
            rows = np.concatenate([shuffled[:shots] for shuffled in order])
            classifier, _ = fit_linear(train_rows[rows], train.labels[rows], FEW_SHOT_STRENGTH)
            accuracies.append(tested.measure(classifier.predict(tested_rows)).interval.estimate)
        interval = student_interval(accuracies)
        probes.append(FewShotProbe(shots, tested.split, len(tested.labels), tuple(accuracies), interval))
    return tuple(probes), describe_shots(rows_by_class, classes) + describe_tested(probes)


def describe_shots(rows_by_class: Sequence[np.ndarray], classes: Sequence[str]) -> list[str]:
    """Says which of SHOTS the smallest class has too few training images for, and which take much of them."""
    counts = [len(rows) for rows in rows_by_class]
    fewest = min(counts)
    smallest = printable_name(classes[counts.index(fewest)])
    left_out = [str(shots) for shots in SHOTS if shots >= fewest]
    overlapping = [str(shots) for shots in SHOTS if fewest / 2 < shots < fewest]
    notes = []
    if left_out:
        notes.append(
            f"few-shot with {' and '.join(left_out)} images a class is left out: {smallest} has {fewest:,} training "
            "images, so that each draw would take the same"
        )
    if overlapping:
        notes.append(
            f"few-shot with {' and '.join(overlapping)} images a class takes more than half of the {fewest:,} training "
            f"images of {smallest}: its draws share images, and its interval is too narrow"
        )
    return notes


def describe_tested(probes: Sequence[FewShotProbe]) -> list[str]:
    """Says so where the number of tested images leaves more open than the draws do; looks at the most shots."""
    if not probes:
        return []
    last = probes[-1]
    draws = last.interval
    images = wilson_interval(round(draws.estimate * last.n), last.n)
    if images.low is None or images.high is None or draws.low is None or draws.high is None:
        return []  # only without any image, or with a single draw
    if images.high - images.low <= draws.high - draws.low:
        return []
    return [
        f"the intervals of few-shot are over draws alone: that no more than {last.n:,} images were tested leaves the "
        f"accuracy of {last.shots} images a class open from {100 * images.low:.1f} to {100 * images.high:.1f} %"
    ]
