"""Reference networks in PyTorch, written for these tests alone: what others' programs compute, under their names.

They follow the published descriptions and the names of the published files, and share nothing with this package: He et
al. 2015 with option A or B and akamaster's names; Howard et al. 2017 as Keras builds and names it; the Vision
Transformer under the names of vit-pytorch, with ReLU and heads of any width.
"""

import torch
from torch import nn
from torch.nn import functional

# ResNet for CIFAR -----------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, without parameters (option A) or with a 1x1 convolution (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.widening = stride, outputs - inputs
        self.shortcut = nn.Sequential()
        if option == "B" and self.widening:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.option = option

    def forward(self, x):
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.option == "A" and self.widening:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.widening // 2, self.widening // 2))
        else:
            x = self.shortcut(x)
        return functional.relu(x + y)


class CifarResNet(nn.Module):
    """conv1, three stages of 16, 32 and 64 filters, the mean over all pixels, a linear layer."""

    def __init__(self, blocks: int, classes: int, option: str = "A"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for number, outputs in enumerate((16, 32, 64), 1):
            layers = []
            for block in range(blocks):
                stride = 2 if block == 0 and number > 1 else 1
                layers.append(BasicBlock(inputs, outputs, stride, option))
                inputs = outputs
            setattr(self, f"layer{number}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


# MobileNetV1 as Keras has it ------------------------------------------------------------------------------------------

MOBILENET_FILTERS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
MOBILENET_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def mobilenet_shapes(alpha: float, classes: int) -> dict[str, list[int]]:
    """Returns the shapes of keras.applications.MobileNet's weights by LAYER/WEIGHT."""
    width = int(32 * alpha)
    shapes: dict[str, list[int]] = {"conv1/kernel": [3, 3, 3, width]}
    add_norm(shapes, "conv1_bn", width)
    for number, full in enumerate(MOBILENET_FILTERS, 1):
        wider = int(full * alpha)
        shapes[f"conv_dw_{number}/depthwise_kernel"] = [3, 3, width, 1]
        add_norm(shapes, f"conv_dw_{number}_bn", width)
        shapes[f"conv_pw_{number}/kernel"] = [1, 1, width, wider]
        add_norm(shapes, f"conv_pw_{number}_bn", wider)
        width = wider
    shapes["conv_preds/kernel"] = [1, 1, width, classes]
    shapes["conv_preds/bias"] = [classes]
    return shapes


def add_norm(shapes: dict[str, list[int]], layer: str, width: int) -> None:
    """Adds the four arrays of a batch norm."""
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        shapes[f"{layer}/{name}"] = [width]


def mobilenet_scores(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Computes the scores of images (N, C, H, W) from weights in Keras' layout."""

    def convolve(x, layer, stride=1, depthwise=False):
        kernel = weights[f"{layer}/depthwise_kernel" if depthwise else f"{layer}/kernel"]
        # Keras: (height, width, inputs, outputs), and (height, width, channels, 1) of a depthwise convolution
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        if kernel.shape[-1] == 3:  # ZeroPadding2D(((0, 1), (0, 1))) before a stride of 2, else padding="same"
            x = functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        return functional.conv2d(x, kernel.contiguous(), stride=stride, groups=x.shape[1] if depthwise else 1)

    def normalize(x, layer):
        gamma, beta, mean, variance = (
            weights[f"{layer}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = functional.batch_norm(x, mean, variance, gamma, beta, training=False, eps=1e-3)
        return functional.relu6(x)

    x = normalize(convolve(x, "conv1", 2), "conv1_bn")
    for number, stride in enumerate(MOBILENET_STRIDES, 1):
        x = normalize(convolve(x, f"conv_dw_{number}", stride, depthwise=True), f"conv_dw_{number}_bn")
        x = normalize(convolve(x, f"conv_pw_{number}"), f"conv_pw_{number}_bn")
    x = x.mean((2, 3), keepdim=True)
    return convolve(x, "conv_preds")[:, :, 0, 0] + weights["conv_preds/bias"]


# Vision Transformer under vit-pytorch's names -------------------------------------------------------------------------


class PatchFlattener(nn.Module):
    """Cuts images (N, C, H, W) into rows of patches, each flattened by row, column and color."""

    def __init__(self, patch: int):
        super().__init__()
        self.patch = patch

    def forward(self, x):
        rows = []
        for top in range(0, x.shape[2], self.patch):
            for left in range(0, x.shape[3], self.patch):
                patch = x[:, :, top : top + self.patch, left : left + self.patch]
                rows.append(patch.permute(0, 2, 3, 1).flatten(1))
        return torch.stack(rows, 1)


class Attention(nn.Module):
    """Heads of their own width, one matrix for queries, keys and values."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.to_qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_width, width), nn.Dropout(0.0))

    def forward(self, x):
        parts = []
        for part in self.to_qkv(x).chunk(3, -1):
            parts.append(part.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2))
        q, k, v = parts
        weights = (q @ k.transpose(2, 3) / self.head_width**0.5).softmax(-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers and an activation."""

    def __init__(self, width: int, hidden: int, activation: nn.Module):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, hidden), activation, nn.Dropout(0.0), nn.Linear(hidden, width), nn.Dropout(0.0)
        )

    def forward(self, x):
        return self.net(x)


class PreNorm(nn.Module):
    """Normalizes the input of a part, whose output is added to it."""

    def __init__(self, width: int, part: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = part

    def forward(self, x):
        return x + self.fn(self.norm(x))


class Transformer(nn.Module):
    """Blocks of attention and feed-forward parts."""

    def __init__(self, width: int, depth: int, heads: int, head_width: int, hidden: int, activation: nn.Module):
        super().__init__()
        blocks = []
        for _ in range(depth):
            attention = PreNorm(width, Attention(width, heads, head_width))
            blocks.append(nn.ModuleList([attention, PreNorm(width, FeedForward(width, hidden, activation))]))
        self.layers = nn.ModuleList(blocks)

    def forward(self, x):
        for attention, feed_forward in self.layers:
            x = feed_forward(attention(x))
        return x


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, blocks, a norm and a linear layer on the class token."""

    def __init__(
        self,
        image_size: tuple[int, int],
        patch: int,
        channels: int,
        classes: int,
        *,
        width: int,
        depth: int,
        heads: int,
        head_width: int,
        hidden: int,
        activation: nn.Module,
    ):
        super().__init__()
        patches = (image_size[0] // patch) * (image_size[1] // patch)
        self.pos_embedding = nn.Parameter(torch.zeros(1, patches + 1, width))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.to_patch_embedding = nn.Sequential(PatchFlattener(patch), nn.Linear(patch * patch * channels, width))
        self.transformer = Transformer(width, depth, heads, head_width, hidden, activation)
        self.mlp_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        x = self.to_patch_embedding(x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        return self.mlp_head(self.transformer(x)[:, 0])
