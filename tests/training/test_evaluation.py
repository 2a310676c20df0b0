"""Evaluation against NumPy: what is said of each example, that each counts once, and what is refused."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from stepping import batch, network_spec

from cnn_vit import data, models
from cnn_vit.data.base.splits import Split
from cnn_vit.errors import UserError
from cnn_vit.training import devices, evaluation, forward, prediction
from cnn_vit.training.trained import Trained

PLAIN = dict(mean=[0.0], std=[1.0], image_size=[3, 3], channels=1, fit="crop")
FOUR = ("ant", "bee", "cow", "dog")


def whole_scores(classes, rows=12, *, loss="softmax", seed=0):
    """A linear network and black and white images whose scores are small whole numbers: exact, and often equal."""
    rng = np.random.default_rng(seed)
    of = network_spec(hidden=(), classes=classes, side=3, loss=loss)
    head = dict(kernel=rng.integers(-1, 2, (9, classes)), bias=rng.integers(-1, 2, classes))
    params = dict(head={key: value.astype(np.float32) for key, value in head.items()})
    images = 255 * rng.integers(0, 2, (rows, 3, 3, 1), np.uint8)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    scores = (images // 255).reshape(rows, -1).astype(np.float64) @ head["kernel"] + head["bias"]
    return of, params, images, labels, scores


def said(of, params, images, labels):
    """What an evaluator says of images, as arrays."""
    given = dict(image=images, label=labels, weight=np.ones(len(labels), np.float32), index=np.arange(len(labels)))
    measures = evaluator_of(of)(dict(params=params, stats={}), given)
    return {key: np.asarray(value) for key, value in measures.items()}


def evaluator_of(spec):
    return forward.build_evaluator(spec, PLAIN, devices.mesh())


def places(scores, labels):
    """Where each label stands among the scores, equal ones in the order of the classes."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.argmax(order == labels[:, None], axis=1), order


def split_of(images, labels):
    return Split(labels, lambda indices: images[indices])


def dataset_of(images, labels, *, classes=FOUR, split="test"):
    return data.Dataset(tuple(classes), images.shape[1:], {split: split_of(images, labels)}, fingerprint="")


# What is said of an example


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_rank_margin_loss_and_prediction_are_numpys(loss):
    of, params, images, labels, scores = whole_scores(4, rows=40, loss=loss)
    found = said(of, params, images, labels)
    rank, order = places(scores, labels)
    ordered = np.take_along_axis(scores, order, 1)
    assert (ordered[:, 0] == ordered[:, 1]).sum() > 5  # ties there are
    np.testing.assert_array_equal(found["rank"], rank)
    np.testing.assert_array_equal(found["predicted"], order[:, 0])
    np.testing.assert_array_equal(found["margin"], ordered[:, 0] - ordered[:, 1])
    np.testing.assert_array_equal(found["scores"], scores)
    each = {  # sigmoid: -log s(x) = log(1 + e^x) - x for the label, -log(1 - s(x)) = log(1 + e^x) for the others
        "softmax": np.log(np.exp(scores).sum(1)),
        "sigmoid": np.log1p(np.exp(scores)).sum(1),
    }
    expected = each[loss] - scores[range(40), labels]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6, atol=1e-6)
    assert {key: str(found[key].dtype) for key in ("rank", "predicted", "margin", "loss", "scores")} == dict(
        rank="int32", predicted="int32", margin="float32", loss="float32", scores="float32"
    )


def test_of_more_than_a_thousand_classes_the_best_five_are_kept():
    of, params, images, labels, scores = whole_scores(1001)
    found = said(of, params, images, labels)
    rank, order = places(scores, labels)
    np.testing.assert_array_equal(found["rank"], rank)
    np.testing.assert_array_equal(found["classes"], order[:, :5])
    np.testing.assert_array_equal(found["scores"], np.take_along_axis(scores, order[:, :5], 1))
    assert "classes" not in said(*whole_scores(1000)[:4])


def test_a_score_that_is_no_number_is_never_right():
    of, params, images, labels, _ = whole_scores(4)
    params["head"]["bias"] = np.float32([np.nan, 0, 0, 0])
    rank = said(of, params, images, labels)["rank"]
    assert (rank[labels == 0] == 4).all()
    assert (rank[labels != 0] > 0).all()
    params["head"]["bias"][:] = np.nan
    assert (said(of, params, images, labels)["rank"] == 4).all()


def test_one_class_alone_is_always_right_by_an_infinite_margin():
    of, params, images, labels, _ = whole_scores(1)
    found = said(of, params, images, labels)
    assert (found["rank"] == 0).all()
    assert np.isposinf(found["margin"]).all()
    np.testing.assert_array_equal(found["loss"], 0)


# Each example once


@pytest.mark.parametrize("size", [1, 7, 512])
def test_each_example_counts_once_whatever_the_batch_size(size):
    _, _, images, labels, _ = whole_scores(4, rows=31)
    seen = []

    class Brightness:
        """An evaluator whose loss is the sum of an image's pixels."""

        mesh = devices.mesh()

        def __call__(self, values, batch):
            seen.append(batch["weight"].shape[0])
            bright = batch["image"].astype(np.float32).sum((1, 2, 3))
            copied = {name: batch[name] for name in ("weight", "index", "label")}
            return dict(loss=bright, rank=batch["label"], margin=bright, **copied)

    found = evaluation.per_example(Brightness(), {}, split_of(images, labels), batch_size=size)
    assert seen == {1: [1] * 31, 7: [7] * 5, 512: [31]}[size]
    np.testing.assert_array_equal(found["index"], np.arange(31))
    np.testing.assert_array_equal(found["label"], labels)
    np.testing.assert_array_equal(found["loss"], images.astype(np.float32).sum((1, 2, 3)))
    assert "weight" not in found


def test_the_device_is_asked_for_the_next_batch_before_the_host_reads_one():
    asked = []

    def items():
        for number in range(3):
            asked.append(number)
            yield number

    assert [(number, list(asked)) for number in evaluation.yield_one_behind(items())] == [
        (0, [0, 1]),
        (1, [0, 1, 2]),
        (2, [0, 1, 2]),
    ]


def test_means_are_float64s():
    loss = np.float32([1] + [1e-8] * 999)
    found = dict(rank=np.int32([0, 3, 4, 5] * 250), loss=loss, index=np.arange(1000))
    summary = evaluation.summarize(found, 6)
    assert summary == {"accuracy": 0.25, "top5": 0.75, "loss": pytest.approx(0.00100000999, rel=1e-9), "n": 1000}


@pytest.mark.parametrize(("classes", "says"), [(2, None), (5, None), (6, 0.75)])
def test_the_best_five_of_five_say_nothing(classes, says):
    found = dict(rank=np.int32([0, 3, 4, 5]), loss=np.zeros(4, np.float32), index=np.arange(4))
    assert evaluation.summarize(found, classes)["top5"] == says


def test_near_ties_are_the_examples_that_rounding_may_turn():
    found = dict(index=np.int32([5, 3, 9, 4]), margin=np.float32([9e-6, 0, 1.1e-5, 2]))
    assert evaluation.find_near_ties(found) == [3, 5]


# The verb


def trained(of, params, classes=FOUR):
    return Trained(of, params, {}, tuple(classes), PLAIN)


@pytest.mark.parametrize("size", [5, 100])
def test_evaluate_counts_what_numpy_counts(size):
    of, params, images, labels, scores = whole_scores(4, rows=23)
    network, dataset = trained(of, params), dataset_of(images, labels, split="validation")
    found = evaluation.evaluate(network, dataset, "validation", batch_size=size)
    ordered = np.sort(scores, axis=1)
    assert (found["split"], found["n"], found["top5"]) == ("validation", 23, None)
    assert found["accuracy"] == np.mean(places(scores, labels)[0] == 0)
    assert found["near_ties"] == np.flatnonzero(ordered[:, -1] == ordered[:, -2]).tolist()
    expected = np.mean(np.log(np.exp(scores).sum(1)) - scores[range(23), labels])
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert set(found["rows"]) == {"index", "label", "predicted", "rank", "loss", "margin", "scores"}


def test_evaluate_reads_a_path_as_the_network_was_trained_to_see_it(tmp_path):
    of, params, images, labels, scores = whole_scores(4, rows=16)
    labels[:4] = range(4)
    np.savez(tmp_path / "some.npz", train_x=images, train_y=labels, test_x=images, test_y=labels)
    network = trained(
        of, params, classes=data.load(evaluation.section_for(trained(of, params), tmp_path / "some.npz")).classes
    )
    found = evaluation.evaluate(network, tmp_path / "some.npz")
    assert (found["n"], found["accuracy"]) == (16, np.mean(scores.argmax(1) == labels))


def test_judging_the_test_split_of_a_run_leaves_a_line_there_and_no_other_split_does(tmp_path):
    of, params, images, labels, scores = whole_scores(4)
    network = replace(trained(of, params), run=tmp_path)
    dataset = dataset_of(images, labels)
    for split in ("validation", "test"):
        evaluation.evaluate(network, replace(dataset, splits={split: dataset.splits["test"]}), split)
    (line,) = (tmp_path / "test_reads.jsonl").read_text().splitlines()
    assert json.loads(line) == {"by": "evaluate", "accuracy": np.mean(scores.argmax(1) == labels), "data": None}


def test_what_has_no_values_is_refused_by_name(tmp_path):
    network = models.build("mlp/test", 10, channels=1, image_size=8)
    for verb in (lambda: evaluation.evaluate(network, "digits"), lambda: prediction.predict(network, "one.png")):
        with pytest.raises(UserError, match=r"MLP is no trained network; cnn_vit.load\(RUN\) gives that of a run"):
            verb()


def test_other_classes_are_refused_with_both_lists():
    of, params, images, labels, _ = whole_scores(4)
    others = dataset_of(images, labels, classes=("ant", "bee", "dog", "cow"))
    says = (
        r"knows the classes \[ant, bee, cow, dog\], the data has \[ant, bee, dog, cow\] "
        r"\(class 2 is 'cow' there and 'dog' here\); name and order"
    )
    with pytest.raises(UserError, match=says):
        evaluation.evaluate(trained(of, params), others)


def test_of_long_lists_the_first_difference_is_named():
    of, params, images, labels, _ = whole_scores(4)
    known = [f"n{number:03}" for number in range(100)]
    found = [*known[:70], "other", *known[71:]]
    with pytest.raises(UserError, match=r"n011, ... 100 in all\] \(class 70 is 'n070' there and 'other' here\)"):
        evaluation.evaluate(trained(of, params, known), dataset_of(images, labels, classes=found))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(split="tset"), "no split 'tset'; did you mean test"),
        (dict(split="validation"), "no split 'validation'; there is test"),
        (dict(batch_size=0), "batch_size=0 judges nothing"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes, says):
    of, params, images, labels, _ = whole_scores(4)
    with pytest.raises(UserError, match=says):
        evaluation.evaluate(trained(of, params), dataset_of(images, labels), **changes)


def test_images_of_another_size_are_refused():
    of, params, _, labels, _ = whole_scores(4)
    images = batch(12, side=4)["image"]
    with pytest.raises(UserError, match=r"takes 3x3x1 images, the data gives 4x4x1; set data.image_size"):
        evaluation.evaluate(trained(of, params), dataset_of(images, labels))


# What is kept


@pytest.mark.parametrize(("classes", "kept"), [(4, (12, 4)), (1001, (12, 5))])
def test_predictions_are_kept_a_row_for_each_example(tmp_path, classes, kept):
    of, params, images, labels, scores = whole_scores(classes)
    values = dict(params=params, stats={})
    found = evaluation.per_example(evaluator_of(of), values, split_of(images, labels), batch_size=5)
    evaluation.save_predictions(tmp_path, "test", found)
    with np.load(tmp_path / "predictions" / "test.npz") as file:
        arrays = dict(file)
    names = {"index", "label", "predicted", "loss", "margin", "scores"} | ({"classes"} if classes > 1000 else set())
    assert set(arrays) == names
    assert arrays["scores"].shape == kept
    np.testing.assert_array_equal(arrays["label"], labels)
    np.testing.assert_array_equal(arrays["predicted"], scores.argmax(1))


def test_a_reading_of_the_test_split_leaves_a_line(tmp_path):
    for number in range(2):
        evaluation.record_test_read(tmp_path, by="train", step=number)
    lines = (tmp_path / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"by": "train", "step": 0}, {"by": "train", "step": 1}]


def test_normalization_is_less_the_mean_and_over_the_deviation():
    images = np.float32(np.arange(12).reshape(1, 2, 2, 3)) / 10
    preprocessing = dict(mean=[0.1, 0.2, 0.3], std=[0.5, 1, 2])
    given = forward.build_evaluator(network_spec(), preprocessing, devices.mesh()).mean_and_std
    expected = (np.float64(images) - [0.1, 0.2, 0.3]) / [0.5, 1, 2]
    found = forward.normalize(images, given, "float32")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert jax.eval_shape(lambda x: forward.normalize(x, given, "bfloat16"), images).dtype == "bfloat16"
