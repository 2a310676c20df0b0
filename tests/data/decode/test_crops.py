"""Boxes cut out of training images on the host: what is drawn, what comes out, and what has no influence on it."""

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
LEVELS_APART = 0 if features.check_feature("libjpeg_turbo") else 4  # that another libjpeg of Pillow may differ by


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(height, width, channels=3, seed=0):
    """An image without detail: noise of 5x5 pixels enlarged."""
    coarse = Image.fromarray(noise(5, 5, 3, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(coarse if channels == 3 else coarse.convert("L"))


def encoded(pixels, kind="JPEG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # tag 274
    return exif


# --- random numbers


def philox(key, block):
    """Four words of Philox 4x64 with ten rounds, in Python's own whole numbers: Salmon et al., SC 2011, figure 2."""
    counter, round_key = [block, 0, 0, 0], list(key)
    for _ in range(10):
        product0, product2 = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (product2 >> 64) ^ counter[1] ^ round_key[0],
            product2 % 2**64,
            (product0 >> 64) ^ counter[3] ^ round_key[1],
            product0 % 2**64,
        ]
        round_key = [(round_key[0] + 0x9E3779B97F4A7C15) % 2**64, (round_key[1] + 0xBB67AE8584CAA73B) % 2**64]
    return counter


@pytest.mark.parametrize(("seed", "update"), [(0, 0), (3, 7), (2**31 - 1, 10**9)])
def test_row_r_of_an_update_has_block_r_of_philox(seed, update):
    digest = hashlib.blake2b(f"crops {seed}".encode(), digest_size=8).digest()
    key = int.from_bytes(digest, "little"), update
    expected = []
    for row in range(5):
        expected.append([(word >> 11) / 2**53 for word in philox(key, row + 1)])
    assert crops.crop_numbers(seed, update, 5).tolist() == expected
    assert crops.crop_numbers(seed, update, 2).tolist() == expected[:2]


def test_the_numbers_are_even_and_independent():
    numbers = np.concatenate([crops.crop_numbers(1, update, 50) for update in range(100)])
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in numbers.T)
    rows_and_next_rows = np.concatenate([numbers[:-1], numbers[1:]], axis=1)
    correlation = np.corrcoef(rows_and_next_rows.T) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(len(numbers))


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
    box = crops.crop_box(*size, np.array(numbers), min_area=share, max_area=share)
    np.testing.assert_allclose(box, expected, rtol=1e-12, atol=1e-9)


side = st.integers(1, 5000)
number = st.floats(0, 1, exclude_max=True)


@few
@given(height=side, width=side, numbers=st.tuples(number, number, number, number), shares=st.tuples(number, number))
def test_a_box_lies_inside_and_has_its_share_and_proportions(height, width, numbers, shares):
    low, high = sorted(max(share, 0.01) for share in shares)
    left, top, right, bottom = crops.crop_box(height, width, np.array(numbers), min_area=low, max_area=high)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    share = (right - left) * (bottom - top) / (height * width)
    assert share <= high * (1 + 1e-9)
    if 3 / 4 < width / height < 4 / 3:  # any area fits
        assert share == pytest.approx(low + numbers[0] * (high - low), rel=1e-6)
        assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


# --- pixels


def whole_image(height, width):
    """The box that is the whole image."""
    return 0, 0, width, height


@pytest.mark.parametrize("channels", [1, 3])
def test_a_box_of_whole_pixels_at_its_own_size_keeps_the_bits(channels):
    pixels = noise(20, 30, 3)
    content = encoded(pixels, "PNG")
    expected = images.decode(content, channels=channels)[3:11, 5:17]
    crop = crops.read_crop(content, (8, 12), channels=channels, choose_box=lambda *_: (5, 3, 17, 11))
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_one_of_the_image_as_it_stands_upright(orientation):
    content = encoded(noise(40, 56, 3), exif=exif_of(orientation))
    upright = Image.fromarray(images.decode(content, channels=3))
    sizes = []

    def place(height, width):
        sizes.append((height, width))
        return 3.5, 2.25, 30.75, 37

    expected = np.asarray(upright.resize((20, 18), Image.Resampling.BILINEAR, box=(3.5, 2.25, 30.75, 37)))
    np.testing.assert_array_equal(crops.read_crop(content, (18, 20), channels=3, choose_box=place), expected)
    assert sizes == [(40, 56) if orientation < 5 else (56, 40)]


@pytest.mark.parametrize(
    ("box", "reduction"),
    [
        ((0, 0, 333, 201), 8), ((0, 0, 192, 128), 8), ((0, 0, 191.9, 128), 4), ((0, 0, 192, 127.9), 4),
        ((100, 50, 148, 82), 2), ((100, 50, 147.9, 82), 1), ((7, 9, 31, 25), 1), ((7, 9, 12, 11), 1),
    ],
)  # fmt: skip
def test_of_a_large_box_every_eighth_fourth_or_second_pixel_is_decoded(box, reduction, monkeypatch):
    pixels = smooth(201, 333)
    decoded_shapes, resize = [], images.resize

    def recording_resize(pixels, *args):
        decoded_shapes.append(pixels.shape)
        return resize(pixels, *args)

    monkeypatch.setattr(images, "resize", recording_resize)
    content = encoded(pixels, quality=95, subsampling=0)
    crop = crops.read_crop(content, (16, 24), channels=3, choose_box=lambda *_: box)
    assert decoded_shapes == [(-(-201 // reduction), -(-333 // reduction), 3)]
    exact = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BILINEAR, box=box)).astype(int)
    assert np.abs(crop - exact).mean() < 1.5


STORED = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}  # fmt: skip  # an upright image -> how a camera held that way stores it; TIFF 6.0, Orientation


@pytest.mark.parametrize("orientation", STORED)
def test_a_reduced_box_lies_where_the_whole_one_does_however_the_camera_was_held(orientation):
    """Of 57 rows and 93 columns, a last reduced pixel holds one row and five columns: it may come first."""
    down, across = np.mgrid[:57, :93]
    pixels = np.stack([4 * down + 10, 2 * across + 20, 120 + 0 * down], axis=-1).astype(np.uint8)  # tell their place
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    content = encoded(stored, quality=98, subsampling=0, exif=exif_of(orientation))
    crop = crops.read_crop(content, (6, 10), channels=3, choose_box=lambda *_: (8.0, 4.0, 88.0, 52.0))
    rows, columns = np.mgrid[:6, :10]
    expected = np.stack([4 * (4 + 8 * (rows + 0.5) - 0.5) + 10, 2 * (8 + 8 * (columns + 0.5) - 0.5) + 20], axis=-1)
    assert np.abs(crop[..., :2] - expected).max() < 3  # 32 levels a row, 16 a column


def test_only_a_jpeg_is_reduced_while_it_is_decoded():
    pixels = smooth(64, 64)
    expected = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR))
    for kind in ("PNG", "BMP"):
        crop = crops.read_crop(encoded(pixels, kind), (8, 8), channels=3, choose_box=whole_image)
        np.testing.assert_array_equal(crop, expected)


# --- two decoders


@pytest.mark.parametrize("quality", [25, 95])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_both_decoders_give_the_same_pixels(quality, progressive, subsampling, monkeypatch):
    pytest.importorskip("simplejpeg")
    options = dict(quality=quality, progressive=progressive, subsampling=subsampling)
    contents = [encoded(noise(17, 33, 3), **options)]
    for seed, (channels, orientation) in enumerate(itertools.product((1, 3), (1, 5, 8))):
        pixels = smooth(61 + 8 * seed, 90, channels, seed) // 2 + noise(1)[0] // 8
        contents.append(encoded(pixels, **options, exif=exif_of(orientation)))

    def decode_all():
        decoded = []
        for content in contents:
            decoded += [images.decode(content, channels=channels) for channels in (1, 3)]
            for side in (5, 20, 50):
                decoded.append(crops.read_crop(content, (side, side), channels=3, choose_box=whole_image))
        return decoded

    by_simplejpeg = decode_all()
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    for pixels, expected in zip(by_simplejpeg, decode_all(), strict=True):
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).max() <= LEVELS_APART


def test_simplejpeg_reads_where_it_is_installed(monkeypatch):
    pytest.importorskip("simplejpeg")
    contents = {channels: encoded(smooth(40, 50, channels)) for channels in (1, 3)}
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("Pillow decodes"))
    for channels, content in contents.items():
        for reduction, size in ((1, (40, 50)), (4, (10, 13))):
            image = Image.open(io.BytesIO(content))
            decoded = images.image_pixels(image, content, channels, images.DEFAULTS, reduction)
            assert decoded.pixels.shape == (*size, channels)


def test_flawed_files_are_read_and_refused_in_the_same_words(monkeypatch):
    pytest.importorskip("simplejpeg")
    sound = encoded(noise(40, 50, 3), quality=90)
    rng = np.random.default_rng(0)
    flawed = [sound[:length] for length in (200, 650, len(sound) // 2, len(sound) - 2)]
    flawed += [sound + b"more", sound + sound]
    cmyk = io.BytesIO()
    Image.fromarray(noise(20, 20, 3)).convert("CMYK").save(cmyk, "JPEG")
    flawed.append(cmyk.getvalue())
    for _ in range(60):
        one_bit_off = bytearray(sound)
        one_bit_off[int(rng.integers(len(sound)))] ^= 1 << int(rng.integers(8))
        flawed.append(bytes(one_bit_off))

    def pixels_or_message(content):
        try:
            return images.decode(content, channels=3).tolist()
        except images.UnreadableError as error:
            return str(error)

    with_simplejpeg = [pixels_or_message(content) for content in flawed]
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    without_simplejpeg = [pixels_or_message(content) for content in flawed]
    is_refused = [isinstance(answer, str) for answer in with_simplejpeg]
    assert is_refused == [isinstance(answer, str) for answer in without_simplejpeg]
    assert with_simplejpeg == without_simplejpeg or LEVELS_APART
    assert 5 < sum(is_refused) < len(flawed) - 5


# --- a whole data set


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 JPEG files of several sizes in two classes, some turned."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(24):
        folder = root / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = smooth(40 + 9 * number, 70 + 7 * (number % 5), seed=number)
        (folder / f"{number:02}.jpg").write_bytes(encoded(pixels, exif=exif_of(1 + number % 8)))
    return root


def section(photos, **changes):
    """The settings that read these photos, without `data.`."""
    common = {"name": "folder", "path": str(photos), "image_size": (12, 16), "random_crop": (0.2, 1.0)}
    return common | changes


def digest_of(batches):
    """A digest of all bits of these batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for key in ("image", "label", "weight", "index"):
            digest.update(batch[key].tobytes())
    return digest.hexdigest()


def training_batches(split, *, start=0, stop=12, workers=0, batches_ahead=2, host=0, hosts=1):
    return stream.batches(
        split,
        batch_size=6,
        seed=3,
        start=start,
        stop=stop,
        workers=workers,
        batches_ahead=batches_ahead,
        host=host,
        hosts=hosts,
    )


def test_any_number_of_threads_and_of_batches_ahead_gives_the_same_bits(photos):
    split = data.load(section(photos)).splits["train"]
    assert not split.in_memory
    expected = digest_of(training_batches(split))
    for workers, batches_ahead in itertools.product((0, 1, 2, 4), (0, 1, 5)):
        batches = training_batches(split, workers=workers, batches_ahead=batches_ahead)
        assert digest_of(batches) == expected, (workers, batches_ahead)


def test_a_stream_that_begins_later_goes_on_with_the_same_bits(photos):
    split = data.load(section(photos)).splits["train"]
    expected = list(training_batches(split))
    assert digest_of(training_batches(split, start=7, workers=2)) == digest_of(expected[7:])


def test_two_hosts_cut_the_halves_of_one_hosts_batch(photos):
    split = data.load(section(photos)).splits["train"]
    upper_halves = training_batches(split, host=0, hosts=2)
    lower_halves = training_batches(split, host=1, hosts=2, workers=1)
    joined = []
    for upper, lower in zip(upper_halves, lower_halves, strict=True):
        joined.append({key: np.concatenate([upper[key], lower[key]]) for key in upper})
    assert digest_of(joined) == digest_of(training_batches(split))


def test_what_the_memory_holds_changes_no_bit(photos, monkeypatch):
    first = data.load(section(photos)).splits
    in_memory = data.load(section(photos)).splits  # validation and test as the first load stored them in the cache
    monkeypatch.setattr(materialize, "MEMORY", 0)
    on_disk = data.load(section(photos)).splits
    assert in_memory["validation"].in_memory
    assert not on_disk["validation"].in_memory
    for splits in (in_memory, on_disk):
        assert digest_of(training_batches(splits["train"])) == digest_of(training_batches(first["train"]))
        for split in ("validation", "test"):
            every = np.arange(len(splits[split]))
            np.testing.assert_array_equal(splits[split].read(every), first[split].read(every))


def test_training_images_are_not_decoded_before_they_are_cut(photos, monkeypatch):
    calls, decode_image = [], images.decode_image

    def counting_decode(content, *, channels, options):
        calls.append(channels)
        return decode_image(content, channels=channels, options=options)

    monkeypatch.setattr(images, "decode_image", counting_decode)
    splits = data.load(section(photos, check="none")).splits
    assert len(calls) == len(splits["validation"]) + len(splits["test"])


def test_each_time_another_box_is_cut_and_it_is_the_one_of_its_row(photos):
    split = data.load(section(photos)).splits["train"]
    crops_by_example = {}
    for update, batch in enumerate(training_batches(split)):
        for row, index in enumerate(batch["index"].tolist()):
            numbers = crops.crop_numbers(3, update, 6)[row]
            content = (photos / split.names[index]).read_bytes()
            upright = Image.fromarray(images.decode(content, channels=3))
            box = crops.crop_box(upright.height, upright.width, numbers, min_area=0.2, max_area=1.0)
            expected = np.asarray(upright.resize((16, 12), Image.Resampling.BILINEAR, box=box)).astype(int)
            assert np.abs(batch["image"][row] - expected).mean() < 3, (update, row)  # reduced, perhaps
            crops_by_example.setdefault(index, []).append(batch["image"][row].tobytes())
    assert len(crops_by_example) == len(split) == 20
    for crops_of_example in crops_by_example.values():
        assert len(set(crops_of_example)) == len(crops_of_example) >= 3


def test_all_but_training_batches_are_read_as_fit_says(photos):
    cropped = data.load(section(photos)).splits
    plain = data.load(section(photos, random_crop=None)).splits
    for split in cropped:
        every = np.arange(len(cropped[split]))
        np.testing.assert_array_equal(cropped[split].read(every), plain[split].read(every))
        assert (cropped[split].read_crops is None) == (split != "train")
    in_order = stream.evaluation_batches(cropped["train"], batch_size=7)
    assert digest_of(in_order) == digest_of(stream.evaluation_batches(plain["train"], batch_size=7))


def test_a_selection_has_the_boxes_of_its_images(photos):
    split = data.load(section(photos)).splits["train"]
    numbers = crops.crop_numbers(0, 0, 3)
    np.testing.assert_array_equal(
        split.select(np.array([5, 1, 7])).read_crops(np.array([2, 0, 1]), numbers),
        split.read_crops(np.array([7, 5, 1]), numbers),
    )


def test_the_verb_batches_gives_what_a_run_trains_on(photos):
    split = data.load(section(photos)).splits["train"]
    pairs = list(cnn_vit.batches(section(photos), batch_size=6, seed=3, epochs=2))
    assert [len(labels) for _, labels in pairs] == [6] * 6 + [4]
    for (batch_images, labels), batch in zip(pairs, training_batches(split, stop=7), strict=True):
        expected = batch["image"][: len(labels)].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(batch_images, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_box_of_a_file_is_resized_by_the_filter_that_is_asked_for(tmp_path, interpolation):
    pixels = noise(20, 24, 3)
    for number in range(24):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02}.png").write_bytes(encoded(pixels, "PNG"))
    split = data.load(section(tmp_path, interpolation=interpolation)).splits["train"]
    numbers = crops.crop_numbers(0, 0, 3)
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    for cut, row_numbers in zip(split.read_crops(np.arange(3), numbers), numbers, strict=True):
        box = crops.crop_box(20, 24, row_numbers, min_area=0.2, max_area=1.0)
        expected = Image.fromarray(pixels).resize((16, 12), resample, box=box)
        np.testing.assert_array_equal(cut, np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_arrays_are_cut_too(tmp_path, interpolation):
    pixels, labels = noise(12, 20, 24, 1), np.arange(12) % 2
    path = tmp_path / "some.npz"
    np.savez(path, train_x=pixels, train_y=labels, test_x=pixels[:4], test_y=labels[:4])
    options = {"random_crop": (0.5, 0.5), "interpolation": interpolation}
    splits = data.load({"name": "arrays", "path": str(path), **options}).splits
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    assert not splits["train"].in_memory  # so that threads cut the boxes
    (batch,) = stream.batches(splits["train"], batch_size=4, seed=0, start=2, stop=3, workers=2)
    for row, index in enumerate(batch["index"].tolist()):
        original = splits["train"].read(np.array([index]))[0, ..., 0]
        box = crops.crop_box(20, 24, crops.crop_numbers(0, 2, 4)[row], min_area=0.5, max_area=0.5)
        expected = Image.fromarray(original).resize((24, 20), resample, box=box)
        np.testing.assert_array_equal(batch["image"][row, ..., 0], np.asarray(expected))


# --- wrong settings and broken files


@pytest.mark.parametrize("shares", [(1.0, 0.5), (0.5,), (0.1, 0.2, 0.3), 0.5, (0, 1), (0.5, 1.5), "half"])
def test_wrong_shares_are_refused_by_name(photos, shares):
    with pytest.raises(UserError, match=r"data\.random_crop is .*; it takes"):
        data.check(section(photos, random_crop=shares))


def test_broken_files_are_named_before_the_first_step_or_when_they_are_met(photos, tmp_path):
    for number in range(24):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{number:02}.jpg").write_bytes(encoded(smooth(40, 50, seed=number)))
    unchecked = data.load(section(tmp_path, check="none")).splits["train"]
    broken = tmp_path / unchecked.names[0]
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(UserError, match=broken.name):
        data.load(section(tmp_path))
    with pytest.raises(UserError, match=rf"{broken.name} cannot be read"):
        list(training_batches(unchecked, workers=2))
    without_broken = data.load(section(tmp_path, on_bad_image="skip"))
    assert len(without_broken.facts["skipped"]) == 1
    assert len(digest_of(training_batches(without_broken.splits["train"]))) == 64
