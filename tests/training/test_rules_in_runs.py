"""Optimizers and losses in whole runs: what is evaluated, saved, loaded, forked and predicted is what the rule says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import call_at_step, read_outcome, read_result, send_signal

from cnn_vit import data, settings, stops, trees
from cnn_vit.errors import DivergedError, StoppedError, UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.reports import tallies
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.training import evaluation, loop, plan, prediction, program, step
from cnn_vit.training.caches import clear_compiled
from cnn_vit.training.trained import load

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

TIMES = ("duration=12 steps", "log_every=2", "evaluate_every=5", "checkpoint_every=4", "schedule.warmup=2")
SCHEDULE_FREE = ("optimizer.name=schedule_free_adamw", "schedule.name=constant", *TIMES)  # of a network with batch norm


def load_schedule_free(*changes):
    """Settings of a tiny run of schedule-free AdamW."""
    return settings.load("configs/digits_cnn.py:smoke", [*SCHEDULE_FREE, *changes])


def read_state(run_settings, folder, checkpoint_step):
    """The state in a checkpoint of a run."""
    dataset = data.load(run_settings.section("data"))
    template = program.Program(run_settings, dataset, load(folder).preprocessing).state_template
    checkpoints = Checkpoints(folder / "checkpoints", keep_checkpoints=2, crash=folder / "crash", clean_up=False)
    try:
        return checkpoints.restore(checkpoint_step, template)
    finally:
        checkpoints.close()


def stop_at_7(run_settings, folder, monkeypatch):
    """Trains a run until a signal stops it at step 7."""
    with monkeypatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
        call_at_step(patch, 7, send_signal)
        with pytest.raises(StoppedError):
            loop.train(run_settings, folder)


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """The folder of a finished run of schedule-free AdamW; to be read, not changed."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    loop.train(load_schedule_free("test_weights=best"), folder)
    return folder


def test_schedule_free_is_tested_loaded_and_evaluated_at_its_average(averaged):
    result, network = read_result(averaged), load(averaged)
    assert result["tested"] == {"step": result["best"]["step"], "values": "ema", "with": "best"}
    run_settings = load_schedule_free("test_weights=best")
    state = read_state(run_settings, averaged, result["tested"]["step"])
    average = optax.contrib.schedule_free_eval_params(state["opt"][1], state["params"])
    for leaf, expected in zip(jax.tree.leaves(network.params), jax.tree.leaves(average), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)
    assert trees.digest(network.stats) == trees.digest(state["ema"]["stats"]) != trees.digest(state["stats"])
    dataset = data.load(run_settings.section("data"))
    metrics = evaluation.evaluate(network, dataset, "validation")
    assert {name: metrics[name] for name in ("accuracy", "loss", "n")} == {
        name: result["validation"][name] for name in ("accuracy", "loss", "n")
    }


def test_schedule_free_has_no_other_parameters_to_test_than_its_average(tmp_path, averaged):
    result = loop.train(load_schedule_free("test_weights=last"), tmp_path / "run")
    assert result["tested"] == {"step": 12, "values": "ema", "with": "last"}
    for changes, message in [
        (["ema_decay=0.9"], "ema_decay is set, and schedule_free_adamw averages its parameters itself"),
        (["schedule.name=cosine"], "schedule.name is cosine, and schedule_free_adamw takes constant alone"),
    ]:
        with pytest.raises(UserError, match=message):
            plan.check(load_schedule_free(*changes))


def test_schedule_free_resumes_to_the_same_bits_and_forks_with_another_b1_at_the_same_average(
    averaged, tmp_path, monkeypatch
):
    run_settings = load_schedule_free("test_weights=best")
    stop_at_7(run_settings, tmp_path / "run", monkeypatch)
    fork_settings = load_schedule_free("test_weights=best", "optimizer.b1=0.5", "keep_checkpoints=9")
    loop.train(fork_settings, tmp_path / "fork", fork_from=tmp_path / "run")
    origin = read_state(run_settings, tmp_path / "run", 7)
    fork = read_state(fork_settings, tmp_path / "fork", 7)
    assert trees.digest(fork["ema"]) == trees.digest(origin["ema"])
    assert (float(origin["opt"][1].b1), float(fork["opt"][1].b1)) == (pytest.approx(0.9), 0.5)
    average, z, trained = (tree["head"]["kernel"] for tree in (fork["ema"]["params"], fork["opt"][1].z, fork["params"]))
    np.testing.assert_allclose(trained, (np.float64(average) + np.float64(z)) / 2, rtol=1e-5, atol=1e-7)
    assert np.abs(np.asarray(trained) - np.asarray(origin["params"]["head"]["kernel"])).max() > 1e-4

    loop.train(run_settings, tmp_path / "run")
    assert read_outcome(tmp_path / "run") == read_outcome(averaged)


@pytest.mark.parametrize(
    "rule",
    [SCHEDULE_FREE[:2], pytest.param(("optimizer.name=muon",), marks=pytest.mark.slow)],
    ids=["schedule_free_adamw", "muon"],
)
def test_a_frozen_body_stays_and_a_resume_gives_the_same_bits_with_each_kind_of_state(rule, tmp_path, monkeypatch):
    run_settings = settings.load("configs/digits_cnn.py:smoke", [*rule, *TIMES, "pretrained.freeze=stages/0"])
    loop.train(run_settings, tmp_path / "undisturbed")
    stop_at_7(run_settings, tmp_path / "run", monkeypatch)
    loop.train(run_settings, tmp_path / "run")
    outcome = read_outcome(tmp_path / "run")
    assert outcome == read_outcome(tmp_path / "undisturbed")

    network, state = load(tmp_path / "run"), read_state(run_settings, tmp_path / "run", 12)
    initial_params, initial_stats = initial_values(network.network, run_settings["seed"])
    proof = outcome["result"]["frozen"]
    assert proof["moved"] == []
    assert proof["digest"] == trees.digest(dict(stages={0: initial_params["stages"][0]}))
    assert trees.digest(network.params["stages"][0]) == trees.digest(initial_params["stages"][0])
    assert trees.digest(network.stats["stages"][0]) == trees.digest(initial_stats["stages"][0])
    tested = state["ema"] if rule == SCHEDULE_FREE[:2] else state
    assert trees.digest(network.params["stages"][1]) == trees.digest(tested["params"]["stages"][1])
    assert trees.digest(network.stats["stages"][1]) == trees.digest(tested["stats"]["stages"][1])
    kernels = [params["stages"][1]["convolutions"][0]["kernel"] for params in (network.params, initial_params)]
    assert np.abs(np.subtract(*kernels)).max() > 1e-4
    metrics = evaluation.evaluate(network, data.load(run_settings.section("data")), "validation")
    assert metrics["loss"] == pytest.approx(outcome["result"]["validation"]["loss"], rel=1e-6)


# Losses ---------------------------------------------------------------------------------------------------------------


def test_focal_is_the_loss_of_training_evaluation_and_reports_and_predicts_with_sigmoids(tmp_path):
    run_settings = settings.load(
        "configs/digits_mlp.py:smoke", [*TIMES, "loss.name=focal", "loss.gamma=3", "loss.alpha=0.25"]
    )
    loop.train(run_settings, tmp_path)
    network, dataset = load(tmp_path), data.load(run_settings.section("data"))
    rows = evaluation.evaluate(network, dataset, "validation")["rows"]
    saved = evaluation.load_predictions(tmp_path, "validation")
    scores, labels = np.float64(saved["scores"]), saved["label"]
    is_label = np.arange(scores.shape[1]) == labels[:, None]
    p = np.where(is_label, 1 / (1 + np.exp(-scores)), 1 / (1 + np.exp(scores)))
    expected = (-np.where(is_label, 0.25, 0.75) * (1 - p) ** 3 * np.log(p)).sum(1)
    np.testing.assert_allclose(saved["loss"], expected, rtol=1e-4)
    np.testing.assert_array_equal(rows["loss"], saved["loss"])
    images = dataset.splits["validation"].read(np.arange(len(labels)))
    np.testing.assert_allclose(prediction.predict(network, images), 1 / (1 + np.exp(-scores)), rtol=1e-4, atol=1e-6)
    reported = tallies.class_probabilities(saved, "focal")
    np.testing.assert_allclose(reported, 1 / (1 + np.exp(-scores)), rtol=1e-5)
    with pytest.raises(UserError, match="no loss 'hinge'"):
        tallies.class_probabilities(saved, "hinge")


# The digits -----------------------------------------------------------------------------------------------------------


class Silent:
    """A display that shows nothing."""

    def update(self, step, *, accuracy=None):
        """Shows nothing."""

    def say(self, sentence):
        """Says nothing."""

    def close(self):
        """Has nothing to close."""


def learn_digits(name, folder):
    """The validation accuracy of the recipe of the digits after 400 steps with an optimizer at its default rate."""
    rate = settings.read_rule("optimizer", name).learning_rate  # the recipe has one for AdamW
    changes = [f"optimizer.name={name}", f"optimizer.learning_rate={rate}"]
    changes += ["duration=400 steps", "evaluate_every=400 steps"]
    if name == "schedule_free_adamw":
        changes.append("schedule.name=constant")
    run_settings = settings.load("configs/digits_mlp.py", changes)
    return loop.train(run_settings, folder, progress=Silent())["validation"]["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", settings.rule_names("optimizer"))
def test_every_optimizer_learns_the_digits_at_its_default_rate(name, tmp_path):
    assert learn_digits(name, tmp_path) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prodigy", "schedule_free_adamw"])  # Muon's other group learns the digits alone
def test_an_optimizer_that_begins_from_zeros_instead_of_its_own_state_does_not_learn_the_digits(
    name, tmp_path, monkeypatch
):
    init_state = step.init_state

    def init_with_zeros(*args):
        state = init_state(*args)
        return state | dict(opt=jax.tree.map(jnp.zeros_like, state["opt"]))

    monkeypatch.setattr(step, "init_state", init_with_zeros)
    clear_compiled()  # the step of another test, which makes its state rightly
    try:
        accuracy = learn_digits(name, tmp_path)
    except DivergedError:
        accuracy = 0
    finally:
        clear_compiled()
    assert accuracy < 0.9
