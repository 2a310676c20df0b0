"""Our own files: safetensors with a card. They come back bit for bit, and a card that lies is refused."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.transfer import weights
from cnn_vit.transfer.weights import METADATA_KEY, Card, Weights

CARD = Card(
    model="cifar_resnet/test",
    keywords={},
    num_classes=3,
    classes=("cat", "dog", 'a "quoted" naïve\nname'),
    preprocessing={
        "mean": [0.5, 0.25, 0.125],
        "std": [0.5, 0.5, 0.1],
        "image_size": [8, 12],
        "channels": 3,
        "fit": "crop(0.875)",
        "interpolation": "bicubic",
    },
    origin={"file": "net.pth", "trained_on": ["CIFAR-10"], "accuracy": 0.5},
)


@pytest.fixture(scope="module")
def drawn():
    """Initial values of a small network, with its card."""
    params, stats = initial_values(weights.network_of(CARD), seed=0)
    return Weights(params, stats, CARD)


@pytest.fixture
def path(tmp_path, drawn):
    """A file of the drawn weights."""
    weights.save(tmp_path / "net.safetensors", drawn)
    return tmp_path / "net.safetensors"


def read_parts(path) -> tuple[dict, bytes]:
    """Splits a file by the published format: eight bytes of length, a header of JSON, data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_parts(path, header: dict, data: bytes) -> None:
    """Joins a header and data again."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def change_card(path, **changes) -> None:
    """Changes the card in a file; a key that becomes None is taken out."""
    header, data = read_parts(path)
    facts = json.loads(header["__metadata__"][METADATA_KEY]) | changes
    header["__metadata__"][METADATA_KEY] = json.dumps({key: value for key, value in facts.items() if value is not None})
    write_parts(path, header, data)


def test_weights_come_back_bit_for_bit_with_their_card(drawn, path):
    loaded = weights.load(path)
    assert loaded.card == CARD
    assert loaded.digest == drawn.digest
    assert list(loaded.params["stages"]) == [0, 1, 2]  # numbers, as the network has them


def test_equal_weights_give_equal_bytes(tmp_path, drawn, path):
    weights.save(tmp_path / "again.safetensors", drawn)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_file_is_laid_out_as_the_format_demands(drawn, path):
    header, data = read_parts(path)
    metadata = header.pop("__metadata__")
    assert all(isinstance(value, str) for value in metadata.values())
    spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert spans[0][0] == 0
    assert spans[-1][1] == len(data)
    assert all(end == begin for (_, end), (begin, _) in pairwise(spans))
    entry = header["params/stages/1/blocks/0/conv1/kernel"]
    begin, end = entry["data_offsets"]
    kernel = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    np.testing.assert_array_equal(kernel, drawn.params["stages"][1]["blocks"][0]["conv1"]["kernel"])
    assert (path.stat().st_size - len(data)) % 8 == 0


@pytest.mark.torch
def test_other_programs_read_the_file(drawn, path):
    numpy_door = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = numpy_door.load_file(path)
    np.testing.assert_array_equal(arrays["params/head/kernel"], drawn.params["head"]["kernel"])
    np.testing.assert_array_equal(arrays["stats/stem_norm/var"], drawn.stats["stem_norm"]["var"])


def test_a_failed_write_leaves_the_old_file(monkeypatch, drawn, path):
    before = path.read_bytes()

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(files.SurroundingsError, match="No space left"):
        weights.save(path, replace(drawn, card=replace(CARD, origin={})))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [name.name for name in path.parent.iterdir()] == [path.name]


def test_keywords_of_several_numbers_come_back_as_tuples(tmp_path):
    card = replace(CARD, model="mobilenet_v1/test", keywords={"blocks": (1, 2)}, preprocessing={"image_size": [16, 16]})
    params, stats = initial_values(weights.network_of(card), seed=0)
    weights.save(tmp_path / "net.safetensors", Weights(params, stats, card))
    assert weights.load(tmp_path / "net.safetensors").card.keywords == {"blocks": (1, 2)}


def test_a_file_without_a_card_says_how_to_make_one(path):
    header, data = read_parts(path)
    del header["__metadata__"]
    write_parts(path, header, data)
    with pytest.raises(UserError, match=r"has no card of cnn_vit.*convert"):
        weights.load(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, this cnn_vit reads 1; update"),
        ({"format": None}, "has format None"),
        ({"model": 3}, "is damaged: model is 3"),
        ({"model": "cifar_resnet/21"}, "cifar_resnet has no '21'"),
        ({"model": "cifar_resnet/20"}, "does not hold the cifar_resnet/20 of its card"),
        ({"keywords": {"filters": 9}}, r"params/head/kernel has the shape \(32, 3\), expected \(36, 3\)"),
        ({"keywords": {"filters": "9"}}, "model.filters='9' is not a whole number"),
        ({"keywords": {"filters": {"a": 1}}}, "is damaged: keywords/filters"),
        ({"keywords": {"colour": 1}}, "no keyword of cifar_resnet/test 'colour'"),
        ({"num_classes": 4, "classes": ["a", "b", "c", "d"]}, "params/head/kernel has the shape"),
        ({"num_classes": True}, "is damaged: num_classes is True"),
        ({"classes": ["a", "b"]}, "not the 3 different names of its scores"),
        ({"classes": ["a", "b", "b"]}, "not the 3 different names of its scores"),
        ({"classes": ["a", "b", 1]}, "not the 3 different names of its scores"),
        ({"preprocessing": {"channels": 2}}, "preprocessing/channels is 2, expected 1 or 3"),
        ({"preprocessing": {"channels": 1}}, "params/stem/kernel has the shape"),
        ({"preprocessing": {"mean": [0.1, 0.2]}}, "preprocessing/mean"),
        ({"preprocessing": {"mean": [0.1, 0.2, float("nan")]}}, "preprocessing/mean"),
        ({"preprocessing": {"std": [0.1, 0.2, 0]}}, "preprocessing/std"),
        ({"preprocessing": {"image_size": [8, 0]}}, "preprocessing/image_size"),
        ({"preprocessing": {"image_size": [8, 1e9]}}, "preprocessing/image_size"),
        ({"preprocessing": {"fit": 3}}, "preprocessing/fit is 3"),
        ({"preprocessing": {"fit": "squeeze"}}, "preprocessing/fit is 'squeeze'"),
        ({"preprocessing": {"interpolation": "cubic"}}, "preprocessing/interpolation is 'cubic'"),
        ({"origin": []}, "is damaged: origin"),
    ],
)
def test_a_card_that_lies_is_refused(path, changes, sentence):
    change_card(path, **changes)
    with pytest.raises(UserError, match=sentence) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "[" * 100_000])
def test_a_card_that_is_not_a_card_is_refused(path, text):
    header, data = read_parts(path)
    header["__metadata__"][METADATA_KEY] = text
    write_parts(path, header, data)
    with pytest.raises(UserError, match=r"the card of .* is damaged"):
        weights.load(path)


def test_tensors_that_the_card_s_network_does_not_have_are_listed(path):
    header, data = read_parts(path)
    header["params/extra"] = header.pop("params/head/bias")
    write_parts(path, header, data)
    with pytest.raises(UserError, match="params/head/bias is missing; params/extra is not known"):
        weights.load(path)


def test_tensors_of_another_type_are_refused(path):
    header, data = read_parts(path)
    header["params/head/bias"]["dtype"] = "I32"
    write_parts(path, header, data)
    with pytest.raises(UserError, match="params/head/bias is int32, expected float32"):
        weights.load(path)


def test_a_card_that_is_not_json_cannot_be_written(tmp_path, drawn):
    wrong = replace(drawn, card=replace(CARD, origin={"accuracy": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        weights.save(tmp_path / "net.safetensors", wrong)
    assert not (tmp_path / "net.safetensors").exists()
