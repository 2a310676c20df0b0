"""The room `data`: settings are checked without images, `about` agrees with `load`, and what digits and shapes are."""

import hashlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from cnn_vit import data
from cnn_vit.data.base import parts, splits
from cnn_vit.data.reading import fingerprints, materialize
from cnn_vit.data.sources import _drawing, digits, shapes
from cnn_vit.errors import UserError

COUNTS = {"train_count": 40, "validation_count": 20, "test_count": 10}


def shapes_section(**changes):
    return {"name": "shapes", **COUNTS, **changes}


# Settings


def test_the_room_is_imported_without_jax_scikit_learn_or_pillow():
    code = (
        "import sys, cnn_vit.data as d; d.names(); d.read_keywords('shapes'); "
        "print(sys.modules.keys() & {'jax', 'sklearn', 'PIL'})"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "set()\n"


def test_every_source_says_what_it_is_and_what_its_keywords_mean():
    assert data.names().keys() >= {"digits", "shapes", "folder", "arrays"}
    for name, meaning in data.names().items():
        assert meaning
        for key, keyword in data.read_keywords(name).items():
            assert keyword.annotation, key
            assert keyword.meaning, key
            assert keyword.default is not None
    train_count = data.read_keywords("shapes")["train_count"]
    assert (train_count.default, train_count.annotation) == (10_000, "int")
    assert train_count.meaning == "images to train on."


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"name": "digit"}, "no data source 'digit'; did you mean digits"),
        ({"name": None}, "data.name is None; it takes arrays or"),
        ({"name": "folder"}, r"data.name=folder needs a path; add --config.data.path=PATH"),
        ({"name": "arrays"}, r"data.name=arrays needs a path; add --config.data.path=PATH"),
        ({"name": "digits", "path": "x"}, "data.name=digits reads no file, data.path is 'x'; unset it"),
        (shapes_section(train_cuont=3), "no setting 'data.train_cuont'; did you mean data.train_count"),
        ({"name": "digits", "train_count": 3}, "no setting 'data.train_count'"),
        ({"name": "digits", "margin": -1}, r"data.margin is -1; it takes an int in \[0, 64\]"),
        (shapes_section(train_count="many"), "data.train_count is 'many'; it takes an int"),
        (shapes_section(train_count=True), "data.train_count is True; it takes an int"),
        (shapes_section(train_count=0), r"data.train_count is 0; it takes an int in \[1, 2147483647\]"),
        (shapes_section(test_count=-1), r"data.test_count is -1; it takes an int in \[0, 2147483647\]"),
        (shapes_section(shapes_seed=-1), r"data.shapes_seed is -1; it takes an int in \[0, "),
        (shapes_section(label="form"), "data.label is 'form'; it takes shape or texture or position"),
        (
            shapes_section(image_size=(32, 7)),
            "shapes of 32x7 pixels cannot be told apart; make data.image_size at least 8",
        ),
        (shapes_section(channels=2), "data.channels is 2"),
        (
            shapes_section(fit="squeeze"),
            r"data.fit is 'squeeze' .* it takes crop, crop\(SHARE .*, stretch, pad_batch, pad or pad",
        ),
        (shapes_section(train="train[:400]"), r"data.train is 'train\[:400\]', but train has 40 examples"),
        (shapes_section(train="tarin"), "data.train is 'tarin'; write train"),
        ({"name": "folder", "path": "x", "test": "test[5:1]"}, r"data.test is 'test\[5:1\]', which holds nothing"),
        (shapes_section(augment=("flipp",)), "flipp"),
        (shapes_section(channels=1, mean=(0.1, 0.2, 0.3)), "data.mean has 3 numbers for 1 channels; give one for each"),
        ({"name": "folder", "path": "x", "channels": 3, "std": (0.1,)}, "data.std has 1 numbers for 3"),
        ({"name": "digits", "classes": 12}, "data.classes is 12, but the data has 10 classes; set data.classes=10"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_read(section, sentence):
    with pytest.raises(UserError, match=sentence):
        data.check(section)


@pytest.mark.parametrize(
    "section",
    [
        {"name": "digits"},
        {"name": "digits", "image_size": (12, 10), "channels": 3, "train": "train[:45%]"},
        {"name": "digits", "validation": "train[90%:]"},
        {"name": "digits", "margin": 2},
        shapes_section(),
        shapes_section(validation_count=0, test_count=0, image_size=(8, 12), channels=1, classes=15),
        shapes_section(label="position", classes=5, train="train[10:]", validation="validation[:50%]", image_size=9),
        {"name": "shapes", "train_count": 1e2, "test_count": 3, "validation_count": 3},
    ],
)
def test_about_says_what_load_finds(section):
    data.check(section)
    info, dataset = data.about(section), data.load(section)
    assert info.classes == dataset.classes
    assert info.num_classes == len(dataset.classes)
    assert info.image_shape == dataset.image_shape
    assert info.counts == {name: len(split) for name, split in dataset.splits.items()} == dataset.facts["counts"]
    for split in dataset.splits.values():
        pixels = split.read(np.array([1, 0]))
        assert (pixels.shape, pixels.dtype) == ((2, *dataset.image_shape), np.uint8)
        assert split.labels.dtype == np.int32


def test_about_leaves_open_what_only_files_tell():
    section = {"name": "folder", "path": "nowhere", "image_size": 32, "channels": 3}
    assert data.about(section) == data.SourceInfo(None, None, (32, 32, 3), {})
    assert data.about({**section, "channels": None, "classes": 4}) == data.SourceInfo(None, 4, None, {})


def test_a_train_slice_that_loses_a_class_is_refused():
    with pytest.raises(UserError, match=r"train has no image of .*, of 10 classes; add some, or take a larger slice"):
        data.load(shapes_section(train="train[:9]"))


def test_the_fingerprint_is_of_the_data_not_of_its_use():
    digits_fingerprint = data.load({"name": "digits"}).fingerprint
    use = {"image_size": 4, "channels": 3, "train": "train[:50%]", "workers": 0, "augment": ("flip",)}
    assert data.load({"name": "digits", **use}).fingerprint == digits_fingerprint
    different_sections = [
        shapes_section(),
        shapes_section(shapes_seed=1),
        shapes_section(train_count=100),
        shapes_section(train_count=101),
        shapes_section(image_size=33),
        shapes_section(label="texture"),
    ]
    fingerprints = {data.load(section).fingerprint for section in different_sections}
    assert len(fingerprints) == len(different_sections)


def test_facts_are_what_data_json_holds():
    facts = data.load(shapes_section(validation_count=0, classes=4)).facts
    assert facts["class_counts"]["train"] == {"disc": 9, "square": 9, "triangle": 9, "diamond": 9}
    assert facts["notes"] == ["validation is a stratified tenth of train: 4 of 40"]
    assert facts["skipped"] == []


def test_section_for_path_knows_folders_zips_and_arrays(tmp_path):
    (tmp_path / "a.ZIP").touch()
    (tmp_path / "a.npz").touch()
    (tmp_path / "a.txt").touch()
    options = {"image_size": (4, 4), "channels": 1, "fit": "stretch"}
    for name, source in ((".", "folder"), ("a.ZIP", "folder"), ("a.npz", "arrays")):
        section = data.section_for_path(tmp_path / name, **options)
        assert (section["name"], section["path"]) == (source, str(tmp_path / name))
        assert {key: section[key] for key in options} == options
    with pytest.raises(UserError, match=r"a.txt is not data that can be read; give a folder of images"):
        data.section_for_path(tmp_path / "a.txt", **options)
    with pytest.raises(UserError, match="b is not there; give a folder of images"):
        data.section_for_path(tmp_path / "b", **options)


# Mean and standard deviation


def split_of(pixels):
    return splits.Split(np.zeros(len(pixels), np.int32), pixels.__getitem__)


def test_mean_and_standard_deviation_are_those_of_numpy():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 5, 3), np.uint8)
    mean, std = data.mean_and_std(split_of(pixels))
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (pixels / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_flat_channel_has_a_standard_deviation_of_one_level():
    pixels = np.zeros((5, 2, 2, 3), np.uint8) + np.array([9, 0, 255], np.uint8)
    mean, std = data.mean_and_std(split_of(pixels))
    assert mean == (9 / 255, 0, 1)
    assert std == (1 / 255,) * 3


def test_many_images_are_measured_on_5000_taken_evenly():
    pixels = np.repeat([0, 255], 10_000).astype(np.uint8).reshape(-1, 1, 1, 1)
    read_counts = []

    def read(rows):
        read_counts.append(len(rows))
        return pixels[rows]

    split = splits.Split(np.zeros(20_000, np.int32), read)
    assert data.mean_and_std(split) == ((0.5,), (0.5,))
    assert sum(read_counts) == 5_001  # one to learn the shape


LARGE_SIDE = 1_024  # pixels
LARGE_BYTES = 3 * LARGE_SIDE**2  # of an image of this side


class LargeImages:
    """Flat color images of LARGE_SIDE pixels a side: image i has the levels i, 2 i and 3 i.

    Attributes:
        read_counts: how many images each call of `read` was asked for.
    """

    def __init__(self):
        self.read_counts = []

    def read(self, rows):
        self.read_counts.append(len(rows))
        levels = np.outer(rows, [1, 2, 3]).astype(np.uint8)
        return np.repeat(levels, LARGE_SIDE**2, axis=0).reshape(-1, LARGE_SIDE, LARGE_SIDE, 3)


def test_mean_and_standard_deviation_of_large_images_need_the_memory_of_a_few():
    images = LargeImages()
    split = splits.Split(np.zeros(20, np.int32), images.read)
    tracemalloc.start()
    try:
        mean, std = data.mean_and_std(split)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(images.read_counts) == {1}
    # two images, because one is read while the variable still holds the one before; the rest is the counting's
    assert peak < 2.5 * LARGE_BYTES
    levels = np.outer(np.arange(20), [1, 2, 3]) / 255
    np.testing.assert_allclose(mean, levels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, levels.std(0), rtol=1e-12)


@pytest.mark.parametrize("shape", [(300, 5, 7, 1), (40, 400, 300, 3), (3, 1_500, 1_100, 3)])
def test_the_sums_behind_mean_and_standard_deviation_are_exact(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    mean, std = data.mean_and_std(split_of(pixels))
    for channel in range(shape[-1]):
        levels = pixels[..., channel].astype(np.int64)
        level_sum, square_sum = int(levels.sum()), int((levels * levels).sum())
        level_mean = level_sum / levels.size
        assert mean[channel] == level_mean / 255  # the same bits
        assert std[channel] == np.sqrt(square_sum / levels.size - level_mean**2) / 255


def test_the_fingerprint_of_large_images_needs_the_memory_of_a_few():
    images = LargeImages()
    part = parts.PixelPart(np.zeros(5, np.int32), (LARGE_SIDE, LARGE_SIDE, 3), images.read)
    fingerprint, _ = fingerprints.data_fingerprint(parts.SourceData(("a",), {"train": part}))
    drawn, _ = fingerprints.data_fingerprint(parts.SourceData(("a",), {"train": part}, generator_settings={}))
    assert set(images.read_counts) == {1}

    all_pixels = LargeImages().read(np.arange(5))
    in_memory = parts.pixel_part(all_pixels, np.zeros(5, np.int32))
    assert fingerprint == fingerprints.data_fingerprint(parts.SourceData(("a",), {"train": in_memory}))[0]
    assert drawn == hashlib.sha256(b"{}" + all_pixels.tobytes()).hexdigest()


def test_large_images_that_are_drawn_are_drawn_a_few_at_a_time():
    images = LargeImages()
    shape = LARGE_SIDE, LARGE_SIDE, 3
    part = parts.PixelPart(np.zeros(5, np.int32), shape, images.read, is_generated=True)
    rows = np.array([4, 0, 2])
    split, *_ = materialize.decoded_split(part, rows, shape, parts.FitOptions(), 1)
    assert set(images.read_counts) == {1}
    np.testing.assert_array_equal(split.read(np.arange(3)), LargeImages().read(rows))


# Digits


def test_the_committed_indices_follow_the_rule():
    order = splits.stratified_order(load_digits().target)
    indices = digits.read_part_indices()
    assert sorted(order[:360]) == indices["test"].tolist()
    assert sorted(order[360:504]) == indices["validation"].tolist()
    assert sorted(order[504:]) == indices["train"].tolist()


def test_digits_are_those_of_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    dataset = data.load({"name": "digits"})
    for name, rows in digits.read_part_indices().items():
        split = dataset.splits[name]
        np.testing.assert_array_equal(split.labels, labels[rows])
        levels = split.read(np.arange(len(rows)))[..., 0].reshape(-1, 64)
        np.testing.assert_allclose(levels, images[rows] * 255 / 16, atol=0.5)


def test_a_margin_puts_digits_into_the_middle_of_black(tmp_path):
    plain, framed = data.load({"name": "digits"}), data.load({"name": "digits", "margin": 2})
    assert framed.image_shape == (12, 12, 1)
    assert framed.fingerprint != plain.fingerprint
    images = framed.splits["test"].read(np.arange(360))
    np.testing.assert_array_equal(images[:, 2:-2, 2:-2], plain.splits["test"].read(np.arange(360)))
    assert images.sum() == images[:, 2:-2, 2:-2].sum()


def test_digits_are_read_without_importing_scikit_learn_and_fall_back_on_it(monkeypatch):
    read_from_file = digits.read_table()
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    for array, imported_array in zip(read_from_file, digits.read_table(), strict=True):
        np.testing.assert_array_equal(array, imported_array)


# Shapes


def make_drawer(*, label="shape", classes=10, side=32, seed=0, part=0, channels=3):
    return shapes.ImageDrawer(seed, part, label, classes, (side, side, channels))


def test_an_image_depends_on_seed_split_and_index_alone():
    drawer = make_drawer()
    images = drawer.draw(np.arange(150))
    rows = np.array([149, 3, 3, 70])
    np.testing.assert_array_equal(drawer.draw(rows), images[rows])
    for other_drawer in (make_drawer(seed=1), make_drawer(part=1)):
        assert (other_drawer.draw(np.arange(4)) != images[:4]).any(axis=(1, 2, 3)).all()
    of_60_images = data.load(shapes_section(train_count=60)).splits["train"].read(np.arange(40))
    of_40_images = data.load(shapes_section()).splits["train"].read(np.arange(40))
    np.testing.assert_array_equal(of_40_images, of_60_images)


def test_the_drawn_numbers_are_those_of_numpys_philox():
    uniform, noise = make_drawer(seed=7, part=2, side=8, channels=1).draw_numbers(np.array([5]))
    blocks = 6 + 2  # 24 factors, 64 bytes of noise; a block is four words
    raw = np.random.Philox(key=[7, 2]).random_raw(4 * 100)[5 * 4 * blocks : 6 * 4 * blocks]
    np.testing.assert_array_equal(uniform[0], (raw[:24] >> np.uint64(11)) / 2**53)
    np.testing.assert_array_equal(noise.ravel(), raw[24:].astype("<u8").view(np.uint8))


def are_independent(first, second):
    """Whether two columns of whole numbers look independent by a chi-square test at a level of one in ten thousand."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1)
    return stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("label", ["shape", "texture", "position"])
def test_nothing_but_the_label_tells_the_label(label):
    classes = shapes.default_classes(label)
    rows = np.arange(6000)
    factors = make_drawer(label=label, classes=classes).draw_factors(rows)
    labels = rows % classes
    low, high = shapes.ROOM
    columns = {  # each factor in a few levels; ranks of 6000 numbers by 1500 are quarters
        "shape": factors.shape,
        "texture": factors.texture,
        "row": ((factors.row - low) / (high - low) * 4).astype(int).clip(0, 3),
        "column": ((factors.column - low) / (high - low) * 4).astype(int).clip(0, 3),
        "radius": np.argsort(np.argsort(factors.radius)) // 1500,
        "ground": np.argsort(np.argsort(factors.ground[:, 0])) // 1500,
        "ink": np.argsort(np.argsort(factors.ink[:, 1])) // 1500,
    }
    telling = {name for name, column in columns.items() if not are_independent(labels, column)}
    assert telling == ({"row", "column"} if label == "position" else {label})


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_shape_covers_the_same_area_and_stays_inside(name):
    line = np.linspace(-1.5, 1.5, 1201)
    v, u = np.meshgrid(line, line, indexing="ij")
    is_inside = shapes.SHAPES[name](u, v) < 0
    assert is_inside.mean() * 9 == pytest.approx(2, rel=0.01)  # of a square of 3 x 3
    for tilt in (-shapes.TILT, 0, shapes.TILT):
        across = (np.cos(tilt) * u - np.sin(tilt) * v)[is_inside]
        along = (np.sin(tilt) * u + np.cos(tilt) * v)[is_inside]
        reach = shapes.RADII[1] * max(abs(across).max(), abs(along).max())
        assert reach < shapes.ROOM[0]


def test_every_texture_lets_half_of_the_shape_through_on_average():
    rows = np.arange(1200)
    drawer = make_drawer(label="texture", classes=len(shapes.TEXTURES))
    images, factors = drawer.draw(rows) / 255, drawer.draw_factors(rows)
    ground_luma = factors.ground @ _drawing.LUMA
    contrast = (factors.ink - factors.ground) @ _drawing.LUMA
    ink_area = ((images @ _drawing.LUMA) - ground_luma[:, None, None]).sum(axis=(1, 2)) / contrast
    share = ink_area / (2 * (factors.radius * 32) ** 2)
    shares = [np.mean(share[factors.texture == texture]) for texture in range(len(shapes.TEXTURES))]
    np.testing.assert_allclose(shares, 0.65, atol=0.05)  # 1 - 0.7 / 2


@pytest.mark.parametrize("label", ["shape", "texture", "position"])
@pytest.mark.parametrize("classes", [2, 7, 60, 100, 1000])
def test_there_are_as_many_classes_as_asked_each_with_its_own_look(label, classes):
    names = shapes.class_names(label, classes)
    assert len(set(names)) == len(names) == classes
    factors = make_drawer(label=label, classes=classes).draw_factors(np.arange(2 * classes))
    if label == "shape":
        expected_shapes = [list(shapes.SHAPES)[number] for number in factors.shape[:classes]]
        assert [name.split("-")[0] for name in names] == expected_shapes
    side = shapes.cells_per_side(label, classes)
    if side > 1:
        named_cells = [name.split("-")[-1] for name in names] * 2
        centers = zip(factors.row, factors.column, strict=True)
        assert named_cells == [f"{int(row * side)}x{int(column * side)}" for row, column in centers]


@pytest.mark.parametrize(("size", "channels"), [((8, 8), 1), ((8, 64), 3), ((64, 64), 3), ((33, 20), 1)])
def test_any_size_has_a_shape_in_sight(size, channels):
    drawer = shapes.ImageDrawer(0, 0, "shape", 10, (*size, channels))
    rows = np.arange(40)
    images, ground = drawer.draw(rows).astype(float), drawer.draw_factors(rows).ground * 255
    if channels == 1:
        ground = ground @ _drawing.LUMA[:, None]
    difference = abs(images - ground[:, None, None]).max(axis=-1)  # (n, H, W)
    assert difference.max(axis=(1, 2)).min() > 3 * _drawing.NOISE
    if min(size) >= 64:  # in smaller ones the soft edge, half a pixel wide, reaches the border
        edges = [difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]]
        border = np.concatenate(edges, axis=1)
        assert border.max() <= _drawing.NOISE + 1
