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

    def write(name, config):
        path = tmp_path / "model.safetensors"
        path.write_bytes(encode_safetensors(arrays_of(name), {"format": "pt"}))
        if config is not None:
            text = config if isinstance(config, str) else json.dumps(config)
            (tmp_path / "config.json").write_text(text)
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
    card = convert_file(write_folder("vit_hf", config)).weights.card
    assert card.model == "vit/Ti4"
    assert card.keywords == SIZES | {"heads": 4, "epsilon": 0.001, "activation": "gelu_tanh"}
    assert card.classes == tuple(labels.values())


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
    ],
)
def test_a_file_of_json_that_says_something_else_is_refused(write_folder, name, config, sentence):
    with pytest.raises(UserError, match=sentence):
        convert_file(write_folder(name, config))


def test_names_that_say_nothing_are_no_classes(write_folder):
    for labels in ({str(number): f"LABEL_{number}" for number in range(10)}, {"0": "a"}, ["a"] * 10):
        config = {"model_type": "vit", "num_attention_heads": 4, "id2label": labels}
        assert convert_file(write_folder("vit_hf", config)).weights.card.classes is None


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
