"""Everything that goes wrong with images and folders, with real bytes: named, with reason and remedy, before a step.

Nothing here may hang, take memory or raise anything but ours.
"""

import os
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import spoiled
from image_files import filled, noise, png, zipped
from PIL import Image, TiffImagePlugin

from cnn_vit import data
from cnn_vit.__main__ import main
from cnn_vit.data.decode import images, orientation
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.nn.values import initial_values
from cnn_vit.training import evaluation, prediction, step, trained

LONGEST = 60  # seconds that anything may take, on a busy machine
GOOD = {"train/cats": 2, "train/dogs": 2, "val/cats": 1, "val/dogs": 1}
TRAIN = (
    "train", "--config=configs/folder_resnet.py:smoke", "--config.data.name=folder", "--config.data.classes=none",
    "--config.data.image_size=8",
)  # fmt: skip
named = {"ids": lambda one: one.name}


@pytest.fixture(autouse=True)
def _limited(tmp_path_factory):
    """No memory of other tests' files, and an end for what hangs."""

    def over(number, frame):
        raise TimeoutError(f"more than {LONGEST} seconds")

    cache.configure(folder=tmp_path_factory.mktemp("cache"))
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def loaded(path, **changes):
    return data.load({"name": "folder", "path": str(path), "image_size": 8, "channels": 3, "workers": 2, **changes})


def refused(path, **changes):
    with pytest.raises(UserError) as caught:
        loaded(path, **changes)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    return caught.value


# Files


@pytest.mark.parametrize("bad", [*spoiled.pictures(), *spoiled.bombs()], **named)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_file_that_is_no_image_is_named_with_reason_and_remedy_and_can_be_skipped(tmp_path, bad, packed):
    filled(tmp_path / "root", GOOD)
    (tmp_path / "root/train/cats" / bad.name).write_bytes(bad.content)
    path = zipped(tmp_path / "root", tmp_path / "a.zip") if packed else tmp_path / "root"
    said = str(refused(path))
    assert said.startswith(f"{path}/train/cats/{bad.name} cannot be read: ")
    assert bad.reason in said
    assert said.endswith(f"; {bad.remedy}, then give the same command again")
    found = loaded(path, on_bad_image="skip")
    assert found.facts["counts"] == {"train": 4, "validation": 2}
    assert found.facts["skipped"][0].startswith(f"{path}/train/cats/{bad.name}: ")
    with pytest.raises(images.UnreadableError):
        images.decode(bad.content, channels=1)


@pytest.mark.parametrize("place", spoiled.places(), **named)
def test_what_stands_where_a_file_should_is_named_and_never_opened(tmp_path, place):
    filled(tmp_path, GOOD)
    place.make(tmp_path / "train/cats" / place.name)
    said = str(refused(tmp_path))
    assert said.startswith(f"{tmp_path}/train/cats/{place.name} cannot be read: {place.reason}")
    assert place.remedy in said
    assert loaded(tmp_path, on_bad_image="skip").facts["counts"] == {"train": 4, "validation": 2}


@pytest.mark.parametrize("workers", [0, 4])
def test_all_of_them_are_listed_together(tmp_path, workers):
    filled(tmp_path, GOOD)
    every = [*spoiled.pictures(), *spoiled.bombs(), *spoiled.places()]
    for one in every:
        path = tmp_path / "train" / ("dogs" if one.name < "k" else "cats") / one.name
        path.write_bytes(one.content) if isinstance(one, spoiled.Bad) else one.make(path)
    error = refused(tmp_path, workers=workers)
    assert str(error).startswith(f"{len(every)} of {len(every) + 6} images cannot be read: {tmp_path}/train/cats/")
    assert len(error.details) == len(every)
    for one in every:
        (line,) = (line for line in error.details if f"/{one.name} cannot be read: " in line)
        assert one.reason in line
        assert one.remedy in line
    assert [line.partition(" cannot")[0] for line in error.details] == sorted(
        str(tmp_path / "train" / ("dogs" if one.name < "k" else "cats") / one.name) for one in every
    )


def test_a_command_says_it_all_before_the_first_step_and_ends_with_2(tmp_path, capfd):
    filled(tmp_path / "root", {"cats": 20, "dogs": 20})
    some = spoiled.pictures()[::9]
    for one in some:
        (tmp_path / "root/cats" / one.name).write_bytes(one.content)
    assert main([*TRAIN, f"--config.data.path={tmp_path}/root", f"--workdir={tmp_path}/run"]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert f"{len(some)} of {40 + len(some)} images cannot be read: " in said.splitlines()[-1]
    for one in some:
        assert sum(f"{tmp_path}/root/cats/{one.name} cannot be read: " in line for line in said.splitlines()[:-1]) == 1
    assert not (tmp_path / "run/metrics.jsonl").exists()


MEASURED = """
import resource, sys
from cnn_vit import data
from cnn_vit.data.audit import survey
from cnn_vit.data.reading import materialize
from cnn_vit.errors import UserError
from cnn_vit.files import cache
cache.settle(folder=sys.argv[1])
given = {"name": "folder", "image_size": 8, "channels": 3, "workers": 4}
data.load({**given, "path": sys.argv[2]})
survey.survey({**given, "path": sys.argv[2]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[3:]:
    for memory, check in ((2**29, "all"), (0, "all"), (0, "header")):
        materialize.MEMORY = memory
        cache.settle(folder=f"{sys.argv[1]}/{memory}{check}")
        try:
            data.load({**given, "path": path, "check": check})
        except UserError as error:
            print(str(error).partition(" ")[0])
    print(len(survey.survey({**given, "path": path}).broken))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def megabytes(tmp_path, *paths):
    """What looking at data sets takes more than a good one did, and how many files of each could not be read."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    filled(tmp_path / "good", GOOD)
    words = [sys.executable, "-c", MEASURED, str(tmp_path / "cache"), str(tmp_path / "good"), *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=5 * LONGEST, check=True)
    *listed, found = map(int, done.stdout.split())
    return found, listed


def test_bombs_take_less_than_200_megabytes(tmp_path):
    filled(tmp_path / "bombs", GOOD)
    every = spoiled.bombs()
    for one in every:
        (tmp_path / "bombs/train/cats" / one.name).write_bytes(one.content)
    found, listed = megabytes(tmp_path, tmp_path / "bombs")
    assert listed == [len(every)] * 4
    assert found < 200


def test_many_large_files_take_the_memory_of_one(tmp_path):
    """Seven of nearly the largest size, which were once all kept with the errors about them, or read side by side."""
    filled(tmp_path / "files", GOOD)
    beginnings = (b"", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P3 9 9 255 #", b"BM", b"II*\0")
    for at, start in enumerate(beginnings):
        with open(tmp_path / f"files/train/cats/large{at}.png", "wb") as file:
            file.write(start)
            file.truncate(90_000_000)
    filled(tmp_path / "packed", GOOD)
    with zipfile.ZipFile(
        zipped(tmp_path / "packed", tmp_path / "a.zip"), "a", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as one:
        for at in range(3):
            one.writestr(f"train/cats/large{at}.png", bytes(90_000_000))
    found, listed = megabytes(tmp_path, tmp_path / "files", tmp_path / "a.zip")
    assert listed == [7, 7, 6, 7] + [3] * 4  # the header of pixels as text looks well
    assert found < 200


# Names


@pytest.mark.parametrize("name", spoiled.ODD, ids=ascii)
def test_odd_names_are_read_and_where_they_are_bad_printed_escaped(tmp_path, name, capfd):
    filled(tmp_path, GOOD)
    path = os.path.join(os.fsencode(tmp_path), b"train/cats", name.encode(errors="surrogateescape"))
    with open(path, "wb") as file:
        file.write(png(noise(6, 8, 3)))
    assert f"cats/{name}" in loaded(tmp_path).splits["train"].names
    with open(path, "wb") as file:
        file.write(b"text")
    said = str(refused(tmp_path))
    assert said.isprintable()
    assert said.isascii() or name.isprintable()
    assert (name if name.isprintable() and len(name) < 99 else ascii(name)[1:9])[-40:] in said
    assert main([*TRAIN, f"--config.data.path={tmp_path}", f"--workdir={tmp_path}/run"]) == 2
    told = capfd.readouterr().err
    assert " cannot be read: " in told.splitlines()[-1]
    assert told.splitlines()[-1].isprintable()
    assert "Traceback" not in told


# The same pixels


def containers(pixels):
    """One color image in everything that holds it exactly, upright."""
    image = Image.fromarray(pixels)
    opaque = Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 255)))
    other = Image.fromarray(255 - pixels)
    few = Image.fromarray(pixels // 86 * 86)
    yield "png", pixels, spoiled.encoded(image, "PNG")
    yield "interlaced png", pixels, spoiled.interlaced(pixels)
    yield "packed hard", pixels, spoiled.encoded(image, "PNG", optimize=True)
    yield "rgba", pixels, spoiled.encoded(opaque, "PNG")
    yield "bmp", pixels, spoiled.encoded(image, "BMP")
    yield "ppm", pixels, spoiled.encoded(image, "PPM")
    yield "ppm as text", pixels, text_of(pixels)
    yield "webp", pixels, spoiled.encoded(image, "WEBP", lossless=True)
    yield "webp film", pixels, spoiled.encoded(image, "WEBP", lossless=True, save_all=True, append_images=[other])
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"tiff {packing}", pixels, spoiled.encoded(image, "TIFF", compression=packing)
    yield "apng", pixels, spoiled.encoded(image, "PNG", save_all=True, append_images=[other])
    yield "tiff of two pages", pixels, spoiled.encoded(image, "TIFF", save_all=True, append_images=[other])
    yield "junk behind", pixels, spoiled.encoded(image, "PNG") + b"<html>" * 99
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        palette = few.quantize(64, dither=Image.Dither.NONE, method=Image.Quantize.MAXCOVERAGE)
        yield f"palette {kind}", np.asarray(palette.convert("RGB")), spoiled.encoded(palette, kind)
    for turn in range(1, 9):
        yield f"turned {turn} png", pixels, turned(image, turn, "PNG")
        yield f"turned {turn} webp", pixels, turned(image, turn, "WEBP", lossless=True)
        yield f"turned {turn} tiff", pixels, turned(image, turn, "TIFF")


def text_of(pixels):
    """A PPM written as text, with comments."""
    height, width, _ = pixels.shape
    rows = "\n".join(" ".join(map(str, row.reshape(-1))) + " # a row" for row in pixels)
    return f"P3 # colors\n{width} {height} # size\n255\n{rows}\n".encode()


STORED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[::-1],
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[:, ::-1],
}  # an upright image as a camera stores it under each orientation: row 0 and column 0 by EXIF 2.32, table of tag 274


def turned(image, turn, kind, **options):
    """The image as a camera that was held so stores it."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[turn](np.asarray(image))))
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[orientation.ORIENTATION] = turn
        return spoiled.encoded(stored, kind, tiffinfo=tags, **options)
    exif = Image.Exif()
    exif[orientation.ORIENTATION] = turn
    return spoiled.encoded(stored, kind, exif=exif, **options)


def grays(levels):
    """One gray image in everything that holds it exactly."""
    image = Image.fromarray(levels)
    white = Image.new("L", image.size, 255)
    wide = levels.astype(np.uint16) * 257
    yield "png", spoiled.encoded(image, "PNG")
    yield "png of 16 bits", spoiled.encoded(wide, "PNG")
    yield "tiff of 16 bits", spoiled.encoded(wide, "TIFF")
    yield "tiff of 16 bits, other way round", spoiled.encoded(Image.frombytes(
        "I;16B", image.size, wide.astype(">u2").tobytes()), "TIFF")  # fmt: skip
    yield "pgm", spoiled.encoded(image, "PPM")
    yield "pgm of 16 bits", b"P5 %d %d 65535\n" % image.size + wide.astype(">u2").tobytes()
    yield "with alpha", spoiled.encoded(Image.merge("LA", (image, white)), "PNG")
    yield "in colors", spoiled.encoded(Image.merge("RGB", (image,) * 3), "PNG")
    yield "gif", spoiled.encoded(image, "GIF")
    yield "bmp", spoiled.encoded(image, "BMP")
    yield "webp", spoiled.encoded(Image.merge("RGB", (image,) * 3), "WEBP", lossless=True)


def blacks(bits):
    """One image of black and white in everything that holds it."""
    image = Image.fromarray(bits)
    yield "png", spoiled.encoded(image, "PNG")
    yield "fax", spoiled.encoded(image, "TIFF", compression="group4")
    yield "pbm", spoiled.encoded(image, "PPM")
    yield "bmp", spoiled.encoded(image, "BMP")
    yield "gif", spoiled.encoded(image, "GIF")
    yield "gray", spoiled.encoded(image.convert("L"), "PNG")


@pytest.fixture(scope="module")
def network():
    """A network of random values that looks at 12x12 colors."""
    form = step.NetworkSpec("mlp/test", (), 3, (12, 12, 3), "float32", "softmax")
    params, stats = initial_values(step.get_network(form), 0)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = np.random.default_rng(0).normal(0, 1, kernel.shape).astype(np.float32)
    plain = dict(mean=[0.5] * 3, std=[0.3] * 3, image_size=[12, 12], channels=3, fit="pad(127)")
    return trained.Trained(form, params, stats, ("a", "b", "c"), plain)


def answers(network, folder, files):
    """Class probabilities of each file, given by its name, one network for all."""
    for name, content in files.items():
        (folder / f"{name}.jpg").write_bytes(content)  # whatever it is
    found = prediction.predict(network, [folder / f"{name}.jpg" for name in files])
    return dict(zip(files, found, strict=True))


@pytest.mark.parametrize("family", ["colors", "grays", "blacks"])
def test_the_same_pixels_in_another_container_are_the_same_prediction_bit_for_bit(tmp_path, network, family):
    if family == "colors":
        files = {name: content for name, pixels, content in containers(noise(15, 10, 3)) if "palette" not in name}
    else:
        files = dict(grays(noise(15, 10)) if family == "grays" else blacks(noise(15, 10) > 99))
    found = answers(network, tmp_path, files)
    first = next(iter(found.values()))
    assert len(np.unique(first)) == 3
    for name, one in found.items():
        assert one.tobytes() == first.tobytes(), name


def test_every_container_gives_the_pixels_it_was_made_from():
    for name, pixels, content in containers(noise(15, 10, 3)):
        np.testing.assert_array_equal(images.decode(content, channels=3), pixels, err_msg=name)
        assert images.read_header(content)[:2] == pixels.shape[:2], name


def test_training_and_evaluation_see_what_prediction_sees(tmp_path, network):
    """One implementation: a folder that is evaluated gives the probabilities of its files, predicted one by one."""
    filled(tmp_path, {f"{split}/{name}": 3 for split in ("train", "val", "test") for name in "abc"}, size=(9, 14))
    found = evaluation.evaluate(network, str(tmp_path))["rows"]
    paths = [tmp_path / f"test/{name}/{at:03}.png" for name in "abc" for at in range(3)]
    np.testing.assert_array_equal(found["predicted"], prediction.predict(network, paths).argmax(1))
    section = evaluation.section_for(network, str(tmp_path))
    pixels = data.load(section).splits["test"].read(np.arange(9))
    seen = np.stack([one.pixels for one in prediction.read_images(network, paths)])
    np.testing.assert_array_equal(pixels, seen)
    assert (pixels[:, 0] == 127).all()  # padded above: 9 x 14 pixels in 12 x 12


# Folders


@pytest.mark.parametrize("folder", spoiled.folders(), **named)
def test_a_folder_that_goes_wrong_is_refused_by_name_and_one_that_only_looks_so_is_read(tmp_path, folder):
    (root := tmp_path / "root").mkdir()
    folder.make(root)
    if folder.sentence is None:
        assert loaded(root).facts["counts"]["train"] == folder.train
    else:
        said = str(refused(root))
        assert folder.sentence in said
        assert "root" in said or "one class" in said or "too few" in said


@pytest.mark.parametrize("kind", ["one more", "one less", "renamed"])
def test_other_classes_than_the_network_was_trained_on_are_refused_with_both_lists(tmp_path, network, kind):
    names = {"one more": "abcd", "one less": "ab", "renamed": "abx"}[kind]
    filled(tmp_path, {f"{split}/{name}": 2 for split in ("train", "val", "test") for name in names})
    with pytest.raises(UserError) as caught:
        evaluation.evaluate(network, str(tmp_path))
    assert "a, b, c" in str(caught.value)
    assert ", ".join(names) in str(caught.value)
