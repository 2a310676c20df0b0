"""Weights by name: an entry says what its source says and fits our network, and its file comes whole or not at all."""

import ast
import csv
import dataclasses
import hashlib
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from converted import as_named, under_their_names
from local_server import answer, local_server, serve
from outlines import FOLDER, TIMM_RESULTS, as_arrays, outline_path, read_outline, read_source
from torch_libraries import import_timm, import_torchvision

import cnn_vit
from cnn_vit import files
from cnn_vit.__main__ import main
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache
from cnn_vit.nn.values import initial_values
from cnn_vit.settings import load, to_json
from cnn_vit.training import pretrained_settings
from cnn_vit.transfer import catalog, convert, weights
from cnn_vit.transfer.catalog import NamedWeights
from cnn_vit.transfer.source_facts import SourceFacts

CATALOG = catalog.read_catalog()
PLAIN = {"model": None, "keywords": None, "facts": SourceFacts(), "entry": None, "for_training": False}
DOWNLOADED = [name for name, entry in CATALOG.items() if not entry.is_shipped]


def of_program(program: str) -> list[str]:
    """Lists the weights whose figures stand in a program."""
    return [name for name in DOWNLOADED if read_source(CATALOG[name])[0] == program]


# The outlines of all entries ------------------------------------------------------------------------------------------


def test_every_entry_has_an_outline_and_every_outline_an_entry():
    assert {outline_path(name) for name in DOWNLOADED} == set(FOLDER.iterdir())


def test_outlines_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 200_000


def outline_cases():
    """Entries as cases of a test, marked slow where an entry before has an outline of the same content."""
    cases, seen = [], set()
    for name in DOWNLOADED:
        key = (CATALOG[name].model.removesuffix("-tf"), outline_path(name).read_bytes())
        cases.append(pytest.param(name, marks=pytest.mark.slow if key in seen else ()))
        seen.add(key)
    return cases


@pytest.mark.parametrize("name", outline_cases())
def test_names_and_shapes_fit_our_network(name):
    entry = CATALOG[name]
    numbers = sum(math.prod(shape) for shape in read_outline(name).values())
    size = entry.megabytes if entry.size is None else entry.size / 1e6
    assert size == pytest.approx(4 * numbers / 1e6, rel=0.04, abs=0.051)  # of 4 bytes each, and their names
    outline = as_arrays(read_outline(name))
    plan = convert.plan_conversion(
        entry.file, outline, model=entry.model, keywords=None, facts=SourceFacts(), entry=entry, for_training=False
    )
    assert convert.match_network(plan.recognized, outline, plan.network).find_misfits() == []
    assert plan.card.model == entry.model
    for key, value in entry.preprocessing.items():
        assert plan.card.preprocessing[key] == value
    assert plan.card.origin["trained_on"] == list(entry.trained_on)
    assert plan.card.origin["file"] == entry.file


# The figures of all entries, beside their sources ---------------------------------------------------------------------


@pytest.mark.torch
def test_torchvisions_figures_are_those_of_the_catalogue():
    get_weight = import_torchvision().models.get_weight
    differences = []
    for name in of_program("torchvision"):
        entry = CATALOG[name]
        theirs = get_weight(read_source(entry)[1])
        transforms = theirs.transforms()
        (size,), (resized,) = transforms.crop_size, transforms.resize_size
        published = {
            "address": theirs.url,
            "sha256": re.search(r"-([0-9a-f]{8})\w*\.pth", theirs.url)[1],
            "mean": transforms.mean,
            "std": transforms.std,
            "image_size": [size, size],
            "interpolation": transforms.interpolation.value,
            "accuracy": theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            "accuracy_size": size,
            "resized": resized,
        }
        ported = "_rwightman-" in theirs.url  # timm's own weights, of which torchvision's code says where they are from
        if ported != (entry.license == "Apache-2.0" and "rwightman/pytorch-image-models" in entry.source):
            differences.append(f"{name}: its licence is {entry.license}, and it is of {entry.source}")
        differences += differences_of(name, published, figures_of(entry))
        megabytes = theirs.meta["_file_size"] * 2**20 / 1e6  # theirs are units of 2**20 bytes
        ours = (entry.megabytes or 0) if entry.size is None else entry.size / 1e6
        most = 0.03 if entry.size is None else 0.001  # names and counters stand beside the numbers
        if not math.isclose(ours, megabytes, rel_tol=most):
            differences.append(f"{name}: it has {ours} MB, and its source says {megabytes:.2f}")
    assert differences == []


@pytest.mark.torch
def test_timms_figures_are_those_of_the_catalogue():
    get_config = import_timm().get_pretrained_cfg
    differences = []
    for name in of_program("timm"):
        entry = CATALOG[name]
        theirs = get_config(read_source(entry)[1])
        size, share = theirs.input_size[1:], theirs.crop_pct
        if theirs.test_input_size is not None and entry.preprocessing["image_size"] != list(size):
            size, share = theirs.test_input_size[1:], theirs.test_crop_pct or theirs.crop_pct
        published = {
            "mean": list(theirs.mean),
            "std": list(theirs.std),
            "image_size": list(size),
            "interpolation": theirs.interpolation,
            "license": (theirs.license or "").lower(),
        }
        ours = figures_of(entry) | {"license": (entry.license or "").lower()}
        if not theirs.license:
            del published["license"]
        differences += differences_of(name, published, ours)
        our_share = re.sub(r"[^\d.]", "", entry.preprocessing["fit"]) or "1"
        if not math.isclose(float(our_share), share, abs_tol=5e-4):
            differences.append(f"{name}: fit is {entry.preprocessing['fit']}, and its source crops {share}")
        addresses = [f"https://huggingface.co/{theirs.hf_hub_id}/resolve/", theirs.url]
        if not entry.address.startswith(tuple(filter(None, addresses))):
            differences.append(f"{name}: address is {entry.address}, and its source says {' or '.join(addresses)}")
    assert differences == []


def figures_of(entry: NamedWeights) -> dict:
    """Returns what an entry says, under the names of these tests."""
    side = entry.preprocessing["image_size"][0]
    share = re.fullmatch(r"crop\(([\d.]+)\)", entry.preprocessing.get("fit", ""))
    return {
        **entry.preprocessing,
        "address": entry.address,
        "sha256": entry.sha256,
        "accuracy": entry.accuracy,
        "accuracy_size": entry.accuracy_size,
        "resized": round(side / float(share[1])) if share else side,
    }


def differences_of(name: str, published: dict, ours: dict) -> list[str]:
    """Lists the figures of an entry that are not the published ones."""
    differences = []
    for key, value in published.items():
        figure = ours.get(key)
        are_close = isinstance(value, list) and figure is not None and np.allclose(figure, value, rtol=0, atol=1e-6)
        if figure != value and not are_close:
            differences.append(f"{name}: {key} is {figure}, and its source says {value}")
    return differences


def test_accuracies_of_timm_are_those_of_its_results():
    with open(TIMM_RESULTS, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    top1 = {(row["model"], int(row["img_size"])): float(row["top1"]) for row in rows}
    known = {model for model, _ in top1}
    timms = {read_source(CATALOG[name])[1]: CATALOG[name] for name in of_program("timm")}
    assert known <= timms.keys()
    (table,) = {row["source"] for row in rows}  # all are of one commit, which the entries name by the same words
    for model, entry in timms.items():
        assert entry.accuracy == top1.get((model, entry.accuracy_size)), entry.name
        assert (entry.accuracy is None) == (model not in known), entry.name
        if entry.accuracy is not None:
            assert f"huggingface/pytorch-image-models {entry.source.partition('; its ')[2]}" == table, entry.name


def test_weights_that_torchvision_took_from_timm_have_its_licence():
    ported = [entry for entry in CATALOG.values() if "_rwightman-" in entry.file]
    assert len(ported) == 4
    for entry in ported:
        assert entry.license == "Apache-2.0"
        assert entry.source.endswith(", ported from https://github.com/rwightman/pytorch-image-models/")


def test_accuracies_of_akamaster_are_what_his_errors_leave():
    errors = {20: 8.27, 32: 7.37, 44: 6.90, 56: 6.61, 110: 6.32}  # the README's column "Test err(this impl.)"
    for depth, error in errors.items():
        assert CATALOG[f"cifar_resnet/{depth}@akamaster"].accuracy == pytest.approx(100 - error)


def test_accuracies_of_keras_are_those_of_its_documentation():
    # of tf.keras.applications.mobilenet, at 224x224; its program calls the files by the width and the image size
    table = {"0.25": (50.6, "2_5"), "0.5": (63.7, "5_0"), "0.75": (68.4, "7_5"), "1.0": (70.6, "1_0")}
    for width, (accuracy, in_name) in table.items():
        entry = CATALOG[f"mobilenet_v1/{width}@keras"]
        assert (entry.accuracy, entry.accuracy_size) == (accuracy, 224)
        assert entry.file == f"mobilenet_{in_name}_224_tf.h5"


# How entries are written ----------------------------------------------------------------------------------------------

ENTRY = {
    "address": "https://a.org/weights/r20-12345678.pth",
    "sha256": "12345678",
    "bytes": 1000,
    "license": "MIT",
    "preprocessing": {"mean": [0.5], "std": [0.5], "image_size": [32, 32], "fit": "crop(0.875)"},
    "trained_on": ["ImageNet-21k", "ImageNet-1k"],
    "accuracy": 91.5,
    "accuracy_size": 32,
    "source": "a page",
}
NAME = "cifar_resnet/20@a"


def read_written(facts: object, name: object = NAME) -> NamedWeights:
    """Reads an entry as it stands in the file of a family."""
    return catalog.read_entry(Path("cifar_resnet.py"), name, ast.parse(repr(facts), mode="eval").body)


def test_an_entry_is_read():
    entry = read_written(ENTRY)
    assert (entry.model, entry.file, entry.trust) == ("cifar_resnet/20", "r20-12345678.pth", "prefix")
    assert entry.trained_on == ("ImageNet-21k", "ImageNet-1k")
    assert read_written({**ENTRY, "sha256": "0" * 64}).trust == "full"
    assert read_written({**ENTRY, "sha256": None}).trust == "first use"
    assert read_written({**ENTRY, "trained_on": "MNIST"}).trained_on == ("MNIST",)
    assert entry.size_text == "0.0 MB"
    assert read_written({**ENTRY, "bytes": None, "megabytes": 97.8}).size_text == "about 97.8 MB"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"address": "ftp://a.org/x"}, "address is 'ftp://a.org/x', expected the https address of one file"),
        ({"address": "http://a.org/x"}, "address is 'http://a.org/x', expected the https address of one file"),
        ({"address": "https://a.org"}, "address is 'https://a.org', expected"),
        ({"sha256": "1234567"}, "sha256 is '1234567', expected 64 hexadecimal digits, the 8 of the file's name, or"),
        ({"sha256": "1234567G"}, "sha256 is '1234567G', expected"),
        ({"sha256": "87654321"}, "sha256 is '87654321', which the name of the file, r20-12345678.pth, does not have"),
        ({"bytes": 0}, "bytes is 0, expected a number of bytes or None"),
        ({"bytes": 1.5}, "bytes is 1.5, expected"),
        ({"bytes": True}, "bytes is True, expected"),
        ({"license": ""}, "license is '', expected the name of a licence or None"),
        ({"preprocessing": {}}, "preprocessing is {}, expected a dict of mean, std, image_size, fit, interpolation"),
        ({"preprocessing": {**ENTRY["preprocessing"], "std": [0]}}, "preprocessing is {"),
        ({"preprocessing": {**ENTRY["preprocessing"], "fit": "squeeze"}}, "preprocessing is {"),
        ({"preprocessing": {**ENTRY["preprocessing"], "crop": 1}}, "preprocessing is {"),
        ({"trained_on": []}, "trained_on is [], expected the name of a data set, or a list of names"),
        ({"accuracy": 0.915}, "accuracy is 0.915, expected a percentage or None"),
        ({"accuracy_size": None}, "accuracy and accuracy_size belong together"),
        ({"source": "a\nb"}, "source is 'a\\nb', expected where the figures stand"),
        ({"sha": "1"}, "no key 'sha'; did you mean sha256"),
    ],
)
def test_an_entry_that_is_written_wrongly_is_told(changes, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_written(ENTRY | changes)
    assert str(caught.value).startswith("WEIGHTS of cifar_resnet.py, 'cifar_resnet/20@a': ")


@pytest.mark.parametrize("key", ENTRY)
def test_each_key_must_be_there(key):
    with pytest.raises(UserError, match=f"{key} is missing; an entry has address, sha256, bytes"):
        read_written({name: value for name, value in ENTRY.items() if name != key})


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vit/B16@a", "is not a name of this family; write cifar_resnet/VARIANT@SOURCE"),
        ("cifar_resnet/20", "is not a name of this family"),
        ("cifar_resnet/20@a/b", "is not a name of this family"),
        ("cifar_resnet/21@a", "'cifar_resnet/21@a': cifar_resnet has no '21'; it has test, 8, 20"),
        (20, "is not a name of this family"),
    ],
)
def test_a_name_is_that_of_a_network_of_the_family(name, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_written(ENTRY, name)


def test_a_table_is_never_run():
    code = ast.parse("dict(address=print('run'))", mode="eval").body
    with pytest.raises(UserError, match="is not a literal dict, which is read and never run"):
        catalog.read_entry(Path("cifar_resnet.py"), NAME, code)


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [("CC-BY-NC-4.0", True), ("Research only", True), ("non-commercial", True), ("Apache-2.0", False), (None, False)],
)
def test_a_licence_says_whether_commercial_use_is_forbidden(licence, forbids):
    assert read_written({**ENTRY, "license": licence}).forbids_commercial_use is forbids


# Names that mean nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("cifar_resnet/20@akamastr", "no weights 'cifar_resnet/20@akamastr'; there is cifar_resnet/20@akamaster"),
        ("cifar_resnet/21@akamaster", "did you mean cifar_resnet/"),
        ("cifar_resnet/20", "cifar_resnet/20 is not a file; did you mean the weights cifar_resnet/20@akamaster?"),
        ("mobilenet_v1", "mobilenet_v1 is not a file; did you mean the weights mobilenet_v1/0.25@keras or "),
    ],
)
def test_a_wrong_name_is_answered_by_those_that_there_are(source, sentence):
    for verb in (convert.open_weights, convert.convert, cnn_vit.load):
        with pytest.raises(UserError, match=re.escape(sentence)):
            verb(source)


def test_another_network_than_the_names_is_refused_before_a_download(planted):
    server, name = planted
    for verb in (convert.open_weights, convert.convert, pretrained_settings.open_weights):
        with pytest.raises(UserError, match=f"{name} holds cifar_resnet/test, not cifar_resnet/20"):
            verb(name, model="cifar_resnet/20")
    assert server.requests == []


def test_a_file_of_the_catalogue_is_known_by_its_content():
    name = "cifar_resnet/20@akamaster"
    named = as_arrays(read_outline(name), sha256=CATALOG[name].sha256)
    conversion = convert.convert_arrays("any.th", named)
    assert (conversion.weights.card.model, conversion.weights.card.origin["name"]) == ("cifar_resnet/20", name)
    assert conversion.reasons[0].startswith("its sha256 is that of resnet20-12fca82f.th of akamaster/")
    of_110 = as_arrays(read_outline("cifar_resnet/110@akamaster"), sha256=f"1d1ed7c2{'0' * 56}")
    reason = convert.convert_arrays("any.th", of_110).reasons[0]
    assert reason.startswith("its sha256 begins with 1d1ed7c2, as that of resnet110-1d1ed7c2.th of akamaster/")
    unknown = convert.convert_arrays("any.th", as_named(named.arrays, sha256="0" * 64))
    assert "name" not in unknown.weights.card.origin


def test_a_file_that_is_known_by_its_content_becomes_the_catalogue_s_network_whatever_its_names_say():
    """A DeiT without distillation has the names of a ViT, and other means."""
    name = "deit/Ti16@meta"
    named = as_arrays(read_outline(name), sha256=f"a1311bcf{'0' * 56}")
    card = convert.plan_conversion("a.pth", named, **PLAIN).card
    assert (card.model, card.origin["name"]) == ("deit/Ti16", name)
    assert card.preprocessing["mean"] == [0.485, 0.456, 0.406]
    sentence = f"a.pth is the file of {name}, which holds deit/Ti16, not vit/Ti16; "
    with pytest.raises(UserError, match=f"{sentence}leave out --model"):
        convert.plan_conversion("a.pth", named, **PLAIN | {"model": "vit/Ti16"})
    with pytest.raises(UserError, match=f"{sentence}set model.name=deit/Ti16"):
        convert.plan_conversion("a.pth", named, **PLAIN | {"model": "vit/Ti16", "for_training": True})


def test_keywords_that_the_catalogue_s_network_does_not_have_are_refused():
    name = "efficientnet/B0-tf@aa_in1k"
    named = as_arrays(read_outline(name), sha256=f"{CATALOG[name].sha256:0<64}")
    card = convert.plan_conversion("a.pth", named, **PLAIN).card
    assert (card.model, card.keywords, card.origin["name"]) == ("efficientnet/B0-tf", {}, name)
    for entry in (None, CATALOG[name]):
        facts = PLAIN | {"entry": entry, "model": CATALOG[name].model if entry else None}
        with pytest.raises(UserError, match=f"{name} has model.padding=same, not symmetric; leave out --model.padding"):
            convert.plan_conversion("a.pth", named, **facts | {"keywords": {"padding": "symmetric"}})


# From the address to the network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A small ResNet under akamaster's names, as the bytes of a file."""
    card = weights.Card("cifar_resnet/test", {}, 10, None, {"image_size": [32, 32], "channels": 3})
    params, stats = initial_values(weights.network_of(card), 0)
    path = tmp_path_factory.mktemp("named") / "net.npz"
    np.savez(path, **under_their_names(weights.Weights(params, stats, card), "cifar_resnet"))
    return path.read_bytes()


@pytest.fixture
def planted(monkeypatch, tmp_path, content):
    """A server that has the file, and a name of it in the catalogue whose sha256 nobody publishes."""
    with local_server(monkeypatch) as server:
        server.pages["/net.npz"] = serve(content, etag='"v1"')
        name = "cifar_resnet/test@local"
        facts = {**ENTRY, "address": "https://a.org/net.npz", "sha256": None, "bytes": None, "license": "CC-BY-NC-4.0"}
        facts["preprocessing"] = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "image_size": [24, 24]}
        entry = read_written(facts, name)
        entry = dataclasses.replace(entry, address=f"{server.url}/net.npz", trained_on=("CIFAR-10",))
        monkeypatch.setattr(catalog, "read_catalog", lambda: {**CATALOG, name: entry})
        cache.configure(folder=tmp_path / "cache")
        monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path / "cache"))
        yield server, name
    cache.configure()


def test_a_name_becomes_a_network_with_the_card_of_its_entry(planted, content):
    server, name = planted
    opened = convert.open_weights(name)
    path = cache.folder() / "weights" / name / "net.npz"
    assert path.read_bytes() == content
    assert opened.card.model == "cifar_resnet/test"
    assert opened.card.classes[:2] == ("airplane", "automobile")
    expected = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "image_size": [24, 24], "channels": 3}
    assert opened.card.preprocessing == expected
    origin = opened.card.origin
    assert (origin["name"], origin["licence"], origin["trained_on"]) == (name, "CC-BY-NC-4.0", ["CIFAR-10"])
    assert (origin["accuracy"], origin["source"]) == ("91.50 % at 32 pixels", "a page")
    assert origin["sha256"] == hashlib.sha256(content).hexdigest()
    by_path = convert.convert(path, model="cifar_resnet/test")
    jax.tree.map(np.testing.assert_array_equal, opened.params, by_path.params)
    conversion = convert.convert_file(name)
    assert conversion.weights.digest == opened.digest
    assert conversion.reasons[0] == "it was given by the name of net.npz of a page, whose sha256 nobody publishes"
    assert cnn_vit.load(name).preprocessing["image_size"] == [24, 24]
    assert server.requests == [("/net.npz", None)]  # once, whoever asks for it


def test_a_licence_that_forbids_commercial_use_is_shown_before_the_download(planted, capsys):
    server, name = planted
    catalog.find_file(name)
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert first == f"{name}: its licence, CC-BY-NC-4.0, forbids commercial use"
    assert second == f"downloading net.npz from {server.url}/net.npz"
    catalog.find_file(name)
    assert capsys.readouterr().err == ""


def test_commands_and_recipes_take_the_name(planted, tmp_path):
    _, name = planted
    assert main(["describe", f"--weights={name}"]) == 0
    assert main(["convert", name, f"--out={tmp_path}/net.safetensors"]) == 0
    assert weights.load(tmp_path / "net.safetensors").card.origin["name"] == name
    settings = load("configs/cifar_resnet.py", ["model.name=cifar_resnet/test", f"pretrained.weights={name}"])
    completed, opened = pretrained_settings.complete_settings(settings)
    assert completed["data.mean"] == (0.1, 0.2, 0.3)
    assert completed["pretrained.digest"] == opened.digest


def test_a_run_that_has_begun_needs_no_file_of_its_weights(planted, tmp_path):
    server, name = planted
    settings = load("configs/cifar_resnet.py", ["model.name=cifar_resnet/test", f"pretrained.weights={name}"])
    completed, _ = pretrained_settings.complete_settings(settings)
    files.write_json(tmp_path / "run" / "config.json", to_json(completed))
    (cache.folder() / "weights" / name / "net.npz").unlink()
    server.requests.clear()
    adopted, opened = pretrained_settings.complete_settings(settings, workdir=tmp_path / "run")
    assert (adopted.values, opened, server.requests) == (completed.values, None, [])


def test_what_is_not_the_file_ends_with_3_and_leaves_the_old_file(planted, content, capsys):
    server, name = planted
    command = ["describe", f"--weights={name}"]
    right = server.pages["/net.npz"]
    server.pages["/net.npz"] = serve(content, most=2000, ranges=False, etag='"v1"')
    assert main(command) == 3
    assert "ended after 2,000 of" in capsys.readouterr().err
    server.pages["/net.npz"] = answer(200, {"Content-Type": "text/html"}, b"<html><title>Sign in</title>")
    assert main(command) == 3
    assert "gave a web page ('Sign in') instead of the file" in capsys.readouterr().err
    server.pages["/net.npz"] = right
    server.requests.clear()
    assert main(command) == 0
    assert server.requests == [("/net.npz", "bytes=2000-")]  # the cut was continued

    path = cache.folder() / "weights" / name / "net.npz"
    other = content[:-1] + bytes([content[-1] ^ 1])
    server.pages["/net.npz"] = serve(other, etag='"v2"')
    assert main(command) == 0
    path.write_bytes(other)  # the bytes that the host has by now, and that nobody knows
    capsys.readouterr()
    assert main(command) == 3
    assert f"remove {path}.first_use.json to take a new version" in capsys.readouterr().err
    assert path.read_bytes() == other
    path.unlink()
    assert main(command) == 3
    assert not path.exists()


def test_offline_the_sentence_says_where_the_file_belongs(planted, capsys, monkeypatch):
    server, name = planted
    monkeypatch.setenv("CNN_VIT_OFFLINE", "1")
    assert main(["describe", f"--weights={name}"]) == 3
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert "CNN_VIT_OFFLINE=1 forbids downloads" in sentence
    assert f"put it at {cache.folder()}/weights/{name}/net.npz" in sentence
    assert server.requests == []


def test_without_a_home_folder_weights_can_be_listed(monkeypatch):
    cache.configure()
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    with pytest.raises(SurroundingsError):
        cache.folder()
    assert not CATALOG["cifar_resnet/20@akamaster"].is_here
    assert CATALOG["cifar_resnet/8@mnist"].is_here
