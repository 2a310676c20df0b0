"""What is proposed for a checkpoint that no rule knows: many ways of naming; in traps nothing wrong is sure."""

from dataclasses import replace

import numpy as np
import pytest
from converted import as_named, leaves_by_path
from layouts import LAYOUTS
from scored_lines import wrong_lines

from cnn_vit.errors import UserError
from cnn_vit.transfer import rules_file
from cnn_vit.transfer.convert import apply_rules_file, convert_arrays
from cnn_vit.transfer.source_facts import SourceFacts
from cnn_vit.transfer.suggesting.layers import read_layers
from cnn_vit.transfer.suggesting.suggest import FITS, suggest


@pytest.fixture(scope="module")
def tried():
    """The proposal for each layout, with its arrays and ours."""
    answers = {}
    for name, layout in LAYOUTS.items():
        ours = layout.draw()
        theirs = layout.write(ours)
        answers[name] = (suggest("net.pt", as_named(theirs)), theirs, ours)
    return answers


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_table_is_right_and_converts_the_checkpoint(name, tried, tmp_path):
    suggestion, theirs, ours = tried[name]
    layout, proposal = LAYOUTS[name], suggestion.proposal
    assert wrong_lines(suggestion, theirs, ours) == {}
    assert suggestion.problems == ()
    assert FITS in proposal.facts
    path = tmp_path / "my_rules.toml"
    path.write_text(suggestion.toml)
    facts = SourceFacts(image_size=proposal.image_size or (layout.image_size, layout.image_size))
    keywords = proposal.keywords | layout.untold
    recognized = apply_rules_file(rules_file.read(path), as_named(theirs), proposal.model, keywords, facts)
    converted = convert_arrays(
        "net.pt",
        as_named(theirs),
        model=proposal.model,
        keywords=keywords,
        facts=facts,
        recognized=recognized,
    ).weights
    given = {path.partition("/")[2]: array for path, array in leaves_by_path(converted).items()}
    assert given.keys() == ours.keys()
    assert all(np.array_equal(given[path], ours[path]) for path in ours)
    assert converted.card.preprocessing["image_size"] == [layout.image_size, layout.image_size]


def test_what_no_array_tells_is_said_and_not_chosen(tried):
    fused = tried["fused, pre-norm"][0]
    said = " | ".join(fused.proposal.doubts)
    assert "heads: queries have 12 numbers, and nothing tells how many heads share them" in said
    assert fused.proposal.choices["heads"] == (1, 2, 3, 4, 6, 12)
    assert {"activation", "epsilon", "pool", "norm"} <= {doubt.partition(":")[0] for doubt in fused.proposal.doubts}
    assert "--model.heads=? --model.activation=?" in fused.toml
    keras = tried["Keras numbers"][0]
    assert (keras.proposal.keywords["heads"], "heads" in keras.proposal.choices) == (3, False)
    marks = {line.theirs: line.unknown for line in fused.proposal.lines}
    assert "the order of queries, keys and values" in marks["blocks.{i}.attn.qkv.weight"]
    assert "a square matrix" in marks["blocks.{i}.attn.proj.weight"]
    assert marks["blocks.{i}.attn.proj.bias"] == marks["blocks.{i}.mlp.fc1.weight"] == ""


def said(suggestion) -> dict[str, str]:
    """What is open in a proposal, by the word in front of it."""
    return dict(doubt.partition(": ")[::2] for doubt in suggestion.proposal.doubts)


def test_what_no_array_of_a_cnn_tells_and_ours_cannot_have_is_said(tried):
    normed, plain = said(tried["Sequential, batch norm"][0]), said(tried["Sequential"][0])
    assert "Keras (by default 1e-3) cannot be expressed exactly" in normed["epsilon"]
    assert "no array tells whether batch norms stand before or behind the activation" in normed["norms"]
    assert "cnn/* has ReLU and no keyword" in normed["activation"]
    assert plain["activation"] == normed["activation"]
    assert not {"epsilon", "norms"} & plain.keys()
    toml = tried["Sequential, batch norm"][0].toml
    assert "# open: epsilon: no array tells" in toml


def test_the_stride_of_patches_is_open_where_a_convolution_makes_them(tried):
    convolution, flat = said(tried["fused, pre-norm"][0]), said(tried["encoder, post-norm"][0])
    assert "no array tells the stride of this convolution; 4, its side, is taken" in convolution["patches"]
    assert "patches" not in flat  # a matrix takes flattened patches, which its rows cannot share


def test_of_two_heads_the_one_that_is_called_so_is_taken_and_marked_as_guessed():
    layout = LAYOUTS["fused, pre-norm"]
    ours = layout.draw()
    theirs = layout.write(ours)
    theirs |= {"head_dist.weight": np.ones((5, 12), np.float32), "head_dist.bias": np.ones(5, np.float32)}
    suggestion = suggest("net.pt", as_named(theirs))
    (head,) = (line for line in suggestion.proposal.lines if line.ours == "head/kernel")
    assert (head.theirs, head.unknown) == ("head.weight", "which matrix is the head, by its name alone")


def test_arrays_without_a_number_are_refused():
    layout = LAYOUTS["Sequential"]
    theirs = layout.write(layout.draw())
    theirs["3.weight"] = np.zeros((0, 6, 3, 3), np.float32)
    with pytest.raises(UserError, match=r"net.pt: 3.weight has the shape \(0, 6, 3, 3\), so that no number is in it"):
        suggest("net.pt", as_named(theirs))


def test_layers_are_the_same_if_they_are_one_object():
    """Comparing all arrays of thousands of layers with one another takes longer than all else of a proposal."""
    first, second = (read_layers({"fc.weight": (2, 3)})[0] for _ in range(2))
    assert first == first
    assert first != second
    assert len({first, second}) == 2


# Traps ----------------------------------------------------------------------------------------------------------------


def rename(theirs, **changes):
    """Exchanges parts of names; "__" stands for a dot."""
    renamed = {}
    for name, array in theirs.items():
        for old, new in changes.items():
            name = name.replace(old.replace("__", "."), new.replace("__", "."))
        renamed[name] = array
    return renamed


def turn_square(theirs):
    """Keeps the square matrix of one layer as (in, out), where the others are (out, in)."""
    return {name: array.T.copy() if name.endswith("attn.proj.weight") else array for name, array in theirs.items()}


def reorder_fused(theirs):
    """Puts values in front of queries and keys."""
    return {name: np.roll(array, 12, axis=0) if ".qkv." in name else array for name, array in theirs.items()}


def mlp_first(theirs):
    """The norm of the MLP is called norm1, and the MLP stands first in the file."""
    swapped = rename(theirs, norm1="normX", norm2="norm1")
    swapped = rename(swapped, normX="norm2")
    return dict(sorted(swapped.items(), key=lambda item: ".attn." in item[0]))


def before_the_blocks(theirs):
    """The norm of the tokens in front of the blocks, in a network without one behind them."""
    return {name: array + 1 if name.startswith("norm.") else array for name, array in theirs.items()}


def deep_head(theirs):
    """Two matrices behind the blocks, of which the first takes the token."""
    rest = {name: array for name, array in theirs.items() if not name.startswith("head")}
    first = {"head.weight": np.ones((7, 12), np.float32), "head.bias": np.ones(7, np.float32)}
    return rest | first | {"tail.weight": np.ones((5, 7), np.float32), "tail.bias": np.ones(5, np.float32)}


def two_stacks(theirs):
    """A decoder of the same shapes and more blocks beside the encoder."""
    decoder = {}
    for name, array in theirs.items():
        if name.startswith("blocks."):
            decoder[f"decoder_{name}"] = array + 1
            decoder[f"decoder_{name.replace('blocks.0', 'blocks.2').replace('blocks.1', 'blocks.3')}"] = array + 1
    return decoder | theirs


def averaged_too(theirs):
    """Averaged values beside the last ones, under a prefix of their own."""
    return {f"ema.{name}": array + 1 for name, array in theirs.items()} | {f"net.{n}": a for n, a in theirs.items()}


def colors_first(theirs):
    """Flattened patches with their colors in front."""
    kernel = theirs["to_token.weight"].reshape(12, 4, 4, 3).transpose(0, 3, 1, 2).reshape(12, 48)
    return theirs | {"to_token.weight": kernel}


def colors_last(theirs):
    """A map that was flattened with its channels last, behind convolutions of PyTorch."""
    kernel = theirs["6.weight"].reshape(14, 10, 8, 8).transpose(0, 2, 3, 1).reshape(14, 640)
    return theirs | {"6.weight": kernel}


TRAPS = [
    ("fused, pre-norm", turn_square),
    ("fused, pre-norm", reorder_fused),
    ("fused, pre-norm", mlp_first),
    ("fused, pre-norm", before_the_blocks),
    ("fused, pre-norm", deep_head),
    ("fused, pre-norm", two_stacks),
    ("fused, pre-norm", averaged_too),
    ("encoder, post-norm", colors_first),
    ("Sequential", colors_last),
]


@pytest.mark.parametrize(("name", "change"), TRAPS, ids=lambda value: getattr(value, "__name__", value))
def test_nothing_wrong_is_sure_where_a_checkpoint_is_not_what_it_looks_like(name, change, tried):
    _, theirs, ours = tried[name]
    changed = change(theirs)
    wrong = wrong_lines(suggest("net.pt", as_named(changed)), changed, ours)
    assert wrong
    assert all(wrong.values())


def test_matrices_of_the_same_sizes_without_words_are_no_sure_attention():
    """An MLP of three times the width has the sizes of queries, keys and values in one matrix."""
    layout = LAYOUTS["fused, pre-norm"]
    ours = replace(layout, keywords=layout.keywords | {"hidden": 36}).draw()
    plain = rename(layout.write(ours), attn__qkv="x", attn__proj="y", mlp__fc1="u", mlp__fc2="w")
    theirs = dict(sorted(plain.items()))  # so that the MLP's first matrix stands in front
    wrong = wrong_lines(suggest("net.pt", as_named(theirs)), theirs, ours)
    assert "blocks.{i}.u.weight" in wrong
    assert all(wrong.values())


WORDS = ["zap", "foo", "bar", "qux", "wob", "mim", "tik", "lur"]


def scramble(theirs, rng):
    """Gives the layers words that mean nothing, the same in all blocks, in another order of the file."""
    words: dict[str, str] = {}
    renamed = {}
    for name, array in theirs.items():
        steps = name.split(".")
        for i, step in enumerate(steps):
            stem, _, role = step.rpartition("_") if step.endswith(("_weight", "_bias")) else (step, "", "")
            if not stem.isdigit() and stem not in ("weight", "bias"):
                word = words.setdefault(stem, f"{rng.choice(WORDS)}{chr(ord('a') + len(words))}")
                steps[i] = f"{word}_{role}" if role else word
        renamed[".".join(steps)] = array
    names = list(renamed)
    rng.shuffle(names)
    return {name: renamed[name] for name in names}


@pytest.mark.parametrize("name", ["fused, pre-norm", "separate, pre-norm", "encoder, post-norm", "nested lists"])
def test_shapes_alone_make_no_line_sure_that_is_wrong(name):
    """Sizes that coincide: MLPs as wide as the tokens or as three of them, classes and patches of the same size."""
    layout = LAYOUTS[name]
    rng = np.random.default_rng(1)
    sure = 0
    for _ in range(12):
        width = int(rng.choice([12, 15, 48]))
        sizes = {"width": width, "hidden": int(rng.choice([width, 3 * width, 20])), "depth": int(rng.choice([1, 2]))}
        ours = replace(layout, keywords=layout.keywords | sizes).draw()
        theirs = scramble(layout.write(ours), rng)
        try:
            suggestion = suggest("net.pt", as_named(theirs))
        except UserError:  # nothing is recognized, which is no wrong line
            continue
        assert all(wrong_lines(suggestion, theirs, ours).values())
        sure += sum(not line.unknown for line in suggestion.proposal.lines)
    assert sure > 20


def test_names_of_all_kinds_are_written_so_that_toml_reads_them_back(tmp_path):
    layout = LAYOUTS["Sequential"]
    ours = layout.draw()
    names = {"0": 'say "a"', "3": "back\\slash", "6": "line\nend", "8": "\u202eright \U0001f600"}
    theirs = {}
    for name, array in layout.write(ours).items():
        number, _, role = name.partition(".")
        theirs[f"{names[number]}.{role}"] = array
    suggestion = suggest("net\x1b[31m.pt", as_named(theirs))
    path = tmp_path / "my_rules.toml"
    path.write_text(suggestion.toml)
    assert {line.theirs for line in rules_file.read(path).lines} == theirs.keys()
    assert "\x1b" not in suggestion.toml
    assert "\u202e" not in suggestion.toml
