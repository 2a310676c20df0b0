"""`cnn-vit convert`: what it prints, writes and refuses."""

import json
import shlex
import tomllib

import foreign_weights
import numpy as np
import pytest

from cnn_vit.__main__ import main
from cnn_vit.transfer import weights


@pytest.fixture(scope="module")
def arrays():
    """A ResNet of 8 layers and 10 classes, as another program saves it."""
    return foreign_weights.make_arrays()


@pytest.fixture
def source(tmp_path, arrays):
    """The same as a file."""
    np.savez(tmp_path / "net.npz", **arrays)
    return tmp_path / "net.npz"


def refuse(capsys, *words: str) -> str:
    """Runs the command, checks that it ends with exit code 2 and one sentence, and returns that."""
    assert main(["convert", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err.rstrip().splitlines()[-1]


def test_the_answer_says_what_was_recognized_which_parts_there_are_and_what_comes_next(tmp_path, capsys, source):
    out = tmp_path / "net.safetensors"
    assert main(["convert", str(source), f"--out={out}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[-1] == "PyTorch, akamaster/pytorch_resnet_cifar10"
    rows = [line.split() for line in lines]
    assert ["stem", "1", "432", "module.conv1.weight"] in rows
    assert ["network", "cifar_resnet/8"] in rows
    assert ["std", "0.229,", "0.224,", "0.225"] in rows
    # by hand: stem 432 + 32, stages 4,672 + 13,952 + 55,552, head 650; two statistics for each of 240 channels
    assert any("75,290 parameters and 480 statistics" in line for line in lines)
    assert lines[-1] == f"next: cnn-vit predict --weights={out} IMAGE ..."
    assert weights.load(out).card.model == "cifar_resnet/8"


def test_json_is_one_object_with_the_card(tmp_path, capsys, source):
    out = tmp_path / "net.safetensors"
    words = [
        "--image_size=16,24",
        "--fit=crop(0.875)",
        "--mean=0.5,0.5,0.5",
        "--std=0.25,0.25,0.25",
        "--licence=CC0-1.0",
    ]
    assert (
        main(["convert", str(source), f"--out={out}", "--model=cifar_resnet/20", "--model.blocks=1", "--json", *words])
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert answer["card"]["keywords"] == {"blocks": 1}
    assert answer["card"]["preprocessing"] == {
        "mean": [0.5] * 3, "std": [0.25] * 3, "image_size": [16, 24], "channels": 3, "fit": "crop(0.875)"
    }  # fmt: skip
    assert answer["card"]["origin"]["licence"] == "CC0-1.0"
    assert answer["digest"] == weights.load(out).digest
    assert {group["ours"] for group in answer["groups"]} >= {"stem", "stages/0", "head"}


def test_class_names_come_from_lines_or_a_list(tmp_path, source):
    names = [f"class {number}" for number in range(10)]
    lines, array = tmp_path / "names.txt", tmp_path / "names.json"
    lines.write_text("\ufeff" + "\n".join(names) + "\n", encoding="utf-8")
    array.write_text(json.dumps(names))
    for number, path in enumerate((lines, array)):
        out = tmp_path / f"{number}.safetensors"
        assert main(["convert", str(source), f"--out={out}", f"--class_names={path}"]) == 0
        assert weights.load(out).card.classes == tuple(names)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a\nb\n", "has 2 names, and the network gives 10 scores"),
        (b"a\n\nb\n", "class 1 has no name"),
        (b"a\nb\na\n", "a stands twice"),
        (b"a\nb\na \n", "a stands twice"),
        (b"a\nb\x1b[31m\n", "the name of class 1, 'b\\x1b[31m', has characters that no screen shows"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "is neither text in UTF-8 nor a list in JSON"),
        (b'["a", 1]', "class 1 has no name"),
    ],
)
def test_class_names_that_name_no_classes_are_refused(tmp_path, capsys, source, content, sentence):
    (tmp_path / "names.txt").write_bytes(content)
    out = tmp_path / "net.safetensors"
    assert sentence in refuse(capsys, str(source), f"--out={out}", f"--class_names={tmp_path / 'names.txt'}")
    assert not out.exists()


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("--mean=a", "--mean is 'a'; it takes numbers with commas between them"),
        ("--mean=nan,0,0", "--mean is 'nan,0,0'"),
        ("--value_range=1", "takes two numbers"),
        ("--image_size=0", "--image_size is '0' (command line); it takes"),
        ("--fit=squeeze", "--fit is 'squeeze' (command line); it takes crop"),
        ("--interpolation=cubic", "--interpolation is 'cubic' (command line); it takes bilinear or bicubic"),
        ("--channel_order=RBG", "no channel order 'RBG'; did you mean"),
        ("--model=cifar_resnet/21", "cifar_resnet has no '21'"),
        ("--model.blocks=two", "model.blocks='two' is not a whole number"),
        ("--model.blocks=", "--model.blocks= has no value"),
        ("--config.model.blocks=2", "convert takes no settings"),
    ],
)
def test_flags_with_values_that_they_do_not_take_are_refused(tmp_path, capsys, source, word, sentence):
    out = tmp_path / "net.safetensors"
    assert sentence in refuse(capsys, str(source), f"--out={out}", word)
    assert not out.exists()


def test_a_keyword_given_twice_is_refused(tmp_path, capsys, source):
    words = [str(source), f"--out={tmp_path / 'net.safetensors'}", "--model.blocks=1", "--model.blocks", "2"]
    assert "--model.blocks is given twice" in refuse(capsys, *words)


def test_other_commands_refuse_keywords_of_a_network(capsys):
    assert main(["train", "--config=configs/digits_mlp.py", "--model.width=3"]) == 2
    assert "train does not take --model.width=3; write --config.model.width=3" in capsys.readouterr().err
    assert main(["list", "--model.width=3"]) == 2
    assert "list does not take --model.width=3; leave it out" in capsys.readouterr().err


def test_no_file_is_written_over_silently(tmp_path, capsys, source):
    out = tmp_path / "net.safetensors"
    assert "does not end in .safetensors; name it" in refuse(capsys, str(source), f"--out={tmp_path / 'net.pth'}")
    out.write_bytes(b"somebody's own")
    assert "is there already; name another with --out=FILE" in refuse(capsys, str(source), f"--out={out}")
    assert "is not a file of this command" in refuse(capsys, str(source), f"--out={out}", "--force")
    assert out.read_bytes() == b"somebody's own"
    out.unlink()
    assert main(["convert", str(source), f"--out={out}"]) == 0
    assert main(["convert", str(source), f"--out={out}", "--force"]) == 0
    capsys.readouterr()
    assert "is the source itself" in refuse(capsys, str(out), f"--out={out}", "--force")
    other = f"--out={tmp_path / 'other.safetensors'}"
    assert "is a file of cnn_vit already" in refuse(capsys, str(out), other)


def test_every_fault_has_a_line_and_the_last_one_sums_up(tmp_path, capsys, arrays):
    for name in list(arrays)[:8]:
        if name.endswith(("bias", "running_mean")):
            arrays = {key: array for key, array in arrays.items() if key != name}
    broken = arrays | {f"module.extra{number}": np.zeros(1, np.float32) for number in range(8)}
    np.savez(tmp_path / "broken.npz", **broken)
    assert main(["convert", str(tmp_path / "broken.npz"), f"--out={tmp_path / 'net.safetensors'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "module.extra7 (1,) is not known" in " ".join(lines[:-1])
    assert "does not fit cifar_resnet/8 of 10 classes" in lines[-1]
    assert not (tmp_path / "net.safetensors").exists()


def test_a_run_folder_becomes_a_file_that_names_no_path(run, tmp_path, capsys):
    out = tmp_path / "digits.safetensors"
    words = [f"--out={out}", "--licence=Apache-2.0", "--trained_on=digits", "--json"]
    assert main(["convert", str(run), *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    origin = answer["card"]["origin"]
    result = json.loads((run / "result.json").read_text())
    assert origin["accuracy"] == f"{100 * result['test']['accuracy']:.2f} % of {result['test']['n']} test images"
    assert (origin["trained_on"], origin["licence"], origin["recipe"]) == (["digits"], "Apache-2.0", "digits_mlp")
    assert str(run.parent) not in out.read_bytes()[:20_000].decode("latin-1")
    assert main(["evaluate", f"--weights={out}", "--config=configs/digits_mlp.py", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == result["test"]["accuracy"]


@pytest.mark.parametrize(
    ("source", "word", "sentence"),
    [
        ("RUN", "--mean=0.5", "is a run folder, which says its own network and images; leave --mean out"),
        ("RUN", "--model.depth=2", "is a run folder, which says its own network and images; leave --model.KEY out"),
        ("x.npz", "--trained_on=digits", "--trained_on=digits belongs to a run folder, and x.npz is none"),
    ],
)
def test_flags_of_the_other_kind_of_source_are_refused(run, tmp_path, capsys, source, word, sentence):
    words = ["convert", source.replace("RUN", str(run)), word, f"--out={tmp_path / 'a.safetensors'}"]
    assert main(words) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


# A file that no rule knows, and other programs -----------------------------------------------------------------------


@pytest.fixture
def stranger(tmp_path, arrays):
    """Two convolutions and a dense layer under names that no rule knows."""
    rng = np.random.default_rng(0)
    shapes = {"net.0.weight": (6, 3, 3, 3), "net.0.bias": (6,), "net.3.weight": (10, 6, 3, 3), "net.3.bias": (10,)}
    shapes |= {"net.out.weight": (4, 10), "net.out.bias": (4,)}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "my net.npz", **values)
    return tmp_path / "my net.npz"


def test_a_stranger_is_converted_by_the_rules_that_suggest_writes(tmp_path, capsys, stranger):
    rules, out = tmp_path / "my_rules.toml", tmp_path / "net.safetensors"
    assert main(["convert", str(stranger), "--suggest", f"--out={rules}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2 convolutions of 6, 10 filters, then 1 dense layers; 4 classes")
    assert any(line.split() == ["net.3.weight", "10x6x3x3", "stages/1/convolutions/0/kernel", "sure"] for line in lines)
    next_command = shlex.split(lines[-1].removeprefix("next: cnn-vit "))
    assert "--model.pooling=?" in next_command
    words = [word.replace("pooling=?", "pooling=max") for word in next_command if not word.startswith("--out")]
    assert main([*words, f"--out={out}"]) == 0
    converted = weights.load(out)
    with np.load(stranger) as theirs:
        np.testing.assert_array_equal(converted.params["head"]["kernel"], theirs["net.out.weight"].T)
    assert converted.card.origin["program"] == "my_rules.toml"


def test_suggest_without_a_file_prints_the_rules_and_json_holds_them(capsys, stranger):
    assert main(["convert", str(stranger), "--suggest", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "cnn/small"
    assert tomllib.loads(answer["rules"])["arrays"]["out.bias"] == "head/bias"
    assert main(["convert", str(stranger), "--suggest"]) == 0
    assert '"out.bias" = "head/bias"  # sure' in capsys.readouterr().out


def test_flags_of_several_answers_are_refused(tmp_path, capsys, source, stranger):
    assert "--suggest and --to do not go together" in refuse(capsys, str(source), "--suggest", "--to=timm")
    assert "--mean says nothing to --suggest" in refuse(capsys, str(source), "--suggest", "--mean=0,0,0")
    assert "add --out=FILE.safetensors" in refuse(capsys, str(source))
    assert "does not end in .toml" in refuse(capsys, str(source), "--suggest", f"--out={tmp_path}/x.safetensors")
    assert "is a folder" in refuse(capsys, str(tmp_path), "--suggest")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3), np.float32), b=np.zeros((7, 5), np.float32))
    nothing = refuse(capsys, str(tmp_path / "two.npz"), "--suggest")
    assert "holds 2 arrays in 2 layers, in which no network is recognized; name one with --model" in nothing


def test_force_of_suggest_writes_over_its_own_tables_alone(tmp_path, capsys, stranger):
    out = tmp_path / "rules.toml"
    out.write_text("[project]\n")
    words = (str(stranger), "--suggest", f"--out={out}", "--force")
    assert "is not a table of --suggest; name another with --out=FILE.toml" in refuse(capsys, *words)
    assert out.read_text() == "[project]\n"
    out.unlink()
    assert main(["convert", *words[:-1]]) == 0
    first = out.read_text()
    out.write_text(first + "# looked up\n")
    assert main(["convert", *words]) == 0
    assert out.read_text() == first


def test_the_next_command_of_suggest_does_not_write_over_the_source(tmp_path, capsys, monkeypatch, stranger):
    monkeypatch.chdir(tmp_path)
    with np.load(stranger) as theirs:
        named = {name: np.ascontiguousarray(array) for name, array in theirs.items()}
    (tmp_path / "net.safetensors").write_bytes(weights.encode_safetensors(named, {}))
    assert main(["convert", "net.safetensors", "--suggest"]) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[-1] == "--out=net_converted.safetensors"


def test_of_a_folder_of_hugging_face_the_file_of_tensors_is_named(tmp_path, capsys):
    out = f"--out={tmp_path}/x.safetensors"
    folder = tmp_path / "vit-base"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    assert "one of Hugging Face's, but model.safetensors is not there" in refuse(capsys, str(folder), out)
    (folder / "pytorch_model.bin").touch()
    assert f"the file of tensors in it: {folder}/pytorch_model.bin" in refuse(capsys, str(folder), out)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").touch()
    assert f"the file of tensors in it: {folder}/model.safetensors" in refuse(capsys, str(folder), out, "--to=timm")


def test_suggest_says_where_a_rule_knows_the_file_and_that_shortcuts_leave_no_trace(capsys, source):
    assert main(["convert", str(source), "--suggest", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["open"][0].startswith("known: the rule of cifar_resnet (PyTorch, akamaster/pytorch_resnet_cifar10)")
    assert any(doubt.startswith("shortcuts: no array tells") for doubt in answer["open"])
    assert all(line["guessed"] for line in answer["lines"] if line["ours"].startswith("stages/"))


def test_suggest_puts_a_checkpoint_beside_the_network_that_is_named(capsys, source):
    assert main(["convert", str(source), "--suggest", "--model=cifar_resnet/8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "cifar_resnet/8"
    assert answer["misfits"] == answer["no_place"] == []
    sure = {line["theirs"]: line["ours"] for line in answer["lines"] if not line["guessed"]}
    assert sure == {  # the only kernels of their shapes; all others stand where the file has them
        f"layer{s + 1}.0.conv{n}.weight": f"stages/{s}/blocks/0/conv{n}/kernel" for s in (1, 2) for n in (1, 2)
    }


def test_weights_are_written_for_another_program_and_come_back(tmp_path, capsys, source):
    own, theirs, back = (tmp_path / f"{name}.safetensors" for name in ("own", "theirs", "back"))
    assert main(["convert", str(source), f"--out={own}"]) == 0
    assert main(["convert", str(own), "--to=akamaster", f"--out={theirs}"]) == 0
    printed = capsys.readouterr().out
    assert f"    model.load_state_dict(safetensors.torch.load_file('{theirs}'))" in printed
    assert main(["convert", str(theirs), f"--out={back}"]) == 0
    assert weights.load(back).digest == weights.load(own).digest
    assert main(["convert", str(own), "--to=akamaster", f"--out={theirs}", "--force"]) == 0
    capsys.readouterr()
    assert "no program for weights of cifar_resnet 'timm'" in refuse(
        capsys, str(own), "--to=timm", f"--out={tmp_path}/x.safetensors"
    )


def test_a_run_says_its_own_network_to_another_program(tmp_path, capsys, run):
    out = f"--out={tmp_path}/x.safetensors"
    assert "no rule writes weights of mlp" in refuse(capsys, str(run), "--to=timm", out)
    assert "says its own network" in refuse(capsys, str(run), "--to=timm", "--model=mlp/test", out)
