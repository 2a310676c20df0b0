"""Evaluation against NumPy: the measures of each example, that each counts once, and what is refused."""

import json
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from stepping import make_batch, make_network_spec

from cnn_vit import data, models
from cnn_vit.data.base.splits import Split
from cnn_vit.errors import UserError
from cnn_vit.training import devices, evaluation, forward, prediction
from cnn_vit.training.trained import Trained

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

PREPROCESSING = dict(
    mean=[0.0],
    std=[1.0],
    image_size=[3, 3],
    channels=1,
    fit="crop",
    interpolation="bilinear",
    levels=None,
    max_pixels=50_000_000,
)
ANIMALS = ("ant", "bee", "cow", "dog")


@dataclass(frozen=True)
class LinearCase:
    """A linear network with black and white images, whose scores are small whole numbers: exact, and often equal.

    Attributes:
        spec: the network.
        params: its kernel and bias.
        images: (N, 3, 3, 1) uint8.
        labels: (N,) int32.
        scores: (N, K) float64, computed by NumPy.
    """

    spec: forward.NetworkSpec
    params: dict
    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def make_linear_case(classes, rows=12, *, loss="softmax", seed=0):
    rng = np.random.default_rng(seed)
    kernel, bias = rng.integers(-1, 2, (9, classes)), rng.integers(-1, 2, classes)
    images = 255 * rng.integers(0, 2, (rows, 3, 3, 1), np.uint8)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    return LinearCase(
        spec=make_network_spec(hidden=(), classes=classes, side=3, loss=loss),
        params=dict(head=dict(kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))),
        images=images,
        labels=labels,
        scores=(images // 255).reshape(rows, -1).astype(np.float64) @ kernel + bias,
    )


def build_plain_evaluator(spec):
    """An evaluator that does not normalize the images."""
    return forward.build_evaluator(spec, PREPROCESSING, devices.mesh(), loss_numbers={})


def measure_batch(case):
    """What an evaluator measures of all images of a case in one batch, as NumPy arrays."""
    count = len(case.labels)
    batch = dict(image=case.images, label=case.labels, weight=np.ones(count, np.float32), index=np.arange(count))
    measures = build_plain_evaluator(case.spec)(dict(params=case.params, stats={}), batch)
    return {name: np.asarray(column) for name, column in measures.items()}


def rank_labels(scores, labels):
    """Each label's rank among the scores, and the classes of each row by descending score; ties by class."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argmax(order == labels[:, None], axis=1), order


def make_split(images, labels):
    return Split(labels, lambda indices: images[indices])


def make_dataset(images, labels, *, classes=ANIMALS, split="test"):
    splits = {split: make_split(images, labels)}
    return data.Dataset(tuple(classes), images.shape[1:], splits, fingerprint="")


def make_trained(case, classes=ANIMALS):
    """The network of a case as a trained one."""
    return Trained(spec=case.spec, params=case.params, stats={}, classes=tuple(classes), preprocessing=PREPROCESSING)


# The measures of an example -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_rank_margin_loss_and_prediction_are_numpys(loss):
    case = make_linear_case(4, rows=40, loss=loss)
    measures = measure_batch(case)
    ranks, order = rank_labels(case.scores, case.labels)
    sorted_scores = np.take_along_axis(case.scores, order, 1)
    assert (sorted_scores[:, 0] == sorted_scores[:, 1]).sum() > 5  # there are ties
    np.testing.assert_array_equal(measures["rank"], ranks)
    np.testing.assert_array_equal(measures["predicted"], order[:, 0])
    np.testing.assert_array_equal(measures["margin"], sorted_scores[:, 0] - sorted_scores[:, 1])
    np.testing.assert_array_equal(measures["scores"], case.scores)
    cost_before_label = {  # sigmoid: -log s(x) = log(1 + e^x) - x for the label, -log(1 - s(x)) = log(1 + e^x) else
        "softmax": np.log(np.exp(case.scores).sum(1)),
        "sigmoid": np.log1p(np.exp(case.scores)).sum(1),
    }
    expected = cost_before_label[loss] - case.scores[range(40), case.labels]
    np.testing.assert_allclose(measures["loss"], expected, rtol=1e-6, atol=1e-6)
    dtypes = {name: str(measures[name].dtype) for name in ("rank", "predicted", "margin", "loss", "scores")}
    assert dtypes == dict(rank="int32", predicted="int32", margin="float32", loss="float32", scores="float32")


def test_of_more_than_a_thousand_classes_the_best_five_are_kept():
    case = make_linear_case(1001)
    measures = measure_batch(case)
    ranks, order = rank_labels(case.scores, case.labels)
    np.testing.assert_array_equal(measures["rank"], ranks)
    np.testing.assert_array_equal(measures["classes"], order[:, :5])
    np.testing.assert_array_equal(measures["scores"], np.take_along_axis(case.scores, order[:, :5], 1))
    assert "classes" not in measure_batch(make_linear_case(1000))


def test_a_score_that_is_not_a_number_is_never_right():
    case = make_linear_case(4)
    case.params["head"]["bias"] = np.float32([np.nan, 0, 0, 0])
    ranks = measure_batch(case)["rank"]
    assert (ranks[case.labels == 0] == 4).all()
    assert (ranks[case.labels != 0] > 0).all()
    case.params["head"]["bias"][:] = np.nan
    assert (measure_batch(case)["rank"] == 4).all()


def test_one_class_alone_is_always_right_by_an_infinite_margin():
    measures = measure_batch(make_linear_case(1))
    assert (measures["rank"] == 0).all()
    assert np.isposinf(measures["margin"]).all()
    np.testing.assert_array_equal(measures["loss"], 0)


# Each example once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 512])
def test_each_example_counts_once_whatever_the_batch_size(size):
    case = make_linear_case(4, rows=31)
    batch_sizes = []

    class BrightnessEvaluator:
        """An evaluator whose loss is the sum of an image's pixels."""

        mesh = devices.mesh()

        def __call__(self, values, batch):
            batch_sizes.append(batch["weight"].shape[0])
            brightness = batch["image"].astype(np.float32).sum((1, 2, 3))
            copied = {name: batch[name] for name in ("weight", "index", "label")}
            return dict(loss=brightness, rank=batch["label"], margin=brightness, **copied)

    split = make_split(case.images, case.labels)
    per_example = evaluation.per_example(BrightnessEvaluator(), {}, split, batch_size=size)
    assert batch_sizes == {1: [1] * 31, 7: [7] * 5, 512: [31]}[size]
    np.testing.assert_array_equal(per_example["index"], np.arange(31))
    np.testing.assert_array_equal(per_example["label"], case.labels)
    np.testing.assert_array_equal(per_example["loss"], case.images.astype(np.float32).sum((1, 2, 3)))
    assert "weight" not in per_example


def test_the_device_is_asked_for_the_next_batch_before_the_host_reads_one():
    requested = []

    def request_items():
        for number in range(3):
            requested.append(number)
            yield number

    requested_by_then = [(number, list(requested)) for number in evaluation.yield_one_behind(request_items())]
    assert requested_by_then == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]


def test_means_are_float64s():
    loss = np.float32([1] + [1e-8] * 999)
    per_example = dict(rank=np.int32([0, 3, 4, 5] * 250), loss=loss, index=np.arange(1000))
    summary = evaluation.summarize(per_example, 6)
    assert summary == {"accuracy": 0.25, "top5": 0.75, "loss": pytest.approx(0.00100000999, rel=1e-9), "n": 1000}


@pytest.mark.parametrize(("classes", "expected"), [(2, None), (5, None), (6, 0.75)])
def test_of_five_classes_or_fewer_there_is_no_top_five_accuracy(classes, expected):
    per_example = dict(rank=np.int32([0, 3, 4, 5]), loss=np.zeros(4, np.float32), index=np.arange(4))
    assert evaluation.summarize(per_example, classes)["top5"] == expected


def test_near_ties_are_the_examples_that_rounding_may_turn():
    per_example = dict(index=np.int32([5, 3, 9, 4]), margin=np.float32([9e-6, 0, 1.1e-5, 2]))
    assert evaluation.find_near_ties(per_example) == [3, 5]


# The verb -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 100])
def test_evaluate_counts_what_numpy_counts(size):
    case = make_linear_case(4, rows=23)
    dataset = make_dataset(case.images, case.labels, split="validation")
    answer = evaluation.evaluate(make_trained(case), dataset, "validation", batch_size=size)
    ranks, _ = rank_labels(case.scores, case.labels)
    sorted_scores = np.sort(case.scores, axis=1)
    assert (answer["split"], answer["n"], answer["top5"]) == ("validation", 23, None)
    assert answer["accuracy"] == np.mean(ranks == 0)
    assert answer["near_ties"] == np.flatnonzero(sorted_scores[:, -1] == sorted_scores[:, -2]).tolist()
    expected_loss = np.mean(np.log(np.exp(case.scores).sum(1)) - case.scores[range(23), case.labels])
    assert answer["loss"] == pytest.approx(expected_loss, rel=1e-6)
    assert set(answer["rows"]) == {"index", "label", "predicted", "rank", "loss", "margin", "scores"}


def test_evaluate_reads_a_path_as_the_network_was_trained_to_see_it(tmp_path):
    case, path = make_linear_case(4, rows=16), tmp_path / "some.npz"
    case.labels[:4] = range(4)
    np.savez(path, train_x=case.images, train_y=case.labels, test_x=case.images, test_y=case.labels)
    classes = data.load(evaluation.section_for(make_trained(case), path)).classes
    answer = evaluation.evaluate(make_trained(case, classes), path)
    assert (answer["n"], answer["accuracy"]) == (16, np.mean(case.scores.argmax(1) == case.labels))


def test_evaluating_the_test_split_of_a_run_leaves_a_line_there_and_no_other_split_does(tmp_path):
    case = make_linear_case(4)
    network = replace(make_trained(case), run=tmp_path)
    for split in ("validation", "test"):
        evaluation.evaluate(network, make_dataset(case.images, case.labels, split=split), split)
    (line,) = (tmp_path / "test_reads.jsonl").read_text().splitlines()
    accuracy = np.mean(case.scores.argmax(1) == case.labels)
    assert json.loads(line) == {"by": "evaluate", "accuracy": accuracy, "data": None}


def test_what_has_no_values_is_refused_by_name(tmp_path):
    network = models.build("mlp/test", 10, channels=1, image_size=8)
    for verb in (lambda: evaluation.evaluate(network, "digits"), lambda: prediction.predict(network, "one.png")):
        with pytest.raises(UserError, match=r"MLP is not a trained network; cnn_vit.load\(RUN_OR_WEIGHTS\) gives one"):
            verb()


def test_other_classes_are_refused_with_both_lists():
    case = make_linear_case(4)
    dataset = make_dataset(case.images, case.labels, classes=("ant", "bee", "dog", "cows"))
    message = (
        r"does not know the class cows of the data; it knows \[ant, bee, cow, dog\], the data have "
        r"\[ant, bee, dog, cows\]; name the class folders as in training, or take away .* did you mean 'cow'\?"
    )
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(make_trained(case), dataset)


def test_of_long_lists_the_first_names_are_shown():
    case = make_linear_case(4)
    network_classes = [f"n{number:03}" for number in range(100)]
    dataset = make_dataset(case.images, case.labels, classes=["other", *network_classes[1:]])
    message = r"does not know the class other of the data; it knows \[n000, .*, n004, ... 100 in all\]"
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(make_trained(case, network_classes), dataset)


@pytest.mark.parametrize("names", [("cow", "ant"), ("dog", "fox", "ant", "bee"), ("bee",)])
def test_labels_are_matched_to_the_classes_of_the_network_by_name(names):
    """The data have some of the classes, in any order; one without examples may be any, such as the fox."""
    case = make_linear_case(4, rows=40)
    known = [name for name in names if name in ANIMALS]
    rows = np.flatnonzero(np.isin(case.labels, [ANIMALS.index(name) for name in known]))
    labels = np.array([names.index(ANIMALS[label]) for label in case.labels[rows]], np.int32)
    answer = evaluation.evaluate(make_trained(case), make_dataset(case.images[rows], labels, classes=names))
    expected_ranks, _ = rank_labels(case.scores[rows], case.labels[rows])
    np.testing.assert_array_equal(answer["rows"]["rank"], expected_ranks)
    np.testing.assert_array_equal(answer["rows"]["label"], case.labels[rows])
    missing = [name for name in ANIMALS if name not in known]
    sentence = f"the data have no image of {', '.join(missing)}: {len(missing)} of the network's 4 classes"
    assert [note.startswith(sentence) for note in answer["notes"]] == [True] * bool(missing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="tset"), "no split 'tset'; did you mean test"),
        (dict(split="validation"), "the data have no validation split, only test; add --split=test"),
        (dict(batch_size=0), "batch_size=0 evaluates nothing"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(options, message):
    case = make_linear_case(4)
    with pytest.raises(UserError, match=message):
        evaluation.evaluate(make_trained(case), make_dataset(case.images, case.labels), **options)


def test_images_of_another_size_are_refused():
    case, images = make_linear_case(4), make_batch(12, side=4)["image"]
    with pytest.raises(UserError, match=r"takes 3x3x1 images, the data gives 4x4x1; set data.image_size"):
        evaluation.evaluate(make_trained(case), make_dataset(images, case.labels))


# What is saved --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "scores_shape"), [(4, (12, 4)), (1001, (12, 5))])
def test_predictions_are_saved_with_a_row_for_each_example(tmp_path, classes, scores_shape):
    case = make_linear_case(classes)
    values, split = dict(params=case.params, stats={}), make_split(case.images, case.labels)
    per_example = evaluation.per_example(build_plain_evaluator(case.spec), values, split, batch_size=5)
    evaluation.save_predictions(tmp_path, "test", per_example)
    with np.load(tmp_path / "predictions" / "test.npz") as file:
        arrays = dict(file)
    names = {"index", "label", "predicted", "loss", "margin", "scores"}
    if classes > 1000:
        names.add("classes")
    assert set(arrays) == names
    assert arrays["scores"].shape == scores_shape
    np.testing.assert_array_equal(arrays["label"], case.labels)
    np.testing.assert_array_equal(arrays["predicted"], case.scores.argmax(1))


def test_a_reading_of_the_test_split_leaves_a_line(tmp_path):
    for number in range(2):
        evaluation.record_test_read(tmp_path, by="train", step=number)
    lines = (tmp_path / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"by": "train", "step": 0}, {"by": "train", "step": 1}]


def test_normalization_subtracts_the_mean_and_divides_by_the_standard_deviation():
    images = np.float32(np.arange(12).reshape(1, 2, 2, 3)) / 10
    preprocessing = dict(mean=[0.1, 0.2, 0.3], std=[0.5, 1, 2])
    constants = forward.build_evaluator(make_network_spec(), preprocessing, devices.mesh(), loss_numbers={}).constants
    expected = (np.float64(images) - [0.1, 0.2, 0.3]) / [0.5, 1, 2]
    normalized = forward.normalize(images, constants, "float32")
    np.testing.assert_allclose(normalized, expected, atol=1e-6)
    assert jax.eval_shape(lambda x: forward.normalize(x, constants, "bfloat16"), images).dtype == "bfloat16"
