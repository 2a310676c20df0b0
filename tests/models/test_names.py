"""Names, keywords and settings of networks: which are accepted, and one sentence for each that is not."""

import inspect
import subprocess
import sys

import pytest

from cnn_vit import models
from cnn_vit.errors import UserError

NAMES = [
    *(f"{family}/{variant}" for family, variants in models.names().items() for variant in variants),
    "cifar_resnet/20-b",
    "resnet/50-v1",
    "resnet/50-32x4d",
    "convnext/xxlarge",
    "deit/S16-distilled",
    "vgg/16-bn",
    "vit/S7-map-pre_logits",
    "vit/B16-tok",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_family_says_what_its_signature_says(name):
    module = sys.modules[models.variant(name).func.__module__]
    parameters, keywords = models.keywords(name), models.read_keywords(name)
    assert list(parameters) == list(keywords)
    for key, keyword in keywords.items():
        assert keyword.name == key
        assert keyword.default == parameters[key].default
        assert eval(keyword.annotation, vars(module)) == parameters[key].annotation
        assert len(keyword.meaning.split()) >= 1
        assert not keyword.meaning.endswith(":")


@pytest.mark.parametrize("name", NAMES)
def test_every_keyword_is_named_and_typed_and_every_variant_takes_colors_and_size(name):
    parameters = inspect.signature(models.variant(name).func.__init__).parameters.values()
    assert not [p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    keywords = models.keywords(name)
    assert {"channels", "image_size"} <= keywords.keys()
    assert "num_classes" not in keywords
    assert not [key for key, parameter in keywords.items() if parameter.default is parameter.empty]


def test_every_family_has_a_test_variant():
    variants_by_family = models.names()
    assert variants_by_family.keys() >= {"cifar_resnet", "cnn", "lenet", "mlp", "mobilenet_v1", "resnet", "vgg", "vit"}
    assert variants_by_family.keys() >= {"efficientnet", "mobilenet_v2"}
    assert all("test" in variants for variants in variants_by_family.values())
    assert {"B16", "So400m14", "H14"} <= set(variants_by_family["vit"])


def test_names_and_meanings_are_read_without_jax():
    program = (
        "import sys; from cnn_vit import models; models.names(); models.read_keywords('vit/B16-gap'); "
        "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_patch_side_stands_behind_the_size():
    assert models.keywords("vit/So400m14")["patch"].default == 14
    assert models.keywords("vit/So400m14")["width"].default == 1152
    assert models.keywords("vit/S7")["patch"].default == 7
    assert models.keywords("vit/S7")["width"].default == 384


def test_suffixes_chain():
    keywords = models.keywords("vit/B16-tok-pre_logits")
    assert keywords["pool"].default == "token"
    assert keywords["token_position"].default is False
    assert keywords["pre_logits"].default is True


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cifar_resnet/21", "cifar_resnet has no '21'; it has test, 8, 20, 32, 44, 56, 110, 1202"),
        ("cifar_resnett/20", "no model family 'cifar_resnett'; did you mean cifar_resnet"),
        ("vit/B", "vit has no 'B'; it has .*B16.*a size and any patch side"),
        ("vit/B016", "vit has no 'B016'"),
        ("vit/ti16", "vit has no 'ti16'; did you mean Ti16"),
        ("vit", "vit alone is a family, not a network, vit/VARIANT; it has test"),
        ("resnet/50-v2", "unknown suffix -v2; there is v1, wide2, 32x4d"),
        ("lenet/5-gap", "unknown suffix -gap; there is none"),
        ("vit/B16-gap-map", "two suffixes set pool"),
        ("resnet/50-wide2-32x4d", "two suffixes set group_width"),
        ("resnet/18-32x4d", "belong to bottlenecks"),
    ],
)
def test_an_unknown_name_is_one_sentence(name, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build(name, 10)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("cifar_resnet/20", {"block": 3}, "no keyword of cifar_resnet/20 'block'; did you mean blocks"),
        ("cifar_resnet/20", {"blocks": 3.0}, "model.blocks=3.0 is not a whole number"),
        ("cifar_resnet/20", {"blocks": True}, "model.blocks=True is not a whole number"),
        ("cifar_resnet/20", {"blocks": 0}, "model.blocks=0 must be at least 1"),
        ("cifar_resnet/20", {"shortcut": "padd"}, "model.shortcut='padd' is not 'pad' or 'projection' or 'none'"),
        ("cnn/small", {"filters": (16, 3.5)}, "model.filters=.* is not a tuple of any number of: a whole number"),
        ("cnn/small", {"filters": 16}, "model.filters=16 is not a tuple"),
        ("cnn/small", {"filters": ()}, r"model.filters=\(\) names no stage"),
        ("cnn/small", {"filters": (8, 0)}, "model.filters=.* must be at least 1"),
        ("cnn/small", {"stride": (1, 2, 1)}, "model.stride=.* has 3 numbers for 2 stages"),
        ("cnn/small", {"padding": -1}, "model.padding=-1 must be at least 0"),
        ("cnn/small", {"batch_norm": 1}, "model.batch_norm=1 is not True or False"),
        ("cnn/small", {"dropout": 1}, "model.dropout=1 must be at least 0 and below 1"),
        ("cnn/small", {"dropout": float("nan")}, "model.dropout=nan is not a finite number"),
        ("lenet/5", {"filters": (6, 16, 3)}, "model.filters=.* is not a tuple of 2 of: a whole number"),
        ("mlp/small", {"hidden": (4, 0)}, "model.hidden=.* must be at least 1"),
        ("resnet/50", {"blocks": ()}, r"model.blocks=\(\) names no stage"),
        ("resnet/50", {"filters": 4, "group_width": 4}, "no channel is left"),
        ("mobilenet_v1/1.0", {"blocks": ()}, r"model.blocks=\(\) names no stage"),
        ("mobilenet_v1/1.0", {"width_multiplier": 0.03}, "model.width_multiplier=0.03 leaves no filter; .* 1/32"),
        (
            "vgg/11",
            {"filters": (8, 8)},
            r"model.convolutions=\(1, 1, 2, 2, 2\) and model.filters=\(8, 8\) must have one",
        ),
        ("vgg/11", {"image_size": (31, 64)}, "31x64 pixels leave nothing .*data.image_size at least 32"),
        ("vgg/11", {"dropout": 1.0}, "model.dropout=1.0 must be at least 0 and below 1"),
        ("mobilenet_v1/1.0", {"image_size": (32, 31)}, "32x31 pixels leave nothing .*data.image_size at least 32"),
        (
            "convnext/T",
            {"widths": (8, 16)},
            r"model.blocks=\(3, 3, 9, 3\) and model.widths=\(8, 16\) do not name the same",
        ),
        ("convnext/T", {"kernel_size": 4}, "model.kernel_size=4 must be odd"),
        ("convnext/T", {"last_epsilon": 0.0}, "model.last_epsilon=0.0 must be above 0"),
        ("convnext/T", {"image_size": (31, 64)}, "31x64 pixels leave nothing .*data.image_size at least 32"),
        ("deit/S16", {"heads": 5}, "model.width=384 is not a multiple of model.heads=5"),
        ("deit/S16", {"image_size": 30}, "30x30 pixels are not whole 16-pixel patches"),
        ("mobilenet_v2/1.0", {"blocks": ()}, r"model.blocks=\(\) has 0 numbers; give one for each stage, at most 7"),
        ("mobilenet_v2/1.0", {"width_multiplier": 0}, "model.width_multiplier=0 must be above 0"),
        ("efficientnet/B0", {"blocks": (1,) * 8}, "has 8 numbers; give one for each stage, at most 7"),
        ("efficientnet/B0", {"width_multiplier": -1.0}, "model.width_multiplier=-1.0 must be above 0"),
        ("efficientnet/B0", {"padding": "SAME"}, "model.padding='SAME' is not 'symmetric' or 'same'"),
        ("efficientnet/B0", {"epsilon": 0}, "model.epsilon=0 must be above 0"),
        ("efficientnet/B0", {"stochastic_depth": 1.0}, "model.stochastic_depth=1.0 must be at least 0 and below 1"),
        ("vit/Ti16", {"heads": 5}, "model.width=192 is not a multiple of model.heads=5"),
        ("vit/Ti16", {"head_width": 0}, "model.head_width=0 must be at least 1"),
        ("vit/Ti16", {"head_width": "64"}, "model.head_width='64' is not a whole number or none"),
        ("vit/Ti16", {"epsilon": 0}, "model.epsilon=0 must be above 0"),
        ("vit/Ti16", {"activation": "silu"}, "model.activation='silu' is not 'gelu_tanh' or 'gelu' or 'relu'"),
        ("vit/Ti16", {"width": 6, "positions": "sincos"}, "model.width=6 is not a multiple of 4"),
        ("vit/Ti16", {"width": 18, "positions": "rotary"}, "heads of 6 numbers are no multiple of 4, and rotary"),
        ("vit/Ti16", {"head_width": 2, "positions": "rotary"}, "set model.head_width to a multiple of 4"),
        ("vit/Ti16", {"stochastic_depth": -0.1}, "model.stochastic_depth=-0.1 must be at least 0"),
        (
            "vit/Ti16",
            {"image_size": (30, 32)},
            "30x32 pixels are not whole 16-pixel patches; make data.image_size a mult",
        ),
        ("vit/Ti16", {"image_size": 8}, "8x8 pixels are not whole 16-pixel patches"),
        ("vit/H14", {"image_size": 13}, "13x13 pixels are not whole 14-pixel patches"),
        ("vit/Ti16", {"image_size": (16, 16, 3)}, "data.image_size=.* is not a whole number or a tuple of 2"),
        ("vit/Ti16", {"channels": 0}, "data.channels=0 must be at least 1"),
        ("mlp/test", {"image_size": 0}, "data.image_size=0 must be at least 1"),
        ("lenet/5-valid", {"image_size": (28, 15)}, "28x15 pixels leave nothing .*data.image_size at least 16"),
        ("cnn/lecture", {"padding": 0, "image_size": 17}, "17x17 pixels leave nothing .*data.image_size at least 18"),
    ],
)
def test_a_wrong_keyword_is_one_sentence(name, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        models.build(name, 10, **changes)


def test_the_number_of_classes_is_checked():
    with pytest.raises(UserError, match="the number of classes=0 must be at least 1"):
        models.build("mlp/test", 0)


DATA = {"num_classes": 10, "channels": 3, "image_size": 32}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"image_size": 32}, "model.image_size is not a setting; the model takes it from data.image_size"),
        ({"channels": 1}, "model.channels is not a setting; the model takes it from data.channels"),
        ({"num_classes": 10}, "model.num_classes is not a setting"),
        ({"depth": 3}, "no keyword of cifar_resnet/20 'depth'"),
        ({"filters": "16"}, "model.filters='16' is not a whole number"),
    ],
)
def test_the_check_refuses_what_is_not_a_setting_of_the_model(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        models.check("cifar_resnet/20", settings, **DATA)


def test_the_check_accepts_what_builds():
    assert models.check("cifar_resnet/20", {"filters": 8}, **DATA)
    assert models.check("vit/Ti4-gap", {"dropout": 0}, num_classes=2, channels=1, image_size=(8, 16))


def test_none_of_the_command_line_is_the_choice_of_that_name():
    assert models.build("cnn/test", 3, pooling=None).pooling == "none"
    assert models.build("cifar_resnet/test", 3, shortcut=None).stages[0].blocks[0].adds_input is False
    with pytest.raises(UserError, match=r"model\.head=None is not 'dense' or 'average'"):
        models.build("cnn/test", 3, head=None)
