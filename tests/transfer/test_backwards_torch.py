"""The torch lane: networks of torchvision, timm and transformers are made and loaded by the lines that are printed.

pip install -e '.[torch]', torchvision, timm and transformers.
"""

import numpy as np
import pytest
from converted import compute_scores, leaves_by_path
from test_backwards import draw

from cnn_vit.errors import UserError
from cnn_vit.transfer import backwards, torch_models
from cnn_vit.transfer.convert import open_weights

pytestmark = pytest.mark.torch
SMALL_VIT = {"width": 48, "depth": 2, "hidden": 80, "heads": 3, "activation": "gelu"}
ONE_EACH = (1, 1, 1, 1)
SMALL_MOBILE = {"width_multiplier": 0.25, "blocks": (1, 1, 1, 1, 1, 1, 1)}
# By family: a network, its keywords, and the programs that have none like it.
NETWORKS = {
    "vit": [
        ("vit/Ti4", SMALL_VIT, ()),
        ("vit/Ti4", SMALL_VIT | {"activation": "gelu_tanh"}, ("torchvision",)),
        ("vit/Ti4-gap", SMALL_VIT, ("torchvision", "hf")),
        ("vit/Ti4-pre_logits", SMALL_VIT, ("timm", "hf")),
    ],
    "deit": [
        ("deit/Ti16-distilled", {"patch": 4, "width": 48, "depth": 2, "hidden": 80, "heads": 3}, ()),
        ("deit/Ti16", {"patch": 4, "width": 48, "depth": 2, "hidden": 80, "heads": 3}, ("timm", "hf")),
    ],
    "resnet": [
        ("resnet/18", {}, ()),
        ("resnet/50", {"blocks": ONE_EACH}, ()),
        ("resnet/50", {"blocks": ONE_EACH, "version": "v1"}, ("timm", "torchvision")),
    ],
    "vgg": [
        ("vgg/11", {"convolutions": (1, 1, 1, 1, 1)}, ("timm",)),
        ("vgg/11-bn", {"convolutions": (1, 1, 1, 1, 1), "larger_map": "slide"}, ("torchvision",)),
    ],
    "convnext": [
        ("convnext/T", {"blocks": ONE_EACH}, ()),
        ("convnext/xxlarge", {"blocks": ONE_EACH, "widths": (48, 96, 192, 384)}, ("torchvision", "hf")),
    ],
    "mobilenet_v2": [
        ("mobilenet_v2/0.35", {}, ()),
        ("mobilenet_v2/1.0", SMALL_MOBILE, ("torchvision",)),
        ("mobilenet_v2/1.1d", {"scale_ends": False, "blocks": (1, 2)}, ("timm", "torchvision")),
    ],
    "efficientnet": [
        ("efficientnet/B0", SMALL_MOBILE, ()),
        ("efficientnet/B0-tf", SMALL_MOBILE, ("torchvision",)),
    ],
}
CASES = [(target, *network) for family, target in torch_models.MODELS for network in NETWORKS[family]]


@pytest.fixture(scope="module")
def programs():
    """What imports the programs, with stubs where this machine cannot load their compiled parts."""
    pytest.importorskip("safetensors")
    return pytest.importorskip("torch_libraries")


def draw_like_trained(model, keywords):
    """Values of the size that He's initial values have, with norms that are not what they were at first."""
    weights = draw(model, keywords, size=(32, 32))
    for path, leaf in leaves_by_path(weights).items():
        if leaf.ndim > 1:
            leaf -= leaf.mean()
            leaf *= np.sqrt(2 / np.prod(leaf.shape[:-1])) / leaf.std()
        elif path.endswith(("bias", "mean")):
            leaf *= 0.1
    return weights


@pytest.mark.parametrize(("target", "model", "keywords", "without"), CASES)
def test_the_printed_lines_make_the_network_and_it_gives_our_scores(
    target, model, keywords, without, programs, tmp_path
):
    weights = draw_like_trained(model, keywords)
    path = tmp_path / "theirs.safetensors"
    if target in without:
        with pytest.raises(UserError, match=r"this network (has model|cannot be written)|no network of .* is like"):
            backwards.write_for(weights, target, path)
        return
    {"hf": programs.import_transformers, "timm": programs.import_timm}.get(target, programs.import_torchvision)()
    import torch

    written = backwards.write_for(weights, target, path)
    backwards.save(path, written)
    assert open_weights(path, keywords=written.untold).digest == weights.digest
    names: dict = {}
    exec("\n".join(written.lines), names)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        answer = names["model"](torch.tensor(images.transpose(0, 3, 1, 2)))
    expected = (answer.logits if target == "hf" else answer).numpy()
    assert expected.std() > 0.1
    # float32 rounds in proportion: these scores reach 10 in deep networks
    np.testing.assert_allclose(compute_scores(weights, images), expected, atol=1e-4 * max(1, expected.std()))
