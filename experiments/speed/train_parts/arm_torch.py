"""The arms `torch` and `compile`: the same networks of PyTorch's layers, channels last, with its fused optimizers.

A ViT has query, key and value in one layer, as timm has it, and PyTorch's fused attention. Modules have the names that
they have in this package; `copy_values` says how each kind of layer takes its values.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from train_parts.job import Job, draw_batch, mean_and_std, usable_cores
from train_parts.rows import CLASS_FOLDERS, END_TO_END, MOMENTUM, Row

LOADER_PROCESSES = 2  # of an arm with +workers


class Layers(nn.Module):
    """A name in the path of a value, and nothing else."""

    def __init__(self, **modules: nn.Module):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class LeNet(nn.Module):
    """LeNet-5 on images of 28 pixels, as in models/lenet.py."""

    def __init__(self, row: Row):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.hidden = Layers(layers=nn.ModuleList([nn.Linear(400, 120), nn.Linear(120, 84)]))
        self.head = nn.Linear(84, row.num_classes)
        self.flattened = (5, 16)  # side and channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2)
        x = x.flatten(1)
        for layer in self.hidden.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


class CNN(nn.Module):
    """Convolutions of 3x3 with a bias, rectifiers and max pooling, then dense layers, as in models/cnn.py."""

    def __init__(self, row: Row, *, filters: tuple[int, ...], hidden: tuple[int, ...]):
        super().__init__()
        self.stages = nn.ModuleList()
        side, channels = row.image_shape[1:]
        for width in filters:
            self.stages.append(Layers(convolutions=nn.ModuleList([nn.Conv2d(channels, width, 3, padding=1)])))
            side, channels = side // 2, width
        self.flattened = (side, channels)
        layers = nn.ModuleList()
        features = side * side * channels
        for units in hidden:
            layers.append(nn.Linear(features, units))
            features = units
        self.hidden = Layers(layers=layers)
        self.head = nn.Linear(features, row.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        for stage in self.stages:
            x = F.max_pool2d(F.relu(stage.convolutions[0](x), inplace=True), 2)
        x = x.flatten(1)
        for layer in self.hidden.layers:
            x = F.relu(layer(x), inplace=True)
        return self.head(x)


def conv(channels: int, filters: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that pads its image by half its side."""
    return nn.Conv2d(channels, filters, side, stride=stride, padding=side // 2, groups=groups, bias=False)


class SmallBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters, as in models/cifar_resnet.py."""

    def __init__(self, channels: int, filters: int, *, stride: int):
        super().__init__()
        self.conv1 = conv(channels, filters, 3, stride=stride)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = conv(filters, filters, 3)
        self.norm2 = nn.BatchNorm2d(filters)
        self.stride = stride
        self.missing = (filters - channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, I, H, W) -> (B, O, Y, X)
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.missing:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.missing, self.missing))
        return F.relu(y.add_(x), inplace=True)


class SmallResNet(nn.Module):
    """ResNet for small images, as in models/cifar_resnet.py."""

    def __init__(self, row: Row, *, blocks: int):
        super().__init__()
        self.stem = conv(row.image_shape[2], 16, 3)
        self.stem_norm = nn.BatchNorm2d(16)
        self.stages = nn.ModuleList()
        channels = 16
        for filters in (16, 32, 64):
            stage = nn.ModuleList()
            for i in range(blocks):
                stride = 2 if i == 0 and filters > 16 else 1
                stage.append(SmallBlock(channels, filters, stride=stride))
                channels = filters
            self.stages.append(Layers(blocks=stage))
        self.head = nn.Linear(64, row.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        x = F.relu(self.stem_norm(self.stem(x)), inplace=True)
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, as in models/resnet.py."""

    def __init__(self, channels: int, inner: int, filters: int, *, stride: int, groups: int):
        super().__init__()
        self.conv1 = conv(channels, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride=stride, groups=groups)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, filters, 1)
        self.norm3 = nn.BatchNorm2d(filters)
        self.shortcut = None
        if stride != 1 or channels != filters:
            self.shortcut = Layers(conv=conv(channels, filters, 1, stride=stride), norm=nn.BatchNorm2d(filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, I, H, W) -> (B, O, Y, X)
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        y = self.norm3(self.conv3(y))
        if self.shortcut is not None:
            x = self.shortcut.norm(self.shortcut.conv(x))
        return F.relu(y.add_(x), inplace=True)


class ResNet(nn.Module):
    """ResNet-50 and ResNeXt-50, as in models/resnet.py."""

    def __init__(self, row: Row, *, blocks: tuple[int, ...], groups: int = 1, group_width: int = 64):
        super().__init__()
        self.stem = conv(row.image_shape[2], 64, 7, stride=2)
        self.stem_norm = nn.BatchNorm2d(64)
        self.stages = nn.ModuleList()
        channels = 64
        for number, count in enumerate(blocks):
            inner, filters = groups * group_width * 2**number, 256 * 2**number
            stage = nn.ModuleList()
            for i in range(count):
                stride = 2 if i == 0 and number > 0 else 1
                stage.append(Bottleneck(channels, inner, filters, stride=stride, groups=groups))
                channels = filters
            self.stages.append(Layers(blocks=stage))
        self.head = nn.Linear(channels, row.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        x = F.relu(self.stem_norm(self.stem(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((2, 3)))


class Separable(nn.Module):
    """A 3x3 filter for each channel by itself, then a 1x1 convolution, as in models/mobilenet_v1.py."""

    def __init__(self, channels: int, filters: int, *, stride: int):
        super().__init__()
        self.depthwise = keras_conv(channels, channels, stride=stride, groups=channels)
        self.depthwise_norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.pointwise = conv(channels, filters, 1)
        self.pointwise_norm = nn.BatchNorm2d(filters, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, I, H, W) -> (B, O, Y, X)
        x = F.relu6(self.depthwise_norm(self.depthwise(pad_as_keras(x, self.depthwise))), inplace=True)
        return F.relu6(self.pointwise_norm(self.pointwise(x)), inplace=True)


def keras_conv(channels: int, filters: int, *, stride: int, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias; where it strides, `pad_as_keras` pads its image."""
    return nn.Conv2d(channels, filters, 3, stride=stride, padding=1 if stride == 1 else 0, groups=groups, bias=False)


def pad_as_keras(x: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """Pads an image at the right and the bottom alone, before a `keras_conv` that strides."""
    return x if layer.padding == (1, 1) else F.pad(x, (0, 1, 0, 1))


class MobileNet(nn.Module):
    """MobileNet of the first version, as in models/mobilenet_v1.py."""

    def __init__(self, row: Row, *, filters: int, blocks: tuple[int, ...]):
        super().__init__()
        self.stem = keras_conv(row.image_shape[2], filters, stride=2)
        self.stem_norm = nn.BatchNorm2d(filters, eps=1e-3)
        self.stages = nn.ModuleList()
        channels = filters
        for number, count in enumerate(blocks):
            stage = nn.ModuleList()
            for i in range(count):
                stride = 2 if i == 0 and number > 0 else 1
                stage.append(Separable(channels, filters * 2 ** (number + 1), stride=stride))
                channels = filters * 2 ** (number + 1)
            self.stages.append(Layers(blocks=stage))
        self.head = nn.Linear(channels, row.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        x = F.relu6(self.stem_norm(self.stem(pad_as_keras(x, self.stem))), inplace=True)
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Attention with query, key and value in one layer."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, D) -> (B, T, D)
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, A, T, E)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


class TransformerBlock(nn.Module):
    """Attention and an MLP, each behind a layer norm, as in models/vit.py."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Layers(dense1=nn.Linear(width, hidden), dense2=nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, T, D) -> (B, T, D)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp.dense2(F.gelu(self.mlp.dense1(self.norm2(x)), approximate="tanh"))


class Positions(nn.Module):
    """A table of learned positions."""

    def __init__(self, tokens: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(tokens, width))


class ViT(nn.Module):
    """Vision transformer with a class token and learned positions, as in models/vit.py."""

    def __init__(self, row: Row, *, patch: int, width: int, depth: int, heads: int, hidden: int):
        super().__init__()
        height, _, channels = row.image_shape
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, width))
        self.pos_embed = Positions((height // patch) ** 2 + 1, width)
        self.blocks = nn.ModuleList([TransformerBlock(width, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, row.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, K)
        x = self.patches(x).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), x], dim=1) + self.pos_embed.embedding  # (B, T, D)
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


def read_values(job: Job, flattened: tuple[int, int] | None) -> dict[str, np.ndarray]:
    """Reads the initial values, in the layout of PyTorch's layers, by path.

    Args:
        job: names the file.
        flattened: side and channels of the feature map that the first dense layer reads; None where there is none.
    """
    with np.load(job.values) as arrays:
        values = dict(arrays)
    for path in [path for path in values if "/query/" in path]:
        parts = [values.pop(path.replace("query", part)) for part in ("query", "key", "value")]
        values[path.replace("query", "qkv")] = np.concatenate(parts, axis=-1)
    if flattened:
        side, channels = flattened
        kernel = values["params/hidden/layers/0/kernel"]
        # features of a pixel are neighbors there, pixels of a feature are here
        kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        values["params/hidden/layers/0/kernel"] = kernel
    return values


def copy_values(model: nn.Module, values: dict[str, np.ndarray]) -> None:
    """Puts the initial values into the network; each must have its place, and each place its value."""

    def put(target: torch.Tensor, path: str, *axes: int) -> None:
        array = values.pop(path)
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.ascontiguousarray(array.transpose(axes) if axes else array)))

    for name, module in model.named_modules():
        path = "/".join(["params", *name.split(".")]) if name else "params"
        if isinstance(module, nn.Conv2d):
            put(module.weight, f"{path}/kernel", 3, 2, 0, 1)
        elif isinstance(module, nn.Linear):
            put(module.weight, f"{path}/kernel", 1, 0)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            put(module.weight, f"{path}/scale")
        elif isinstance(module, Positions):
            put(module.embedding, f"{path}/embedding")
        elif isinstance(module, ViT):
            put(module.cls_token, f"{path}/cls_token")
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            put(module.bias, f"{path}/bias")
        if isinstance(module, nn.BatchNorm2d):
            put(module.running_mean, f"{path}/mean".replace("params", "stats", 1))
            put(module.running_var, f"{path}/var".replace("params", "stats", 1))
    if values:
        raise ValueError(f"the network of arm_torch.py has no place for {sorted(values)}")


def build_network(job: Job) -> nn.Module:
    """Builds the row's network with the initial values."""
    model = NETWORKS[job.row.family](job.row, **job.row.sizes)
    copy_values(model, read_values(job, getattr(model, "flattened", None)))
    return model


class TrainingLoop:
    """A network with its optimizer on the device, and what one does with a batch.

    Args:
        job: the row, and how it is run.
        model: the network, with its initial values.
    """

    def __init__(self, job: Job, model: nn.Module):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.model) if job.arm.framework == "compile" else self.model
        self.optimizer = make_optimizer(job.row, self.model)
        self.is_bfloat16 = "bf16" in job.arm.modifiers
        self.mean, self.std = (
            torch.from_numpy(numbers).reshape(1, -1, 1, 1).to(self.device) for numbers in mean_and_std(job.row)
        )

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the scores of uint8 images (B, C, H, W), in the mode that the network is in."""
        x = images.to(self.device, non_blocking=True).float().div_(255).sub_(self.mean).div_(self.std)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.is_bfloat16):
            return self.forward(x)

    def learn(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Takes a step on a batch, and returns its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.score(images).float(), labels.to(self.device, non_blocking=True))
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class FolderDataset(Dataset):
    """The JPEG files FOLDER/CLASS/*, decoded by Pillow and brought to a size."""

    def __init__(self, folder: Path, size: tuple[int, int]):
        self.size = size
        self.files = []
        for label, class_folder in enumerate(sorted(folder.iterdir())):
            self.files += [(path, label) for path in sorted(class_folder.iterdir())]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        image = Image.open(path).convert("RGB")
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)), label


class TorchArm:
    """The training loop with its batch, ready for its first window; the attributes are those of `OurArm`."""

    def __init__(self, job: Job):
        self.job = job
        row = job.row
        torch.set_num_threads(usable_cores())
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as XLA and cuDNN have it; nothing on a CPU
        model = build_network(job)
        self.loop = TrainingLoop(job, model)
        self.epoch_loop: TrainingLoop | None = None
        images, labels = draw_batch(row)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)  # (B, C, H, W), channels last as it lies
        self.labels = torch.from_numpy(labels).long()
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.compile_seconds = 0.0
        self.temp_bytes = None
        self.first_step_at = 0.0

    def scores(self) -> np.ndarray:
        """Returns the scores of the batch, (B, K)."""
        self.loop.model.eval()
        with torch.inference_mode():
            return self.loop.score(self.images).float().cpu().numpy()

    def step(self) -> float:
        """Takes one step, and returns its loss."""
        self.loop.model.train()
        began = time.perf_counter()
        loss = float(self.loop.learn(self.images, self.labels))
        if not self.first_step_at:
            self.first_step_at = time.perf_counter()
            if self.job.arm.framework == "compile":
                self.compile_seconds = self.first_step_at - began  # with the first step itself
        return loss

    def run(self, work: str, steps: int) -> int:
        """Does a work so many times; returns how many images that were."""
        if work == END_TO_END:
            return sum(self.train_epoch() for _ in range(steps))
        if work == "step":
            self.loop.model.train()
            for _ in range(steps):
                answer = self.loop.learn(self.images, self.labels)
        else:
            self.loop.model.eval()
            with torch.inference_mode():
                for _ in range(steps):
                    answer = self.loop.score(self.images)
        answer.sum().item()  # waits for the device
        return steps * self.job.row.batch_size

    def train_epoch(self) -> int:
        """Trains an epoch on the JPEG files, read by a plain DataLoader; returns how many images it had."""
        row = self.job.row
        if self.epoch_loop is None:
            model = NETWORKS[row.family](replace(row, num_classes=CLASS_FOLDERS), **row.sizes)
            self.epoch_loop = TrainingLoop(self.job, model)
        self.epoch_loop.model.train()
        loader = DataLoader(
            FolderDataset(self.job.images / "train", row.image_shape[:2]),
            batch_size=row.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=LOADER_PROCESSES if "workers" in self.job.arm.modifiers else 0,
        )
        for images, labels in loader:
            loss = self.epoch_loop.learn(images.permute(0, 3, 1, 2), labels)
        loss.item()  # waits for the device
        return len(loader) * row.batch_size

    def threads(self) -> int | None:
        """Counts the threads that compute; None on an accelerator."""
        return torch.get_num_threads() if self.device_kind() == "cpu" else None

    def device_kind(self) -> str:
        """Returns what computes: cpu or gpu."""
        return "gpu" if self.loop.device.type == "cuda" else "cpu"

    def facts(self) -> dict[str, Any]:
        """Returns what else a reader of the results has to know."""
        return {"matmul_precision": torch.get_float32_matmul_precision()}

    def peak_device_bytes(self) -> int | None:
        """Returns the most memory of an accelerator that was in use; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.loop.device.type == "cuda" else None


def make_optimizer(row: Row, model: nn.Module) -> torch.optim.Optimizer:
    """Returns the row's optimizer, fused."""
    kind, keywords = torch.optim.AdamW, {}
    if row.optimizer == "sgd":
        kind, keywords = torch.optim.SGD, {"momentum": MOMENTUM}
    return kind(model.parameters(), lr=row.learning_rate, weight_decay=row.weight_decay, fused=True, **keywords)
