"""What is compared: the rows of the benchmark, and the arms that run each of them."""

import re
from dataclasses import dataclass, field
from typing import Any

END_TO_END = "end_to_end"
WORKS = ("step", "inference", END_TO_END)
FRAMEWORKS = ("ours", "nnx", "torch", "compile")
MODIFIERS = ("keep", "onednn", "bf16", "workers")
DEFAULT_ARMS = "ours,nnx,nnx+keep,torch,torch+keep"
MOMENTUM = 0.9  # of SGD
CLASS_FOLDERS = 8  # that the JPEG files of a row lie in


@dataclass(frozen=True)
class Row:
    """A network, its images and its optimizer: the same for every arm.

    Attributes:
        name: of the row.
        model: the network's name in this package.
        keywords: of the model in this package.
        family: the network's class in `arm_nnx.py` and `arm_torch.py`.
        sizes: keywords of that class.
        image_shape: (H, W, C).
        num_classes: K.
        batch_size: images of a batch.
        optimizer: sgd (with momentum 0.9) or adamw.
        learning_rate: constant.
        weight_decay: of all parameters.
        file_side: side in pixels of the JPEG files of `end_to_end`; 0 where that is not measured.
        files: number of these files.
    """

    name: str
    model: str
    family: str
    image_shape: tuple[int, int, int]
    num_classes: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    keywords: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    file_side: int = 0
    files: int = 0


def sgd_row(name: str, model: str, family: str, image_shape: tuple[int, int, int], **rest: Any) -> Row:
    """Returns a row of a convolutional network, trained by SGD as He et al. do."""
    return Row(name, model, family, image_shape, optimizer="sgd", weight_decay=1e-4, **rest)


def vit_row(name: str, patch: int, side: int, *, width: int, depth: int, heads: int, hidden: int, **rest: Any) -> Row:
    """Returns a row of a vision transformer, trained by AdamW."""
    sizes = {"width": width, "depth": depth, "heads": heads, "hidden": hidden}
    return Row(
        name,
        f"vit/Ti{patch}",
        "vit",
        (side, side, 3),
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        keywords=sizes,
        sizes={"patch": patch, **sizes},
        **rest,
    )


# Rates are so small that three steps change the loss by a tenth at most. Long steps multiply rounding errors: at a rate
# of 0.01 the loss of ResNet-50 falls from 7 to 2, and two equal networks are 2 % apart.
LECTURE_CNN = {"filters": (32, 64), "hidden": (128,)}
RESNET50 = {"blocks": (3, 4, 6, 3)}
ROWS = {
    row.name: row
    for row in (
        sgd_row("lenet", "lenet/5", "lenet", (28, 28, 1), num_classes=10, batch_size=128, learning_rate=1e-2),
        sgd_row(
            "cnn",
            "cnn/lecture",
            "cnn",
            (28, 28, 1),
            num_classes=10,
            batch_size=128,
            learning_rate=1e-4,
            keywords={**LECTURE_CNN, "pool_last": True, "batch_norm": False},
            sizes=LECTURE_CNN,
        ),
        sgd_row(
            "resnet20",
            "cifar_resnet/20",
            "cifar_resnet",
            (32, 32, 3),
            num_classes=10,
            batch_size=128,
            learning_rate=1e-2,
            sizes={"blocks": 3},
            file_side=64,
            files=512,
        ),
        vit_row("vit_p4", 4, 32, width=192, depth=9, heads=3, hidden=768, num_classes=10, batch_size=64),
        sgd_row(
            "resnet50",
            "resnet/50",
            "resnet",
            (224, 224, 3),
            num_classes=1000,
            batch_size=8,
            learning_rate=1e-5,
            sizes=RESNET50,
        ),
        sgd_row(
            "resnext50",
            "resnet/50-32x4d",
            "resnet",
            (224, 224, 3),
            num_classes=1000,
            batch_size=8,
            learning_rate=1e-5,
            sizes={**RESNET50, "groups": 32, "group_width": 4},
        ),
        sgd_row(
            "mobilenet",
            "mobilenet_v1/1.0",
            "mobilenet_v1",
            (224, 224, 3),
            num_classes=1000,
            batch_size=8,
            learning_rate=1e-3,
            sizes={"filters": 32, "blocks": (1, 2, 2, 6, 2)},
        ),
        vit_row(
            "vit_ti16",
            16,
            224,
            width=192,
            depth=12,
            heads=3,
            hidden=768,
            num_classes=1000,
            batch_size=8,
            file_side=224,
            files=256,
        ),
        vit_row("vit_s16", 16, 224, width=384, depth=12, heads=6, hidden=1536, num_classes=1000, batch_size=8),
    )
}


@dataclass(frozen=True)
class Arm:
    """One way to run a row.

    Attributes:
        name: as the command line writes it, such as "ours:E,R+onednn".
        framework: one of FRAMEWORKS.
        options: what the compiled program is told (`ours` alone): a name of `read_options`; None for what a run tells.
        modifiers: of MODIFIERS, in the order of the name.
    """

    name: str
    framework: str
    options: str | None
    modifiers: tuple[str, ...]

    def measures(self, work: str, row: Row) -> bool:
        """Whether the arm does a work on a row: all do, but for reading files."""
        if work != END_TO_END:
            return "workers" not in self.modifiers
        return row.files > 0 and self.framework in ("ours", "torch") and self.options is None


FUSION_TYPES = {  # short name -> XLA's
    "D": "DOT",
    "E": "ELTWISE",
    "R": "REDUCE",
    "INDIVIDUAL_DOT": "INDIVIDUAL_DOT",
    "INDIVIDUAL_CONVOLUTION": "INDIVIDUAL_CONVOLUTION",
}
OPTION_NAMES = f"default, none, or a list of {', '.join(FUSION_TYPES)}"


def read_arms(text: str) -> list[Arm]:
    """Reads a list such as "ours,ours:E,R,nnx+keep"; a comma before a name of FUSION_TYPES does not end an arm.

    Raises:
        ValueError: with a sentence for the user.
    """
    words: list[str] = []
    for word in text.split(","):
        if words and ":" in words[-1] and word.partition("+")[0] in FUSION_TYPES:
            words[-1] += f",{word}"
        else:
            words.append(word)
    arms = [read_arm(word) for word in words]
    repeated = {arm.name for arm in arms if arms.count(arm) > 1}
    if repeated:
        raise ValueError(f"{', '.join(sorted(repeated))} stands twice among the arms")
    return arms


def read_arm(name: str) -> Arm:
    """Reads the name of an arm: FRAMEWORK[:OPTIONS][+MODIFIER...].

    Raises:
        ValueError: with a sentence for the user.
    """
    head, *modifiers = name.split("+")
    framework, colon, options = head.partition(":")
    if framework not in FRAMEWORKS:
        raise ValueError(f"there is no arm {framework!r}; there are {', '.join(FRAMEWORKS)}")
    for modifier in modifiers:
        if modifier not in MODIFIERS:
            raise ValueError(f"{name}: there is no +{modifier}; there are {', '.join(MODIFIERS)}")
    if colon and framework != "ours":
        raise ValueError(f"{name}: only the arm `ours` takes options of the compiler")
    if "onednn" in modifiers and not colon:
        raise ValueError(f"{name}: +onednn is an option of the compiler; write ours:default+onednn")
    if "keep" in modifiers and framework == "ours":
        raise ValueError(f"{name}: `ours` keeps freed pages always, as a run does")
    if "workers" in modifiers and framework != "torch":
        raise ValueError(f"{name}: +workers is for torch, whose DataLoader it gives two processes")
    if "bf16" in modifiers and framework == "nnx":
        raise ValueError(f"{name}: the tutorial network computes in float32")
    if colon:
        read_options(options)
    return Arm(name, framework, options if colon else None, tuple(modifiers))


def read_options(options: str) -> dict[str, Any]:
    """Returns the compiler options of a name: "default" is XLA's own choice, "none" and "E,R" say what YNN may fuse.

    Raises:
        ValueError: with a sentence for the user.
    """
    if options == "default":
        return {}
    names = [] if options == "none" else options.split(",")
    for name in names:
        if name not in FUSION_TYPES:
            raise ValueError(f"there are no options {name!r}; there are {OPTION_NAMES}")
    words = [f"LIBRARY_FUSION_TYPE_{FUSION_TYPES[name]}" for name in names]
    return {"xla_cpu_experimental_ynn_fusion_type": ",".join(words)}


def compiler_options(arm: Arm) -> dict[str, Any]:
    """Returns the options with which the program of an arm `ours:OPTIONS` is compiled."""
    options = read_options(arm.options or "default")
    if "onednn" in arm.modifiers:
        options["xla_cpu_experimental_onednn_custom_call"] = True
    return options


def order_of_arm(name: str) -> tuple:
    """A key that sorts arms as the table shows them: by framework, plain ones first."""
    framework = re.split(r"[:+]", name)[0]
    return FRAMEWORKS.index(framework), ":" in name, len(name), name
