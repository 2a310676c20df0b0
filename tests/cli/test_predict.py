"""`predict`: classes of files, folders and zips; broken images beside the others."""

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
    return data.load({"name": "digits"}).splits["test"]


@pytest.fixture
def pictures(split, tmp_path):
    """A folder of three test digits as PNG, one of them in a folder inside; their indices."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.png", "more/c.png"]):
        Image.fromarray(split.read(np.array([index]))[0, ..., 0]).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def predicted(capsys, words, code=0):
    assert main(["predict", *map(str, words), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)["images"]


def test_a_file_gets_the_class_that_evaluation_gave_it(run, split, images, capsys):
    kept = np.load(run / "predictions" / "test.npz")
    found = predicted(capsys, [f"--workdir={run}", images])
    assert [entry["path"] for entry in found] == [f"{images}/{name}" for name in ("a.png", "b.png", "more/c.png")]
    assert [entry["classes"][0]["name"] for entry in found] == [str(one) for one in kept["predicted"][:3]]
    scores = kept["scores"][:3]
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose([entry["classes"][0]["probability"] for entry in found], shares.max(1), rtol=1e-5)


def test_a_zip_gives_what_its_folder_gives(run, images, capsys, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(images.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    found = predicted(capsys, [f"--workdir={run}", tmp_path / "photos.zip"])
    assert [entry["classes"] for entry in found] == [
        entry["classes"] for entry in predicted(capsys, [f"--workdir={run}", images])
    ]


def test_top_says_how_many_classes_and_all_sum_to_one(run, images, capsys):
    (two,) = predicted(capsys, [f"--workdir={run}", images / "a.png", "--top=2"])
    (all_,) = predicted(capsys, [f"--workdir={run}", images / "a.png", "--top=99"])
    assert (len(two["classes"]), len(all_["classes"])) == (2, 10)
    chances = [one["probability"] for one in all_["classes"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-6)


def test_a_broken_image_is_named_beside_the_others_and_the_exit_code_is_2(run, images, capsys):
    (images / "bad.jpg").write_bytes(b"not an image")
    found = predicted(capsys, [f"--workdir={run}", images, images / "gone.png"], code=2)
    broken = [entry for entry in found if "error" in entry]
    assert [entry["path"] for entry in broken] == [f"{images}/bad.jpg", f"{images}/gone.png"]
    assert len(found) == 5
    main(["predict", f"--workdir={run}", str(images)])
    out, err = capsys.readouterr()
    assert "bad.jpg not read: " in " ".join(out.split())
    assert err.splitlines()[-1].startswith(f"{images}/bad.jpg of 4 could not be read")


@pytest.mark.parametrize(("words", "said"), [(["--top=0", "x.png"], "--top=0 names no class"), ([], "cnn-vit predict")])
def test_wrong_words_are_one_line_and_exit_2(run, capsys, words, said):
    assert main(["predict", f"--workdir={run}", *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_the_verb_takes_arrays_and_paths_alike(run, split, pictures):
    network = cnn_vit.load(run)
    images = split.read(np.arange(3))
    by_path = cnn_vit.predict(network, [pictures / "a.png", pictures / "b.png", pictures / "more"])
    np.testing.assert_array_equal(by_path, cnn_vit.predict(network, images))
    as_float = images.astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(cnn_vit.predict(network, as_float), by_path, rtol=1e-6)
    with pytest.raises(cnn_vit.errors.UserError, match=r"not all in 0\.\.1"):
        cnn_vit.predict(network, images.astype(np.float32))
    with pytest.raises(cnn_vit.errors.UserError, match=r"takes .* 8x8x1"):
        cnn_vit.predict(network, images[:, :4])
