"""Somebody's own rules: the same arrays as by the rules of the family, and a sentence for every fault of the file."""

import numpy as np
import pytest
from converted import as_named, leaves_by_path
from parity_values import make_values, read_reference

from cnn_vit.errors import UserError
from cnn_vit.transfer.convert import apply_rules_file, convert_arrays
from cnn_vit.transfer.rules_file import read
from cnn_vit.transfer.source_facts import SourceFacts

VIT = read_reference("vit")
KEYWORDS = {"width": 32, "depth": 2, "hidden": 48, "heads": 3, "head_width": 16, "qkv_bias": False, "epsilon": 1e-5}
KEYWORDS |= {"activation": "relu", "norm": "pre"}
RULES = """
layout = "torch"

[arrays]
"to_patch_embedding.1.weight" = { ours = "patches/kernel", axes = "d (p q c) -> p q c d" }
"to_patch_embedding.1.bias" = "patches/bias"
"cls_token" = { ours = "cls_token", axes = "1 t d -> t d" }
"pos_embedding" = { ours = "pos_embed/embedding", axes = "1 t d -> t d" }
"transformer.layers.{i}.0.norm.weight" = "blocks/{i}/norm1/scale"
"transformer.layers.{i}.0.norm.bias" = "blocks/{i}/norm1/bias"
"transformer.layers.{i}.0.fn.to_qkv.weight" = "blocks/{i}/attention/{query,key,value}/kernel"
"transformer.layers.{i}.0.fn.to_out.0.weight" = "blocks/{i}/attention/out/kernel"
"transformer.layers.{i}.0.fn.to_out.0.bias" = "blocks/{i}/attention/out/bias"
"transformer.layers.{i}.1.norm.weight" = "blocks/{i}/norm2/scale"
"transformer.layers.{i}.1.norm.bias" = "blocks/{i}/norm2/bias"
"transformer.layers.{i}.1.fn.net.0.weight" = "blocks/{i}/mlp/dense1/kernel"
"transformer.layers.{i}.1.fn.net.0.bias" = "blocks/{i}/mlp/dense1/bias"
"transformer.layers.{i}.1.fn.net.3.weight" = "blocks/{i}/mlp/dense2/kernel"
"transformer.layers.{i}.1.fn.net.3.bias" = "blocks/{i}/mlp/dense2/bias"
"mlp_head.0.weight" = "norm/scale"
"mlp_head.0.bias" = "norm/bias"
"mlp_head.1.weight" = "head/kernel"
"mlp_head.1.bias" = "head/bias"
"""


@pytest.fixture(scope="module")
def vit():
    """The arrays of a small ViT under vit-pytorch's names."""
    return make_values(VIT.shapes)


@pytest.fixture
def write(tmp_path):
    """Writes a file of rules and returns its path."""

    def write_rules(text, name="my_rules.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_rules


def convert_by(path, arrays, *, model="vit/Ti4", keywords=KEYWORDS, facts=None):
    named, facts = as_named(arrays), facts or SourceFacts()
    recognized = apply_rules_file(read(path), named, model, keywords, facts)
    return convert_arrays("net.npz", named, model=model, keywords=keywords, facts=facts, recognized=recognized)


def test_a_file_of_rules_moves_the_arrays_as_the_familys_rules_do(vit, write):
    by_family = convert_arrays("net.npz", as_named(vit), model="vit/Ti4", keywords=KEYWORDS).weights
    conversion = convert_by(write(RULES), vit)
    card = conversion.weights.card
    assert conversion.weights.digest == by_family.digest
    assert (card.num_classes, card.preprocessing["image_size"], card.preprocessing["channels"]) == (10, [16, 16], 1)
    assert (conversion.source, card.origin["program"]) == ("my_rules.toml", "my_rules.toml")
    assert "no array tells, and the name vit/Ti4 says: pool=token" in conversion.reasons


def test_a_prefix_counters_and_what_is_dropped_are_left_out(vit, write):
    wrapped = {f"net.{name}": array for name, array in vit.items()}
    wrapped |= {"net.0.mask": np.zeros((2, 2), np.float32), "net.bn.num_batches_tracked": np.zeros(1, np.int64)}
    conversion = convert_by(write('prefix = "net."\ndrop = ["*.mask"]\n' + RULES), wrapped)
    assert conversion.weights.digest == convert_by(write(RULES), vit).weights.digest
    assert "dropped, since no score depends on them: mask (1), num_batches_tracked (1)" in conversion.notes


def test_heads_in_axes_of_their_own_and_maps_that_were_flattened_are_moved(write):
    """A kernel (width, heads, head) of Flax is ours in columns; PyTorch flattens (c, h, w), ours (h, w, c)."""
    rules = """
layout = "ours"
[arrays]
"features.0.weight" = { ours = "stages/0/convolutions/0/kernel", axes = "o i h w -> h w i o" }
"features.0.bias" = "stages/0/convolutions/0/bias"
"fc.weight" = { ours = "head/kernel", axes = "o (c h w) -> (h w c) o", sizes = { h = 3, c = 2 } }
"fc.bias" = "head/bias"
"""
    rng = np.random.default_rng(0)
    arrays = {
        "features.0.weight": rng.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "features.0.bias": np.zeros(2, np.float32),
        "fc.weight": rng.normal(size=(7, 2 * 3 * 5)).astype(np.float32),
        "fc.bias": np.zeros(7, np.float32),
    }
    keywords = {"filters": (2,), "batch_norm": False}
    facts = SourceFacts(image_size=(3, 5))
    conversion = convert_by(write(rules), arrays, model="cnn/small", keywords=keywords | {
        "convolutions": 1, "head": "dense"}, facts=facts)  # fmt: skip
    ours = leaves_by_path(conversion.weights)["params/head/kernel"]
    assert ours.shape == (30, 7)
    # row 2, column 4 of channel 1: number 1 * 15 + 2 * 5 + 4 for PyTorch, (2 * 5 + 4) * 2 + 1 for ours
    np.testing.assert_array_equal(ours[29], arrays["fc.weight"][:, 29])
    np.testing.assert_array_equal(ours[28], arrays["fc.weight"][:, 14])
    assert conversion.reasons[-1] == (
        "no array tells, and every cnn/* has: activation=relu, behind batch norms (where there are some), which add "
        "epsilon=1e-05 to the variance"
    )


def test_sizes_may_be_said_of_all_letters_of_a_gray_image_too(vit, write):
    """Ours are tried in color first, where this line's numbers would not fit."""
    said = RULES.replace('p q c d" }', 'p q c d", sizes = { p = 4, q = 4, c = 1 } }')
    assert "c = 1" in said
    assert convert_by(write(said), vit).weights.digest == convert_by(write(RULES), vit).weights.digest


def test_an_array_of_heads_tells_their_number(write, vit):
    split = dict(vit)
    fused = "transformer.layers.{i}.0.fn.to_qkv.weight"
    rules = RULES.replace(f'"{fused}" = "blocks/{{i}}/attention/{{query,key,value}}/kernel"\n', "")
    for number, part in enumerate(("query", "key", "value")):
        rules += f'"b{{i}}.{part}" = {{ ours = "blocks/{{i}}/attention/{part}/kernel", axes = "d a e -> d (a e)" }}\n'
        for block in range(2):
            rows = vit[fused.format(i=block)][48 * number : 48 * (number + 1)]  # (3 heads x 16, 32)
            split[f"b{block}.{part}"] = np.ascontiguousarray(rows.T.reshape(32, 3, 16))
            split.pop(fused.format(i=block), None)
    assert convert_by(write(rules), split).weights.digest == convert_by(write(RULES), vit).weights.digest


FAULTS = [
    ("[arrays", r"is not TOML: .*at (line 1|end of document).*; names of arrays stand in quotes"),
    ('[arrays]\n"a" = "b"\n"a" = "c"\n', r"is not TOML: .*line 3"),
    (b"\xff\xfe[arrays]", "is not text in UTF-8"),
    (b"#" * (2**20 + 1), "has more than 1,048,576 bytes"),
    ("", r"names no arrays; add a line \[arrays\]"),
    ('layuot = "torch"\n[arrays]\n"a" = "b"', r"line 1: no setting 'layuot'; did you mean layout\?"),
    ('"b.{i}.w" = "blocks/{i}/w"', r"line 1: no setting 'b.{i}.w'; there is layout, prefix, drop; arrays stand below"),
    ('layout = "tf"\n[arrays]\n"a" = "b"', "line 1: layout = 'tf'; it is 'torch' or 'ours'"),
    ('layout = "torch"\nprefix = 3\n[arrays]\n"a" = "b"', "line 2: prefix = 3; it is a text"),
    ('drop = "x"\n[arrays]\n"a" = "b"', "line 1: drop is a list of names"),
    ('[arrays]\n\n"a" = 3', "line 3: a is 3; give our path"),
    ('[arrays]\n"a" = { our = "b" }', "line 2: a line takes ours, axes, sizes, not 'our'; did you mean ours"),
    ('[arrays]\nlayer.weight = "head/kernel"', "line 2: .*not 'weight'; a name with dots stands in quotes"),
    ('[arrays]\n"a" = { axes = "o i -> i o" }', "line 2: a has no ours"),
    ('[arrays]\n"a" = { ours = "b", sizes = { h = 0 } }', "line 2: sizes are whole numbers by letter"),
    ('[arrays]\n"a.{i}" = "b"', r"line 2: the numbers {i} of a.{i} and \(none\) of b are not the same"),
    ('[arrays]\n"a.{i}.{i}" = "b/{i}"', r"line 2: {i} in a.{i}.{i} is not read; braces hold a letter once"),
    ('[arrays]\n"a.{i}" = "b/{i+1}"', r"line 2: {i\+1} stands in our path b/{i\+1}; write it into their name"),
    ('[arrays]\n"a.{q,k}" = "b/{q,k}"', "line 2: {q,k} in a.{q,k} is not read"),
    ('[arrays]\n"a" = "b/{q,k}/{c,d}"', "line 2: {c,d} in .*or names once, such as {query,key,value}"),
    ('[arrays]\n"a" = "b/{q,q}"', "line 2: {q,q} in b/{q,q} is not read; braces hold .* or names once"),
    ('[arrays]\n"a{" = "b"', r"line 2: a{ has a brace without its partner"),
    ('[arrays]\n"a" = { ours = "b", axes = "o i" }', "line 2: axes = 'o i'; they are theirs -> ours"),
    ('[arrays]\n"a" = { ours = "b", axes = "oi -> io" }', "line 2: axes = 'oi -> io'; they are theirs -> ours"),
    (
        '[arrays]\n"a" = { ours = "b", axes = "o i -> i k" }',
        "line 2: axes = .* have not each letter once on both sides",
    ),
    (
        '[arrays]\n"a" = { ours = "b", axes = "o o -> o o" }',
        "line 2: axes = .* have not each letter once on both sides",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), FAULTS)
def test_a_fault_of_the_file_is_a_sentence_with_its_line(text, sentence, write):
    with pytest.raises(UserError, match=sentence) as caught:
        read(write(text))
    assert "\n" not in str(caught.value)
    assert "my_rules.toml" in str(caught.value)


def change(old, new):
    return RULES.replace(old, new)


HEAD_LINE = '"mlp_head.1.weight" = "head/kernel"\n'
MISFITS = [
    (change("norm1/scale", "norm1/scael"), r"line 9: the network has no array blocks/\S+/norm1/scael; did you mean"),
    (change("{query,key,value}", "{query,keys,value}"), r"line 11: the network has no array .*keys.*did you mean"),
    (change('layout = "torch"', ""), 'line 11: nothing says the axes of transformer.* layout = "torch"'),
    (
        change('{ ours = "pos_embed/embedding", axes = "1 t d -> t d" }', '"pos_embed/embedding"'),
        r"line 8: pos_embedding \(1, 17, 32\) has 3 axes and pos_embed/embedding \(17, 32\) has 2; say which is which",
    ),
    (
        change('{ ours = "patches/kernel", axes = "d (p q c) -> p q c d" }', '"patches/kernel"'),
        r'line 5: the axes "o i h w -> h w i o" are 4 and 4; to_patch.* has 2, and patches/kernel .* 4; add axes',
    ),
    (change("fn.to_qkv", "fn.qkv"), r"line 11: no array is called transformer.layers.0.0.fn.qkv.weight; did you mean"),
    (RULES + '"norm.{k}" = "blocks/{k}/norm1/scale"\n', "line 24: no array is called norm.0; take the line out"),
    (change(HEAD_LINE, ""), "has no line for head/kernel, whose shape tells the network; add one"),
    (
        change('axes = "d (p q c) -> p q c d"', 'axes = "d p q -> d p q"'),
        "line 5: the axes .* are 3 and 3; to_patch_embedding.1.weight .* has 2",
    ),
    (
        change('"mlp_head.0.weight" = "norm/scale"', '"mlp_head.0.weight" = "norm/bias"'),
        "line 21: line 20 names norm/bias too; take one of them out",
    ),
    ('prefix = "x."\n' + RULES, "no array begins with the prefix 'x.'; their names are as"),
]


@pytest.mark.parametrize(("text", "sentence"), MISFITS)
def test_a_line_that_fits_nothing_is_a_sentence_with_its_line(text, sentence, vit, write):
    with pytest.raises(UserError, match=sentence) as caught:
        convert_by(write(text), vit)
    assert "\n" not in str(caught.value)
    assert "my_rules.toml" in str(caught.value)


def test_arrays_that_no_line_names_are_listed_on_both_sides(vit, write):
    with pytest.raises(UserError, match=r"net\.npz does not fit vit/Ti4") as caught:
        convert_by(write(change('"mlp_head.0.bias" = "norm/bias"\n', "")), vit)
    assert "my_rules.toml has nothing like norm/bias of this network" in str(caught.value)
    assert "mlp_head.0.bias (32,) is not known" in str(caught.value)


def test_rules_need_the_name_of_the_network(vit, write):
    with pytest.raises(UserError, match="and not which; add --model=FAMILY/VARIANT"):
        convert_by(write(RULES), vit, model=None, keywords={})


def test_positions_of_no_square_ask_for_the_image_size(vit, write):
    arrays = vit | {"pos_embedding": np.zeros((1, 9, 32), np.float32)}  # 8 patches
    with pytest.raises(UserError, match="8 patches are not those of a square image; give --image_size=HEIGHT,WIDTH"):
        convert_by(write(RULES), arrays)
    card = convert_by(write(RULES), arrays, facts=SourceFacts(image_size=(8, 16))).weights.card
    assert card.preprocessing["image_size"] == [8, 16]
