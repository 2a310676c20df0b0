"""The command `new`: a folder never seen before becomes a recipe that runs."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import photos
import pytest
from PIL import Image

from cnn_vit import settings
from cnn_vit.__main__ import main
from cnn_vit.cli import new
from cnn_vit.drafting import stopwatch
from cnn_vit.drafting.stopwatch import Pace
from cnn_vit.training import plan

TWO_CLASSES = {"cats": 8, "dogs": 7}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """A stopwatch that says 0.1 s a step, without a step."""
    pace = Pace(step=0.1, steps=30, evaluation=0.0, start=0.0)
    monkeypatch.setattr(stopwatch, "measure_pace", lambda settings, dataset, *, weights: pace)


def new_recipe(capsys, *words, code=0):
    """Runs `new`; returns its JSON answer, or the last line of stderr where it must fail with an exit code."""
    capsys.readouterr()
    assert main(["new", *map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out) if code == 0 else err.splitlines()[-1]


def show_settings(capsys, recipe):
    """Returns the final settings of a recipe, as `train --show` prints them."""
    capsys.readouterr()
    assert main(["train", f"--config={recipe}", "--show", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["values"]


@pytest.mark.parametrize(
    ("images", "name"),
    [("photos/", "photos"), ("My Füße 2.zip", "my_fue_2"), ("numbers", "numbers_recipe"), ("numpy", "numpy_recipe"),
     ("mine.py:images", "mine_recipe"), ("...", "images")],
)  # fmt: skip
def test_a_recipe_has_a_name_that_nothing_else_has(here, images, name):
    """One called numbers.py would be imported by numpy in its place, by whatever Python is started in that folder."""
    assert new.recipe_name(images) == name


def test_a_users_own_program_is_never_written_over(here, clock, capsys):
    photos.folder(here / "photos", TWO_CLASSES)
    for content in (b"def images(split): ...", b"\xff\x00"):
        (here / "photos.py").write_bytes(content)
        assert "is not a recipe (it has no get_config)" in new_recipe(capsys, "photos/", "--force", code=2)
        assert (here / "photos.py").read_bytes() == content


def test_a_folder_of_any_formats_becomes_a_recipe_that_train_reads(here, clock, capsys):
    photos.folder(here / "photos", TWO_CLASSES)
    answer = new_recipe(capsys, "photos/")
    assert answer["recipe"] == "photos.py"
    assert (answer["classes"], answer["class_counts"]) == (["cats", "dogs"], TWO_CLASSES)
    assert answer["counts"] == {"train": 11, "validation": 2, "test": 2}
    values = show_settings(capsys, "photos.py")
    assert (values["data.name"], values["data.path"]) == ("folder", "photos")
    assert (values["data.channels"], values["data.classes"], values["data.batch_size"]) == (3, 2, 8)
    assert values["data.image_size"] in (24, 32)  # of sides of 20 to 60 pixels
    assert values["duration"] == "300 epochs"  # 11 images in steps of 8 that take 0.1 s: 413 steps, 41 s
    assert (answer["steps"], answer["seconds"]) == (413, pytest.approx(41.3))
    assert values["model.name"] == answer["model"] == "cnn/small"


def test_the_text_ends_with_the_next_command_and_names_what_was_found(here, clock, capsys):
    photos.folder(here / "photos", TWO_CLASSES)
    assert main(["new", "photos"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^classes +2: cats 8, dogs 7$", out, re.M)
    assert re.search(r"^a step +0\.100 s for 8 images \(mean of 30\), on ", out, re.M)
    assert re.search(r"^the run +300 epochs, 413 steps: about 40 seconds$", out, re.M)
    assert out.splitlines()[-1] == "next: cnn-vit train --config=photos.py"
    assert err.splitlines()[0] == "looking at photos"


def test_gray_written_digits_keep_their_size_and_are_not_mirrored(here, clock, capsys):
    photos.folder(here / "digits", {str(digit): 3 for digit in range(10)}, formats=photos.GRAY, side_range=(28, 28))
    answer = new_recipe(capsys, "digits", "--model=vit")
    values = show_settings(capsys, "digits.py")
    assert answer["image_shape"] == [28, 28, 1]
    assert values["data.augment"] == ["pad_crop(3)"]
    assert values["model.name"] == "vit/Ti4-gap"  # 7 x 7 patches


@pytest.mark.parametrize("kind", ["cnn", "vit"])
@pytest.mark.parametrize("size", [None, 8, 50, 96])
def test_every_recipe_and_its_smoke_run_pass_the_checks(here, clock, capsys, kind, size):
    photos.folder(here / "photos", TWO_CLASSES, side_range=(11, 90))
    new_recipe(capsys, "photos", f"--model={kind}", *([f"--image_size={size}"] if size else []))
    for recipe in ("photos.py", "photos.py:smoke"):
        plan.check(settings.load(recipe))


def test_recipes_are_as_ruff_leaves_them_whatever_the_folder_is_called(here, clock, capsys):
    names = [
        "Été à Nîmes",
        "it's",
        'say "a"',
        "a'b\"c",
        "back\\slash",
        "n\new",
        '"""',
        "写真",
        "x" * 90,
        "y" * 110,
        "#",
    ]
    recipes = []
    for number, name in enumerate(names):
        photos.folder(here / name, {"cats": 5, f"class {name}"[:200]: 5}, formats=("a.bmp",), side_range=(8, 8))
        answer = new_recipe(capsys, name, f"--out=recipe{number}.py")
        assert show_settings(capsys, answer["recipe"])["data.path"] == name
        recipes.append(answer["recipe"])
    ruff = [sys.executable, "-m", "ruff", "format", "--diff", "--isolated", "--line-length=120", *recipes]
    process = subprocess.run(ruff, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, ""), process.stdout + process.stderr


def test_a_recipe_is_named_after_the_images_in_letters_that_need_no_quotes(here, clock, capsys):
    photos.folder(here / "Été 2024", TWO_CLASSES, formats=("rgb.jpg",))
    assert new_recipe(capsys, "Été 2024")["recipe"] == "ete_2024.py"
    shutil.make_archive(str(here / "My Photos"), "zip", here / "Été 2024")
    answer = new_recipe(capsys, "My Photos.zip")
    assert (answer["recipe"], answer["class_counts"]) == ("my_photos.py", TWO_CLASSES)
    photos.folder(here / "写真", TWO_CLASSES, formats=("rgb.jpg",))
    assert new_recipe(capsys, "写真")["recipe"] == "images.py"


def test_arrays_become_a_recipe_too(here, clock, capsys):
    pixels, labels = np.zeros((20, 16, 16), np.uint8), np.arange(20) % 2
    np.savez(here / "some.npz", train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    answer = new_recipe(capsys, "some.npz")
    assert (answer["image_shape"], answer["counts"]) == ([16, 16, 1], {"train": 18, "validation": 2, "test": 20})
    assert show_settings(capsys, "some.py")["data.name"] == "arrays"


def test_a_recipe_that_is_there_is_written_over_only_by_force(here, clock, capsys):
    photos.folder(here / "photos", TWO_CLASSES, formats=("rgb.jpg",))
    (here / "photos.py").write_text("def get_config(): ...")
    assert new_recipe(capsys, "photos", code=2) == (
        "photos.py is there already; name another with --out=FILE, or write over it with --force"
    )
    assert (here / "photos.py").read_text() == "def get_config(): ..."
    new_recipe(capsys, "photos", "--force")
    assert "def get_config" in (here / "photos.py").read_text()


def test_a_class_of_one_or_two_images_is_noted(here, clock, capsys):
    photos.folder(here / "photos", {"cats": 40, "dogs": 30, "rare": 1, "seldom": 2}, formats=("rgb.jpg",))
    notes = new_recipe(capsys, "photos")["notes"]
    for split in ("validation", "test"):
        sentence = (
            f"{split} has no image of rare, seldom, so that nothing is measured of them; give each class at least 10"
        )
        assert sentence in notes
    assert 'cats has 40 images and rare 1; loss.class_weight="balanced" may help the small classes' in notes


def test_a_bad_image_is_named_before_anything_is_written_or_skipped_where_that_is_asked(here, clock, capsys):
    photos.folder(here / "photos", TWO_CLASSES, formats=("rgb.jpg",))
    (here / "photos" / "cats" / "broken.jpg").write_bytes(b"no image")
    assert new_recipe(capsys, "photos", code=2).startswith("photos/cats/broken.jpg cannot be read: ")
    assert not (here / "photos.py").exists()
    answer = new_recipe(capsys, "photos", "--on-bad-image=skip")
    assert (answer["skipped"], answer["class_counts"]) == (1, TWO_CLASSES)
    assert show_settings(capsys, "photos.py")["data.on_bad_image"] == "skip"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "cnn-vit new: the following arguments are required: IMAGES"),
        (
            ["nowhere"],
            "nowhere is not there; give a folder of images, a zip of one, an npz file or my_file.py:my_function",
        ),
        (["empty"], "empty holds no images; put each class's images in a folder of its own, ROOT/CLASS/x.jpg"),
        (["flat"], "flat has 1 images right in it, there are no classes; put each class's images in a folder"),
        (["single"], "the data has one class, cats; there must be two at least to tell apart"),
        (["few"], "4 images are too few to set a tenth apart; add images, 10 at least"),
        (["texts"], "12 of 12 images cannot be read: texts/a/0.txt (not an image of a kind that is read"),
        (["here.txt"], "here.txt is not data that can be read; give a folder of images, a zip of one, an npz"),
        (["photos", "--model=vti"], "no kind of network 'vti'; did you mean vit?"),
        (["photos", "--minutes=0"], "--minutes=0 is not a length of a run; it takes 0.1 to 10,000 minutes"),
        (["photos", "--minutes=nan"], "--minutes=nan is not a length of a run; it takes 0.1 to 10,000 minutes"),
        (["photos", "--image_size=2"], "--image_size=2 is not a side of an image; it takes 8 to 1024 pixels"),
        (["photos", "--on_bad_image=drop"], "no way with bad images 'drop'; there is refuse, skip"),
        (["photos", "--layout=parts"], "no layout 'parts'; there is classes, splits"),
        (["here.npz", "--layout=splits"], "--layout=splits says what folders are, and here.npz has none; leave it out"),
        (["photos", "--out=photos"], "--out=photos is not a name of a recipe; end it in .py"),
        (["photos", "--config.seed=1"], "new takes no settings; leave out --config.seed=1"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_sentence(here, clock, capsys, words, sentence):
    (here / "here.txt").write_text("text")
    (here / "here.npz").write_text("never opened")
    (here / "empty").mkdir()
    for name, count in {"single/cats": 12, "few/cats": 2, "few/dogs": 2, "flat": 1}.items():
        (here / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(here / name / f"{number}.png")
    for name in ("a", "b", "c"):
        (here / "texts" / name).mkdir(parents=True)
        for number in range(4):
            (here / "texts" / name / f"{number}.txt").write_text("text")
    assert main(["new", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(sentence)
    assert not list(here.glob("*.py"))


def test_a_recipe_from_weights_takes_their_images_and_trains_the_head_of_few(here, clock, run, capsys):
    photos.folder(here / "photos", {"ants": 8, "bees": 7})
    answer = new_recipe(capsys, "photos", "--transfer", f"--weights={run}")
    assert main(["probe", f"--workdir={run}", "--data=photos", "--methods=linear", "--json"]) == 0
    probed = json.loads(capsys.readouterr().out)["linear"]["validation"]
    assert f"classifies {100 * probed['accuracy']:.1f} %" in answer["expectation"]
    assert f"of {probed['n']} validation images" in answer["expectation"]
    assert answer["expectation"] in " ".join((here / "photos.py").read_text().split())
    values = show_settings(capsys, "photos.py")
    preprocessing = json.loads((run / "preprocessing.json").read_text())
    for key in ("mean", "std", "image_size", "channels", "fit"):
        assert values[f"data.{key}"] == preprocessing[key]
    assert (values["pretrained.weights"], values["pretrained.freeze"]) == (str(run), "all but head")
    assert "its body stays as it is, and the head alone learns" in " ".join((here / "photos.py").read_text().split())


def test_small_gray_images_start_from_weights_at_hand_and_photos_ask_for_some(here, clock, capsys):
    photos.folder(here / "signs", {"stop": 8, "go": 7}, formats=("gray.png",), side_range=(28, 40))
    answer = new_recipe(capsys, "signs", "--transfer")
    assert answer["model"] == "cifar_resnet/8"
    values = show_settings(capsys, "signs.py")
    assert values["pretrained.weights"] == "cifar_resnet/8@mnist"
    assert values["data.image_size"] == [28, 28]
    assert "Image size, crop, mean and standard deviation are those" in " ".join(
        (here / "signs.py").read_text().split()
    )
    new_recipe(capsys, "signs", "--transfer", "--image_size=32", "--out=larger.py")
    assert "those of the weights; the image size is not." in " ".join((here / "larger.py").read_text().split())
    photos.folder(here / "photos", {"ants": 8, "bees": 7}, formats=("rgb.jpg",))
    assert "no weights at hand suit these images" in new_recipe(capsys, "photos", "--transfer", code=2)


@pytest.mark.parametrize(("layout", "classes"), [("classes", ["clinic1", "clinic2"]), ("splits", ["sick", "well"])])
def test_the_recipe_has_the_layout_that_was_asked_for(here, clock, capsys, layout, classes):
    for clinic in ("clinic1", "clinic2"):
        photos.folder(here / "photos" / clinic, {"sick": 8, "well": 7})
    assert "photos can be read in two ways" in new_recipe(capsys, "photos", code=2)
    assert new_recipe(capsys, "photos", f"--layout={layout}")["classes"] == classes
    values = show_settings(capsys, "photos.py")
    assert (values["data.layout"], values["data.classes"]) == (layout, 2)


def test_steps_are_really_timed(here, capsys, monkeypatch):
    monkeypatch.setattr(stopwatch, "TIMED_SECONDS", 0.05)
    photos.folder(here / "photos", TWO_CLASSES, formats=("rgb.jpg",), side_range=(8, 8))
    answer = new_recipe(capsys, "photos", "--minutes=0.1")
    assert answer["steps_timed"] >= 3
    assert 0 < answer["seconds_per_step"] < 5
    assert answer["steps"] >= 1


# The whole way --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "count", "kind"), [(2, 30, "cnn"), (40, 120, "vit"), (2, 3000, "vit"), (40, 3000, "cnn")]
)
def test_new_train_and_predict_work_at_the_first_try(here, capsys, classes, count, kind):
    """Four of the images are as large as a camera's or a telephone's."""
    class_counts = {f"kind {number:02}": count // classes for number in range(classes)}
    names = list(class_counts)
    photos.folder(here / "my photos é", class_counts)
    # Numbers 0 and len(FORMATS) of a class are in the first format, rgb.jpg
    stems = [f"{name}/0000" for name in names] + [f"{name}/{len(photos.FORMATS):04}" for name in names]
    for stem, size in zip(stems[:4], [(300, 400), (480, 640), (1200, 1600), (1600, 1200)], strict=True):
        label = names.index(stem.partition("/")[0])
        pixels = photos.pixels(label, classes, np.random.default_rng(1), size)
        assert (here / f"my photos é/{stem}.rgb.jpg").exists()
        photos.save(here / "my photos é" / stem, "rgb.jpg", pixels)
    answer = new_recipe(capsys, "my photos é/", f"--model={kind}")
    assert sum(answer["class_counts"].values()) == count
    short = f"--config.duration={min(answer['steps'], 30)} steps"
    assert main(["train", f"--config={answer['recipe']}", short, "--config.schedule.warmup=3 steps"]) == 0
    capsys.readouterr()
    assert main(["predict", "--workdir=runs/my_photos_e", "my photos é/kind 00", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert len(images) == count // classes
    for image in images:
        assert {predicted["name"] for predicted in image["classes"]} <= set(names)
