"""Whatever goes wrong with images and folders, of real bytes, is named with reason and remedy before the first step.

Nothing here may hang, take much memory or raise anything but our own errors.
"""

import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import spoiled
from image_files import encode_png, noise, write_images, write_zip
from PIL import Image, TiffImagePlugin

from cnn_vit import data
from cnn_vit.__main__ import main
from cnn_vit.data.decode import images, orientation
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.nn.values import initial_values
from cnn_vit.training import evaluation, forward, prediction, trained
from cnn_vit.training.rules import RuleSpec

LONGEST = 60  # seconds that any test may take, on a busy machine
MOST_MEMORY = 200  # MB that scanning spoiled data may take more than scanning good data
COUNTS = {"train/cats": 2, "train/dogs": 2, "val/cats": 1, "val/dogs": 1}
IMAGES = 6  # in these folders together
TRAIN = (
    "train", "--config=configs/folder_resnet.py:smoke", "--config.data.name=folder", "--config.data.classes=none",
    "--config.data.image_size=8",
)  # fmt: skip
by_name = {"ids": lambda case: case.name}


@pytest.fixture(autouse=True)
def _limited(tmp_path_factory):
    """An empty cache, and an end for whatever hangs."""

    def stop(number, frame):
        raise TimeoutError(f"more than {LONGEST} seconds")

    cache.configure(folder=tmp_path_factory.mktemp("cache"))
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def load_folder(path, **changes):
    return data.load({"name": "folder", "path": str(path), "image_size": 8, "channels": 3, "workers": 2, **changes})


def refused_with(path, **changes):
    """The error with which a folder is refused."""
    with pytest.raises(UserError) as caught:
        load_folder(path, **changes)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    return caught.value


# Files


@pytest.mark.parametrize("file", [*spoiled.unreadable_files(), *spoiled.bombs()], **by_name)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_an_unreadable_file_is_named_with_reason_and_remedy_and_can_be_skipped(tmp_path, file, as_zip):
    write_images(tmp_path / "root", COUNTS)
    (tmp_path / "root/train/cats" / file.name).write_bytes(file.content)
    path = write_zip(tmp_path / "root", tmp_path / "a.zip") if as_zip else tmp_path / "root"
    sentence = str(refused_with(path))
    assert sentence.startswith(f"{path}/train/cats/{file.name} cannot be read: ")
    assert file.reason in sentence
    assert sentence.endswith(f"; {file.remedy}, then give the same command again")
    dataset = load_folder(path, on_bad_image="skip")
    assert dataset.facts["counts"] == {"train": 4, "validation": 2}
    assert dataset.facts["skipped"][0].startswith(f"{path}/train/cats/{file.name}: ")
    with pytest.raises(images.UnreadableError):
        images.decode(file.content, channels=1)


@pytest.mark.parametrize("obstacle", spoiled.obstacles(), **by_name)
def test_an_obstacle_where_a_file_should_be_is_named_and_never_opened(tmp_path, obstacle):
    write_images(tmp_path, COUNTS)
    obstacle.make(tmp_path / "train/cats" / obstacle.name)
    sentence = str(refused_with(tmp_path))
    assert sentence.startswith(f"{tmp_path}/train/cats/{obstacle.name} cannot be read: {obstacle.reason}")
    assert obstacle.remedy in sentence
    assert load_folder(tmp_path, on_bad_image="skip").facts["counts"] == {"train": 4, "validation": 2}


@pytest.mark.parametrize("workers", [0, 4])
def test_all_unreadable_files_are_listed_together(tmp_path, workers):
    write_images(tmp_path, COUNTS)
    cases = [*spoiled.unreadable_files(), *spoiled.bombs(), *spoiled.obstacles()]
    paths = []
    for case in cases:
        path = tmp_path / "train" / ("dogs" if case.name < "k" else "cats") / case.name
        paths.append(str(path))
        if isinstance(case, spoiled.SpoiledFile):
            path.write_bytes(case.content)
        else:
            case.make(path)
    error = refused_with(tmp_path, workers=workers)
    total = len(cases) + IMAGES
    assert str(error).startswith(f"{len(cases)} of {total} images cannot be read: {tmp_path}/train/cats/")
    assert len(error.details) == len(cases)
    for case in cases:
        (line,) = (line for line in error.details if f"/{case.name} cannot be read: " in line)
        assert case.reason in line
        assert case.remedy in line
    assert [line.partition(" cannot")[0] for line in error.details] == sorted(paths)


def test_a_command_names_every_file_before_the_first_step_and_ends_with_2(tmp_path, capfd):
    write_images(tmp_path / "root", {"cats": 20, "dogs": 20})
    files = spoiled.unreadable_files()[::9]
    for file in files:
        (tmp_path / "root/cats" / file.name).write_bytes(file.content)
    assert main([*TRAIN, f"--config.data.path={tmp_path}/root", f"--workdir={tmp_path}/run"]) == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    *details, cause = printed.splitlines()
    assert f"{len(files)} of {40 + len(files)} images cannot be read: " in cause
    for file in files:
        assert sum(f"{tmp_path}/root/cats/{file.name} cannot be read: " in line for line in details) == 1
    assert not (tmp_path / "run/metrics.jsonl").exists()


# Loads and surveys a good folder (argument 2), then others (from argument 3 on), each with all ways to scan it; prints
# how many of its files could not be read each time, and at the end how many MB more the others took.
MEASURE_MEMORY = """
import resource, sys
from cnn_vit import data
from cnn_vit.data.audit import survey
from cnn_vit.data.reading import materialize
from cnn_vit.errors import UserError
from cnn_vit.files import cache
cache.configure(folder=sys.argv[1])
section = {"name": "folder", "image_size": 8, "channels": 3, "workers": 4}
data.load({**section, "path": sys.argv[2]})
survey.survey({**section, "path": sys.argv[2]})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[3:]:
    for memory, check in ((2**29, "all"), (0, "all"), (0, "header")):
        materialize.MEMORY = memory
        cache.configure(folder=f"{sys.argv[1]}/{memory}{check}")
        try:
            data.load({**section, "path": path, "check": check})
        except UserError as error:
            print(str(error).partition(" ")[0])
    print(len(survey.survey({**section, "path": path}).broken))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def measure_megabytes(tmp_path, *paths):
    """How much more memory scanning data sets takes than scanning a good one, and how many files were unreadable."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    write_images(tmp_path / "good", COUNTS)
    words = [sys.executable, "-c", MEASURE_MEMORY, str(tmp_path / "cache"), str(tmp_path / "good"), *map(str, paths)]
    process = subprocess.run(words, capture_output=True, text=True, timeout=5 * LONGEST, check=True)
    *unreadable_counts, megabytes = map(int, process.stdout.split())
    return megabytes, unreadable_counts


def test_bombs_take_less_than_200_megabytes(tmp_path):
    write_images(tmp_path / "bombs", COUNTS)
    bombs = spoiled.bombs()
    for bomb in bombs:
        (tmp_path / "bombs/train/cats" / bomb.name).write_bytes(bomb.content)
    megabytes, unreadable_counts = measure_megabytes(tmp_path, tmp_path / "bombs")
    assert unreadable_counts == [len(bombs)] * 4
    assert megabytes < MOST_MEMORY


@pytest.mark.slow
def test_many_large_files_take_the_memory_of_one(tmp_path):
    """Seven of nearly the largest size, which were once all kept with the errors about them, or read side by side."""
    write_images(tmp_path / "files", COUNTS)
    beginnings = (b"", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"P3 9 9 255 #", b"BM", b"II*\0")
    for number, beginning in enumerate(beginnings):
        with open(tmp_path / f"files/train/cats/large{number}.png", "wb") as file:
            file.write(beginning)
            file.truncate(90_000_000)
    write_images(tmp_path / "zipped", COUNTS)
    zip_path = write_zip(tmp_path / "zipped", tmp_path / "a.zip")
    with zipfile.ZipFile(zip_path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(3):
            archive.writestr(f"train/cats/large{number}.png", bytes(90_000_000))
    megabytes, unreadable_counts = measure_megabytes(tmp_path, tmp_path / "files", zip_path)
    assert unreadable_counts == [7, 7, 6, 7] + [3] * 4  # pixels written as text have a header without faults
    assert megabytes < MOST_MEMORY


# Names


@pytest.mark.parametrize("name", spoiled.ODD_NAMES, ids=ascii)
def test_odd_names_are_read_and_of_unreadable_files_are_printed_escaped(tmp_path, name, capfd):
    write_images(tmp_path, COUNTS)
    path = os.path.join(os.fsencode(tmp_path), b"train/cats", name.encode(errors="surrogateescape"))
    with open(path, "wb") as file:
        file.write(encode_png(noise(6, 8, 3)))
    assert f"cats/{name}" in load_folder(tmp_path).splits["train"].names
    with open(path, "wb") as file:
        file.write(b"text")
    sentence = str(refused_with(tmp_path))
    assert sentence.isprintable()
    assert sentence.isascii() or name.isprintable()
    shown_name = name if name.isprintable() and len(name) < 99 else ascii(name)[1:9]
    assert shown_name[-40:] in sentence
    assert main([*TRAIN, f"--config.data.path={tmp_path}", f"--workdir={tmp_path}/run"]) == 2
    printed = capfd.readouterr().err
    assert " cannot be read: " in printed.splitlines()[-1]
    assert printed.splitlines()[-1].isprintable()
    assert "Traceback" not in printed


# The same pixels in other containers


def files_of_color(pixels):
    """Yields one color image in everything that holds it exactly, upright: (name, expected pixels, content)."""
    image = Image.fromarray(pixels)
    opaque = Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 255)))
    second_frame = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]}
    few_colors = Image.fromarray(pixels // 86 * 86)
    yield "png", pixels, spoiled.encode(image, "PNG")
    yield "interlaced png", pixels, spoiled.interlaced_png(pixels)
    yield "packed hard", pixels, spoiled.encode(image, "PNG", optimize=True)
    yield "rgba", pixels, spoiled.encode(opaque, "PNG")
    yield "bmp", pixels, spoiled.encode(image, "BMP")
    yield "ppm", pixels, spoiled.encode(image, "PPM")
    yield "ppm as text", pixels, ppm_as_text(pixels)
    yield "webp", pixels, spoiled.encode(image, "WEBP", lossless=True)
    yield "webp film", pixels, spoiled.encode(image, "WEBP", lossless=True, **second_frame)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"tiff {compression}", pixels, spoiled.encode(image, "TIFF", compression=compression)
    yield "apng", pixels, spoiled.encode(image, "PNG", **second_frame)
    yield "tiff of two pages", pixels, spoiled.encode(image, "TIFF", **second_frame)
    yield "junk behind", pixels, spoiled.encode(image, "PNG") + b"<html>" * 99
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        palette = few_colors.quantize(64, dither=Image.Dither.NONE, method=Image.Quantize.MAXCOVERAGE)
        yield f"palette {format}", np.asarray(palette.convert("RGB")), spoiled.encode(palette, format)
    for turn in range(1, 9):
        yield f"turned {turn} png", pixels, turned_file(image, turn, "PNG")
        yield f"turned {turn} webp", pixels, turned_file(image, turn, "WEBP", lossless=True)
        yield f"turned {turn} tiff", pixels, turned_file(image, turn, "TIFF")


def ppm_as_text(pixels):
    """A PPM written as text, with comments."""
    height, width, _ = pixels.shape
    lines = [" ".join(map(str, row.reshape(-1))) + " # a row" for row in pixels]
    return "\n".join(["P3 # colors", f"{width} {height} # size", "255", *lines, ""]).encode()


STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
}  # an upright image as a camera stores it under each orientation: row 0 and column 0 by EXIF 2.32, table of tag 274


def turned_file(image, turn, format, **options):
    """The file that a camera makes of an image when it is held as an orientation says."""
    stored = Image.fromarray(np.ascontiguousarray(STORED[turn](np.asarray(image))))
    if format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[orientation.ORIENTATION] = turn
        return spoiled.encode(stored, format, tiffinfo=tags, **options)
    exif = Image.Exif()
    exif[orientation.ORIENTATION] = turn
    return spoiled.encode(stored, format, exif=exif, **options)


def files_of_gray(levels):
    """Yields one gray image in everything that holds it exactly: (name, content)."""
    image = Image.fromarray(levels)
    white = Image.new("L", image.size, 255)
    in_colors = Image.merge("RGB", (image,) * 3)
    levels_16 = levels.astype(np.uint16) * 257
    big_endian = levels_16.astype(">u2").tobytes()
    yield "png", spoiled.encode(image, "PNG")
    yield "png of 16 bits", spoiled.encode(levels_16, "PNG")
    yield "tiff of 16 bits", spoiled.encode(levels_16, "TIFF")
    yield "tiff of 16 bits, big-endian", spoiled.encode(Image.frombytes("I;16B", image.size, big_endian), "TIFF")
    yield "pgm", spoiled.encode(image, "PPM")
    yield "pgm of 16 bits", b"P5 %d %d 65535\n" % image.size + big_endian
    yield "with alpha", spoiled.encode(Image.merge("LA", (image, white)), "PNG")
    yield "in colors", spoiled.encode(in_colors, "PNG")
    yield "gif", spoiled.encode(image, "GIF")
    yield "bmp", spoiled.encode(image, "BMP")
    yield "webp", spoiled.encode(in_colors, "WEBP", lossless=True)


def files_of_black_and_white(bits):
    """Yields one image of black and white in everything that holds it: (name, content)."""
    image = Image.fromarray(bits)
    yield "png", spoiled.encode(image, "PNG")
    yield "fax", spoiled.encode(image, "TIFF", compression="group4")
    yield "pbm", spoiled.encode(image, "PPM")
    yield "bmp", spoiled.encode(image, "BMP")
    yield "gif", spoiled.encode(image, "GIF")
    yield "gray", spoiled.encode(image.convert("L"), "PNG")


@pytest.fixture(scope="module")
def network():
    """A network of random values for color images of 12x12 pixels."""
    spec = forward.NetworkSpec("mlp/test", (), 3, (12, 12, 3), "float32", RuleSpec("softmax"))
    params, stats = initial_values(forward.get_network(spec), 0)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = np.random.default_rng(0).normal(0, 1, kernel.shape).astype(np.float32)
    preprocessing = dict(mean=[0.5] * 3, std=[0.3] * 3, image_size=[12, 12], channels=3, fit="pad(127)")
    preprocessing |= dict(interpolation="bilinear", levels=None, max_pixels=50_000_000)
    return trained.Trained(spec, params, stats, ("a", "b", "c"), preprocessing)


def predict_files(network, folder, files):
    """Class probabilities of files: name -> content becomes name -> probabilities."""
    for name, content in files.items():
        (folder / f"{name}.jpg").write_bytes(content)  # whatever it is
    probabilities = prediction.predict(network, [folder / f"{name}.jpg" for name in files])
    return dict(zip(files, probabilities, strict=True))


@pytest.mark.parametrize("family", ["colors", "grays", "blacks"])
def test_the_same_pixels_in_another_container_are_the_same_prediction_bit_for_bit(tmp_path, network, family):
    if family == "colors":
        files = {name: content for name, _, content in files_of_color(noise(15, 10, 3)) if "palette" not in name}
    elif family == "grays":
        files = dict(files_of_gray(noise(15, 10)))
    else:
        files = dict(files_of_black_and_white(noise(15, 10) > 99))
    predictions = predict_files(network, tmp_path, files)
    first = next(iter(predictions.values()))
    assert len(np.unique(first)) == 3
    for name, probabilities in predictions.items():
        assert probabilities.tobytes() == first.tobytes(), name


def test_an_image_with_an_archive_behind_it_is_predicted_as_an_image(tmp_path, network):
    write_images(tmp_path / "zipped", {"a": 3})
    image = encode_png(noise(15, 10, 3))
    path = tmp_path / "both.zip"
    path.write_bytes(image + write_zip(tmp_path / "zipped", tmp_path / "a.zip").read_bytes())
    [predicted] = prediction.predict(network, path)
    assert predicted.tobytes() == predict_files(network, tmp_path, {"alone": image})["alone"].tobytes()


def test_runs_among_the_images_are_named_by_prediction(tmp_path, network, capsys):
    write_images(tmp_path / "mine", {"a": 3, "run/plots": 1})
    (tmp_path / "mine" / "run" / "lock").write_text("cnn-vit run 17 host\n")
    assert len(list(prediction.read_images(network, [tmp_path / "mine"]))) == 3
    sentence = f"{tmp_path}/mine holds 1 training runs, such as {tmp_path}/mine/run; their plots are left out\n"
    assert capsys.readouterr().err == sentence


def test_what_may_be_a_folder_of_images_is_not_passed_over_by_prediction(tmp_path, network):
    """A link to nothing stands for all that cannot be entered, such as a folder without the right to list it."""
    write_images(tmp_path / "mine", {"a": 3})
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "nowhere")
    [entry] = [image for image in prediction.read_images(network, [tmp_path / "mine"]) if image.error is not None]
    assert (entry.path, str(entry.error)) == (f"{tmp_path}/mine/b", "a link to nothing; replace it or remove it")


def test_every_container_gives_the_pixels_it_was_made_from():
    for name, pixels, content in files_of_color(noise(15, 10, 3)):
        np.testing.assert_array_equal(images.decode(content, channels=3), pixels, err_msg=name)
        header = images.read_header(content)
        assert (header.height, header.width) == pixels.shape[:2], name


def test_training_and_evaluation_see_what_prediction_sees(tmp_path, network):
    """One implementation: a folder that is evaluated gives the probabilities of its files, predicted one by one."""
    counts = {}
    for split in ("train", "val", "test"):
        counts |= {f"{split}/{name}": 3 for name in "abc"}
    write_images(tmp_path, counts, size=(9, 14))
    per_example = evaluation.evaluate(network, str(tmp_path))["rows"]
    paths = []
    for name in "abc":
        paths += [tmp_path / f"test/{name}/{number:03}.png" for number in range(3)]
    np.testing.assert_array_equal(per_example["predicted"], prediction.predict(network, paths).argmax(1))
    section = evaluation.section_for(network, str(tmp_path))
    evaluated_pixels = data.load(section).splits["test"].read(np.arange(9))
    predicted_pixels = np.stack([image.pixels for image in prediction.read_images(network, paths)])
    np.testing.assert_array_equal(evaluated_pixels, predicted_pixels)
    assert (evaluated_pixels[:, 0] == 127).all()  # padded above: 9 x 14 pixels in 12 x 12


def test_what_is_white_among_16_bits_is_the_same_in_training_evaluation_and_prediction(tmp_path, network):
    for number, name in enumerate("abc", 1):
        content = spoiled.encode(np.full((12, 12), 4095 // number, np.uint16), "PNG")
        for split in ("train", "val", "test"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "x.png").write_bytes(content)
    bright = replace(network, preprocessing=network.preprocessing | {"levels": 4095})
    section = evaluation.section_for(bright, str(tmp_path))
    assert section["levels"] == 4095
    paths = [tmp_path / f"test/{name}/x.png" for name in "abc"]
    seen = [image.pixels[0, 0, 0] for image in prediction.read_images(bright, paths)]
    assert seen == [255, 127, 85]  # 4095, 2047 and 1365 times 255 / 4095
    rows = evaluation.evaluate(bright, str(tmp_path))["rows"]
    np.testing.assert_array_equal(rows["predicted"], prediction.predict(bright, paths).argmax(1))
    with pytest.raises(UserError, match=r"^data.levels is 4095, and was unset when the network was trained; set it to"):
        evaluation.evaluate(network, section, "test")


def test_an_image_of_pillows_is_predicted_as_its_file_is(tmp_path, network):
    path = tmp_path / "x.png"
    path.write_bytes(spoiled.encode(noise(15, 10, 4), "PNG"))
    expected = prediction.predict(network, path)
    for images_given in (Image.open(path), [Image.open(path)]):
        np.testing.assert_array_equal(prediction.predict(network, images_given), expected)
    pixels = images.decode(path.read_bytes(), channels=3)
    np.testing.assert_array_equal(prediction.predict(network, [pixels, path])[0], expected[0])


# Folders


@pytest.mark.parametrize("folder", spoiled.folders(), **by_name)
def test_a_folder_that_goes_wrong_is_refused_by_name_and_one_that_only_seems_to_is_read(tmp_path, folder):
    root = tmp_path / "root"
    root.mkdir()
    folder.make(root)
    if folder.sentence is None:
        assert load_folder(root).facts["counts"]["train"] == folder.train
    else:
        sentence = str(refused_with(root))
        assert folder.sentence in sentence
        assert "root" in sentence or "one class" in sentence or "too few" in sentence


@pytest.mark.parametrize("difference", ["one more", "renamed"])
def test_other_classes_than_the_network_was_trained_on_are_refused_with_both_lists(tmp_path, network, difference):
    names = {"one more": "abcd", "renamed": "abx"}[difference]
    counts = {}
    for split in ("train", "val", "test"):
        counts |= {f"{split}/{name}": 2 for name in names}
    write_images(tmp_path, counts)
    with pytest.raises(UserError) as caught:
        evaluation.evaluate(network, str(tmp_path))
    assert "a, b, c" in str(caught.value)
    assert ", ".join(names) in str(caught.value)
