"""Images of several sizes (data.fit=pad_batch): what is read of them, their batches, and the sizes of these."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import noise, png
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

# --- sizes


def test_small_images_by_themselves_get_a_size_of_their_own():
    sides = np.array([[8, 8], [32, 32]] * 50)
    assert choose_buckets(sides, (32, 32), 1) == ((8, 8), (32, 32))


def test_large_batches_of_which_each_has_a_large_image_need_one_size():
    """Of 64 images all are small once in 4^64 times; to judge the small ones alone is not worth a compilation."""
    sides = np.array([[8, 8], [16, 16], [16, 16], [16, 16]] * 25)
    assert choose_buckets(sides, (16, 16), 64) == ((16, 16),)


def test_batches_of_wide_images_are_not_padded_to_a_square():
    sides = np.stack([np.arange(40, 57), np.full(17, 80)], 1)
    assert choose_buckets(sides, (80, 80), 256) == ((56, 80), (80, 80))


@few
@given(drawn=st.lists(st.tuples(side, side), min_size=1, max_size=40), batch_size=st.sampled_from([1, 3, 128]))
def test_there_are_at_most_eight_sizes_and_one_holds_every_image(drawn, batch_size):
    sides = np.array(drawn)
    largest = int(sides[:, 0].max()), int(sides[:, 1].max())
    found = choose_buckets(sides, largest, batch_size)
    assert 1 <= len(found) <= 8
    assert found[-1] == largest
    assert all(high <= largest[0] and wide <= largest[1] for high, wide in found)
    assert [high * wide for high, wide in found] == sorted(high * wide for high, wide in found)
    assert all(one % 8 == 0 or one == most for size in found for one, most in zip(size, largest, strict=True))


@few
@given(own=st.tuples(side, side), most=st.tuples(side, side))
def test_an_image_is_only_made_smaller_and_keeps_its_proportions(own, most):
    found = shrink_to_fit(own, most)
    if own[0] <= most[0] and own[1] <= most[1]:
        assert found == own
        return
    scale = min(most[0] / own[0], most[1] / own[1])
    for got, was, limit in zip(found, own, most, strict=True):
        assert 1 <= got <= limit
        assert abs(got - was * scale) <= 0.5 or got == 1


TWO_WAYS = PaddedSizes(
    np.array([[16, 16], [5, 16], [16, 8], [3, 2]], np.int32), ((8, 8), (8, 16), (16, 8), (16, 16))
)  # wide and tall sizes, neither of which holds the other


@pytest.mark.parametrize(
    ("examples", "size"),
    [([3], (8, 8)), ([1], (8, 16)), ([2, 3], (16, 8)), ([1, 2], (16, 16)), ([0, 3], (16, 16)), ([1, 3], (8, 16))],
)
def test_a_batch_has_the_smallest_size_that_holds_all_its_images(examples, size):
    assert TWO_WAYS.bucket_for(np.array(examples)) == size


def test_a_mask_is_true_on_an_images_own_pixels():
    mask = TWO_WAYS.mask(np.array([3, 1]), (4, 8))
    assert mask.shape == (2, 4, 8)
    assert mask.sum((1, 2)).tolist() == [6, 32]
    assert mask[0, :3, :2].all()


def test_small_images_are_judged_first():
    assert TWO_WAYS.small_first_order().tolist() == [3, 1, 2, 0]


# --- reading


@pytest.fixture
def folder(tmp_path):
    """A folder of images of several sizes; their pixels by path."""
    found = {}
    for at in range(40):
        path = f"train/{'ab'[at % 2]}/{at:02}.png"
        found[path] = noise(5 + at % 16, 6 + 7 * at % 19, 3, seed=at)
    for part in ("val", "test"):
        for name in "ab":
            found[f"{part}/{name}/0.png"] = noise(9, 11, 3, seed=len(found))
    for path, pixels in found.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(png(pixels))
    return tmp_path, {path.partition("/")[2]: pixels for path, pixels in found.items() if path.startswith("train")}


def section(path, **changes):
    return {"name": "folder", "path": str(path), "fit": "pad_batch", "batch_size": 4, **changes}


def test_images_stand_in_the_corner_as_they_are(folder):
    path, pixels = folder
    split = data.load(section(path)).splits["train"]
    found = split.read(np.arange(len(split)))
    for image, sides, name in zip(found, split.padded_sizes.image_sizes, split.names, strict=True):
        height, width, _ = pixels[name].shape
        assert sides.tolist() == [height, width]
        np.testing.assert_array_equal(image[:height, :width], pixels[name])
        assert image[height:].sum() == image[:, width:].sum() == 0


def test_the_image_is_as_large_as_the_largest_image_where_nobody_says(folder):
    path, pixels = folder
    dataset = data.load(section(path))
    assert dataset.image_shape == (*np.max([one.shape[:2] for one in pixels.values()], 0), 3)
    assert dataset.facts["sizes"] == [list(size) for size in dataset.splits["test"].padded_sizes.buckets]


def test_larger_images_are_made_smaller_by_pillows_resize(folder):
    path, pixels = folder
    split = data.load(section(path, image_size=(10, 12))).splits["train"]
    for image, sides, name in zip(
        split.read(np.arange(len(split))), split.padded_sizes.image_sizes, split.names, strict=True
    ):
        height, width = shrink_to_fit(pixels[name].shape[:2], (10, 12))
        assert sides.tolist() == [height, width]
        expected = Image.fromarray(pixels[name]).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image[:height, :width], np.asarray(expected))


def test_decoding_at_once_or_later_gives_the_same(folder, monkeypatch):
    path, _ = folder
    at_once = data.load(section(path, image_size=16))
    monkeypatch.setattr(materialize, "MEMORY", 0)
    later = data.load(section(path, image_size=16))
    for name, split in at_once.splits.items():
        assert split.in_memory
        assert not later.splits[name].in_memory
        rows = np.arange(len(split))
        np.testing.assert_array_equal(split.read(rows), later.splits[name].read(rows))
        np.testing.assert_array_equal(split.padded_sizes.image_sizes, later.splits[name].padded_sizes.image_sizes)
        assert split.padded_sizes.buckets == later.splits[name].padded_sizes.buckets


def on_its_side(kind):
    """A file of 8x14 pixels whose EXIF says that they stand 14x8."""
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(noise(8, 14, 3)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def test_an_image_that_lies_on_its_side_has_its_sides_upright(folder):
    path, _ = folder
    content = on_its_side("JPEG")
    (path / "train/a/turned.jpg").write_bytes(content)
    split = data.load(section(path)).splits["train"]
    at = list(split.names).index("a/turned.jpg")
    assert split.padded_sizes.image_sizes[at].tolist() == [14, 8]
    np.testing.assert_array_equal(split.read(np.array([at]))[0, :14, :8], images.decode(content, channels=3))


def test_an_orientation_behind_the_pixels_of_a_png_turns_nothing(folder):
    """A look at the header cannot see it, so that sides and pixels would tell two stories."""
    path, _ = folder
    content = on_its_side("PNG")
    start, end = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
    late = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    for name, bits, shape in (("early", content, [14, 8]), ("late", late, [8, 14])):
        (path / f"train/a/{name}.png").write_bytes(bits)
        assert list(images.decode(bits, channels=3).shape[:2]) == shape
        split = data.load(section(path)).splits["train"]
        at = list(split.names).index(f"a/{name}.png")
        assert split.padded_sizes.image_sizes[at].tolist() == shape
        high, wide = shape
        np.testing.assert_array_equal(split.read(np.array([at]))[0, :high, :wide], images.decode(bits, channels=3))


def test_a_file_that_cannot_be_read_is_named(folder):
    path, _ = folder
    (path / "train/a/bad.png").write_bytes(png(noise(9, 9, 3))[:60])
    with pytest.raises(UserError, match=r"bad\.png cannot be read"):
        data.load(section(path))


def test_images_of_one_size_are_mixed_as_well():
    dataset = data.load({"name": "digits", "fit": "pad_batch", "image_size": 16})
    assert dataset.image_shape == (16, 16, 1)
    assert np.unique(dataset.splits["train"].padded_sizes.image_sizes).tolist() == [8]
    assert dataset.splits["train"].padded_sizes.buckets == ((8, 8), (16, 16))


def test_mean_and_deviation_are_those_of_the_images_pixels(folder):
    path, pixels = folder
    mean, deviation = data.mean_and_std(data.load(section(path)).splits["train"])
    every = np.concatenate([one.reshape(-1, 3) for one in pixels.values()]) / 255
    np.testing.assert_allclose(mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, every.std(0), rtol=1e-9)


def test_a_choice_of_examples_keeps_their_sizes(folder):
    path, _ = folder
    split = data.load(section(path)).splits["train"]
    some = split.select(np.array([5, 2]))
    assert some.mixed.image_sizes.tolist() == split.padded_sizes.image_sizes[[5, 2]].tolist()
    assert some.mixed.buckets == split.padded_sizes.buckets


# --- batches


@pytest.fixture
def split(folder):
    found = data.load(section(folder[0])).splits["train"]
    assert len(found.mixed.buckets) > 1
    return found


def taken(split, first=0, last=25, **how):
    return list(stream.batches(split, batch_size=4, seed=3, first=first, last=last, **how))


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_batch_is_cut_to_its_size_and_masked(split):
    """Each of several sizes comes up; what is cut off is black."""
    met = set()
    for batch in taken(split):
        size = split.padded_sizes.bucket_for(batch["index"])
        assert batch["image"].shape == (4, *size, 3)
        assert batch["image"].flags.c_contiguous
        whole = split.read(batch["index"])
        np.testing.assert_array_equal(batch["image"], whole[:, : size[0], : size[1]])
        assert whole.sum(dtype=np.int64) == batch["image"].sum(dtype=np.int64)
        np.testing.assert_array_equal(batch["mask"], split.padded_sizes.mask(batch["index"], size))
        met.add(size)
    assert 1 < len(met) <= len(split.padded_sizes.buckets)


def test_the_order_is_that_of_any_data(split):
    found = np.concatenate([batch["index"] for batch in taken(split)])
    np.testing.assert_array_equal(found, stream.order(len(split), 3, np.arange(100)))


@pytest.mark.parametrize("how", [{"workers": 2}, {"workers": 4, "prefetch": 0}, {"prefetch": 5}])
def test_threads_and_prefetch_change_no_bit(split, how):
    assert_same(taken(replace(split, in_memory=False), **how), taken(split))


def test_a_stream_taken_up_again_goes_on(split):
    assert_same(taken(split, first=11), taken(split)[11:])


def test_hosts_agree_on_the_size_of_a_batch(split):
    """Their rows, one below the other, are the batch of one host."""
    parts = [taken(split, host=host, hosts=2) for host in (0, 1)]
    together = [{key: np.concatenate([one[key], other[key]]) for key in one} for one, other in zip(*parts, strict=True)]
    assert_same(together, taken(split))


@pytest.mark.parametrize(("batch_size", "hosts"), [(1, 1), (7, 1), (512, 1), (6, 2)])
def test_every_example_is_judged_once(split, batch_size, hosts):
    batches = [
        batch
        for host in range(hosts)
        for batch in stream.ordered_batches(split, batch_size=batch_size, host=host, hosts=hosts)
    ]
    assert {len(batch["index"]) for batch in batches} == {batch_size // hosts}
    index = np.concatenate([batch["index"][batch["weight"] > 0] for batch in batches])
    assert sorted(index.tolist()) == list(range(len(split)))
    for batch in batches:
        sides = split.padded_sizes.image_sizes[batch["index"]]
        real = batch["weight"] > 0
        assert (batch["mask"].sum((1, 2))[real] == sides.prod(1)[real]).all()  # none is cut off
        assert batch["mask"].any((1, 2)).all()


# --- what does not go together


@pytest.mark.parametrize("operation", ["mixup(0.2)", "cutmix", "randaugment(2, 9)", "trivialaugment"])
def test_an_operation_that_needs_one_size_is_refused_by_name(operation):
    with pytest.raises(UserError, match=rf"{operation.partition('(')[0]} takes no images of several sizes .* flip, "):
        data.check({"name": "digits", "fit": "pad_batch", "augment": ("flip", operation)})


def test_a_random_crop_of_one_size_is_refused():
    with pytest.raises(UserError, match=r"data\.random_crop brings boxes to one size"):
        data.check({"name": "digits", "fit": "pad_batch", "random_crop": (0.1, 1.0)})


def test_images_without_their_mask_are_refused(folder):
    with pytest.raises(UserError, match=r"data\.fit=pad_batch gives images of several sizes with a mask"):
        batches.batches(section(folder[0]))


def test_the_weights_of_what_is_looked_at_are_known_sums():
    """Every batch counts alike, and all images by themselves a thirtieth of all batches."""
    _, weights = padding.candidate_sizes(np.array([[8, 8], [16, 16]]), (16, 16), 1)
    np.testing.assert_allclose(weights.sum(), 1 + 1 / 30)
