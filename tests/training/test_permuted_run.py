"""A run with permuted pixels: training, evaluation and prediction see one order of them."""

import numpy as np
import pytest

import cnn_vit
from cnn_vit import data
from cnn_vit.nn.permutation import draw_order
from cnn_vit.settings import load


@pytest.mark.slow
def test_a_run_trains_evaluates_and_predicts_with_its_permutation(tmp_path):
    """Behind augmentation, too; and it is another run than one without, by its fingerprint."""
    results = []
    for permutation in ("none", "3"):
        overrides = [
            "duration=60 steps",
            "schedule.warmup=0",
            "optimizer.learning_rate=0.01",
            "data.augment=('shift(1)',)",
            "model.hidden=(16,)",
        ]
        settings = load("configs/digits_mlp.py", [*overrides, f"model.permutation={permutation}"])
        results.append(cnn_vit.train(settings, tmp_path / permutation))
    assert results[0]["fingerprint"] != results[1]["fingerprint"]
    network = cnn_vit.load(tmp_path / "3")
    split = data.load({"name": "digits"}).splits["test"]
    images = split.read(np.arange(len(split)))
    predicted = cnn_vit.predict(network, images).argmax(1)
    assert (predicted == split.labels).mean() == pytest.approx(results[1]["test"]["accuracy"])
    permuted = images.reshape(len(images), 64)[:, np.argsort(draw_order(3, 64))].reshape(images.shape)
    unlike = cnn_vit.predict(network, permuted).argmax(1)
    assert results[1]["test"]["accuracy"] > (unlike == split.labels).mean() + 0.2
