"""The arm `ours`: the step and the evaluation that a run compiles, on one batch in the memory of the host.

With options of the compiler it is the same step, jitted here.
"""

import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_vit import data, trees
from cnn_vit.data.decode import jpeg
from cnn_vit.data.feed import stream
from cnn_vit.files import cache
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.settings import Settings, load
from cnn_vit.training import devices, forward, step
from cnn_vit.training.program import Program
from cnn_vit.training.rules import RuleSpec
from cnn_vit.training.step import ScheduleSpec, StepSpec
from train_parts.job import Job, count_threads, draw_batch, mean_and_std
from train_parts.rows import END_TO_END, MOMENTUM, Row, compiler_options

CONSTANT = ScheduleSpec(RuleSpec("constant"), total=1_000_000)
# Of each optimizer of the rows: the keywords that shape its program, and its numbers beside the decay.
OPTIONS = {"sgd": (("nesterov", False),), "adamw": ()}
NUMBERS = {"sgd": dict(momentum=MOMENTUM), "adamw": dict(b1=0.9, b2=0.999, epsilon=1e-8)}


def network_spec(row: Row, dtype: str) -> forward.NetworkSpec:
    """Returns the row's network as a run would specify it."""
    return forward.NetworkSpec(
        model=row.model,
        keywords=tuple(sorted(row.keywords.items())),
        num_classes=row.num_classes,
        image_shape=row.image_shape,
        dtype=dtype,
        loss=RuleSpec("softmax"),
    )


def step_spec(row: Row, dtype: str) -> StepSpec:
    """Returns the row's step as a run would specify it, without augmentation."""
    return StepSpec(
        network=network_spec(row, dtype),
        augment=(),
        optimizer=RuleSpec(row.optimizer, OPTIONS[row.optimizer]),
        clip=False,
        decay_pattern=".",  # every parameter decays, as the optimizers of the other arms do by default
        accumulate=1,
        ema=False,
        schedule=CONSTANT,
    )


def hyperparameters(row: Row) -> dict[str, Any]:
    """Returns the numbers of the step, as `plan.hyperparameters` makes them for a run."""
    numbers = dict(learning_rate=row.learning_rate, clip=1.0, ema_decay=0.0, smoothing=0.0)
    arrays: dict[str, Any] = {name: np.float32(number) for name, number in numbers.items()}
    of_optimizer = NUMBERS[row.optimizer] | dict(weight_decay=row.weight_decay)
    arrays["optimizer"] = {name: np.float32(number) for name, number in of_optimizer.items()}
    arrays["schedule"], arrays["loss"] = {}, {}
    arrays["augment"] = []
    arrays["mean"], arrays["std"] = mean_and_std(row)
    arrays["class_weight"] = np.ones(row.num_classes, np.float32)
    arrays["key"] = stream.key(0)
    return arrays


def run_settings(row: Row, images: Path) -> Settings:
    """Returns the settings of a run of one epoch on a folder of images, with the row's network and optimizer."""
    mean, std = (tuple(map(float, numbers)) for numbers in mean_and_std(row))
    overrides = {
        "data.path": images,
        "data.image_size": row.image_shape[0],
        "data.channels": row.image_shape[2],
        "data.batch_size": row.batch_size,
        "data.augment": (),
        "data.mean": mean,
        "data.std": std,
        "model.name": row.model,
        "loss.smoothing": 0.0,
        "optimizer.name": row.optimizer,
        "optimizer.learning_rate": row.learning_rate,
        "optimizer.weight_decay": row.weight_decay,
        "optimizer.decay_pattern": ".",
        "schedule.name": "constant",
        "schedule.warmup": "0 steps",
        "duration": "1 epochs",
        **{f"model.{name}": value for name, value in row.keywords.items()},
    }
    return load("configs/folder_resnet.py", [f"{key}={value}" for key, value in overrides.items()])


class OurArm:
    """The compiled step with its state, ready for its first window.

    Attributes:
        parameters: their number.
        compile_seconds: of lowering and compiling the training step.
        temp_bytes: memory that the compiled step needs beside arguments and results.
        first_step_at: `time.perf_counter` when the first step was done.
    """

    def __init__(self, job: Job):
        self.job = job
        row = job.row
        dtype = "bfloat16" if "bf16" in job.arm.modifiers else "float32"
        self.spec = step_spec(row, dtype)
        self.mesh = devices.mesh()
        built = step.build_step(self.spec, self.mesh)
        values = read_values(job, built.network)
        self.hyperparameters = jax.device_put(hyperparameters(row), devices.replicated_sharding(self.mesh))
        self.state = devices.place(built.init_state(**values, hyperparameters=self.hyperparameters), self.mesh)
        self.eval_values = devices.place(values, self.mesh)
        self.constants = {name: self.hyperparameters[name] for name in ("mean", "std", "loss")}
        images, labels = draw_batch(row)
        batch = dict(
            image=images,
            label=labels,
            weight=np.ones(row.batch_size, np.float32),
            index=np.arange(row.batch_size, dtype=np.int32),
        )
        self.batch = devices.place_batch(batch, self.mesh)
        self.options = compiler_options(job.arm)
        self.learn, self.eval_step = built.learn, forward.build_eval_step(self.spec.network, self.mesh)
        if job.arm.options is not None:
            jit = partial(jax.jit, compiler_options=self.options or None)
            self.learn = jit(partial(step.learn, self.spec, built.network), donate_argnums=0)
            self.eval_step = jit(partial(self.measure, built.network))
        self.parameters = trees.count(values["params"])
        began = time.perf_counter()
        compiled = self.learn.lower(self.state, step.NOTHING_FROZEN, self.batch, self.hyperparameters).compile()
        self.compile_seconds = time.perf_counter() - began
        memory = compiled.memory_analysis()
        self.temp_bytes = memory.temp_size_in_bytes if memory else None
        self.first_step_at = 0.0
        self.epoch_state: dict | None = None
        jpeg.use_decoder("pillow")  # which every arm has

    def measure(self, network: Any, params: dict, stats: dict, batch: dict, constants: dict) -> dict:
        """Computes the scores of a batch, in evaluation mode."""
        images = forward.normalize(batch["image"].astype(np.float32) / 255, constants, self.spec.network.dtype)
        return {"scores": network.apply(params, stats, images, train=False)[0]}

    def scores(self) -> np.ndarray:
        """Returns the scores of the batch with the initial values, (B, K)."""
        return np.asarray(self.evaluate()["scores"])

    def evaluate(self) -> dict[str, jax.Array]:
        """Starts the evaluation of the batch with the initial values."""
        return self.eval_step(self.eval_values["params"], self.eval_values["stats"], self.batch, self.constants)

    def start_step(self) -> dict[str, jax.Array]:
        """Starts one step; returns its measures, which are not computed yet."""
        self.state, measures = self.learn(self.state, step.NOTHING_FROZEN, self.batch, self.hyperparameters)
        return measures

    def step(self) -> float:
        """Takes one step, and returns its loss."""
        loss = float(self.start_step()["loss"])
        self.first_step_at = self.first_step_at or time.perf_counter()
        return loss

    def run(self, work: str, steps: int) -> int:
        """Does a work so many times; returns how many images that were."""
        if work == END_TO_END:
            return sum(self.train_epoch() for _ in range(steps))
        start = {"step": self.start_step, "inference": self.evaluate}[work]
        for _ in range(steps):
            answer = start()
        jax.block_until_ready((answer, self.state))
        return steps * self.job.row.batch_size

    def train_epoch(self) -> int:
        """Trains an epoch on the JPEG files as a run does that has never seen them; returns how many images it had."""
        settings = run_settings(self.job.row, self.job.images)
        with tempfile.TemporaryDirectory() as folder:
            cache.configure(folder=folder)  # empty: decoded images are kept there
            dataset = data.load(settings.section("data"))
            program = Program(settings, dataset, make_preprocessing(settings, dataset))
            state = program.initial_state() if self.epoch_state is None else self.epoch_state
            steps = len(dataset.splits["train"]) // program.batch_size
            with contextlib.closing(program.batches(0, steps)) as batches:
                for batch in batches:
                    state, measures = program.learn(state, batch)
            jax.block_until_ready((state, measures))
        self.epoch_state = state
        return steps * program.batch_size

    def threads(self) -> int | None:
        """Counts the threads that compute; None on an accelerator."""
        return count_threads("tf_XLAEigen") if self.device_kind() == "cpu" else None

    def device_kind(self) -> str:
        """Returns what computes: cpu or gpu."""
        return jax.default_backend()

    def facts(self) -> dict[str, Any]:
        """Returns what else a reader of the results has to know."""
        precision = jax.config.jax_default_matmul_precision or "default"
        return {"options": self.options if self.job.arm.options else "a run's", "matmul_precision": precision}

    def peak_device_bytes(self) -> int | None:
        """Returns the most memory of an accelerator that was in use; None on a CPU."""
        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def read_values(job: Job, network: Any) -> dict[str, dict]:
    """Reads the initial values as dict(params, stats)."""
    with np.load(job.values) as arrays:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: arrays[trees.path_text(path)], dict(params=network.params, stats=network.stats)
        )
