"""What a run compiles and what it puts on the devices, from settings and data; it touches no run folder.

A run, the stopwatch of `cnn-vit new` and the benchmarks all train through a `Program`, so that they measure and do the
same thing.
"""

from collections.abc import Generator
from functools import cached_property
from typing import Any

import jax

from cnn_vit import data
from cnn_vit.data.feed import stream
from cnn_vit.nn.values import initial_values
from cnn_vit.settings import Settings
from cnn_vit.training import devices, forward, plan, step
from cnn_vit.training.forward import Evaluator


class Program:
    """The compiled step and evaluation of a run, its hyperparameters on the devices, and its batches.

    Args:
        settings: final and checked.
        dataset: the run's data.
        preprocessing: how images become the network's input, as `runs.description.make_preprocessing` gives it.
        add_measures: as of `step.learn`.

    Attributes:
        settings, dataset, preprocessing: as given.
        mesh: all devices.
        spec: what shapes the compiled step.
        times: when what happens, in steps.
        batch_size: images of a step.
        step: the compiled step.
        evaluator: measures batches with the network.
        hyperparameters: arguments of the step, on the devices.
        frozen: values that are not trained; none yet.

    Raises:
        UserError: the model does not take the data, or the batch does not divide among the devices.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: data.Dataset,
        preprocessing: dict[str, Any],
        *,
        add_measures: step.AddMeasures | None = None,
    ):
        train = dataset.splits["train"]
        classes = len(dataset.classes)
        network = check_network(settings, dataset)
        self.settings, self.dataset, self.preprocessing = settings, dataset, preprocessing
        self.mesh = devices.mesh()
        self.batch_size = settings["data.batch_size"]
        micro_batches = settings["optimizer.accumulate"] * self.mesh.size
        plan.refuse_uneven(self.batch_size, micro_batches, f"micro-batches x {self.mesh.size} devices")
        self.times = plan.run_times(settings, examples=len(train))
        self.spec = plan.step_spec(settings, network, examples=len(train))
        self.step = step.build_step(self.spec, self.mesh, add_measures=add_measures)
        self.evaluator: Evaluator = forward.build_evaluator(network, preprocessing, self.mesh)
        hyperparameters = plan.hyperparameters(settings, preprocessing, labels=train.labels, classes=classes)
        self.hyperparameters = jax.device_put(hyperparameters, devices.replicated(self.mesh))
        self.frozen: dict = step.NOTHING_FROZEN

    def initial_state(self) -> dict:
        """The state before the first step, on the devices."""
        values = initial_values(self.step.network, self.settings["seed"])
        return devices.place(self.step.init_state(*values), self.mesh)

    @cached_property
    def state_template(self) -> dict:
        """Shapes, types and placement of the state, without its values."""
        network = self.step.network
        shapes = jax.eval_shape(self.step.init_state, network.params, network.stats)
        places = devices.shardings(shapes, self.mesh)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, places
        )

    def learn(self, state: dict, batch: dict) -> tuple[dict, dict]:
        """Takes a state to the next one, with the measures of the step; the state given is used up."""
        return self.step.learn(state, self.frozen, batch, self.hyperparameters)

    def batches(self, first: int, last: int | None = None, *, workers: int | None = None) -> Generator[Any, None, None]:
        """The training batches of updates `first` to `last` - 1, on the devices; None: without end.

        Args:
            first: first update, from 0.
            last: the update before which to end.
            workers: threads that decode; left out, as the settings say.
        """
        return stream.batches(
            self.dataset.splits["train"],
            batch_size=self.batch_size,
            seed=self.settings["seed"],
            first=first,
            last=last,
            workers=self.settings["data.workers"] if workers is None else workers,
            batches_ahead=self.settings["data.prefetch"],
            place=self.place_batch,
        )

    def place_batch(self, batch: dict) -> dict:
        """Puts a batch of the host on the devices."""
        return devices.place_batch(batch, self.mesh)


def check_network(settings: Settings, dataset: data.Dataset) -> forward.NetworkSpec:
    """The network that settings make of data; UserError where it does not take them. No device is touched."""
    classes, image_shape = len(dataset.classes), dataset.image_shape
    plan.check_model(settings, classes=classes, image_shape=image_shape)
    network = plan.network_spec(settings, classes=classes, image_shape=image_shape)
    forward.refuse_padded_sizes(network, dataset)
    return network
