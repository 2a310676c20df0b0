"""The torch lane: networks of torchvision, timm and transformers are made and loaded by the lines that are printed.

pip install -e '.[torch]', torchvision, timm and transformers; a family without a rule for a program is skipped.
"""

import numpy as np
import pytest
from converted import compute_scores, leaves_by_path
from test_backwards import draw

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.transfer import backwards, rules, torch_models
from cnn_vit.transfer.convert import open_weights

pytestmark = pytest.mark.torch
SMALL_VIT = {"width": 48, "depth": 2, "hidden": 80, "heads": 3, "activation": "gelu"}
NETWORKS = {
    "vit": [("vit/Ti4", SMALL_VIT), ("vit/Ti4", SMALL_VIT | {"activation": "gelu_tanh"}), ("vit/Ti4-gap", SMALL_VIT)],
    "resnet": [("resnet/18", {}), ("resnet/50", {"blocks": (1, 1, 1, 1)})],
    "vgg": [("vgg/11", {})],
    "convnext": [("convnext/T", {"blocks": (1, 1, 1, 1)})],
}
LACKING = [  # networks that a program has not, of those above
    ("vit/Ti4", "gelu_tanh", "torchvision"),
    ("vit/Ti4-gap", "gelu", "torchvision"),
    ("vit/Ti4-gap", "gelu", "hf"),
]
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


@pytest.mark.parametrize(("target", "model", "keywords"), CASES)
def test_the_printed_lines_make_the_network_and_it_gives_our_scores(target, model, keywords, programs, tmp_path):
    family = model.partition("/")[0]
    if family not in models.families() or not any(
        rule.family == family and target in backwards.targets_of(rule) for rule in rules.all_rules()
    ):
        pytest.skip(f"no rule of {family} for {target}")
    weights = draw_like_trained(model, keywords)
    path = tmp_path / "theirs.safetensors"
    if (model, keywords.get("activation"), target) in LACKING:
        with pytest.raises(UserError, match="this network has model"):
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
    np.testing.assert_allclose(compute_scores(weights, images), expected, atol=1e-4)
