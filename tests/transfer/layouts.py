"""Checkpoints of networks of ours under names that no rule knows, written by hand for each way of naming.

A layout takes our arrays by path and gives theirs by name, in the order in which its program would save them. Nothing
here uses the tables that are tested: `dense` and `conv` transpose with NumPy.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from cnn_vit import models
from cnn_vit.nn.values import functional
from cnn_vit.transfer.matching import shapes_by_text

Arrays = dict[str, np.ndarray]
NORMS = {"weight": "scale", "bias": "bias"}


@dataclass(frozen=True)
class Layout:
    """A way of naming.

    Attributes:
        model: name of our network.
        keywords: of it.
        image_size: side in pixels.
        channels: of an image.
        write: gives our arrays their names.
        untold: keywords that no array tells, which a user would look up.
    """

    model: str
    keywords: dict
    image_size: int
    channels: int
    write: Callable[[Arrays], Arrays]
    untold: dict = field(default_factory=dict)

    def draw(self) -> Arrays:
        """Random values of our network by path; no two arrays have the same."""
        keywords = self.keywords | self.untold
        network = models.build(self.model, 5, channels=self.channels, image_size=self.image_size, **keywords)
        rng = np.random.default_rng(0)
        shapes = shapes_by_text(functional(network))
        return {path: rng.uniform(0.5, 1.5, shape).astype(np.float32) for path, shape in shapes.items()}


def norm(ours: Arrays, path: str, name: str, scale: str = "weight", bias: str = "bias") -> Arrays:
    return {f"{name}{scale}": ours[f"{path}/scale"], f"{name}{bias}": ours[f"{path}/bias"]}


def dense(ours: Arrays, path: str, name: str, *, bias: bool = True) -> Arrays:
    """A dense layer of PyTorch."""
    arrays = {f"{name}.weight": ours[f"{path}/kernel"].T.copy()}
    return arrays | ({f"{name}.bias": ours[f"{path}/bias"]} if bias else {})


def plain(ours: Arrays, path: str, name: str, *, bias: bool = True) -> Arrays:
    """A dense layer or convolution of Keras or Flax."""
    arrays = {f"{name}/kernel": ours[f"{path}/kernel"]}
    return arrays | ({f"{name}/bias": ours[f"{path}/bias"]} if bias else {})


def conv(ours: Arrays, path: str, name: str, *, bias: bool = True) -> Arrays:
    """A convolution of PyTorch."""
    arrays = {f"{name}.weight": ours[f"{path}/kernel"].transpose(3, 2, 0, 1).copy()}
    return arrays | ({f"{name}.bias": ours[f"{path}/bias"]} if bias else {})


def fused(ours: Arrays, path: str, order=("query", "key", "value"), what: str = "kernel") -> np.ndarray:
    """Queries, keys and values one under the other, as rows of a matrix of PyTorch."""
    return np.concatenate([ours[f"{path}/{part}/{what}"].T for part in order])


def flat_patches(ours: Arrays, name: str) -> Arrays:
    """A dense layer of PyTorch on patches that are flattened by row, column and color."""
    kernel = ours["patches/kernel"]
    return {f"{name}.weight": kernel.reshape(-1, kernel.shape[-1]).T.copy(), f"{name}.bias": ours["patches/bias"]}


def blocks(ours: Arrays) -> int:
    return 1 + max(int(path.split("/")[1]) for path in ours if path.startswith("blocks/"))


# Transformers ---------------------------------------------------------------------------------------------------------


def fused_pre_norm(ours: Arrays) -> Arrays:
    """As timm names them."""
    theirs = {"cls_token": ours["cls_token"][None], "pos_embed": ours["pos_embed/embedding"][None]}
    theirs |= conv(ours, "patches", "patch_embed.proj")
    for i in range(blocks(ours)):
        b = f"blocks/{i}"
        theirs |= norm(ours, f"{b}/norm1", f"blocks.{i}.norm1.")
        theirs[f"blocks.{i}.attn.qkv.weight"] = fused(ours, f"{b}/attention")
        theirs[f"blocks.{i}.attn.qkv.bias"] = fused(ours, f"{b}/attention", what="bias")
        theirs |= dense(ours, f"{b}/attention/out", f"blocks.{i}.attn.proj")
        theirs |= norm(ours, f"{b}/norm2", f"blocks.{i}.norm2.")
        theirs |= dense(ours, f"{b}/mlp/dense1", f"blocks.{i}.mlp.fc1")
        theirs |= dense(ours, f"{b}/mlp/dense2", f"blocks.{i}.mlp.fc2")
    return theirs | norm(ours, "norm", "norm.") | dense(ours, "head", "head")


def separate_pre_norm(ours: Arrays) -> Arrays:
    """As Hugging Face's code names them, in a wrapper."""
    theirs = {"vit.embeddings.cls_token": ours["cls_token"][None]}
    theirs["vit.embeddings.position_embeddings"] = ours["pos_embed/embedding"][None]
    theirs |= conv(ours, "patches", "vit.embeddings.patch_embeddings.projection")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"vit.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            theirs |= dense(ours, f"{b}/attention/{part}", f"{n}.attention.attention.{part}")
        theirs |= dense(ours, f"{b}/attention/out", f"{n}.attention.output.dense")
        theirs |= dense(ours, f"{b}/mlp/dense1", f"{n}.intermediate.dense")
        theirs |= dense(ours, f"{b}/mlp/dense2", f"{n}.output.dense")
        theirs |= norm(ours, f"{b}/norm1", f"{n}.layernorm_before.")
        theirs |= norm(ours, f"{b}/norm2", f"{n}.layernorm_after.")
    return theirs | norm(ours, "norm", "vit.layernorm.") | dense(ours, "head", "classifier")


def encoder_layers(ours: Arrays, name: str) -> Arrays:
    """The layers of `nn.TransformerEncoder`."""
    theirs: Arrays = {}
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"{name}.layers.{i}"
        theirs[f"{n}.self_attn.in_proj_weight"] = fused(ours, f"{b}/attention")
        theirs[f"{n}.self_attn.in_proj_bias"] = fused(ours, f"{b}/attention", what="bias")
        theirs |= dense(ours, f"{b}/attention/out", f"{n}.self_attn.out_proj")
        theirs |= dense(ours, f"{b}/mlp/dense1", f"{n}.linear1") | dense(ours, f"{b}/mlp/dense2", f"{n}.linear2")
        theirs |= norm(ours, f"{b}/norm1", f"{n}.norm1.") | norm(ours, f"{b}/norm2", f"{n}.norm2.")
    return theirs


def encoder_post_norm(ours: Arrays) -> Arrays:
    """`nn.TransformerEncoder` as it is by default, on flattened patches, with an average behind it."""
    theirs = {"pos": ours["pos_embed/embedding"][None]} | flat_patches(ours, "to_token")
    return theirs | encoder_layers(ours, "encoder") | dense(ours, "head", "fc")


def encoder_pre_norm(ours: Arrays) -> Arrays:
    """`nn.TransformerEncoder` with norm_first and a norm, from several devices."""
    theirs = {"class_token": ours["cls_token"][None], "position.weight": ours["pos_embed/embedding"]}
    theirs |= conv(ours, "patches", "stem") | encoder_layers(ours, "encoder")
    theirs |= norm(ours, "norm", "encoder.norm.") | dense(ours, "head", "head")
    return {f"module.{name}": array for name, array in theirs.items()}


def nested_lists(ours: Arrays) -> Arrays:
    """Lists in lists, whose layers have numbers for names, and queries, keys and values without bias."""
    theirs = {"pos_embedding": ours["pos_embed/embedding"][None], "cls_token": ours["cls_token"][None]}
    theirs |= flat_patches(ours, "to_patch_embedding.1")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"transformer.layers.{i}"
        theirs |= norm(ours, f"{b}/norm1", f"{n}.0.norm.")
        theirs[f"{n}.0.fn.to_qkv.weight"] = fused(ours, f"{b}/attention")
        theirs |= dense(ours, f"{b}/attention/out", f"{n}.0.fn.to_out.0")
        theirs |= norm(ours, f"{b}/norm2", f"{n}.1.norm.")
        theirs |= dense(ours, f"{b}/mlp/dense1", f"{n}.1.fn.net.0") | dense(ours, f"{b}/mlp/dense2", f"{n}.1.fn.net.3")
    return theirs | norm(ours, "norm", "mlp_head.0.") | dense(ours, "head", "mlp_head.1")


def odd_names(ours: Arrays) -> Arrays:
    """Words of somebody's own, blocks counted from 1, and what a trainer puts in front of them."""
    theirs = {"tok": ours["cls_token"], "where": ours["pos_embed/embedding"]}
    theirs |= conv(ours, "patches", "cut")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"stack.{i + 1}"
        theirs |= norm(ours, f"{b}/norm1", f"{n}.ln_a.")
        for part, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            theirs |= dense(ours, f"{b}/attention/{part}", f"{n}.look.w{letter}")
        theirs |= norm(ours, f"{b}/norm2", f"{n}.ln_b.")
        theirs |= dense(ours, f"{b}/mlp/dense1", f"{n}.think.up") | dense(ours, f"{b}/mlp/dense2", f"{n}.think.down")
    theirs |= norm(ours, "norm", "last_ln.") | dense(ours, "head", "answer")
    wrapped = {f"state_dict.net.{name}": array for name, array in theirs.items()}
    return wrapped | {"optimizer.state.0.exp_avg": np.zeros((4, 4), np.float32)}


def with_heads(ours: Arrays, path: str, name: str, heads: int) -> Arrays:
    """Attention of Keras and Flax: the heads have an axis of their own."""
    theirs: Arrays = {}
    for part in ("query", "key", "value"):
        kernel = ours[f"{path}/{part}/kernel"]
        theirs[f"{name}/{part}/kernel"] = kernel.reshape(len(kernel), heads, -1)
        theirs[f"{name}/{part}/bias"] = ours[f"{path}/{part}/bias"].reshape(heads, -1)
    return theirs


def keras_numbers(ours: Arrays) -> Arrays:
    """Layers that Keras numbers by kind."""

    def numbered(name: str, number: int) -> str:
        return f"{name}_{number}" if number else name

    heads = 3
    theirs = plain(ours, "patches", "dense")
    theirs["dense/kernel"] = theirs["dense/kernel"].reshape(-1, theirs["dense/kernel"].shape[-1])
    theirs["position_embedding/embeddings"] = ours["pos_embed/embedding"]
    for i in range(blocks(ours)):
        b = f"blocks/{i}"
        theirs |= norm(ours, f"{b}/norm1", numbered("layer_normalization", 2 * i) + "/", "gamma", "beta")
        name = numbered("multi_head_attention", i)
        theirs |= with_heads(ours, f"{b}/attention", name, heads)
        kernel = ours[f"{b}/attention/out/kernel"]
        theirs[f"{name}/attention_output/kernel"] = kernel.reshape(heads, -1, kernel.shape[1])
        theirs[f"{name}/attention_output/bias"] = ours[f"{b}/attention/out/bias"]
        theirs |= norm(ours, f"{b}/norm2", numbered("layer_normalization", 2 * i + 1) + "/", "gamma", "beta")
        theirs |= plain(ours, f"{b}/mlp/dense1", numbered("dense", 2 * i + 1))
        theirs |= plain(ours, f"{b}/mlp/dense2", numbered("dense", 2 * i + 2))
    last = blocks(ours)
    theirs |= norm(ours, "norm", numbered("layer_normalization", 2 * last) + "/", "gamma", "beta")
    return theirs | plain(ours, "head", numbered("dense", 2 * last + 1))


def flax_names(ours: Arrays) -> Arrays:
    """As Google's code names them, sorted as an archive has them."""
    heads = 3
    theirs = {
        "cls": ours["cls_token"][None],
        "Transformer/posembed_input/pos_embedding": ours["pos_embed/embedding"][None],
    }
    theirs |= plain(ours, "patches", "embedding")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"Transformer/encoderblock_{i}"
        theirs |= norm(ours, f"{b}/norm1", f"{n}/LayerNorm_0/", "scale")
        name = f"{n}/MultiHeadDotProductAttention_1"
        theirs |= with_heads(ours, f"{b}/attention", name, heads)
        kernel = ours[f"{b}/attention/out/kernel"]
        theirs[f"{name}/out/kernel"] = kernel.reshape(heads, -1, kernel.shape[1])
        theirs[f"{name}/out/bias"] = ours[f"{b}/attention/out/bias"]
        theirs |= norm(ours, f"{b}/norm2", f"{n}/LayerNorm_2/", "scale")
        theirs |= plain(ours, f"{b}/mlp/dense1", f"{n}/MlpBlock_3/Dense_0")
        theirs |= plain(ours, f"{b}/mlp/dense2", f"{n}/MlpBlock_3/Dense_1")
    theirs |= norm(ours, "norm", "Transformer/encoder_norm/", "scale") | plain(ours, "head", "head")
    return dict(sorted(theirs.items()))


def columns(ours: Arrays) -> Arrays:
    """As GPT-2's code names them: matrices (in, out), with queries, keys and values side by side as columns."""
    theirs = {"pos_wpe.weight": ours["pos_embed/embedding"]} | conv(ours, "patches", "wte")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"h.{i}"
        theirs |= norm(ours, f"{b}/norm1", f"{n}.ln_1.")
        theirs[f"{n}.attn.c_attn.weight"] = fused(ours, f"{b}/attention").T.copy()
        theirs[f"{n}.attn.c_attn.bias"] = fused(ours, f"{b}/attention", what="bias")
        for path, name in (("attention/out", "attn.c_proj"),):
            theirs[f"{n}.{name}.weight"] = ours[f"{b}/{path}/kernel"]
            theirs[f"{n}.{name}.bias"] = ours[f"{b}/{path}/bias"]
        theirs |= norm(ours, f"{b}/norm2", f"{n}.ln_2.")
        for path, name in (("mlp/dense1", "mlp.c_fc"), ("mlp/dense2", "mlp.c_proj")):
            theirs[f"{n}.{name}.weight"] = ours[f"{b}/{path}/kernel"]
            theirs[f"{n}.{name}.bias"] = ours[f"{b}/{path}/bias"]
    theirs |= norm(ours, "norm", "ln_f.")
    return theirs | {"lm_head.weight": ours["head/kernel"].T.copy(), "lm_head.bias": ours["head/bias"]}


def underscores(ours: Arrays) -> Arrays:
    """One word for each array, as in archives of NumPy; matrices are (in, out)."""
    theirs = {"cls_token": ours["cls_token"], "pos_emb": ours["pos_embed/embedding"]}
    kernel = ours["patches/kernel"]
    theirs |= {"patch_w": kernel.reshape(-1, kernel.shape[-1]), "patch_b": ours["patches/bias"]}
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"block{i}"
        theirs |= norm(ours, f"{b}/norm1", f"{n}_ln1_", "g", "b")
        for part in ("query", "key", "value", "out"):
            theirs[f"{n}_attn_{part}_w"] = ours[f"{b}/attention/{part}/kernel"]
            theirs[f"{n}_attn_{part}_b"] = ours[f"{b}/attention/{part}/bias"]
        theirs |= norm(ours, f"{b}/norm2", f"{n}_ln2_", "g", "b")
        for number in (1, 2):
            theirs[f"{n}_mlp{number}_w"] = ours[f"{b}/mlp/dense{number}/kernel"]
            theirs[f"{n}_mlp{number}_b"] = ours[f"{b}/mlp/dense{number}/bias"]
    theirs |= norm(ours, "norm", "final_ln_", "g", "b")
    return theirs | {"head_w": ours["head/kernel"], "head_b": ours["head/bias"]}


def bare_parameters(ours: Arrays) -> Arrays:
    """Parameters of a module itself, called by letters; the blocks and their norm stand in one list."""
    theirs = {"pos": ours["pos_embed/embedding"][None]} | conv(ours, "patches", "patchify")
    for i in range(blocks(ours)):
        b, n = f"blocks/{i}", f"encoder.{i}"
        for part, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            theirs[f"{n}.attn.W_{letter}"] = ours[f"{b}/attention/{part}/kernel"]
            theirs[f"{n}.attn.b_{letter}"] = ours[f"{b}/attention/{part}/bias"]
        for number in (1, 2):
            theirs[f"{n}.ffn.w{number}"] = ours[f"{b}/mlp/dense{number}/kernel"]
            theirs[f"{n}.ffn.b{number}"] = ours[f"{b}/mlp/dense{number}/bias"]
        theirs |= norm(ours, f"{b}/norm1", f"{n}.norm_attn.", "a_2", "b_2")
        theirs |= norm(ours, f"{b}/norm2", f"{n}.norm_ffn.", "a_2", "b_2")
    theirs |= norm(ours, "norm", f"encoder.{blocks(ours)}.", "a_2", "b_2")
    return theirs | {"out.W": ours["head/kernel"], "out.b": ours["head/bias"]}


def patch_norms(ours: Arrays) -> Arrays:
    """Norms before and behind the projection of patches, which stands in an `nn.Sequential` with them."""
    theirs = (
        norm(ours, "patches/norm", "embed.1.") | flat_patches(ours, "embed.2") | norm(ours, "patch_norm", "embed.3.")
    )
    inner = fused_pre_norm({path: array for path, array in ours.items() if path != "patch_norm"})
    return theirs | {name: array for name, array in inner.items() if not name.startswith("patch_embed")}


def keras_groups(ours: Arrays) -> Arrays:
    """Keras' numbers in HDF5: groups in groups of the same name, and a colon behind each array."""
    theirs = {}
    for name, array in keras_numbers(ours).items():
        layer, _, rest = name.partition("/")
        theirs[f"{layer}/{layer}/{rest}:0"] = array
    return dict(sorted(theirs.items()))


# Convolutions ---------------------------------------------------------------------------------------------------------


def flatten(ours: Arrays, path: str, name: str, channels: int) -> Arrays:
    """The first dense layer behind a map that PyTorch flattens with its channels first."""
    kernel = ours[f"{path}/kernel"]
    side = int((len(kernel) // channels) ** 0.5)
    spread = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
    return {f"{name}.weight": spread.reshape(len(kernel), -1).T.copy(), f"{name}.bias": ours[f"{path}/bias"]}


def sequential(ours: Arrays) -> Arrays:
    """`nn.Sequential` of convolution, relu, pooling, twice, then flattened: numbers alone."""
    theirs = conv(ours, "stages/0/convolutions/0", "0") | conv(ours, "stages/1/convolutions/0", "3")
    return theirs | flatten(ours, "hidden/layers/0", "6", 10) | dense(ours, "head", "8")


def sequential_batch_norm(ours: Arrays) -> Arrays:
    """Convolutions with batch norm in stages of two, then an average."""
    theirs: Arrays = {}
    number = 0
    for s in range(2):
        for c in range(2):
            theirs |= conv(ours, f"stages/{s}/convolutions/{c}", f"features.{number}", bias=False)
            n, p = f"features.{number + 1}", f"stages/{s}/norms/{c}"
            theirs |= norm(ours, p, f"{n}.")
            theirs |= {f"{n}.running_mean": ours[f"{p}/mean"], f"{n}.running_var": ours[f"{p}/var"]}
            theirs[f"{n}.num_batches_tracked"] = np.array(7)
            number += 3
        number += 1
    return theirs | dense(ours, "head", "classifier")


def many_convolutions(ours: Arrays) -> Arrays:
    """More layers than ten, in the order of their names as text."""
    theirs: Arrays = {}
    for i in range(11):
        theirs |= conv(ours, f"stages/{i}/convolutions/0", f"conv{i + 1}")
    return dict(sorted((theirs | dense(ours, "head", "fc")).items()))


def keras_cnn(ours: Arrays) -> Arrays:
    """Keras' Sequential, which flattens maps as ours do."""
    theirs = plain(ours, "stages/0/convolutions/0", "conv2d") | plain(ours, "stages/1/convolutions/0", "conv2d_1")
    return theirs | plain(ours, "hidden/layers/0", "dense") | plain(ours, "head", "dense_1")


VIT = {"width": 12, "depth": 2, "hidden": 20}
HEADS = {"heads": 3, "activation": "gelu"}
CNN = {"filters": (6, 10), "convolutions": 1, "batch_norm": False, "head": "dense", "hidden": (14,)}
LAYOUTS = {
    "fused, pre-norm": Layout("vit/Ti4", VIT, 8, 3, fused_pre_norm, HEADS),
    "separate, pre-norm": Layout("vit/Ti4", VIT, 8, 3, separate_pre_norm, HEADS),
    "encoder, post-norm": Layout("vit/Ti4-gap", VIT | {"norm": "post"}, 8, 3, encoder_post_norm, HEADS),
    "encoder, pre-norm": Layout("vit/Ti4", VIT, 12, 3, encoder_pre_norm, HEADS),
    "nested lists": Layout("vit/Ti4", VIT | {"qkv_bias": False}, 8, 1, nested_lists, HEADS | {"head_width": 5}),
    "odd names": Layout("vit/Ti4", VIT, 8, 3, odd_names, HEADS),
    "Keras numbers": Layout("vit/Ti4-gap", VIT | {"heads": 3}, 8, 3, keras_numbers, {"activation": "gelu"}),
    "Flax names": Layout("vit/Ti4", VIT | {"heads": 3}, 8, 3, flax_names, {"activation": "gelu_tanh"}),
    "columns": Layout("vit/Ti4-gap", VIT, 8, 3, columns, HEADS),
    "Sequential": Layout("cnn/small", CNN, 16, 3, sequential, {"pooling": "max"}),
    "Sequential, batch norm": Layout(
        "cnn/small", {"filters": (6, 10), "convolutions": 2}, 16, 3, sequential_batch_norm, {"pooling": "max"}
    ),
    "underscores": Layout("vit/Ti4", VIT, 8, 3, underscores, HEADS),
    "bare parameters": Layout("vit/Ti4-gap", VIT, 8, 3, bare_parameters, HEADS),
    "norms of patches": Layout("vit/Ti4", VIT | {"patch_norm": True}, 8, 1, patch_norms, HEADS),
    "Keras groups": Layout("vit/Ti4-gap", VIT | {"heads": 3}, 8, 3, keras_groups, {"activation": "gelu"}),
    "many convolutions": Layout(
        "cnn/small",
        {"filters": tuple(range(4, 15)), "convolutions": 1, "batch_norm": False},
        16,
        3,
        many_convolutions,
        {"pooling": "none"},
    ),
    "Keras CNN": Layout("cnn/small", CNN, 16, 3, keras_cnn, {"pooling": "max"}),
}
