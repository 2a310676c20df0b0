"""The parts of a run work by themselves: program, plain step, added measures, a data set that is loaded already."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import COMMON, evaluation_lines, load_settings, read_result, train_lines
from stepping import (
    NOTHING_FROZEN,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit import data
from cnn_vit.errors import StoppedError
from cnn_vit.runs import reader
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.stops import handle_signals
from cnn_vit.training import devices, loop, step
from cnn_vit.training.program import Program
from cnn_vit.training.run import Run


@pytest.fixture(scope="module")
def settings():
    return load_settings("mlp")


@pytest.fixture(scope="module")
def dataset(settings):
    return data.load(settings.section("data"))


class Recorder:
    """A progress display that records its calls."""

    def __init__(self):
        self.steps, self.sentences, self.accuracies, self.times_closed = [], [], [], 0

    def update(self, step, *, accuracy=None):
        self.steps.append(step)
        if accuracy is not None:
            self.accuracies.append(accuracy)

    def say(self, sentence):
        self.sentences.append(sentence)

    def close(self):
        self.times_closed += 1


def test_a_run_that_was_only_made_has_written_nothing(settings, dataset, tmp_path):
    with Run(settings, tmp_path / "run", dataset):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_loaded_before_is_not_loaded_again(settings, dataset, tmp_path, monkeypatch):
    expected = loop.train(settings, tmp_path / "loads")
    monkeypatch.setattr(data, "load", lambda section: pytest.fail("the data were loaded again"))
    loop.train(settings, tmp_path / "loaded", dataset=dataset)
    result = read_result(tmp_path / "loaded")
    for content in (result, expected):
        del content["timing"], content["seal"]  # the seal is of the timing too
    assert result == expected


def test_a_display_of_ones_own_gets_every_step_every_accuracy_and_the_end(settings, tmp_path, capsys):
    display = Recorder()
    loop.train(settings, tmp_path, progress=display)
    assert sorted(set(display.steps)) == list(range(1, 13))
    assert display.accuracies == [line["accuracy"] for line in evaluation_lines(tmp_path)]
    assert display.times_closed == 1
    assert capsys.readouterr().err == ""


def test_measures_that_a_study_adds_stand_in_the_journal_beside_the_others(settings, dataset, tmp_path):
    def update_norm(parts):
        return {"update_norm": optax.tree.norm(parts["updates"])}

    with handle_signals() as stop, Run(settings, tmp_path, dataset, add_measures=update_norm) as run:
        run.open_folder(command=None)
        start, state = run.restore_or_init(fork_from=None)
        loop.learn(run, start, state, stop)
    line = train_lines(tmp_path)[0]
    assert set(line) == {"kind", "step", "loss", "accuracy", "learning_rate", "gradient_norm", "update_norm"}
    assert line["update_norm"] > 0
    record = reader.read_run(tmp_path)
    assert record.lines("train")[0]["update_norm"] == line["update_norm"]
    assert record.problems == ()


def test_the_plain_step_is_the_compiled_one_and_can_be_mapped_over_rates():
    """Three learning rates at once, by vmap, are three steps one after the other."""
    spec, mesh = make_step_spec(make_network_spec(hidden=())), devices.mesh()
    built_step = step.build_step(spec, mesh)
    state, batch, hyperparameters = make_initial_state(built_step), make_batch(), make_hyperparameters()
    rates = jnp.float32([0.01, 0.1, 1.0])

    def params_after_step(rate):
        changed = hyperparameters | {"learning_rate": rate}
        next_state, _ = step.learn(spec, built_step.network, state, NOTHING_FROZEN, batch, changed)
        return next_state["params"]

    mapped = jax.vmap(params_after_step)(rates)
    for number, rate in enumerate(rates):
        placed = jax.device_put(hyperparameters | {"learning_rate": rate}, devices.replicated_sharding(mesh))
        single, _ = built_step.learn(make_initial_state(built_step), NOTHING_FROZEN, batch, placed)
        for leaf, expected in zip(jax.tree.leaves(mapped), jax.tree.leaves(single["params"]), strict=True):
            np.testing.assert_allclose(leaf[number], expected, rtol=1e-6, atol=1e-7)


def test_a_program_has_the_batches_and_the_state_of_its_run(settings, dataset):
    program = Program(settings, dataset, make_preprocessing(settings, dataset))
    first, second = program.batches(0, 2)
    (second_again,) = program.batches(1, 2)
    np.testing.assert_array_equal(second_again["index"], second["index"])
    assert not np.array_equal(first["index"], second["index"])
    state = program.initial_state()
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), program.state_template)
    state, measures = program.learn(state, first)
    assert int(state["step"]) == 1
    assert json.dumps(sorted(measures)) == '["accuracy", "finite", "gradient_norm", "learning_rate", "loss"]'
    assert COMMON[0] == "duration=12 steps"
    assert program.times.total == 12


def test_no_code_that_tolerates_errors_swallows_a_stop():
    def tolerant():
        try:
            raise StoppedError(15, "stopped")
        except Exception:
            return "went on"

    with pytest.raises(StoppedError, match="stopped") as stopped:
        tolerant()
    assert stopped.value.code == 143
