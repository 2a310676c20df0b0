"""Boxes cut out of training images on the host: what is drawn, what comes out, and that nothing else has a part."""

import hashlib
import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from scipy import stats

import cnn_vit
from cnn_vit import data
from cnn_vit.data.decode import crops, images, jpeg
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import materialize
from cnn_vit.errors import UserError

few = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TURBO = 0 if features.check_feature("libjpeg_turbo") else 4  # levels that another libjpeg may differ by


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height, width, channels=3, seed=0):
    """An image without detail: noise of 5x5 pixels enlarged."""
    coarse = Image.fromarray(noise(5, 5, 3, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(coarse if channels == 3 else coarse.convert("L"))


def encoded(pixels, kind="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# --- chance


def philox(key, block):
    """Four words of Philox 4x64 with ten rounds, in Python's own whole numbers: Salmon et al., SC 2011, figure 2."""
    c, k = [block, 0, 0, 0], list(key)
    for _ in range(10):
        one, other = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(other >> 64) ^ c[1] ^ k[0], other % 2**64, (one >> 64) ^ c[3] ^ k[1], one % 2**64]
        k = [(k[0] + 0x9E3779B97F4A7C15) % 2**64, (k[1] + 0xBB67AE8584CAA73B) % 2**64]
    return c


@pytest.mark.parametrize(("seed", "update"), [(0, 0), (3, 7), (2**31 - 1, 10**9)])
def test_row_r_of_an_update_has_block_r_of_philox(seed, update):
    word = hashlib.blake2b(f"crops {seed}".encode(), digest_size=8).digest()
    key = int.from_bytes(word, "little"), update
    expected = [[(word >> 11) / 2**53 for word in philox(key, row + 1)] for row in range(5)]
    assert crops.crop_numbers(seed, update, 5).tolist() == expected
    assert crops.crop_numbers(seed, update, 2).tolist() == expected[:2]


def test_the_numbers_are_even_and_independent():
    found = np.concatenate([crops.crop_numbers(1, update, 50) for update in range(100)])
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in found.T)
    correlation = np.corrcoef(np.concatenate([found[:-1], found[1:]], axis=1).T) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(len(found))


# --- boxes


@pytest.mark.parametrize(
    ("size", "share", "numbers", "expected"),
    [
        ((100, 200), 0.32, (0, 0.5, 0.5, 0.25), (30, 10, 110, 90)),  # 80x80 of 20,000: 20 rows and 120 columns to spare
        ((100, 200), 0.24, (0, 0, 0, 0), (0, 0, 60, 80)),  # 3 : 4, area 4,800
        ((100, 200), 0.24, (0.9, 1, 1, 1), (120, 40, 200, 100)),  # 4 : 3
        ((60, 60), 1, (0.3, 0.7, 0.2, 0.9), (0, 0, 60, 60)),
        ((60, 80), 1, (0.3, 0.7, 0.2, 0.9), (0, 0, 80, 60)),
        ((10, 200), 0.5, (0, 0.5, 0.5, 0), (0, 0, math.sqrt(1000 * 4 / 3), 10)),  # area 1,000 at 4 : 3 is 27 high
        ((200, 10), 0.5, (0, 0.5, 0, 0.5), (0, 0, 10, math.sqrt(1000 * 4 / 3))),
    ],
)
def test_boxes_are_those_of_hand_arithmetic(size, share, numbers, expected):
    found = crops.crop_box(*size, np.array(numbers), min_area=share, max_area=share)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


sides = st.integers(1, 5000)
even = st.floats(0, 1, exclude_max=True)


@few
@given(height=sides, width=sides, numbers=st.tuples(even, even, even, even), areas=st.tuples(even, even))
def test_a_box_lies_inside_and_has_its_share_and_proportions(height, width, numbers, areas):
    low, high = sorted(max(area, 0.01) for area in areas)
    left, top, right, bottom = crops.crop_box(height, width, np.array(numbers), min_area=low, max_area=high)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (height * width)
    assert share <= high * (1 + 1e-9)
    if 3 / 4 < width / height < 4 / 3:  # any area fits
        assert share == pytest.approx(low + numbers[0] * (high - low), rel=1e-6)
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


# --- pixels


def whole(height, width):
    return 0, 0, width, height


@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_of_whole_pixels_at_its_own_size_keeps_the_bits(channels):
    pixels = noise(20, 30, 3)
    expected = images.decode(encoded(pixels, "PNG"), channels=channels)[3:11, 5:17]
    found = crops.read_crop(encoded(pixels, "PNG"), (8, 12), channels=channels, place=lambda *_: (5, 3, 17, 11))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_one_of_the_image_as_it_stands_upright(orientation):
    content = encoded(noise(40, 56, 3), exif=turned(orientation))
    upright = Image.fromarray(images.decode(content, channels=3))
    sizes = []

    def place(height, width):
        sizes.append((height, width))
        return 3.5, 2.25, 30.75, 37

    expected = np.asarray(upright.resize((20, 18), Image.Resampling.BILINEAR, box=(3.5, 2.25, 30.75, 37)))
    np.testing.assert_array_equal(crops.read_crop(content, (18, 20), channels=3, place=place), expected)
    assert sizes == [(40, 56) if orientation < 5 else (56, 40)]


@pytest.mark.parametrize(
    ("box", "by"),
    [
        ((0, 0, 333, 201), 8), ((0, 0, 192, 128), 8), ((0, 0, 191.9, 128), 4), ((0, 0, 192, 127.9), 4),
        ((100, 50, 148, 82), 2), ((100, 50, 147.9, 82), 1), ((7, 9, 31, 25), 1), ((7, 9, 12, 11), 1),
    ],
)  # fmt: skip
def test_of_a_large_box_every_eighth_fourth_or_second_pixel_is_decoded(box, by, monkeypatch):
    pixels = smooth(201, 333)
    seen, resized = [], images.resize
    monkeypatch.setattr(images, "resize", lambda pixels, *given: seen.append(pixels.shape) or resized(pixels, *given))
    content = encoded(pixels, quality=95, subsampling=0)
    found = crops.read_crop(content, (16, 24), channels=3, place=lambda *_: box)
    assert seen == [(-(-201 // by), -(-333 // by), 3)]
    exact = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BILINEAR, box=box)).astype(int)
    assert np.abs(found - exact).mean() < 1.5


STORED = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}  # fmt: skip  # an upright image -> how a camera held that way stores it; TIFF 6.0, Orientation


@pytest.mark.parametrize("orientation", STORED)
def test_a_reduced_box_lies_where_the_whole_one_does_however_the_camera_was_held(orientation):
    """Of 57 rows and 93 columns, a last reduced pixel holds one row and five columns: it may come first."""
    down, across = np.mgrid[:57, :93]
    pixels = np.stack([4 * down + 10, 2 * across + 20, 120 + 0 * down], axis=-1).astype(np.uint8)  # tells where it is
    content = encoded(np.ascontiguousarray(STORED[orientation](pixels)), quality=98, subsampling=0,
                      exif=turned(orientation))  # fmt: skip
    box = 8.0, 4.0, 88.0, 52.0
    found = crops.read_crop(content, (6, 10), channels=3, place=lambda *_: box)
    rows, columns = np.mgrid[:6, :10]
    expected = np.stack([4 * (4 + 8 * (rows + 0.5) - 0.5) + 10, 2 * (8 + 8 * (columns + 0.5) - 0.5) + 20], axis=-1)
    assert np.abs(found[..., :2] - expected).max() < 3  # 32 levels a row, 16 a column


def test_only_a_jpeg_is_reduced_while_it_is_decoded():
    pixels = smooth(64, 64)
    expected = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR))
    for kind in ("PNG", "BMP"):
        np.testing.assert_array_equal(crops.read_crop(encoded(pixels, kind), (8, 8), channels=3, place=whole), expected)


# --- two decoders


JPEGS = [
    dict(quality=quality, progressive=progressive, subsampling=subsampling)
    for quality in (25, 95) for progressive in (False, True) for subsampling in (0, 1, 2)
]  # fmt: skip


@pytest.mark.parametrize("options", JPEGS, ids=lambda options: "-".join(map(str, options.values())))
def test_both_decoders_give_the_same_pixels(options, monkeypatch):
    pytest.importorskip("simplejpeg")
    contents = [
        encoded(smooth(61 + 8 * seed, 90, channels, seed) // 2 + noise(1)[0] // 8, **options, exif=turned(turn))
        for seed, (channels, turn) in enumerate(itertools.product((1, 3), (1, 5, 8)))
    ]
    contents.append(encoded(noise(17, 33, 3), **options))

    def looks():
        fit = [images.decode(content, channels=channels) for content in contents for channels in (1, 3)]
        return fit + [
            crops.read_crop(one, (side, side), channels=3, place=whole) for one in contents for side in (5, 20, 50)
        ]

    fast = looks()
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for one, other in zip(fast, looks(), strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= TURBO


def test_simplejpeg_reads_where_it_is_installed(monkeypatch):
    pytest.importorskip("simplejpeg")
    contents = {channels: encoded(smooth(40, 50, channels)) for channels in (1, 3)}
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("Pillow decodes"))
    for channels, content in contents.items():
        assert images.image_pixels(Image.open(io.BytesIO(content)), content, channels).shape == (40, 50, channels)
        assert images.image_pixels(Image.open(io.BytesIO(content)), content, channels, 4).shape == (10, 13, channels)


def test_flawed_files_are_read_and_refused_in_the_same_words(monkeypatch):
    pytest.importorskip("simplejpeg")
    sound = encoded(noise(40, 50, 3), quality=90)
    chance = np.random.default_rng(0)
    flawed = [sound[:cut] for cut in (200, 650, len(sound) // 2, len(sound) - 2)] + [sound + b"more", sound + sound]
    printed = io.BytesIO()
    Image.fromarray(noise(20, 20, 3)).convert("CMYK").save(printed, "JPEG")
    flawed.append(printed.getvalue())
    for _ in range(60):
        changed = bytearray(sound)
        changed[int(chance.integers(len(sound)))] ^= 1 << int(chance.integers(8))
        flawed.append(bytes(changed))

    def told(content):
        try:
            return images.decode(content, channels=3).tolist()
        except images.UnreadableError as error:
            return str(error)

    fast = [told(content) for content in flawed]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    slow = [told(content) for content in flawed]
    assert [isinstance(one, str) for one in fast] == [isinstance(one, str) for one in slow]
    assert fast == slow or TURBO
    assert 5 < sum(isinstance(one, str) for one in fast) < len(flawed) - 5


# --- a whole data set


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 JPEG files of several sizes in two classes, some turned."""
    root = tmp_path_factory.mktemp("photos")
    for at in range(24):
        folder = root / ("cat", "dog")[at % 2]
        folder.mkdir(exist_ok=True)
        pixels = smooth(40 + 9 * at, 70 + 7 * (at % 5), seed=at)
        (folder / f"{at:02}.jpg").write_bytes(encoded(pixels, exif=turned(1 + at % 8)))
    return root


def section(photos, **changes):
    common = {"name": "folder", "path": str(photos), "image_size": (12, 16), "random_crop": (0.2, 1.0)}
    return common | changes


def bits(batches):
    digest = hashlib.sha256()
    for batch in batches:
        for key in ("image", "label", "weight", "index"):
            digest.update(batch[key].tobytes())
    return digest.hexdigest()


def flowing(split, *, first=0, last=12, **how):
    return stream.batches(split, batch_size=6, seed=3, first=first, last=last, **how)


def test_any_number_of_threads_and_any_prefetch_give_the_same_bits(photos):
    split = data.load(section(photos)).splits["train"]
    assert not split.in_memory
    expected = bits(flowing(split))
    for workers, prefetch in itertools.product((0, 1, 2, 4), (0, 1, 5)):
        assert bits(flowing(split, workers=workers, prefetch=prefetch)) == expected, (workers, prefetch)


def test_a_stream_that_begins_later_goes_on_with_the_same_bits(photos):
    split = data.load(section(photos)).splits["train"]
    expected = list(flowing(split))
    assert bits(flowing(split, first=7, workers=2)) == bits(expected[7:])


def test_two_hosts_cut_the_halves_of_one_hosts_batch(photos):
    split = data.load(section(photos)).splits["train"]
    halves = zip(*(flowing(split, host=host, hosts=2, workers=host) for host in (0, 1)), strict=True)
    joined = [{key: np.concatenate([one[key], other[key]]) for key in one} for one, other in halves]
    assert bits(joined) == bits(flowing(split))


def test_what_the_memory_holds_changes_no_bit(photos, monkeypatch):
    first = data.load(section(photos))
    kept = data.load(section(photos)).splits  # of the others, those decoded before
    monkeypatch.setattr(materialize, "MEMORY", 0)
    none = data.load(section(photos)).splits
    assert kept["validation"].in_memory
    assert not none["validation"].in_memory
    for splits in (kept, none):
        assert bits(flowing(splits["train"])) == bits(flowing(first.splits["train"]))
        for split in ("validation", "test"):
            every = np.arange(len(splits[split]))
            np.testing.assert_array_equal(splits[split].read(every), first.splits[split].read(every))


def test_training_images_are_not_decoded_before_they_are_cut(photos, monkeypatch):
    decoded, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda *given, **named: decoded.append(1) or decode(*given, **named))
    splits = data.load(section(photos, check="none")).splits
    assert len(decoded) == len(splits["validation"]) + len(splits["test"])


def test_each_time_another_box_is_seen_and_it_is_the_one_of_its_row(photos):
    split = data.load(section(photos)).splits["train"]
    seen = {}
    for update, batch in enumerate(flowing(split)):
        for row, index in enumerate(batch["index"].tolist()):
            numbers = crops.crop_numbers(3, update, 6)[row]
            content = (photos / split.names[index]).read_bytes()
            upright = Image.fromarray(images.decode(content, channels=3))
            box = crops.crop_box(upright.height, upright.width, numbers, min_area=0.2, max_area=1.0)
            expected = np.asarray(upright.resize((16, 12), Image.Resampling.BILINEAR, box=box)).astype(int)
            assert np.abs(batch["image"][row] - expected).mean() < 3, (update, row)  # reduced, perhaps
            seen.setdefault(index, []).append(batch["image"][row].tobytes())
    assert len(seen) == len(split) == 20
    assert all(len(set(found)) == len(found) >= 3 for found in seen.values())


def test_all_but_training_batches_are_read_as_fit_says(photos):
    cut, plain = (data.load(section(photos, **changes)).splits for changes in ({}, {"random_crop": None}))
    for split in cut:
        every = np.arange(len(cut[split]))
        np.testing.assert_array_equal(cut[split].read(every), plain[split].read(every))
        assert (cut[split].read_crops is None) == (split != "train")
    assert bits(stream.ordered_batches(cut["train"], batch_size=7)) == bits(
        stream.ordered_batches(plain["train"], batch_size=7)
    )


def test_a_selection_is_cut_as_its_images_are(photos):
    split = data.load(section(photos)).splits["train"]
    numbers = crops.crop_numbers(0, 0, 3)
    np.testing.assert_array_equal(
        split.select(np.array([5, 1, 7])).read_crops(np.array([2, 0, 1]), numbers),
        split.read_crops(np.array([7, 5, 1]), numbers),
    )


def test_the_verb_batches_sees_what_a_run_sees(photos):
    split = data.load(section(photos)).splits["train"]
    found = list(cnn_vit.batches(section(photos), batch_size=6, seed=3, epochs=2))
    assert [len(labels) for _, labels in found] == [6] * 6 + [4]
    for (batch_images, labels), batch in zip(found, flowing(split, last=7), strict=True):
        np.testing.assert_array_equal(batch_images, batch["image"][: len(labels)].astype(np.float32) / np.float32(255))


def test_arrays_are_cut_too(tmp_path):
    pixels, labels = noise(12, 20, 24, 1), np.arange(12) % 2
    np.savez(tmp_path / "some.npz", train_x=pixels, train_y=labels, test_x=pixels[:4], test_y=labels[:4])
    splits = data.load({"name": "arrays", "path": str(tmp_path / "some.npz"), "random_crop": (0.5, 0.5)}).splits
    assert not splits["train"].in_memory  # so that threads cut
    (batch,) = stream.batches(splits["train"], batch_size=4, seed=0, first=2, last=3, workers=2)
    for row, index in enumerate(batch["index"].tolist()):
        original = splits["train"].read(np.array([index]))[0, ..., 0]
        box = crops.crop_box(20, 24, crops.crop_numbers(0, 2, 4)[row], min_area=0.5, max_area=0.5)
        expected = Image.fromarray(original).resize((24, 20), Image.Resampling.BILINEAR, box=box)
        np.testing.assert_array_equal(batch["image"][row, ..., 0], np.asarray(expected))


# --- what is wrong


@pytest.mark.parametrize("given", [(1.0, 0.5), (0.5,), (0.1, 0.2, 0.3), 0.5, (0, 1), (0.5, 1.5), "half"])
def test_wrong_shares_are_refused_by_name(photos, given):
    with pytest.raises(UserError, match=r"data\.random_crop is .*; it takes"):
        data.check(section(photos, random_crop=given))


def test_broken_files_are_named_before_the_first_step_or_when_they_are_met(photos, tmp_path):
    for at in range(24):
        (tmp_path / ("cat", "dog")[at % 2]).mkdir(exist_ok=True)
        (tmp_path / ("cat", "dog")[at % 2] / f"{at:02}.jpg").write_bytes(encoded(smooth(40, 50, seed=at)))
    later = data.load(section(tmp_path, check="none")).splits["train"]
    broken = tmp_path / later.names[0]
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(UserError, match=broken.name):
        data.load(section(tmp_path))
    with pytest.raises(UserError, match=rf"{broken.name} cannot be read"):
        list(flowing(later, workers=2))
    kept = data.load(section(tmp_path, on_bad_image="skip"))
    assert len(kept.facts["skipped"]) == 1
    assert len(bits(flowing(kept.splits["train"]))) == 64
