"""Features against NumPy and recorded calls: a row for each image, any layer, several sizes, and the cache."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from stepping import make_network_spec

from cnn_vit import data, files, process
from cnn_vit.analysis import record
from cnn_vit.data.base.padding import PaddedSizes, pad_bottom_right
from cnn_vit.data.base.splits import Split
from cnn_vit.errors import UserError
from cnn_vit.files import cache
from cnn_vit.nn.values import initial_values
from cnn_vit.training import features, forward
from cnn_vit.training.prediction import InputImage
from cnn_vit.training.trained import Trained

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
SIDE = 8
COUNT = 31
CONV = "stages/0/convolutions/0"


def make_trained(model, *, fit="crop", sizes=None, **keywords):
    """A network of 8x8 color images with drawn values, statistics of batch norm too."""
    spec = make_network_spec(model, side=SIDE, channels=3, **keywords)
    params, stats = initial_values(forward.get_network(spec), seed=3)
    preprocessing = dict(mean=MEAN, std=STD, image_size=[SIDE, SIDE], channels=3, fit=fit, interpolation="bilinear")
    preprocessing |= dict(levels=None, max_pixels=50_000_000)
    if sizes:
        preprocessing["sizes"] = sizes
    return Trained(spec, params, stats, ("a", "b", "c", "d"), preprocessing)


def draw_images(count=COUNT, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def make_dataset(images, fingerprint="", **splits):
    """A data set whose test split has these images; further splits as they are."""
    labels = np.arange(len(images), dtype=np.int32) % 4
    split = Split(labels, images.__getitem__)
    return data.Dataset(("a", "b", "c", "d"), (SIDE, SIDE, 3), {"test": split, **splits}, fingerprint)


@pytest.fixture(scope="module")
def network():
    return make_trained("cnn/test")


@pytest.fixture
def own_cache(tmp_path):
    """An empty cache, which `tests/conftest.py` takes back before the next test."""
    cache.configure(folder=tmp_path / "cache")
    return tmp_path / "cache" / "features"


def record_outputs(network, images):
    """What each layer gives for images, by path, computed layer by layer without a compiled program."""
    normalized = ((images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)).astype(np.float32)
    module = forward.build_network(network.spec)
    calls = record.record_calls(module, normalized, network.params, network.stats)
    outputs = {call.path: np.asarray(call.outputs, np.float64) for call in calls}
    (head,) = [call for call in calls if call.path == "head"]
    return outputs | {"features": np.asarray(head.inputs["x"], np.float64)}


# Values ---------------------------------------------------------------------------------------------------------------


def test_features_of_an_mlp_are_its_hidden_layer_computed_by_numpy():
    network = make_trained("mlp/test")
    images = draw_images()
    pixels = ((images / 255 - MEAN) / STD).reshape(COUNT, -1)
    layer = network.params["hidden"]["layers"][0]
    expected = np.maximum(pixels @ layer["kernel"] + layer["bias"], 0)
    extracted = features.extract(network, make_dataset(images), "test")
    assert extracted.rows.dtype == np.float32
    np.testing.assert_allclose(extracted.rows, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def outputs(network):
    """What each layer of the network gives for the images of `draw_images`."""
    return record_outputs(network, draw_images())


def test_a_layer_gives_its_recorded_output_as_it_is_or_averaged_over_pixels(network, outputs):
    images = draw_images()
    assert outputs[CONV].shape == (COUNT, 8, 8, 8)
    for layer in ("features", CONV):
        whole = features.extract(network, make_dataset(images), "test", layer=layer, pool="none").rows
        np.testing.assert_allclose(whole, outputs[layer], rtol=1e-5, atol=1e-5)
    averaged = features.extract(network, make_dataset(images), "test", layer=CONV).rows
    np.testing.assert_allclose(averaged, outputs[CONV].mean((1, 2)), rtol=1e-5, atol=1e-5)


def test_tokens_are_averaged_with_the_class_token():
    network = make_trained("vit/test")
    dataset = make_dataset(draw_images(5))
    tokens = features.extract(network, dataset, "test", layer="dropout", pool="none").rows
    assert tokens.shape[1] == 1 + 4  # a class token, and 2x2 patches
    rows = features.extract(network, dataset, "test", layer="dropout").rows
    np.testing.assert_allclose(rows, tokens.mean(1, dtype=np.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 512])
def test_each_image_has_one_row_in_the_split_s_order_whatever_the_batch_size(network, outputs, batch_size):
    rows = features.extract(network, make_dataset(draw_images()), "test", batch_size=batch_size).rows
    np.testing.assert_allclose(rows, outputs["features"], rtol=1e-5, atol=1e-5)


def test_the_layers_of_a_network_are_listed_with_the_shape_of_one_image(network):
    shapes = features.layer_shapes(network.spec)
    assert next(iter(shapes)) != "features"
    assert shapes["features"] == (4 * 4 * 8,)  # pixels that one pooling by 2 leaves, times filters
    assert shapes[CONV] == (8, 8, 8)
    assert shapes["head"] == (4,)
    assert "" not in shapes


def test_layers_that_give_no_row_for_each_image_are_no_choices(network, monkeypatch):
    rows = jax.ShapeDtypeStruct((features.TRACED_ROWS, 5), "float32")
    outputs = {
        "table": jax.ShapeDtypeStruct((1, 9, 5), "float32"),  # positions, the same for all images
        "pair": (rows, rows),
        "norms": jax.ShapeDtypeStruct((features.TRACED_ROWS,), "float32"),  # one number for an image, no vector
        "head": rows,
    }
    calls = [record.Call(path, "Layer", None, {"x": rows}, output) for path, output in outputs.items()]
    monkeypatch.setattr(record, "record_calls", lambda *_: calls)
    assert features.layer_shapes.__wrapped__(network.spec) == {"features": (5,), "head": (5,)}


# Images of several sizes ----------------------------------------------------------------------------------------------


def test_padding_does_not_enter_the_features_of_images_of_several_sizes():
    buckets = ((4, 8), (8, 8))
    masked = make_trained("cnn/test", fit="pad_batch", sizes=buckets, filters=(4,), head="average", batch_norm=False)
    images = [
        draw_images(seed=size)[0, :height, :width] for size, (height, width) in enumerate([(8, 8), (4, 6), (4, 6)])
    ]
    expected = [record_outputs(masked, image[None])["features"][0] for image in images]

    canvas = np.stack([pad_bottom_right(image, (8, 8)) for image in images])
    canvas_sizes = PaddedSizes(np.array([image.shape[:2] for image in images]), buckets)
    split = Split(np.zeros(3, np.int32), canvas.__getitem__, padded_sizes=canvas_sizes)
    dataset = data.Dataset(("a", "b"), (8, 8, 3), {"test": split}, "")
    of_split = features.extract(masked, dataset, "test", batch_size=2).rows
    np.testing.assert_allclose(of_split, expected, rtol=1e-5, atol=1e-5)

    unlabeled = [InputImage(str(number), image) for number, image in enumerate(images)]
    of_images = features.extract_images(masked, unlabeled, batch_size=2)
    assert of_images.paths == ["0", "1", "2"]
    np.testing.assert_array_equal(of_images.rows, of_split)
    with pytest.raises(UserError, match=f"{CONV} of cnn/test gives numbers for each pixel or token"):
        features.extract(masked, dataset, "test", layer=CONV)


def test_images_that_cannot_be_read_are_left_out_and_named(network, outputs):
    images = draw_images()
    broken = InputImage("b.png", None, UserError("is empty"))
    read = [InputImage("a.png", images[0]), broken, InputImage("c.png", images[1])]
    extracted = features.extract_images(network, read)
    assert (extracted.paths, extracted.broken) == (["a.png", "c.png"], [broken])
    np.testing.assert_allclose(extracted.rows, outputs["features"][:2], rtol=1e-5, atol=1e-5)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        (dict(layer="stages/0/convolution/0"), f"no layer of cnn/test 'stages/0/convolution/0'; did you mean {CONV}"),
        (dict(pool="max"), "no pool 'max'; there is mean, none"),
        (dict(split="tset"), "no split 'tset'; did you mean test"),
        (dict(batch_size=0), "batch_size=0 computes nothing"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(network, keywords, sentence):
    words = {"split": "test"} | keywords
    with pytest.raises(UserError, match=sentence):
        features.extract(network, make_dataset(draw_images()), **words)


def test_features_that_do_not_fit_into_memory_are_refused_before_they_are_computed(network, monkeypatch):
    monkeypatch.setattr(process, "free_memory", lambda: 4 * COUNT * 8 * 4)  # as much as the averaged ones need
    dataset = make_dataset(draw_images())
    assert features.extract(network, dataset, "test", layer=CONV).rows.shape == (COUNT, 8)
    monkeypatch.setattr(features, "build_extract_step", lambda *_: pytest.fail("the network was run"))
    with pytest.raises(UserError, match=r"31 images with 512 numbers each .* take fewer images, or --pool=mean"):
        features.extract(network, dataset, "test", layer=CONV, pool="none")


def test_a_data_set_of_another_size_is_refused(network):
    dataset = replace(make_dataset(draw_images()), image_shape=(9, 8, 3))
    with pytest.raises(UserError, match="the network takes 8x8x3 images, the data set gives 9x8x3"):
        features.load_dataset(network, dataset)


def test_data_of_any_kind_are_brought_to_the_network_s_size_and_fit(tmp_path):
    network = make_trained("cnn/test", fit="stretch")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 12, 16, 1), np.uint8)
    files.write_npz(tmp_path / "gray.npz", {"train_x": pixels, "train_y": np.arange(40) % 2})
    section = {"name": "arrays", "path": str(tmp_path / "gray.npz"), "image_size": 32, "channels": 1, "fit": "crop"}
    section |= {"random_crop": (0.1, 1.0), "interpolation": "bicubic"}
    for source in (tmp_path / "gray.npz", section):
        dataset = features.load_dataset(network, source)
        assert dataset.image_shape == (8, 8, 3)
        assert dataset.splits["train"].read_crops is None
    stretched = data.load(
        section | {"image_size": 8, "channels": 3, "fit": "stretch", "random_crop": None, "interpolation": "bilinear"}
    )
    np.testing.assert_array_equal(
        dataset.splits["validation"].read(np.arange(4)), stretched.splits["validation"].read(np.arange(4))
    )


class OwnData:
    """The settings of a run, of which the section of the data is read."""

    def __init__(self, **section):
        self.values = dict.fromkeys(("train", "validation", "test", "path")) | section

    def section(self, name):
        assert name == "data"
        return self.values


def test_the_data_that_a_run_was_trained_on_have_the_run_s_own_slices(network, tmp_path, monkeypatch):
    """Else a network would be tested on images that it was trained on."""
    labels = np.arange(40) % 2
    for name in ("own.npz", "other.npz"):
        files.write_npz(tmp_path / name, {"train_x": np.zeros((40, 8, 8, 3), np.uint8), "train_y": labels})
    own = OwnData(path=str(tmp_path / "own.npz"), train="train[50%:]", validation="train[:25%]")
    monkeypatch.setattr(features.reader, "read_settings", lambda workdir: own)
    trained = replace(network, run=tmp_path)
    dataset = features.load_dataset(trained, tmp_path / "own.npz")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 20, "validation": 10}
    dataset = features.load_dataset(trained, tmp_path / "other.npz")
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 36, "validation": 4}


# The cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """A list of the layers whose features were computed rather than read."""
    layers = []
    compute_rows = features.compute_rows

    def count_and_compute(network, split, layer, pool, **keywords):
        layers.append(layer)
        return compute_rows(network, split, layer, pool, **keywords)

    monkeypatch.setattr(features, "compute_rows", count_and_compute)
    return layers


def test_what_was_extracted_once_is_not_computed_again(network, own_cache, computed):
    dataset = make_dataset(draw_images(), "f" * 64)
    first = features.extract(network, dataset, "test")
    again = features.extract(network, dataset, "test", batch_size=5)
    assert (first.is_from_cache, again.is_from_cache) == (False, True)
    assert computed == ["features"]
    np.testing.assert_array_equal(first.rows, again.rows)
    assert again.rows.dtype == np.float32
    assert len(list(own_cache.iterdir())) == 1


def test_other_values_layers_images_splits_and_code_are_other_features(network, own_cache, computed, monkeypatch):
    images = draw_images()
    dataset = make_dataset(images, "f" * 64)
    params = {**network.params, "head": {**network.params["head"], "bias": np.ones(4, np.float32)}}
    brighter = {**network.preprocessing, "mean": [0.3, 0.5, 0.6]}
    shuffled = make_dataset(images, "f" * 64, validation=dataset.splits["test"].select(np.arange(COUNT)[::-1]))
    other_pixels = make_dataset(images ^ 1, "f" * 64)  # the same files, decoded in another way
    features.extract(network, dataset, "test")
    variants = [
        (replace(network, params=params), dataset, "test", {}),
        (replace(network, preprocessing=brighter), dataset, "test", {}),
        (network, dataset, "test", {"layer": CONV}),
        (network, dataset, "test", {"layer": CONV, "pool": "none"}),
        (network, replace(dataset, fingerprint="e" * 64), "test", {}),
        (network, replace(dataset, facts={"slices": {"test": "test[:31]"}}), "test", {}),
        (network, shuffled, "validation", {}),
        (network, other_pixels, "test", {}),
    ]
    for number, (other_network, other_dataset, split, keywords) in enumerate(variants, 2):
        assert not features.extract(other_network, other_dataset, split, **keywords).is_from_cache
        assert len(computed) == number
    monkeypatch.setattr(features, "digest_code", lambda: "a layer was mended")
    assert not features.extract(network, dataset, "test").is_from_cache
    assert len(list(own_cache.iterdir())) == len(variants) + 2


def test_data_without_a_fingerprint_are_not_kept(network, own_cache):
    features.extract(network, make_dataset(draw_images()), "test")
    assert not own_cache.exists()


def test_a_bit_that_changed_in_the_cache_is_never_believed(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    path = tmp_path / "kept.npz"
    features.keep(path, rows)
    np.testing.assert_array_equal(features.read_kept(path, (3, 2)), rows)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        kept = features.read_kept(path, (3, 2))
        assert kept is None or np.array_equal(kept, rows), place
    for size in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert features.read_kept(path, (3, 2)) is None
    path.write_bytes(content)
    assert features.read_kept(path, (2, 3)) is None  # of other images


def test_damaged_features_are_computed_anew_and_kept(network, own_cache):
    dataset = make_dataset(draw_images(), "f" * 64)
    first = features.extract(network, dataset, "test")
    (path,) = own_cache.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:200])
    again = features.extract(network, dataset, "test")
    assert not again.is_from_cache
    np.testing.assert_array_equal(again.rows, first.rows)
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_changes_nothing_else(network, tmp_path):
    (tmp_path / "file").write_text("")
    cache.configure(folder=tmp_path / "file")
    extracted = features.extract(network, make_dataset(draw_images(), "f" * 64), "test")
    assert extracted.rows.shape == (COUNT, 128)


# Arrays for other programs --------------------------------------------------------------------------------------------


def test_the_arrays_of_several_splits_stand_one_behind_the_other(network):
    images = draw_images()
    names = [f"b/{number}.png" for number in range(3)]
    validation = Split(np.array([3, 1, 2], np.int32), images[:3].__getitem__, names=names)
    arrays = features.collect_arrays(network, make_dataset(images, validation=validation), ["validation"])
    assert arrays["path"].tolist() == names
    arrays = features.collect_arrays(
        network, make_dataset(images[:2], validation=replace(validation, names=None)), ["validation", "test"]
    )
    assert arrays["split"].tolist() == ["validation"] * 3 + ["test"] * 2
    assert arrays["index"].tolist() == [0, 1, 2, 0, 1]
    assert arrays["label"].tolist() == [3, 1, 2, 0, 1]
    assert arrays["classes"].tolist() == ["a", "b", "c", "d"]
    assert "path" not in arrays
    np.testing.assert_array_equal(arrays["features"][:2], arrays["features"][3:])
