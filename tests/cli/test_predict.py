"""`predict` names the classes of files, folders and zips, and lists broken images beside the others."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data
from cnn_vit.__main__ import main


@pytest.fixture(scope="module")
def split(run):
    """The test split that the run was tested on."""
    return data.load({"name": "digits"}).splits["test"]


@pytest.fixture
def photos(split, tmp_path):
    """A folder with the first three digits of the test split as PNG files, one of them in a folder inside."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.png", "more/c.png"]):
        Image.fromarray(split.read(np.array([index]))[0, ..., 0]).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(capsys, words, code=0):
    """The entries of the images that `predict` prints as JSON, where it ends with this exit code."""
    assert main(["predict", *map(str, words), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)["images"]


def test_a_file_gets_the_class_that_evaluation_gave_it(run, split, photos, capsys):
    predictions = np.load(run / "predictions" / "test.npz")
    entries = predict(capsys, [f"--workdir={run}", photos])
    assert [entry["path"] for entry in entries] == [f"{photos}/{name}" for name in ("a.png", "b.png", "more/c.png")]
    best_classes = [entry["classes"][0] for entry in entries]
    assert [best["name"] for best in best_classes] == [str(label) for label in predictions["predicted"][:3]]
    scores = predictions["scores"][:3]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)  # softmax
    np.testing.assert_allclose([best["probability"] for best in best_classes], probabilities.max(1), rtol=1e-5)


def test_a_zip_gives_what_its_folder_gives(run, photos, capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    of_zip = predict(capsys, [f"--workdir={run}", tmp_path / "photos.zip"])
    of_folder = predict(capsys, [f"--workdir={run}", photos])
    assert [entry["classes"] for entry in of_zip] == [entry["classes"] for entry in of_folder]


def test_top_says_how_many_classes_and_all_sum_to_one(run, photos, capsys):
    (top_two,) = predict(capsys, [f"--workdir={run}", photos / "a.png", "--top=2"])
    (top_all,) = predict(capsys, [f"--workdir={run}", photos / "a.png", "--top=99"])
    assert (len(top_two["classes"]), len(top_all["classes"])) == (2, 10)
    probabilities = [score["probability"] for score in top_all["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)


def test_a_broken_image_is_named_beside_the_others_and_the_exit_code_is_2(run, photos, capsys):
    (photos / "bad.jpg").write_bytes(b"not an image")
    entries = predict(capsys, [f"--workdir={run}", photos, photos / "gone.png"], code=2)
    broken = [entry for entry in entries if "error" in entry]
    assert [entry["path"] for entry in broken] == [f"{photos}/bad.jpg", f"{photos}/gone.png"]
    assert len(entries) == 5
    main(["predict", f"--workdir={run}", str(photos)])
    out, err = capsys.readouterr()
    assert "bad.jpg not read: " in " ".join(out.split())
    assert err.splitlines()[-1].startswith(f"{photos}/bad.jpg of 4 could not be read")


@pytest.mark.parametrize(
    ("words", "beginning"), [(["--top=0", "x.png"], "--top=0 names no class"), ([], "cnn-vit predict")]
)
def test_wrong_words_are_one_line_and_exit_2(run, capsys, words, beginning):
    assert main(["predict", f"--workdir={run}", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(beginning)


def test_the_verb_takes_arrays_and_paths_alike(run, split, photos):
    network = cnn_vit.load(run)
    images = split.read(np.arange(3))
    by_path = cnn_vit.predict(network, [photos / "a.png", photos / "b.png", photos / "more"])
    np.testing.assert_array_equal(by_path, cnn_vit.predict(network, images))
    as_float = images.astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(cnn_vit.predict(network, as_float), by_path, rtol=1e-6)
    with pytest.raises(cnn_vit.errors.UserError, match=r"not all in 0\.\.1"):
        cnn_vit.predict(network, images.astype(np.float32))
    with pytest.raises(cnn_vit.errors.UserError, match=r"takes .* 8x8x1"):
        cnn_vit.predict(network, images[:, :4])
