"""Images of several sizes (data.fit=pad_batch): what is read of them, their batches, and the batches' padded sizes."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode_png, noise
from PIL import Image

from cnn_vit import data
from cnn_vit.data import batches
from cnn_vit.data.base import padding
from cnn_vit.data.base.padding import PaddedSizes, choose_buckets, shrink_to_fit
from cnn_vit.data.decode import images
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import materialize
from cnn_vit.errors import UserError

few = settings(max_examples=30, deadline=None, derandomize=True, database=None)
side = st.integers(1, 300)

# --- buckets


def test_small_images_by_themselves_get_a_bucket_of_their_own():
    image_sizes = np.array([[8, 8], [32, 32]] * 50)
    assert choose_buckets(image_sizes, (32, 32), 1) == ((8, 8), (32, 32))


def test_large_batches_of_which_each_has_a_large_image_need_one_bucket():
    """Of 64 images all are small once in 4^64 times; to evaluate the small ones alone is not worth a compilation."""
    image_sizes = np.array([[8, 8], [16, 16], [16, 16], [16, 16]] * 25)
    assert choose_buckets(image_sizes, (16, 16), 64) == ((16, 16),)


def test_batches_of_wide_images_are_not_padded_to_a_square():
    image_sizes = np.stack([np.arange(40, 57), np.full(17, 80)], 1)
    assert choose_buckets(image_sizes, (80, 80), 256) == ((56, 80), (80, 80))


@few
@given(drawn=st.lists(st.tuples(side, side), min_size=1, max_size=40), batch_size=st.sampled_from([1, 3, 128]))
def test_there_are_at_most_eight_buckets_and_one_holds_every_image(drawn, batch_size):
    image_sizes = np.array(drawn)
    largest = int(image_sizes[:, 0].max()), int(image_sizes[:, 1].max())
    buckets = choose_buckets(image_sizes, largest, batch_size)
    assert 1 <= len(buckets) <= 8
    assert buckets[-1] == largest
    areas = [height * width for height, width in buckets]
    assert areas == sorted(areas)
    for height, width in buckets:
        assert height <= largest[0]
        assert width <= largest[1]
        assert height % 8 == 0 or height == largest[0]
        assert width % 8 == 0 or width == largest[1]


@few
@given(image_size=st.tuples(side, side), largest=st.tuples(side, side))
def test_an_image_is_only_made_smaller_and_keeps_its_proportions(image_size, largest):
    shrunk = shrink_to_fit(image_size, largest)
    if image_size[0] <= largest[0] and image_size[1] <= largest[1]:
        assert shrunk == image_size
        return
    scale = min(largest[0] / image_size[0], largest[1] / image_size[1])
    for shrunk_side, original_side, limit in zip(shrunk, image_size, largest, strict=True):
        assert 1 <= shrunk_side <= limit
        assert abs(shrunk_side - original_side * scale) <= 0.5 or shrunk_side == 1


TWO_WAYS = PaddedSizes(
    np.array([[16, 16], [5, 16], [16, 8], [3, 2]], np.int32), ((8, 8), (8, 16), (16, 8), (16, 16))
)  # wide and tall buckets, neither of which holds the other


@pytest.mark.parametrize(
    ("examples", "size"),
    [([3], (8, 8)), ([1], (8, 16)), ([2, 3], (16, 8)), ([1, 2], (16, 16)), ([0, 3], (16, 16)), ([1, 3], (8, 16))],
)
def test_a_batch_has_the_smallest_bucket_that_holds_all_its_images(examples, size):
    assert TWO_WAYS.bucket_for(np.array(examples)) == size


def test_a_mask_is_true_on_an_images_own_pixels():
    mask = TWO_WAYS.mask(np.array([3, 1]), (4, 8))
    assert mask.shape == (2, 4, 8)
    assert mask.sum((1, 2)).tolist() == [6, 32]
    assert mask[0, :3, :2].all()


def test_small_images_are_evaluated_first():
    assert TWO_WAYS.small_first_order().tolist() == [3, 1, 2, 0]


# --- reading


@pytest.fixture
def folder(tmp_path):
    """A folder of images of several sizes, and the pixels of its training images by name."""
    images_by_path = {}
    for number in range(40):
        path = f"train/{'ab'[number % 2]}/{number:02}.png"
        images_by_path[path] = noise(5 + number % 16, 6 + 7 * number % 19, 3, seed=number)
    for part in ("val", "test"):
        for class_name in "ab":
            images_by_path[f"{part}/{class_name}/0.png"] = noise(9, 11, 3, seed=len(images_by_path))
    for path, pixels in images_by_path.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(encode_png(pixels))
    pixels_by_name = {
        path.removeprefix("train/"): pixels for path, pixels in images_by_path.items() if path.startswith("train")
    }
    return tmp_path, pixels_by_name


def section(path, **changes):
    """The settings that read such a folder, without `data.`."""
    return {"name": "folder", "path": str(path), "fit": "pad_batch", "batch_size": 4, **changes}


def test_images_stand_in_the_corner_as_they_are(folder):
    path, pixels_by_name = folder
    split = data.load(section(path)).splits["train"]
    canvases = split.read(np.arange(len(split)))
    for canvas, image_size, name in zip(canvases, split.padded_sizes.image_sizes, split.names, strict=True):
        height, width, _ = pixels_by_name[name].shape
        assert image_size.tolist() == [height, width]
        np.testing.assert_array_equal(canvas[:height, :width], pixels_by_name[name])
        assert canvas[height:].sum() == canvas[:, width:].sum() == 0


def test_the_canvas_is_as_large_as_the_largest_image_where_no_image_size_is_set(folder):
    path, pixels_by_name = folder
    dataset = data.load(section(path))
    assert dataset.image_shape == (*np.max([pixels.shape[:2] for pixels in pixels_by_name.values()], 0), 3)
    assert dataset.facts["sizes"] == [list(size) for size in dataset.splits["test"].padded_sizes.buckets]


def test_larger_images_are_made_smaller_by_pillows_resize(folder):
    path, pixels_by_name = folder
    split = data.load(section(path, image_size=(10, 12))).splits["train"]
    canvases = split.read(np.arange(len(split)))
    for canvas, image_size, name in zip(canvases, split.padded_sizes.image_sizes, split.names, strict=True):
        height, width = shrink_to_fit(pixels_by_name[name].shape[:2], (10, 12))
        assert image_size.tolist() == [height, width]
        expected = Image.fromarray(pixels_by_name[name]).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(canvas[:height, :width], np.asarray(expected))


def test_decoding_at_once_or_later_gives_the_same(folder, monkeypatch):
    path, _ = folder
    at_once = data.load(section(path, image_size=16))
    monkeypatch.setattr(materialize, "MEMORY", 0)
    later = data.load(section(path, image_size=16))
    for name, split in at_once.splits.items():
        assert split.in_memory
        assert not later.splits[name].in_memory
        every = np.arange(len(split))
        np.testing.assert_array_equal(split.read(every), later.splits[name].read(every))
        np.testing.assert_array_equal(split.padded_sizes.image_sizes, later.splits[name].padded_sizes.image_sizes)
        assert split.padded_sizes.buckets == later.splits[name].padded_sizes.buckets


def on_its_side(kind):
    """A file of 8x14 pixels whose EXIF orientation says that the upright image is 14x8."""
    exif = Image.Exif()
    exif[274] = 6  # orientation: the first row is the right side
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 14, 3)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_an_image_that_lies_on_its_side_has_the_size_of_the_upright_image(folder):
    path, _ = folder
    content = on_its_side("JPEG")
    (path / "train/a/turned.jpg").write_bytes(content)
    split = data.load(section(path)).splits["train"]
    index = list(split.names).index("a/turned.jpg")
    assert split.padded_sizes.image_sizes[index].tolist() == [14, 8]
    np.testing.assert_array_equal(split.read(np.array([index]))[0, :14, :8], images.decode(content, channels=3))


def test_an_orientation_behind_the_pixels_of_a_png_turns_nothing(folder):
    """Reading the header alone cannot see it, so that the size and the pixels would disagree."""
    path, _ = folder
    early = on_its_side("PNG")
    start, end = early.index(b"eXIf") - 4, early.index(b"IDAT") - 4  # of the chunk with the orientation
    late = early[:start] + early[end:-12] + early[start:end] + early[-12:]  # the last chunk, IEND, has 12 bytes
    for name, content, size in (("early", early, [14, 8]), ("late", late, [8, 14])):
        (path / f"train/a/{name}.png").write_bytes(content)
        assert list(images.decode(content, channels=3).shape[:2]) == size
        split = data.load(section(path)).splits["train"]
        index = list(split.names).index(f"a/{name}.png")
        assert split.padded_sizes.image_sizes[index].tolist() == size
        height, width = size
        image = split.read(np.array([index]))[0, :height, :width]
        np.testing.assert_array_equal(image, images.decode(content, channels=3))


def test_a_file_that_cannot_be_read_is_named(folder):
    path, _ = folder
    (path / "train/a/bad.png").write_bytes(encode_png(noise(9, 9, 3))[:60])
    with pytest.raises(UserError, match=r"bad\.png cannot be read"):
        data.load(section(path))


def test_images_of_one_size_can_be_padded_as_well():
    dataset = data.load({"name": "digits", "fit": "pad_batch", "image_size": 16})
    assert dataset.image_shape == (16, 16, 1)
    assert np.unique(dataset.splits["train"].padded_sizes.image_sizes).tolist() == [8]
    assert dataset.splits["train"].padded_sizes.buckets == ((8, 8), (16, 16))


def test_mean_and_standard_deviation_are_those_of_the_images_own_pixels(folder):
    path, pixels_by_name = folder
    mean, std = data.mean_and_std(data.load(section(path)).splits["train"])
    all_pixels = np.concatenate([pixels.reshape(-1, 3) for pixels in pixels_by_name.values()]) / 255
    np.testing.assert_allclose(mean, all_pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, all_pixels.std(0), rtol=1e-9)


def test_a_selection_of_examples_has_their_sizes(folder):
    path, _ = folder
    split = data.load(section(path)).splits["train"]
    selection = split.select(np.array([5, 2]))
    assert selection.padded_sizes.image_sizes.tolist() == split.padded_sizes.image_sizes[[5, 2]].tolist()
    assert selection.padded_sizes.buckets == split.padded_sizes.buckets


# --- batches


@pytest.fixture
def split(folder):
    train = data.load(section(folder[0])).splits["train"]
    assert len(train.padded_sizes.buckets) > 1
    return train


def training_batches(split, *, start=0, stop=25, workers=0, batches_ahead=2, host=0, hosts=1):
    return list(
        stream.batches(
            split,
            batch_size=4,
            seed=3,
            start=start,
            stop=stop,
            workers=workers,
            batches_ahead=batches_ahead,
            host=host,
            hosts=hosts,
        )
    )


def assert_same(batches, expected_batches):
    for batch, expected in zip(batches, expected_batches, strict=True):
        assert batch.keys() == expected.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], expected[key])


def test_a_batch_is_cut_to_its_bucket_and_masked(split):
    """Several buckets come up; what is cut off is black."""
    buckets = set()
    for batch in training_batches(split):
        bucket = split.padded_sizes.bucket_for(batch["index"])
        height, width = bucket
        assert batch["image"].shape == (4, height, width, 3)
        assert batch["image"].flags.c_contiguous
        canvases = split.read(batch["index"])
        np.testing.assert_array_equal(batch["image"], canvases[:, :height, :width])
        assert canvases.sum(dtype=np.int64) == batch["image"].sum(dtype=np.int64)
        np.testing.assert_array_equal(batch["mask"], split.padded_sizes.mask(batch["index"], bucket))
        buckets.add(bucket)
    assert 1 < len(buckets) <= len(split.padded_sizes.buckets)


def test_the_order_is_that_of_any_data(split):
    index = np.concatenate([batch["index"] for batch in training_batches(split)])
    np.testing.assert_array_equal(index, stream.order(len(split), 3, np.arange(100)))


@pytest.mark.parametrize(("workers", "batches_ahead"), [(2, 2), (4, 0), (0, 5)])
def test_threads_and_batches_ahead_change_no_bit(split, workers, batches_ahead):
    decoded_later = replace(split, in_memory=False)
    batches = training_batches(decoded_later, workers=workers, batches_ahead=batches_ahead)
    assert_same(batches, training_batches(split))


def test_a_stream_that_begins_later_goes_on_with_the_same_batches(split):
    assert_same(training_batches(split, start=11), training_batches(split)[11:])


def test_hosts_agree_on_the_size_of_a_batch(split):
    """Their rows, one below the other, are the batch of one host."""
    batches_of_hosts = [training_batches(split, host=host, hosts=2) for host in (0, 1)]
    joined_batches = []
    for upper, lower in zip(*batches_of_hosts, strict=True):
        joined_batches.append({key: np.concatenate([upper[key], lower[key]]) for key in upper})
    assert_same(joined_batches, training_batches(split))


@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (7, 1), (512, 1), (6, 2)])
def test_every_example_is_evaluated_once(split, batch_size, hosts):
    batches = []
    for host in range(hosts):
        batches += stream.evaluation_batches(split, batch_size=batch_size, host=host, hosts=hosts)
    assert {len(batch["index"]) for batch in batches} == {batch_size // hosts}
    index = np.concatenate([batch["index"][batch["weight"] > 0] for batch in batches])
    assert sorted(index.tolist()) == list(range(len(split)))
    for batch in batches:
        areas = split.padded_sizes.image_sizes[batch["index"]].prod(1)
        real = batch["weight"] > 0
        assert (batch["mask"].sum((1, 2))[real] == areas[real]).all()  # none is cut off
        assert batch["mask"].any((1, 2)).all()


# --- settings that do not go together


@pytest.mark.parametrize("operation", ["mixup(0.2)", "cutmix", "randaugment(2, 9)", "trivialaugment"])
def test_an_operation_that_needs_one_size_is_refused_by_name(operation):
    with pytest.raises(
        UserError, match=rf"{operation.partition('(')[0]} cannot change images of several sizes .* flip, "
    ):
        data.check({"name": "digits", "fit": "pad_batch", "augment": ("flip", operation)})


def test_a_random_crop_of_one_size_is_refused():
    with pytest.raises(UserError, match=r"data\.random_crop brings boxes to one size"):
        data.check({"name": "digits", "fit": "pad_batch", "random_crop": (0.1, 1.0)})


def test_images_without_their_mask_are_refused(folder):
    with pytest.raises(UserError, match=r"data\.fit=pad_batch gives images of several sizes with a mask"):
        batches.batches(section(folder[0]))


def test_the_weights_of_batches_and_of_single_images_have_known_sums():
    """All batches together weigh 1, and all images by themselves a thirtieth of that."""
    _, weights = padding.candidate_sizes(np.array([[8, 8], [16, 16]]), (16, 16), 1)
    np.testing.assert_allclose(weights.sum(), 1 + 1 / 30)
