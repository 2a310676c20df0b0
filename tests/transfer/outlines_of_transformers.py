"""Outlines of published Vision Transformers, DeiTs and ConvNeXts, whose files have other names than their classes.

torchvision's files of ViT are older than the names of its code, Meta's lie under "model", Hugging Face's have the names
of version 4, and Google's those of Flax, as timm's loader pairs them.
"""

import importlib
import re
from collections.abc import Sequence

import torch
from outlines import read_source
from torch_libraries import import_timm, import_torchvision, import_transformers

from cnn_vit.transfer.catalog import NamedWeights

Shapes = dict[str, Sequence[int]]
GOOGLE = "https://storage.googleapis.com/vit_models/"
OLD_TORCHVISION = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
# As transformers' conversion_mapping.py pairs them.
OLD_HF = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
TIMM_OF_GOOGLE = {
    "Ti16": "tiny_patch16", "S32": "small_patch32", "S16": "small_patch16", "B32": "base_patch32",
    "B16": "base_patch16", "L16": "large_patch16",
}  # fmt: skip


def find_shapes(weights: NamedWeights) -> Shapes | None:
    """Returns the shape of each array of weights by its name in their file; None where it is not one of these."""
    program, name = read_source(weights)
    family = weights.model.partition("/")[0]
    with torch.device("meta"):
        if program == "torchvision" and family == "vit":
            return rename(state_shapes(torchvision_vit(name, weights.preprocessing["image_size"][0])), OLD_TORCHVISION)
        if program == "timm" and family == "deit":
            network = import_timm().create_model(name, pretrained=False)
            return {f"model.{name}": shape for name, shape in state_shapes(network).items()}
        if program == "transformers":
            return rename(state_shapes(hf_network(family)), OLD_HF)
        if weights.address.startswith(GOOGLE):
            return google_shapes(weights)
    return None


def state_shapes(network: torch.nn.Module) -> Shapes:
    """Returns the shape of each array of a network's state dict."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def rename(shapes: Shapes, words: dict[str, str]) -> Shapes:
    """Puts other words into names."""
    renamed = {}
    for name, shape in shapes.items():
        for word, other in words.items():
            name = name.replace(word, other)
        renamed[name] = shape
    return renamed


def torchvision_vit(member: str, side: int) -> torch.nn.Module:
    """Builds torchvision's Vision Transformer of a member of its enumerations, for the images of its weights."""
    models = import_torchvision().models
    enumeration = type(models.get_weight(member))
    builder = next(name for name in models.list_models() if models.get_model_weights(name) is enumeration)
    return models.get_model(builder, weights=None, image_size=side)


def hf_network(family: str) -> torch.nn.Module:
    """Builds the network of a default configuration of transformers: ViT-B/16 or ConvNeXt-T of 1,000 classes."""
    import_torchvision()
    transformers = import_transformers()
    if family == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
    return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(num_labels=1000))


def google_shapes(weights: NamedWeights) -> Shapes:
    """Names the arrays of timm's network of these sizes as Google's files do."""
    import_timm()
    size = weights.model.partition("/")[2].partition("-")[0]
    classes = 1000 if weights.trained_on[-1] == "ImageNet-1k" else 21843
    side = weights.preprocessing["image_size"][0]
    create_model = importlib.import_module("timm").create_model
    network = create_model(f"vit_{TIMM_OF_GOOGLE[size]}_{side}", num_classes=classes)
    heads = network.blocks[0].attn.num_heads
    shapes: Shapes = {}
    for name, shape in state_shapes(network).items():
        shapes |= google_arrays(name, shape, heads)
    if weights.model.endswith("-pre_logits"):
        width = shapes["head/kernel"][0]
        shapes |= {"pre_logits/kernel": [width, width], "pre_logits/bias": [width]}
    return shapes


def google_arrays(name: str, shape: Sequence[int], heads: int) -> Shapes:
    """Returns the arrays of Google's that one of timm's holds."""
    whole = {"cls_token": "cls", "pos_embed": "Transformer/posembed_input/pos_embedding"}
    if name in whole:
        return {whole[name]: shape}
    layer, _, kind = name.rpartition(".")
    block = re.match(r"blocks\.(\d+)\.(.*)", layer)
    prefix = f"Transformer/encoderblock_{block[1]}/" if block else ""
    part = block[2] if block else layer
    norms = {"norm": "Transformer/encoder_norm", "norm1": "LayerNorm_0", "norm2": "LayerNorm_2"}
    if part in norms:
        return {f"{prefix}{norms[part]}/{'scale' if kind == 'weight' else 'bias'}": shape}
    leaf = "kernel" if kind == "weight" else "bias"
    attention = f"{prefix}MultiHeadDotProductAttention_1"
    if part == "attn.qkv":
        each = [heads, shape[0] // 3 // heads]
        return {f"{attention}/{q}/{leaf}": [*shape[1:], *each] for q in ("query", "key", "value")}
    if part == "attn.proj":
        return {f"{attention}/out/{leaf}": [heads, shape[1] // heads, shape[0]] if kind == "weight" else shape}
    if part == "patch_embed.proj":
        return {f"embedding/{leaf}": [*shape[2:], shape[1], shape[0]] if kind == "weight" else shape}
    dense = {"mlp.fc1": f"{prefix}MlpBlock_3/Dense_0", "mlp.fc2": f"{prefix}MlpBlock_3/Dense_1", "head": "head"}
    return {f"{dense[part]}/{leaf}": shape[::-1]}
