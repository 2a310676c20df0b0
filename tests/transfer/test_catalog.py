"""The weights that come with the package: each file is what its name and card say, small, and whole."""

import hashlib
import shutil

import pytest

from cnn_vit import trees
from cnn_vit.analysis import table
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.training import trained
from cnn_vit.transfer import catalog, convert

SHIPPED = {name: weights for name, weights in catalog.read_catalog().items() if weights.is_shipped}
NAMES = sorted(SHIPPED)


def test_every_shipped_file_has_a_name():
    files = {path.name for path in catalog.SHIPPED.iterdir()}
    assert files == {weights.file for weights in SHIPPED.values()}
    assert len(files) == len(NAMES) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_of_its_network(name):
    card = convert.open_weights(name).card
    assert card.model == name.partition("@")[0]
    assert card.origin["trained_on"] == [name.partition("@")[2]]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_small_and_so_is_its_network(name):
    assert catalog.find_file(name).stat().st_size == SHIPPED[name].size <= 4_000_000
    opened = convert.open_weights(name)
    card = opened.card
    described = table.describe(
        card.model,
        tuple(card.preprocessing["image_size"]),
        num_classes=card.num_classes,
        channels=card.preprocessing["channels"],
        **card.keywords,
    )
    assert described.macs <= 10_000_000
    assert described.parameters == trees.count(opened.params)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_where_its_weights_come_from(name):
    origin = convert.open_weights(name).card.origin
    assert SHIPPED[name].license == origin["licence"]
    assert list(SHIPPED[name].trained_on) == origin["trained_on"]
    assert {"recipe", "seed", "trained_on", "data_fingerprint", "accuracy", "licence"} <= origin.keys()
    assert origin["accuracy"].endswith("% of 10,000 test images")
    assert not any("/" in str(value) for value in origin.values())  # no path of the machine that made it


@pytest.mark.parametrize("name", NAMES)
def test_the_meaning_quotes_the_accuracy_of_the_card(name):
    accuracy = convert.open_weights(name).card.origin["accuracy"].partition(" %")[0]
    assert f"{accuracy} %" in SHIPPED[name].meaning
    assert f"{SHIPPED[name].accuracy:.2f}" == accuracy


def test_a_name_loads_a_network_with_its_classes():
    network = trained.load(NAMES[0])
    assert network.classes == tuple("0123456789")
    assert network.has_class_names


def test_an_unknown_name_is_answered_by_the_nearest():
    with pytest.raises(UserError, match=r"no weights 'cifar_resnet/8@minst'; there is cifar_resnet/8@mnist"):
        catalog.find_file("cifar_resnet/8@minst")


def test_a_file_that_has_changed_is_refused(tmp_path, monkeypatch):
    shutil.copytree(catalog.SHIPPED, tmp_path / "shipped")
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "shipped")
    path = catalog.find_file(NAMES[0])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert hashlib.sha256(content).hexdigest() != SHIPPED[NAMES[0]].sha256
    with pytest.raises(SurroundingsError, match=r"is not the file of .* that came with the package"):
        catalog.find_file(NAMES[0])


def test_a_path_that_is_there_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b@c.npz").write_bytes(b"")
    assert not catalog.is_name("a/b@c.npz")
    assert catalog.is_name("a/b@c")


@pytest.mark.parametrize(
    "path", ["/data/me@host/x.safetensors", "me@host/x.safetensors", "me@host.npz", "a/b/c@d", "a/b@"]
)
def test_a_path_with_an_at_sign_is_no_name(path):
    assert not catalog.is_name(path)
    with pytest.raises(UserError, match="is not there; name a run folder, a file of weights, or one of `cnn-vit list"):
        trained.load(path)
