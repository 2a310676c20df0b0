"""What a run compiles and what it puts on the devices, from settings and data, without a run folder.

A run, the stopwatch of `cnn-vit new` and the benchmarks all train through a `Program`, so that what is measured is what
a run does.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from cnn_vit import data, trees
from cnn_vit.analysis.input_layer import InputLayer, find_input_layer, leaf_at
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.settings import Settings
from cnn_vit.training import adapting, devices, forward, freezing, memory, plan, recalibration, step
from cnn_vit.training.forward import Evaluator
from cnn_vit.training.starting_values import Start, make_start
from cnn_vit.training.step import Step, StepSpec
from cnn_vit.transfer.weights import Weights


@dataclass(frozen=True)
class StagePart:
    """What a program has for one stage of a run; a run without stages has one.

    Attributes:
        spec: what shapes the compiled step.
        step: the compiled step.
        state_template: the state without its values: a `jax.ShapeDtypeStruct` with shape, type and sharding for each
            array.
        frozen_template: the frozen values, likewise.
    """

    spec: StepSpec
    step: Step
    state_template: dict
    frozen_template: dict


class Program:
    """The compiled step and evaluation of a run, its hyperparameters on the devices, and its batches.

    Args:
        settings: final and checked.
        dataset: the run's data.
        preprocessing: how images become the network's input, as `runs.description.make_preprocessing` gives it.
        weights: that training starts from, as `pretrained_settings.complete_settings` returned them with the settings;
            None for initial values, which follow from the seed.
        add_measures: adds scalars to the measures of each step, as `step.learn` says.

    Attributes:
        settings, dataset, preprocessing: the arguments.
        weights: the argument; None, too, once `release_start` has dropped them.
        mesh: the mesh of all devices.
        spec: what shapes the compiled step.
        times: the run's length, and at which steps it does what.
        batch_size: images in the batch of a step.
        step: the compiled step.
        evaluator: measures batches with the network.
        hyperparameters: arguments of the step, on the devices.
        frozen: dict(params, stats) of the values that are not trained, on the devices. `initial_state` sets it, or a
            run that has saved them.

    Raises:
        UserError: the model does not take the data, the batch does not divide among the devices, or the optimizer or
            the schedule cannot be.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: data.Dataset,
        preprocessing: dict[str, Any],
        *,
        weights: Weights | None = None,
        add_measures: step.AddMeasures | None = None,
    ):
        train = dataset.splits["train"]
        classes = len(dataset.classes)
        network = check_network(settings, dataset)
        self.settings, self.dataset, self.preprocessing = settings, dataset, preprocessing
        self.mesh = devices.mesh()
        self.batch_size = settings["data.batch_size"]
        # the devices share each micro-batch equally
        parts = settings["optimizer.accumulate"] * self.mesh.size
        plan.refuse_uneven(self.batch_size, parts, f"micro-batches x {self.mesh.size} devices")
        self.times = plan.run_times(settings, examples=len(train))
        self.stage_ends = plan.stage_ends(settings, examples=len(train))
        self.stage = 0
        self._first_spec = plan.step_spec(settings, network, examples=len(train))
        self._add_measures = add_measures
        self._parts: dict[int, StagePart] = {}
        self.evaluator: Evaluator = forward.build_evaluator(
            network, preprocessing, self.mesh, loss_numbers=plan.rule_numbers(settings, "loss")
        )
        hyperparameters = plan.hyperparameters(settings, preprocessing, labels=train.labels, classes=classes)
        self.hyperparameters = jax.device_put(hyperparameters, devices.replicated_sharding(self.mesh))
        self.weights = weights
        self._loaded_kernel: np.ndarray | None = None  # of the first layer; set by `release_start`
        self.frozen: dict = step.NOTHING_FROZEN
        for stage in range(len(self.stage_ends) + 1):
            self.part_of(stage)  # made here for its errors: of an optimizer or a schedule that cannot be

    @cached_property
    def start(self) -> Start:
        """What training begins with: values of the whole network in the host's memory, until `release_start`.

        Raises:
            UserError: the weights are not there any more, or do not fit the network.
        """
        source = self.settings["pretrained.weights"]
        if source is not None and self.weights is None:
            raise UserError(
                f"pretrained.weights={source} is not there, and the run has saved no checkpoint to go on from; put it "
                "back, or name it where it lies now"
            )
        return make_start(self.settings, self.weights, self.spec.network, tuple(self.dataset.classes))

    def release_start(self, *, keeps_kernel: bool = True) -> None:
        """Drops weights and starting values, once the state is made and `frozen` is set: training needs neither.

        Args:
            keeps_kernel: whether the kernel of the first layer stays for `starting_kernel`, where it comes from
                weights. One that is drawn can be drawn again.
        """
        if keeps_kernel and self.weights is not None and self.input_layer is not None:
            # a copy, for a view would keep all of what it is a view of
            self._loaded_kernel = np.array(leaf_at(self.start.values["params"], self.input_layer.path))
        self.weights = None
        vars(self).pop("start", None)

    @cached_property
    def input_layer(self) -> InputLayer | None:
        """The first layer that reads pixels; None where there is none, as in an MLP."""
        return find_input_layer(forward.build_network(self.spec.network), self.dataset.image_shape)

    def starting_kernel(self) -> np.ndarray | None:
        """Returns the kernel of the first layer as it was before the first step; None where no layer reads pixels.

        It is None, too, where it came from weights that were not there any more when the run was resumed. One that is
        drawn depends on no other parameter, so that it is drawn alone.
        """
        if self.settings["pretrained.weights"] is not None:
            return self._loaded_kernel
        if self.input_layer is None:
            return None
        network, path = self.step.network, self.input_layer.path
        only_parameter = leaf_at(network.params, path)
        for key in reversed(path):
            only_parameter = {key: only_parameter}  # a tree of one leaf, at the parameter's path
        params, _ = initial_values(replace(network, params=only_parameter, stats={}), self.settings["seed"])
        return leaf_at(params, path)

    def initial_state(self) -> dict:
        """Makes the state before the first step, puts it on the devices, and sets `frozen`."""
        values = self.start.values
        self.stage = 0
        if self.spec.freeze.statistics == "recalibrate":
            values = self.recalibrate(values)
        trained, frozen = freezing.split_values(values, self.masks)
        factors = freezing.initial_factors(self.spec.network, self.spec.freeze, self.settings["seed"])
        trained["params"] = trees.merge(trained["params"], factors)
        self.frozen = devices.place(frozen, self.mesh)
        return devices.place(self.step.init_state(**trained, hyperparameters=self.hyperparameters), self.mesh)

    def whole(self, trained: dict, frozen: dict | None = None) -> dict:
        """Joins trained values, dict(params, stats), or their average, with the frozen ones to those of the network.

        Args:
            trained: the values; the product of an adapter's factors is added to its kernel.
            frozen: those that go with them; None for those of the stage that the run is in.
        """
        return freezing.join_values(
            trained, self.frozen if frozen is None else frozen, adapting.lora_scale(self.settings)
        )

    def stage_at(self, steps: int) -> int:
        """Returns the stage that a state is of, after so many steps: that of its last step."""
        return sum(end < steps for end in self.stage_ends)

    def begins_stage(self, steps: int) -> bool:
        """Whether the step after so many steps is the first of a stage that the run has not entered yet."""
        return self.stage < sum(end <= steps for end in self.stage_ends)

    def enter_stage(self, state: dict) -> dict:
        """Enters the next stage; returns the state with which it begins, and leaves less in `frozen`."""
        self.stage += 1
        still_frozen = set(trees.shapes_by_path(self.frozen_template))
        frozen, entering = trees.split(self.frozen, trees.mask_by_paths(self.frozen, still_frozen))
        self.frozen = step.NOTHING_FROZEN | frozen
        values = step.NOTHING_FROZEN | entering
        factors = freezing.initial_factors(self.spec.network, self.spec.freeze, self.settings["seed"])
        trained_so_far = trees.shapes_by_path(state["params"])
        _, new_factors = trees.split(factors, trees.mask_by_paths(factors, set(trained_so_far)))
        values["params"] = trees.merge(values["params"], devices.place(new_factors, self.mesh))
        return self.step.enter_stage(state, values, self.hyperparameters)

    def recalibrate(self, values: dict) -> dict:
        """Measures the frozen running statistics on the training images, in one pass without augmentation.

        Args:
            values: of the whole network, dict(params, stats) of NumPy arrays.

        Returns:
            The same, with mean and variance of each channel over all images in place of the frozen statistics.
        """
        measured = recalibration.measure_statistics(
            self.spec.network,
            self.mesh,
            values,
            self.preprocessing,
            self.dataset.splits["train"],
            batch_size=self.batch_size,
            workers=self.settings["data.workers"],
        )
        _, frozen = freezing.split_values(dict(params=values["params"], stats=measured), self.masks)
        trained, _ = freezing.split_values(values, self.masks)
        return dict(params=values["params"], stats=trees.merge(trained["stats"], frozen["stats"]))

    def renew_numbers(self, state: dict) -> dict:
        """Takes the numbers of these settings into the state of another run, as `step.renew_numbers` does.

        The state may be of any stage, for the last one lists the parameters of all stages.
        """
        last_part = self.part_of(len(self.stage_ends))
        return step.renew_numbers(last_part.spec, state, self.hyperparameters)

    def part_of(self, stage: int) -> StagePart:
        """Returns what the program has for a stage, which it makes once; nothing is compiled.

        Raises:
            UserError: an optimizer or a schedule cannot be.
        """
        if stage not in self._parts:
            spec = replace(
                self._first_spec,
                freeze=adapting.freeze_spec(self.settings, stage=stage),
                stage_ends=self.stage_ends[:stage] if self._first_spec.ema else (),
            )
            built = step.build_step(spec, self.mesh, add_measures=self._add_measures)
            shapes = dict(params=built.network.params, stats=built.network.stats)
            trained, frozen = freezing.split_shapes(spec.network, spec.freeze, shapes)
            state = jax.eval_shape(built.init_state, trained["params"], trained["stats"], self.hyperparameters)
            self._parts[stage] = StagePart(
                spec=spec,
                step=built,
                state_template=jax.tree.map(
                    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                    state,
                    devices.shardings(state, self.mesh),
                ),
                frozen_template=devices.replicated_template(frozen, self.mesh),
            )
        return self._parts[stage]

    @property
    def spec(self) -> StepSpec:
        """What shapes the compiled step."""
        return self.part_of(self.stage).spec

    @property
    def step(self) -> Step:
        """The compiled step."""
        return self.part_of(self.stage).step

    @property
    def state_template(self) -> dict:
        """The state without its values: a `jax.ShapeDtypeStruct` with shape, type and sharding for each array."""
        return self.part_of(self.stage).state_template

    @property
    def frozen_template(self) -> dict:
        """The frozen values without their numbers, as `state_template` has the state."""
        return self.part_of(self.stage).frozen_template

    @property
    def masks(self) -> dict[str, dict]:
        """Which values are frozen, dict(params, stats)."""
        return freezing.get_masks(self.spec.network, self.spec.freeze)

    @property
    def shapes(self) -> dict[str, dict]:
        """The shapes of the network's values, dict(params, stats)."""
        return dict(params=self.step.network.params, stats=self.step.network.stats)

    @property
    def batch_template(self) -> dict:
        """The training batch without its values; where images have several sizes, that of the largest padded size."""
        rows, (height, width, channels) = self.batch_size, self.dataset.image_shape
        shapes_and_types: dict[str, tuple[tuple[int, ...], type]] = {
            "image": ((rows, height, width, channels), np.uint8),
            "label": ((rows,), np.int32),
            "weight": ((rows,), np.float32),
            "index": ((rows,), np.int32),
        }
        if self.dataset.splits["train"].padded_sizes is not None:
            shapes_and_types["mask"] = ((rows, height, width), np.bool_)
        return devices.batch_template(shapes_and_types, self.mesh)

    def compile_step(self, stage: int | None = None) -> memory.StepMemory | None:
        """Compiles the step, which `learn` then finds compiled; returns the memory that it needs, None where unknown.

        No state is needed. Where images have several sizes, it is the step for the largest of them.

        Args:
            stage: whose step it is; None for the stage that the run is in.
        """
        part = self.part_of(self.stage if stage is None else stage)
        lowered = part.step.learn.lower(
            part.state_template, part.frozen_template, self.batch_template, self.hyperparameters
        )
        return memory.planned_memory(lowered.compile(), devices.memory_sharers(self.mesh))

    def learn(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Updates the state by one batch; returns the next state and the measures of the step.

        The state that it takes is donated and may not be used afterwards.
        """
        return self.step.learn(state, self.frozen, batch, self.hyperparameters)

    def batches(self, start: int, stop: int | None = None, *, workers: int | None = None) -> Generator[Any, None, None]:
        """Yields the training batches of the updates `start` to `stop` - 1, on the devices.

        Args:
            start: the first update, counted from 0.
            stop: the update before which to end; None for batches without end.
            workers: threads that decode images; None for as many as the settings say.
        """
        return stream.batches(
            self.dataset.splits["train"],
            batch_size=self.batch_size,
            seed=self.settings["seed"],
            start=start,
            stop=stop,
            workers=self.settings["data.workers"] if workers is None else workers,
            batches_ahead=self.settings["data.prefetch"],
            place=self.place_batch,
        )

    def place_batch(self, batch: dict) -> dict:
        """Puts a batch of the host on the devices."""
        return devices.place_batch(batch, self.mesh)


def check_network(settings: Settings, dataset: data.Dataset) -> forward.NetworkSpec:
    """Returns the network of the settings for these data; UserError where it does not take them, or nothing decays.

    No device is touched.
    """
    classes, image_shape = len(dataset.classes), dataset.image_shape
    plan.check_model(settings, classes=classes, image_shape=image_shape)
    network = plan.network_spec(settings, classes=classes, image_shape=image_shape)
    forward.refuse_padded_sizes(network, dataset.splits)
    adapting.check_parts(settings, network)
    plan.refuse_idle_decay(settings, network)
    return network
