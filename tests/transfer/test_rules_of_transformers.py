"""Vision Transformers, DeiT and ConvNeXt of others: what a file of JSON says, what is asked, and what is refused.

The arrays are those of the stored references, whose scores `test_parity.py` compares.
"""

import json

import numpy as np
import pytest
from converted import as_named
from parity_values import make_values, read_reference

from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.transfer import rules
from cnn_vit.transfer.convert import convert_arrays, convert_file
from cnn_vit.transfer.hub_config import BesideFile, read_preprocessing
from cnn_vit.transfer.matching import to_theirs
from cnn_vit.transfer.source_facts import SourceFacts
from cnn_vit.transfer.weights import Card, encode_safetensors, network_of

SIZES = {"width": 32, "depth": 2, "hidden": 48}


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """The arrays of a stored reference, by the names of its program."""
    return {key: value for key, value in make_values(read_reference(name).shapes).items() if value.ndim}


def convert_reference(name: str, changes: dict | None = None, **options) -> Card:
    """Converts a stored reference with more arrays, or without those that are None, and returns its card."""
    arrays = {key: value for key, value in (arrays_of(name) | (changes or {})).items() if value is not None}
    return convert_arrays("net.npz", as_named(arrays), **options).weights.card


# The file of JSON beside weights of Hugging Face ----------------------------------------------------------------------


@pytest.fixture
def write_folder(tmp_path):
    """Writes a folder as `save_pretrained` does, and returns the path of its weights."""

    def write(name, config, preprocessor=None):
        path = tmp_path / "model.safetensors"
        path.write_bytes(encode_safetensors(arrays_of(name), {"format": "pt"}))
        for file, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
            if content is not None:
                (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_file_of_json_says_what_no_tensor_tells(write_folder):
    labels = {str(number): f"kind {number}" for number in range(10)}
    config = {
        "model_type": "vit",
        "num_attention_heads": 4,
        "layer_norm_eps": 0.001,
        "hidden_act": "gelu_new",
        "image_size": 16,
        "id2label": labels,
    }
    conversion = convert_file(write_folder("vit_hf", config))
    card = conversion.weights.card
    assert card.model == "vit/Ti4"
    assert card.keywords == SIZES | {"heads": 4, "epsilon": 0.001, "activation": "gelu_tanh"}
    assert card.classes == tuple(labels.values())
    assert conversion.reasons[-1] == "config.json beside it, of Hugging Face's code"


def test_heads_that_the_file_of_json_says_may_be_those_of_a_size(tmp_path):
    """3 heads are those of Ti, whose name stands for networks of no known size; all the same they have to be said."""
    rule = next(rule for rule in rules.all_rules() if (rule.family, rule.source) == ("vit", "Hugging Face"))
    keywords = {"width": 12, "depth": 1, "hidden": 20, "heads": 3}
    network = network_of(Card("vit/Ti4", keywords, 5, None, {"image_size": [8, 8], "channels": 3}))
    params, stats = initial_values(network, seed=0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(encode_safetensors(to_theirs(rule, params, stats), {}))
    (tmp_path / "config.json").write_text('{"model_type": "vit", "num_attention_heads": 3}')
    card = convert_file(path).weights.card
    assert network_of(card).params.keys() == network.params.keys()
    assert card.keywords.get("heads", 3) == 3


def test_what_the_user_says_counts_more(write_folder):
    config = {"model_type": "vit", "num_attention_heads": 4, "layer_norm_eps": 0.001, "hidden_act": "relu"}
    card = convert_file(write_folder("vit_hf", config), keywords={"epsilon": 0.5, "heads": 2}).weights.card
    assert (card.keywords["epsilon"], card.keywords["heads"], card.keywords["activation"]) == (0.5, 2, "relu")


def test_the_file_of_json_tells_images_that_are_not_square(write_folder):
    """16 patches are 4 x 4, or 2 x 8."""
    config = {"model_type": "vit", "num_attention_heads": 4, "image_size": [8, 32]}
    card = convert_file(write_folder("vit_hf", config)).weights.card
    assert card.preprocessing["image_size"] == [8, 32]


def test_the_last_norm_of_a_convnext_has_an_epsilon_of_its_own(write_folder):
    path = write_folder("convnext_hf", {"model_type": "convnext", "layer_norm_eps": 1e-5, "hidden_act": "gelu"})
    card = convert_file(path).weights.card
    assert card.keywords == {"blocks": (1, 1, 2, 1), "widths": (8, 12, 16, 20), "last_epsilon": 1e-5}
    assert card.preprocessing["image_size"] == [224, 224]


def test_without_it_the_program_s_own_numbers_stand(write_folder):
    assert convert_file(write_folder("convnext_hf", None)).weights.card.keywords["last_epsilon"] == 1e-12
    card = convert_reference("vit_hf", keywords={"heads": 4})
    assert (card.keywords["epsilon"], card.keywords["activation"]) == (1e-12, "gelu")
    assert convert_reference("deit_hf", keywords={"heads": 4}).keywords["epsilon"] == 1e-12


def test_the_settings_of_a_run_are_not_taken_for_it(write_folder):
    with pytest.raises(UserError, match=r"--model\.heads= one of 1, 2, 4, 8, 16, 32"):
        convert_file(write_folder("vit_hf", {"num_attention_heads": 4}))


@pytest.mark.parametrize(
    ("name", "config", "sentence"),
    [
        ("vit_hf", "{", "config.json is not JSON"),
        ("vit_hf", {"model_type": "vit", "hidden_act": "silu"}, "hidden_act='silu' .* is not one of gelu, gelu_new"),
        ("deit_hf", {"model_type": "deit", "hidden_act": "relu"}, "hidden_act='relu' .* is not that of deit/.: gelu"),
        ("convnext_hf", {"model_type": "convnext", "hidden_act": "relu"}, "not that of convnext/.: gelu"),
        ("vit_hf", {"model_type": "vit", "hidden_act": ["gelu"]}, r"hidden_act=\['gelu'\] .* is not one of gelu, "),
        ("vit_hf", {"model_type": "vit", "num_attention_heads": "2"}, "num_attention_heads is '2' in the config.json"),
        ("vit_hf", {"model_type": "vit", "num_attention_heads": [2]}, r"num_attention_heads is \[2\] in the config"),
        ("vit_hf", {"model_type": "vit", "num_attention_heads": True}, "expected a whole number above 0; mend that"),
        (
            "vit_hf",
            {"model_type": "vit", "layer_norm_eps": 10**400},
            "layer_norm_eps is 1000.* expected a number above",
        ),
        ("vit_hf", {"model_type": "vit", "image_size": [16, "16"]}, r"image_size is \[16, '16'\] .*, or height and"),
        ("convnext_hf", {"model_type": "convnext", "layer_norm_eps": "1e-5"}, "layer_norm_eps is '1e-5' in the config"),
    ],
)
def test_a_file_of_json_that_says_something_else_is_refused(write_folder, name, config, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_file(write_folder(name, config))


def test_a_file_of_json_of_another_network_is_not_read(write_folder):
    """Where the program of the weights writes none, it is not even opened."""
    labels = {str(number): f"kind {number}" for number in range(10)}
    other = {"model_type": "bert", "image_size": 8, "id2label": labels, "num_attention_heads": 2}
    for config in (other, "{"):
        conversion = convert_file(write_folder("vit_timm", config, {"image_mean": "?"}), keywords={"heads": 4})
        assert conversion.weights.card.classes is None
        assert conversion.weights.card.preprocessing["image_size"] == [16, 16]
        assert "json" not in " ".join((*conversion.reasons, *conversion.notes))
    conversion = convert_file(write_folder("vit_hf", other, {"image_mean": "?"}), keywords={"heads": 4})
    assert (conversion.weights.card.classes, conversion.weights.card.keywords["heads"]) == (None, 4)
    assert conversion.notes[0] == "config.json beside it is of model_type 'bert', not vit, and was not read"


def test_names_that_say_nothing_are_no_classes(write_folder):
    for labels in ({str(number): f"LABEL_{number}" for number in range(10)}, {"0": "a"}, ["a"] * 10):
        config = {"model_type": "vit", "num_attention_heads": 4, "id2label": labels}
        assert convert_file(write_folder("vit_hf", config)).weights.card.classes is None


def test_names_of_classes_are_checked_as_those_of_a_file_of_names_are():
    names = [f"kind {number}" for number in range(10)]

    def choose(*first):
        labels = {str(number): name for number, name in enumerate([*first, *names[len(first) :]])}
        return BesideFile(labels=labels).choose_classes(10)

    assert choose(" kind 0 ") == (tuple(names), [])
    assert choose("") == (None, ["names of classes in config.json are not taken: class 0 has no name"])
    assert "class 0 has no name" in choose(" ")[1][0]
    assert "kind 1 stands twice" in choose("kind 1 ")[1][0]
    assert "the name of class 0, 'a\\x1b[31m', has characters that no screen shows" in choose("a\x1b[31m")[1][0]


# How images are prepared, as the file beside config.json says it ------------------------------------------------------

VIT_CONFIG = {"model_type": "vit", "num_attention_heads": 4}
# As transformers 5.23.0 writes them: ViTImageProcessor, DeiTImageProcessor and ConvNextImageProcessor.
OF_VIT = {
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "resample": 3,
    "size": {"height": 16, "width": 16},
}
OF_DEIT = {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
OF_CONVNEXT = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 2}


def test_the_file_of_json_says_how_images_are_prepared(write_folder):
    conversion = convert_file(write_folder("vit_hf", VIT_CONFIG, OF_VIT))
    expected = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "image_size": [16, 16], "channels": 3}
    assert conversion.weights.card.preprocessing == expected | {"fit": "stretch", "interpolation": "bicubic"}
    assert conversion.reasons[-1] == "preprocessor_config.json beside it, of Hugging Face's code"
    assert "how images are prepared" not in " ".join(conversion.notes)
    facts = SourceFacts(mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear")
    by_user = convert_file(write_folder("vit_hf", VIT_CONFIG, OF_VIT), facts=facts).weights.card.preprocessing
    assert (by_user["mean"], by_user["std"], by_user["interpolation"]) == ([0.5] * 3, [0.25] * 3, "bilinear")


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (OF_DEIT, {"image_size": [224, 224], "fit": "crop(0.875)"}),
        (OF_CONVNEXT, {"image_size": [224, 224], "fit": "crop(0.875)", "interpolation": "bilinear"}),
        ({"size": 224, "crop_pct": 0.95}, {"image_size": [224, 224], "fit": "crop(0.95)"}),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, {"image_size": [384, 384], "fit": "stretch"}),
        ({"size": 384, "do_resize": False}, {}),
        ({"do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
        ({"do_normalize": False, "do_rescale": False}, {"mean": [0.0] * 3, "std": [1 / 255] * 3}),
        ({"image_mean": [0.5], "image_std": [2], "rescale_factor": 1 / 51}, {"mean": [0.1], "std": [0.4]}),
        ({"image_mean": [1], "image_std": [1], "rescale_factor": 0.00392156862745098}, {"mean": [1.0], "std": [1.0]}),
    ],
)
def test_each_processor_s_words_become_those_of_a_card(processor, expected):
    """White is 255 of 8 bits times the factor: 1/51 makes it 5, and a mean of 0.5 is a tenth of that."""
    read = read_preprocessing(processor)
    assert read.keys() == expected.keys()
    for key, value in expected.items():
        assert read[key] == (pytest.approx(value) if key in ("mean", "std") else value)


@pytest.mark.parametrize(
    ("processor", "sentence"),
    [
        ("{", "preprocessor_config.json is not JSON"),
        ({"image_mean": "0.5", "image_std": [1.0]}, "image_mean is '0.5' in the preprocessor_config.json beside"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0, 0.5]}, r"image_std is \[0.5, 0, 0.5\] .* above 0 for each"),
        ({"image_mean": [0.5] * 3}, "says one of image_mean and image_std; write both"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "has 1 numbers, and this network sees 3 channels; mend that file"),
        ({"resample": 0}, "resample is 0 .*, expected 2 or 3"),
        ({"resample": [3]}, r"resample is \[3\]"),
        ({"size": {"height": 16}}, r"size is \{'height': 16\}.*, or height and width"),
        ({"size": 10**9}, "size is 1000000000 .* up to 8192"),
        ({"crop_pct": 0, "size": 16}, "crop_pct is 0 .* expected a share from 0.01 to 1"),
        ({"do_resize": "no"}, "do_resize is 'no' .* expected true or false"),
        ({"size": 8, "crop_size": 16, "do_center_crop": True}, "crop_size is 16 .* 1 to 100 % of the size, 8"),
    ],
)
def test_a_processor_that_cannot_be_is_refused(write_folder, processor, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_file(write_folder("vit_hf", VIT_CONFIG, processor))


def test_a_network_for_one_size_keeps_it_and_others_take_the_processor_s(write_folder):
    conversion = convert_file(write_folder("vit_hf", VIT_CONFIG, OF_DEIT))
    assert conversion.weights.card.preprocessing["image_size"] == [16, 16]
    assert "preprocessor_config.json asks for 224x224 pixels, and the network is of another size" in conversion.notes
    config = {"model_type": "convnext", "image_size": 64}
    card = convert_file(write_folder("convnext_hf", config, {"size": {"shortest_edge": 96}})).weights.card
    assert (card.preprocessing["image_size"], card.preprocessing["fit"]) == ([96, 96], "crop(0.875)")


# What shapes tell, and what is asked for ------------------------------------------------------------------------------


def test_google_computes_with_tanh_and_timm_with_erf():
    google = convert_reference("vit_google")
    timm = convert_reference("vit_timm", keywords={"heads": 4})
    assert (google.model, timm.model) == ("vit/Ti4", "vit/Ti4")
    assert google.keywords == SIZES | {"heads": 4, "activation": "gelu_tanh", "epsilon": 1e-6}
    assert timm.keywords == SIZES | {"heads": 4, "activation": "gelu", "epsilon": 1e-6}
    assert google.origin["program"] == "Google, vision_transformer"


def test_suffixes_say_what_else_a_file_has():
    assert convert_reference("vit_google_pre_logits").model == "vit/Ti4-pre_logits"
    assert convert_reference("vit_big_vision").model == "vit/Ti4-map"
    assert convert_reference("vit_big_vision_stacked").model == "vit/Ti4-map"
    pooled = {key: None for key in arrays_of("vit_big_vision") if key.startswith("MAPHead_0")}
    assert convert_reference("vit_big_vision", pooled).model == "vit/Ti4-gap"
    assert convert_reference("vit_big_vision", pooled | {"cls": np.zeros((1, 1, 32))}).model == "vit/Ti4-tok"


def test_other_heads_than_the_arrays_have_are_refused():
    with pytest.raises(UserError, match=r"holds vit/Ti4 .*heads=4, as .*heads=2; give --model\.heads=4"):
        convert_reference("vit_google", keywords={"heads": 2})


def test_heads_are_asked_for_where_neither_shapes_nor_a_known_size_tell():
    with pytest.raises(UserError, match=r"does not tell all of its network \(timm\), .*--model\.heads= one of 1, 2, 4"):
        convert_reference("vit_timm")
    shapes = {
        "conv_proj.weight": (768, 3, 16, 16),
        "encoder.pos_embedding": (1, 197, 768),
        "class_token": (1, 1, 768),
        "heads.head.weight": (1000, 768),
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight": (2304, 768),
        "encoder.layers.encoder_layer_0.self_attention.in_proj_bias": (2304,),
        "encoder.layers.encoder_layer_0.mlp.0.weight": (3072, 768),
    }
    shapes |= {f"encoder.layers.encoder_layer_{block}.ln_1.weight": (768,) for block in range(12)}
    rule = next(rule for rule in rules.all_rules() if (rule.family, rule.source) == ("vit", "torchvision"))
    guess = rule.guess(shapes, {})
    assert (guess.model, guess.keywords, guess.unseen, guess.image_size) == ("vit/B16", {}, {}, (224, 224))
    assert "sizes of vit/B16, whose number of heads is known" in guess.reasons


def test_a_square_of_positions_may_be_a_class_token_and_patches_that_are_no_square():
    """9 rows are 3x3 patches, or 2x4 and the class token."""
    table = {"pos_embed": np.zeros((1, 9, 32), np.float32)}
    keywords = {"heads": 4}
    with pytest.raises(UserError, match=r"--model\.token_position= one of True, False"):
        convert_reference("vit_timm", table, keywords=keywords)
    alone = convert_reference("vit_timm", table, keywords=keywords | {"token_position": False})
    assert (alone.model, alone.preprocessing["image_size"]) == ("vit/Ti4-tok", [12, 12])
    facts = SourceFacts(image_size=(8, 16))
    for more in ({}, {"token_position": True}):
        card = convert_reference("vit_timm", table, keywords=keywords | more, facts=facts)
        assert (card.model, card.preprocessing["image_size"]) == ("vit/Ti4", [8, 16])
    by_size = convert_reference("vit_timm", table, keywords=keywords, facts=SourceFacts(image_size=(12, 12)))
    assert (by_size.model, by_size.preprocessing["image_size"]) == ("vit/Ti4-tok", [12, 12])


def test_positions_without_a_table_are_asked_for():
    with pytest.raises(UserError, match=r"--model\.positions= one of sincos, none"):
        convert_reference("vit_big_vision", {"pos_embedding": None})
    facts = SourceFacts(image_size=(16, 16))
    card = convert_reference("vit_big_vision", {"pos_embedding": None}, keywords={"positions": "sincos"}, facts=facts)
    assert card.keywords["positions"] == "sincos"


def test_a_file_of_deit_without_distillation_is_one_of_vit_and_becomes_deit_by_name():
    keywords = SIZES | {"heads": 4}
    as_vit = convert_reference("vit_timm", keywords=keywords)
    as_deit = convert_reference("vit_timm", model="deit/Ti4", keywords=keywords)
    assert (as_vit.model, as_deit.model) == ("vit/Ti4", "deit/Ti4")
    assert as_vit.preprocessing["mean"] == [0.5] * 3
    assert as_deit.preprocessing["mean"] == [0.485, 0.456, 0.406]


def test_a_distilled_file_is_known_by_its_second_token():
    card = convert_reference("deit", keywords={"heads": 4})
    assert (card.model, card.origin["program"]) == ("deit/Ti4-distilled", "timm, and Meta's code")
    assert card.preprocessing["image_size"] == [16, 16]  # 18 rows are 2 and 4 x 4


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("vit_timm", "fc_norm.weight", "fc_norm.weight is of a norm behind the average of the tokens"),
        ("vit_timm", "blocks.1.ls1.gamma", "blocks.1.ls1.gamma is of layer scales in its blocks"),
        ("vit_timm", "reg_token", "register tokens, which none of ours has"),
        ("vit_google", "block1/unit1/conv1/kernel", "a ResNet before its transformer"),
        ("vit_big_vision", "txt/head/kernel", "a tower of image or text beside a classifier"),
        ("convnext", "stages.0.blocks.0.mlp.grn.weight", "the global response norm of ConvNeXt V2"),
        ("deit_hf", "classifier.weight", "one head behind two learned tokens"),
    ],
)
def test_what_no_network_of_ours_has_is_one_sentence(name, more, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_reference(name, {more: np.zeros(3, np.float32)}, keywords={"heads": 4})


def test_what_an_optimizer_keeps_is_dropped():
    more = {"opt/0/mu/head/kernel": np.zeros(3, np.float32), "chrono/accum_train_time": np.zeros(1)}
    assert convert_reference("vit_big_vision_stacked", more).model == "vit/Ti4-map"


def test_google_s_names_may_lie_in_a_training_that_was_saved():
    arrays = arrays_of("vit_google")
    named = {f"opt/target/{name}": array for name, array in arrays.items()} | {"opt/state/step": np.zeros(1)}
    weights = convert_arrays("net.npz", as_named(named)).weights
    assert weights.digest == convert_arrays("net.npz", as_named(arrays)).weights.digest
