"""The arm `nnx`: the same networks as a tutorial writes them, of flax's own layers, with nnx.jit and nnx.Optimizer.

Attributes have the names that they have in this package, so that a value's path says where it belongs; only attention
and the table of positions have other shapes there.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from train_parts.job import Job, count_threads, draw_batch, mean_and_std
from train_parts.rows import MOMENTUM, Row


class LeNet(nnx.Module):
    """LeNet-5 on images of 28 pixels, as in models/lenet.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.hidden = nnx.Dict(layers=nnx.List([nnx.Linear(400, 120, rngs=rngs), nnx.Linear(120, 84, rngs=rngs)]))
        self.head = nnx.Linear(84, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        x = nnx.avg_pool(jnp.tanh(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(jnp.tanh(self.conv2(x)), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden.layers:
            x = jnp.tanh(layer(x))
        return self.head(x)


class CNN(nnx.Module):
    """Convolutions of 3x3 with a bias, rectifiers and max pooling, then dense layers, as in models/cnn.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs, *, filters: tuple[int, ...], hidden: tuple[int, ...]):
        stages = []
        side, channels = row.image_shape[1:]
        for width in filters:
            stages.append(nnx.Dict(convolutions=nnx.List([nnx.Conv(channels, width, (3, 3), padding=1, rngs=rngs)])))
            side, channels = side // 2, width
        self.stages = nnx.List(stages)
        layers = []
        features = side * side * channels
        for units in hidden:
            layers.append(nnx.Linear(features, units, rngs=rngs))
            features = units
        self.hidden = nnx.Dict(layers=nnx.List(layers))
        self.head = nnx.Linear(features, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        for stage in self.stages:
            x = nnx.max_pool(nnx.relu(stage.convolutions[0](x)), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        for layer in self.hidden.layers:
            x = nnx.relu(layer(x))
        return self.head(x)


def conv(channels: int, filters: int, side: int, rngs: nnx.Rngs, *, stride: int = 1, groups: int = 1) -> nnx.Conv:
    """A convolution without bias that pads its image by half its side."""
    return nnx.Conv(
        channels,
        filters,
        (side, side),
        strides=stride,
        padding=side // 2,
        feature_group_count=groups,
        use_bias=False,
        rngs=rngs,
    )


batch_norm = partial(nnx.BatchNorm, momentum=0.9)


class SmallBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut without parameters, as in models/cifar_resnet.py."""

    def __init__(self, channels: int, filters: int, rngs: nnx.Rngs, *, stride: int):
        self.conv1 = conv(channels, filters, 3, rngs, stride=stride)
        self.norm1 = batch_norm(filters, rngs=rngs)
        self.conv2 = conv(filters, filters, 3, rngs)
        self.norm2 = batch_norm(filters, rngs=rngs)
        self.stride = stride
        self.missing = (filters - channels) // 2

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        shortcut = x[:, :: self.stride, :: self.stride]
        shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (self.missing, self.missing)))
        return nnx.relu(y + shortcut)


class SmallResNet(nnx.Module):
    """ResNet for small images, as in models/cifar_resnet.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs, *, blocks: int):
        self.stem = conv(row.image_shape[2], 16, 3, rngs)
        self.stem_norm = batch_norm(16, rngs=rngs)
        stages = []
        channels = 16
        for filters in (16, 32, 64):
            stage = []
            for i in range(blocks):
                stride = 2 if i == 0 and filters > 16 else 1
                stage.append(SmallBlock(channels, filters, rngs, stride=stride))
                channels = filters
            stages.append(nnx.Dict(blocks=nnx.List(stage)))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(64, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        x = nnx.relu(self.stem_norm(self.stem(x)))
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((1, 2)))


class Projection(nnx.Module):
    """A 1x1 convolution and batch norm."""

    def __init__(self, channels: int, filters: int, rngs: nnx.Rngs, *, stride: int):
        self.conv = conv(channels, filters, 1, rngs, stride=stride)
        self.norm = batch_norm(filters, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        return self.norm(self.conv(x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 with the stride, 1x1, as in models/resnet.py."""

    def __init__(self, channels: int, inner: int, filters: int, rngs: nnx.Rngs, *, stride: int, groups: int):
        self.conv1 = conv(channels, inner, 1, rngs)
        self.norm1 = batch_norm(inner, rngs=rngs)
        self.conv2 = conv(inner, inner, 3, rngs, stride=stride, groups=groups)
        self.norm2 = batch_norm(inner, rngs=rngs)
        self.conv3 = conv(inner, filters, 1, rngs)
        self.norm3 = batch_norm(filters, rngs=rngs)
        has_projection = stride != 1 or channels != filters
        self.shortcut = Projection(channels, filters, rngs, stride=stride) if has_projection else None

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nnx.Module):
    """ResNet-50 and ResNeXt-50, as in models/resnet.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs, *, blocks: tuple[int, ...], groups: int = 1, group_width: int = 64):
        self.stem = conv(row.image_shape[2], 64, 7, rngs, stride=2)
        self.stem_norm = batch_norm(64, rngs=rngs)
        stages = []
        channels = 64
        for number, count in enumerate(blocks):
            inner, filters = groups * group_width * 2**number, 256 * 2**number
            stage = []
            for i in range(count):
                stride = 2 if i == 0 and number > 0 else 1
                stage.append(Bottleneck(channels, inner, filters, rngs, stride=stride, groups=groups))
                channels = filters
            stages.append(nnx.Dict(blocks=nnx.List(stage)))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(channels, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        x = nnx.relu(self.stem_norm(self.stem(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((1, 2)))


class Separable(nnx.Module):
    """A 3x3 filter for each channel by itself, then a 1x1 convolution, as in models/mobilenet_v1.py."""

    def __init__(self, channels: int, filters: int, rngs: nnx.Rngs, *, stride: int):
        self.depthwise = keras_conv(channels, channels, rngs, stride=stride, groups=channels)
        self.depthwise_norm = keras_norm(channels, rngs=rngs)
        self.pointwise = conv(channels, filters, 1, rngs)
        self.pointwise_norm = keras_norm(filters, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, I) -> (B, Y, X, O)
        x = nnx.relu6(self.depthwise_norm(self.depthwise(x)))
        return nnx.relu6(self.pointwise_norm(self.pointwise(x)))


def keras_conv(channels: int, filters: int, rngs: nnx.Rngs, *, stride: int, groups: int = 1) -> nnx.Conv:
    """A 3x3 convolution without bias that pads as Keras' MobileNet does: right and bottom alone where it strides."""
    before = 1 if stride == 1 else 0
    return nnx.Conv(
        channels,
        filters,
        (3, 3),
        strides=stride,
        padding=((before, 1), (before, 1)),
        feature_group_count=groups,
        use_bias=False,
        rngs=rngs,
    )


keras_norm = partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-3)


class MobileNet(nnx.Module):
    """MobileNet of the first version, as in models/mobilenet_v1.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs, *, filters: int, blocks: tuple[int, ...]):
        self.stem = keras_conv(row.image_shape[2], filters, rngs, stride=2)
        self.stem_norm = keras_norm(filters, rngs=rngs)
        stages = []
        channels = filters
        for number, count in enumerate(blocks):
            stage = []
            for i in range(count):
                stride = 2 if i == 0 and number > 0 else 1
                stage.append(Separable(channels, filters * 2 ** (number + 1), rngs, stride=stride))
                channels = filters * 2 ** (number + 1)
            stages.append(nnx.Dict(blocks=nnx.List(stage)))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(channels, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        x = nnx.relu6(self.stem_norm(self.stem(x)))
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((1, 2)))


class TransformerBlock(nnx.Module):
    """Attention and an MLP, each behind a layer norm, as in models/vit.py."""

    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.mlp = nnx.Dict(dense1=nnx.Linear(width, hidden, rngs=rngs), dense2=nnx.Linear(hidden, width, rngs=rngs))

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, T, D) -> (B, T, D)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp.dense2(nnx.gelu(self.mlp.dense1(self.norm2(x))))


class ViT(nnx.Module):
    """Vision transformer with a class token and learned positions, as in models/vit.py."""

    def __init__(self, row: Row, rngs: nnx.Rngs, *, patch: int, width: int, depth: int, heads: int, hidden: int):
        height, _, channels = row.image_shape
        tokens = (height // patch) ** 2 + 1
        self.patches = nnx.Conv(channels, width, (patch, patch), strides=patch, padding="VALID", rngs=rngs)
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos_embed = nnx.Dict(embedding=nnx.Param(jnp.zeros((1, tokens, width))))
        self.blocks = nnx.List([TransformerBlock(width, heads, hidden, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, row.num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:  # (B, H, W, C) -> (B, K)
        x = self.patches(x)  # (B, Y, X, D)
        x = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, N, D)
        cls_token = jnp.tile(self.cls_token[...], (x.shape[0], 1, 1))
        x = jnp.concatenate([cls_token, x], axis=1) + self.pos_embed.embedding[...]  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


NETWORKS = {
    "lenet": LeNet,
    "cnn": CNN,
    "cifar_resnet": SmallResNet,
    "resnet": ResNet,
    "mobilenet_v1": MobileNet,
    "vit": ViT,
}


def make_optimizer(row: Row) -> optax.GradientTransformation:
    """Returns the row's optimizer as optax's aliases write it."""
    if row.optimizer == "adamw":
        return optax.adamw(row.learning_rate, weight_decay=row.weight_decay)
    return optax.chain(optax.add_decayed_weights(row.weight_decay), optax.sgd(row.learning_rate, momentum=MOMENTUM))


def build_network(job: Job) -> nnx.Module:
    """Builds the row's network with the initial values; each must have its place, and each place its value."""
    model = NETWORKS[job.row.family](job.row, nnx.Rngs(0), **job.row.sizes)
    with np.load(job.values) as arrays:
        values = dict(arrays)
    for kind, prefix in ((nnx.Param, "params"), (nnx.BatchStat, "stats")):
        filled = []
        for path, variable in nnx.to_flat_state(nnx.state(model, kind)):
            array = values.pop("/".join(map(str, (prefix, *path))))
            # of attention (D, A, E) here and (D, A * E) in the file, of positions (1, T, D) and (T, D)
            filled.append((path, variable.replace(jnp.asarray(array.reshape(variable.shape)))))
        nnx.update(model, nnx.from_flat_state(filled))
    if values:
        raise ValueError(f"the network of arm_nnx.py has no place for {sorted(values)}")
    return model


class NnxArm:
    """The tutorial's training loop, ready for its first window; the attributes are those of `OurArm`."""

    def __init__(self, job: Job):
        self.job = job
        row = job.row
        self.model = build_network(job)
        self.optimizer = nnx.Optimizer(self.model, make_optimizer(row), wrt=nnx.Param)
        self.batch = draw_batch(row)
        mean, std = mean_and_std(row)

        def normalize(images):
            return (images.astype(jnp.float32) / 255 - mean) / std

        @nnx.jit
        def train_step(model, optimizer, images, labels):
            def mean_loss(model):
                scores = model(normalize(images))
                return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

            loss, grads = nnx.value_and_grad(mean_loss)(model)
            optimizer.update(model, grads)
            return loss

        @nnx.jit
        def predict(model, images):
            return model(normalize(images))

        self.train_step, self.predict = train_step, predict
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self.model, nnx.Param)))
        began = time.perf_counter()
        self.model.train()
        compiled = self.train_step.lower(self.model, self.optimizer, *self.batch).compile()
        self.compile_seconds = time.perf_counter() - began
        memory = compiled.memory_analysis()
        self.temp_bytes = memory.temp_size_in_bytes if memory else None
        self.first_step_at = 0.0

    def scores(self) -> np.ndarray:
        """Returns the scores of the batch, (B, K)."""
        self.model.eval()
        return np.asarray(self.predict(self.model, self.batch[0]))

    def start_step(self) -> jax.Array:
        """Starts one step; returns its loss, which is not computed yet."""
        return self.train_step(self.model, self.optimizer, *self.batch)

    def step(self) -> float:
        """Takes one step, and returns its loss."""
        self.model.train()
        loss = float(self.start_step())
        self.first_step_at = self.first_step_at or time.perf_counter()
        return loss

    def run(self, work: str, steps: int) -> int:
        """Does a work so many times; returns how many images that were."""
        if work == "step":
            self.model.train()
            for _ in range(steps):
                answer = self.start_step()
        else:
            self.model.eval()
            for _ in range(steps):
                answer = self.predict(self.model, self.batch[0])
        jax.block_until_ready(answer)
        return steps * self.job.row.batch_size

    def threads(self) -> int | None:
        """Counts the threads that compute; None on an accelerator."""
        return count_threads("tf_XLAEigen") if self.device_kind() == "cpu" else None

    def device_kind(self) -> str:
        """Returns what computes: cpu or gpu."""
        return jax.default_backend()

    def facts(self) -> dict[str, Any]:
        """Returns what else a reader of the results has to know: nothing."""
        return {}

    def peak_device_bytes(self) -> int | None:
        """Returns the most memory of an accelerator that was in use; None on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
