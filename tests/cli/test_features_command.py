"""`features` writes an npz that NumPy alone reads: labeled data by split, and images without labels."""

import json

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data
from cnn_vit.__main__ import main


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """An empty cache for each test: features that other code computed must not hide a fault of this code."""
    monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_features(capsys, run, out, *words, code=0):
    """What `features --json` prints, and the arrays of the file that it wrote."""
    assert main(["features", f"--workdir={run}", f"--out={out}", *map(str, words), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    with np.load(out, allow_pickle=False) as archive:
        return json.loads(line), dict(archive)


def compute_features(run, images):
    """What the hidden layer of the run's network gives for images, by NumPy."""
    network = cnn_vit.load(run)
    layer = network.params["hidden"]["layers"][0]
    pixels = (images / 255 - np.array(network.preprocessing["mean"])) / np.array(network.preprocessing["std"])
    return np.maximum(pixels.reshape(len(images), -1) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)


def test_the_file_holds_every_image_of_every_split_once_in_order(run, capsys, tmp_path):
    answer, arrays = write_features(capsys, run, tmp_path / "all.npz")
    splits = data.load({"name": "digits"}).splits
    assert sorted(arrays) == ["classes", "features", "index", "label", "split"]
    assert arrays["features"].dtype == np.float32
    start = 0
    for name, split in splits.items():
        rows = slice(start, start + len(split))
        assert (arrays["split"][rows] == name).all()
        np.testing.assert_array_equal(arrays["index"][rows], np.arange(len(split)))
        np.testing.assert_array_equal(arrays["label"][rows], split.labels)
        expected = compute_features(run, split.read(np.arange(len(split))))
        np.testing.assert_allclose(arrays["features"][rows], expected, rtol=1e-4, atol=1e-4)
        start += len(split)
    assert arrays["classes"].tolist() == [str(digit) for digit in range(10)]
    assert start == len(arrays["features"]) == answer["n"] == 1797
    assert answer["counts"] == {name: len(split) for name, split in splits.items()}
    assert (answer["shape"], answer["layer"], answer["pool"]) == ([8], "features", "mean")


def test_one_split_of_one_layer_and_its_table(run, capsys, tmp_path):
    _, arrays = write_features(capsys, run, tmp_path / "a.npz", "--split=test", "--layer=head")
    predictions = np.load(run / "predictions" / "test.npz")
    np.testing.assert_allclose(arrays["features"], predictions["scores"], rtol=1e-5, atol=1e-5)
    assert main(["features", f"--workdir={run}", f"--out={tmp_path / 'a.npz'}", "--split=test", "--layer=head"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["features", "10", "numbers", "for", "each", "of", "360", "images"] for line in lines)
    assert lines[-1] == f"next: cnn-vit probe --workdir={run} --layer=head"


def test_images_without_labels_have_paths_and_a_broken_one_is_left_out(run, capsys, tmp_path):
    split = data.load({"name": "digits"}).splits["test"]
    images = split.read(np.arange(3))
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, image in zip("abd", images, strict=True):
        Image.fromarray(image[..., 0]).save(folder / f"{name}.png")
    (folder / "c.jpg").write_bytes(b"not an image")
    answer, arrays = write_features(capsys, run, tmp_path / "b.npz", folder, code=2)
    assert sorted(arrays) == ["features", "path"]
    assert arrays["path"].tolist() == [f"{folder}/{name}.png" for name in "abd"]
    np.testing.assert_allclose(arrays["features"], compute_features(run, images), rtol=1e-4, atol=1e-4)
    assert [entry["path"] for entry in answer["broken"]] == [f"{folder}/c.jpg"]
    (folder / "c.jpg").unlink()
    _, whole = write_features(capsys, run, tmp_path / "b.npz", folder)
    np.testing.assert_array_equal(whole["features"], arrays["features"])


def test_paths_of_data_with_labels_are_their_names(run, capsys, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(np.full((9, 7), 20 * number, np.uint8)).save(tmp_path / "data" / name / f"{number}.png")
    _, arrays = write_features(capsys, run, tmp_path / "c.npz", f"--data={tmp_path / 'data'}", "--split=train")
    assert arrays["classes"].tolist() == ["ant", "bee"]
    assert [path.partition("/")[0] for path in arrays["path"]] == [["ant", "bee"][label] for label in arrays["label"]]
    assert len(set(arrays["path"])) == len(arrays["path"]) == 20


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--out=features.csv"], "--out=features.csv does not end with .npz, which is what is written; add that"),
        (["--out=a.npz", "--split=tset"], "no split 'tset'; did you mean test?"),
        (["--out=a.npz", "--split=test", "x.png"], "--split belongs to data with labels, and x.png has none"),
        (["--out=a.npz", "gone.png"], "gone.png could not be read: not accessible"),
        (["--out=a.npz", "--pool=max"], "no pool 'max'; there is mean, none"),
        (["--out=a.npz", "--layer=hed"], "no layer of mlp/test 'hed'; did you mean head?"),
        ([], "cnn-vit features: the following arguments are required: --out"),
    ],
)
def test_wrong_words_are_one_line_and_nothing_is_written(run, capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    assert main(["features", f"--workdir={run}", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(line)
    assert list(tmp_path.iterdir()) == []
