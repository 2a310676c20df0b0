"""Small networks of torchvision, timm and transformers themselves, filled with values that follow from names.

Their classes compute what their published files mean. Those of Google's codes are read by timm's own loader of such
files, and computed with the tanh form of GELU, which that loader leaves to its caller.

    values, compute = make("vit_timm", (16, 16))       arrays as a file has them, and images (N, H, W, C) -> scores
"""

import importlib
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from parity_values import Reference, make_images, make_values
from torch import nn
from torch_libraries import import_timm, import_torchvision, import_transformers

CLASSES = 10
WIDTH, DEPTH, HEADS, HIDDEN, PATCH = 32, 2, 4, 48, 4  # of each transformer
BLOCKS, WIDTHS = (1, 1, 2, 1), (8, 12, 16, 20)  # of the stages of each ConvNeXt
Size = tuple[int, int]
Made = tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def import_hf() -> ModuleType:
    """Imports transformers, which imports torchvision where it is."""
    if find_spec("torchvision") is not None:
        import_torchvision()
    return import_transformers()


def as_function(network: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a network as a function of images (N, H, W, C)."""
    network.eval()

    def compute(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            scores = network(torch.tensor(images).permute(0, 3, 1, 2).contiguous())
        return getattr(scores, "logits", scores).numpy()

    return compute


def fill(network: nn.Module) -> Made:
    """Fills a network with values that follow from the names of its state dict."""
    values = make_values({name: list(tensor.shape) for name, tensor in network.state_dict().items()})
    network.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
    return values, as_function(network)


# timm and torchvision -------------------------------------------------------------------------------------------------


def timm_vit(size: Size, **changes) -> nn.Module:
    """Makes a Vision Transformer of timm."""
    import_timm()
    vision_transformer = importlib.import_module("timm.models.vision_transformer")
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH}
    return vision_transformer.VisionTransformer(size, PATCH, num_classes=CLASSES, **sizes | changes)


def timm_deit(size: Size) -> nn.Module:
    """Makes a distilled DeiT of timm."""
    import_timm()
    deit = importlib.import_module("timm.models.deit")
    sizes = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": HIDDEN / WIDTH}
    return deit.VisionTransformerDistilled(size, PATCH, num_classes=CLASSES, **sizes)


def timm_convnext(size: Size) -> nn.Module:
    """Makes a ConvNeXt of timm, which takes images of any size."""
    import_timm()
    return importlib.import_module("timm.models.convnext").ConvNeXt(num_classes=CLASSES, depths=BLOCKS, dims=WIDTHS)


def torchvision_vit(size: Size) -> nn.Module:
    """Makes a Vision Transformer of torchvision, which takes square images only."""
    import_torchvision()
    vision_transformer = importlib.import_module("torchvision.models.vision_transformer")
    return vision_transformer.VisionTransformer(size[0], PATCH, DEPTH, HEADS, WIDTH, HIDDEN, num_classes=CLASSES)


def torchvision_convnext(size: Size) -> nn.Module:
    """Makes a ConvNeXt of torchvision, which takes images of any size."""
    import_torchvision()
    convnext = importlib.import_module("torchvision.models.convnext")
    stages = []
    for width, wider, count in zip(WIDTHS, (*WIDTHS[1:], None), BLOCKS, strict=True):
        stages.append(convnext.CNBlockConfig(width, wider, count))
    return convnext.ConvNeXt(stages, num_classes=CLASSES)


# transformers ---------------------------------------------------------------------------------------------------------

HF_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "patch_size": PATCH,
}


def hf_vit(size: Size) -> nn.Module:
    """Makes a Vision Transformer of transformers."""
    transformers = import_hf()
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=list(size), num_labels=CLASSES, **HF_SIZES)
    )


def hf_deit(size: Size) -> nn.Module:
    """Makes a distilled DeiT of transformers."""
    transformers = import_hf()
    return transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(image_size=list(size), num_labels=CLASSES, **HF_SIZES)
    )


def hf_convnext(size: Size) -> nn.Module:
    """Makes a ConvNeXt of transformers."""
    transformers = import_hf()
    return transformers.ConvNextForImageClassification(
        transformers.ConvNextConfig(hidden_sizes=list(WIDTHS), depths=list(BLOCKS), num_labels=CLASSES)
    )


def save_pretrained(network: nn.Module, folder: Path) -> dict[str, np.ndarray]:
    """Saves a network of transformers as its users do, and returns the arrays of the file by the names in it."""
    load_file = importlib.import_module("safetensors.numpy").load_file
    network.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def fill_saved(network: nn.Module) -> Made:
    """Fills a network with values that follow from the names that `save_pretrained` writes, and reads them back."""
    save_file = importlib.import_module("safetensors.numpy").save_file
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        shapes = {name: list(array.shape) for name, array in save_pretrained(network, folder).items()}
        values = make_values(shapes)
        save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
        loaded, report = type(network).from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"], report
        assert not report["unexpected_keys"], report
    return values, as_function(loaded)


# Google ---------------------------------------------------------------------------------------------------------------

GELU_TANH = partial(nn.GELU, approximate="tanh")


def flax_block(attention: str, norm2: str, mlp: str) -> dict[str, list[int]]:
    """Returns the shapes of a block; heads have an axis of their own."""
    each = WIDTH // HEADS
    shapes = {"LayerNorm_0/scale": [WIDTH], "LayerNorm_0/bias": [WIDTH]}
    for part in ("query", "key", "value"):
        shapes[f"{attention}/{part}/kernel"] = [WIDTH, HEADS, each]
        shapes[f"{attention}/{part}/bias"] = [HEADS, each]
    shapes[f"{attention}/out/kernel"] = [HEADS, each, WIDTH]
    shapes[f"{attention}/out/bias"] = [WIDTH]
    shapes |= {f"{norm2}/scale": [WIDTH], f"{norm2}/bias": [WIDTH]}
    shapes |= {f"{mlp}/Dense_0/kernel": [WIDTH, HIDDEN], f"{mlp}/Dense_0/bias": [HIDDEN]}
    return shapes | {f"{mlp}/Dense_1/kernel": [HIDDEN, WIDTH], f"{mlp}/Dense_1/bias": [WIDTH]}


def under(prefix: str, shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Puts a prefix before all names."""
    return {prefix + name: shape for name, shape in shapes.items()}


def flax_ends() -> dict[str, list[int]]:
    """Returns the shapes of what stands before and behind the blocks."""
    return {
        "embedding/kernel": [PATCH, PATCH, 3, WIDTH],
        "embedding/bias": [WIDTH],
        "Transformer/encoder_norm/scale": [WIDTH],
        "Transformer/encoder_norm/bias": [WIDTH],
        "head/kernel": [WIDTH, CLASSES],
        "head/bias": [CLASSES],
    }


def vision_transformer_shapes(size: Size) -> dict[str, list[int]]:
    """Returns the shapes of a file of vision_transformer, whose class token has a row of positions."""
    tokens = size[0] // PATCH * (size[1] // PATCH)
    shapes = flax_ends() | {"cls": [1, 1, WIDTH]}
    shapes["Transformer/posembed_input/pos_embedding"] = [1, 1 + tokens, WIDTH]
    block = flax_block("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
    for number in range(DEPTH):
        shapes |= under(f"Transformer/encoderblock_{number}/", block)
    return shapes


def big_vision_shapes(size: Size, *, stacked: bool) -> dict[str, list[int]]:
    """Returns the shapes of a file of big_vision with a MAP head, its blocks apart or stacked."""
    tokens = size[0] // PATCH * (size[1] // PATCH)
    shapes = flax_ends() | {"pos_embedding": [1, tokens, WIDTH], "MAPHead_0/probe": [1, 1, WIDTH]}
    block = flax_block("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    for name, shape in block.items():
        if not name.startswith("LayerNorm"):
            shapes[f"MAPHead_0/{name}"] = shape
    shapes |= {"MAPHead_0/LayerNorm_0/scale": [WIDTH], "MAPHead_0/LayerNorm_0/bias": [WIDTH]}
    if stacked:
        return shapes | under("Transformer/encoderblock/", {name: [DEPTH, *shape] for name, shape in block.items()})
    for number in range(DEPTH):
        shapes |= under(f"Transformer/encoderblock_{number}/", block)
    return shapes


def load_npz(network: nn.Module, values: dict[str, np.ndarray]) -> nn.Module:
    """Loads arrays under Google's names by timm's own loader."""
    with tempfile.TemporaryDirectory() as text:
        path = Path(text) / "net.npz"
        np.savez(path, **values)
        network.load_pretrained(str(path))
    return network


def google(size: Size) -> Made:
    """Makes a file of vision_transformer."""
    values = make_values(vision_transformer_shapes(size))
    return values, as_function(load_npz(timm_vit(size, act_layer=GELU_TANH), values))


def google_pre_logits(size: Size) -> Made:
    """Makes a file of vision_transformer with a dense layer and tanh before the head, which timm no longer reads."""
    values = make_values(
        vision_transformer_shapes(size) | {"pre_logits/kernel": [WIDTH, WIDTH], "pre_logits/bias": [WIDTH]}
    )
    network = load_npz(timm_vit(size, act_layer=GELU_TANH), values)
    dense = nn.Linear(WIDTH, WIDTH)
    dense.weight.data = torch.tensor(values["pre_logits/kernel"].T)
    dense.bias.data = torch.tensor(values["pre_logits/bias"])
    network.head = nn.Sequential(dense, nn.Tanh(), network.head)
    return values, as_function(network)


def big_vision(size: Size, *, stacked: bool, prefix: str = "") -> Made:
    """Makes a file of big_vision with a MAP head."""
    values = make_values(under(prefix, big_vision_shapes(size, stacked=stacked)))
    network = timm_vit(size, act_layer=GELU_TANH, class_token=False, global_pool="map")
    return values, as_function(load_npz(network, values))


def big_vision_average(size: Size) -> Made:
    """Makes a file of big_vision that averages its tokens behind the last norm."""
    shapes = {}
    for name, shape in big_vision_shapes(size, stacked=False).items():
        if not name.startswith("MAPHead"):
            shapes[name] = shape
    values = make_values(shapes)
    network = timm_vit(size, act_layer=GELU_TANH, class_token=False, global_pool="avg", fc_norm=False)
    return values, as_function(load_npz(network, values))


def big_vision_token(size: Size) -> Made:
    """Makes a file of big_vision whose class token has no row of positions."""
    shapes = {"cls": [1, 1, WIDTH]}
    for name, shape in big_vision_shapes(size, stacked=False).items():
        if not name.startswith("MAPHead"):
            shapes[name] = shape
    values = make_values(shapes)
    network = timm_vit(size, act_layer=GELU_TANH, no_embed_class=True)
    return values, as_function(load_npz(network, values))


# All of them ----------------------------------------------------------------------------------------------------------

# What no shape of these small networks tells.
HEADS_SAID = {"heads": HEADS}
# By the name of the stored scores: how a network is made, and what our network is told.
NETWORKS: dict[str, tuple[Callable[[Size], Made], dict, Size]] = {
    "vit_timm": (lambda size: fill(timm_vit(size)), HEADS_SAID, (16, 16)),
    "vit_torchvision": (lambda size: fill(torchvision_vit(size)), HEADS_SAID, (16, 16)),
    "vit_hf": (lambda size: fill_saved(hf_vit(size)), HEADS_SAID, (16, 16)),
    "vit_hf_5": (lambda size: fill(hf_vit(size)), HEADS_SAID, (16, 16)),
    "vit_google": (google, {}, (16, 16)),
    "vit_google_pre_logits": (google_pre_logits, {}, (16, 16)),
    "vit_big_vision": (partial(big_vision, stacked=False), {}, (16, 16)),
    "vit_big_vision_stacked": (partial(big_vision, stacked=True, prefix="params/"), {}, (16, 16)),
    "deit": (lambda size: fill(timm_deit(size)), HEADS_SAID, (16, 16)),
    "deit_hf": (lambda size: fill_saved(hf_deit(size)), HEADS_SAID, (16, 16)),
    "convnext": (lambda size: fill(timm_convnext(size)), {}, (40, 32)),
    "convnext_torchvision": (lambda size: fill(torchvision_convnext(size)), {}, (40, 32)),
    "convnext_hf": (lambda size: fill_saved(hf_convnext(size)), {}, (40, 32)),
}
# Only compared live: they add nothing but another way to say the same.
MORE: dict[str, tuple[Callable[[Size], Made], dict, Size]] = {
    "vit_timm_map": (
        lambda size: fill(timm_vit(size, class_token=False, global_pool="map")), HEADS_SAID, (16, 16)
    ),
    "vit_timm_average": (
        lambda size: fill(timm_vit(size, class_token=False, global_pool="avg", fc_norm=False)), HEADS_SAID, (16, 16)
    ),
    "vit_timm_token": (lambda size: fill(timm_vit(size, no_embed_class=True, qkv_bias=False)), HEADS_SAID, (16, 16)),
    "vit_big_vision_average": (big_vision_average, {}, (16, 16)),
    "vit_big_vision_token": (big_vision_token, {}, (16, 16)),
    "deit_hf_5": (lambda size: fill(hf_deit(size)), HEADS_SAID, (16, 16)),
}  # fmt: skip
IMPORTS = {"timm": import_timm, "torchvision": import_torchvision, "hf": import_hf}


def import_program(name: str) -> ModuleType:
    """Imports the package that computes a network, timm where the name says no other; skips where it is missing."""
    for word, import_package in IMPORTS.items():
        if word in name.split("_"):
            return import_package()
    return import_timm()


def make(name: str, size: Size | None = None) -> Made:
    """Makes a network, of images of a size or of the usual one."""
    builder, _, usual = (NETWORKS | MORE)[name]
    torch.manual_seed(0)
    return builder(size or usual)


def make_reference(name: str) -> Reference:
    """Computes what is stored of a network."""
    _, keywords, size = NETWORKS[name]
    values, compute = make(name)
    shape = (2, *size, 3)
    shapes = {key: list(value.shape) for key, value in values.items()}
    package = import_program(name)
    program = f"{package.__name__} {package.__version__}, torch {torch.__version__}"
    return Reference(program, keywords, shape, shapes, compute(make_images(shape)).tolist())
