"""Unfreezing in stages: when they begin, what begins anew with them, and that a run goes on to the same bits."""

import re

import jax
import numpy as np
import pytest
from running import (
    call_at_step,
    committed_steps,
    load_settings,
    read_outcome,
    read_result,
    send_signal,
    train,
    undisturbed_outcome,
)
from stepping import (
    NOTHING_FROZEN,
    learn_batches,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit import data, trees
from cnn_vit.errors import StoppedError, SurroundingsError, UserError
from cnn_vit.runs import journal
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.training import devices, forward, freezing, plan, step, trained
from cnn_vit.training.freezing import FreezeSpec
from cnn_vit.training.program import Program
from cnn_vit.training.run import Run

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

STAGES = ("pretrained.stages=head 5 steps, all", "ema_decay=0.9")
HIDDEN = 64 * 8 + 8  # parameters of the hidden layer of mlp/test for gray images of 8x8 pixels
HEAD = 8 * 10 + 10


def make_program(name, *changes):
    """The program of a tiny run."""
    settings = load_settings(name, *changes)
    dataset = data.load(settings.section("data"))
    return Program(settings, dataset, make_preprocessing(settings, dataset))


# When they begin ------------------------------------------------------------------------------------------------------


def test_stages_follow_one_another_in_their_own_units():
    """256 examples in batches of 32 are 8 steps: 3, then half an epoch, then 33 examples, which take 2 steps."""
    settings = load_settings("mlp", "pretrained.stages=head 3 steps, head 0.5 epochs, head 33 examples, all")
    assert plan.stage_ends(settings, examples=256) == (3, 7, 9)


def test_a_bare_number_counts_steps():
    assert plan.stage_ends(load_settings("mlp", "pretrained.stages=head 4, all"), examples=256) == (4,)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ("head 2 epochs, all", "the last stage would begin at step 16 of a run of 12"),
        ("head 12 steps, all", "the last stage would begin at step 12 of a run of 12"),
        ("head 0 steps, all", "head 0 steps is shorter than a step; make it longer"),
    ],
)
def test_stages_longer_than_the_run_are_refused(stages, sentence):
    with pytest.raises(UserError) as error:
        plan.stage_ends(load_settings("mlp", f"pretrained.stages={stages}"), examples=256)
    assert sentence in str(error.value)


def test_a_state_is_of_the_stage_of_its_last_step():
    """With ends at 3 and 7, steps 1 to 3 are of the first stage; what goes on from step 3 is of the second."""
    program = make_program("lora", "pretrained.stages=head/bias 3 steps, head/kernel 4 steps, all")
    assert [program.stage_at(steps) for steps in (0, 1, 3, 4, 7, 8, 12)] == [0, 0, 0, 1, 1, 2, 2]
    assert [program.begins_stage(steps) for steps in (0, 2, 3, 12)] == [False, False, True, True]
    program.stage = 1
    assert [program.begins_stage(steps) for steps in (3, 6, 7)] == [False, False, True]


# What begins anew -----------------------------------------------------------------------------------------------------


def test_what_a_stage_adds_begins_fresh_and_what_was_trained_goes_on():
    program = make_program("mlp", *STAGES)
    state = program.initial_state()
    batches = list(program.batches(0, 3))
    for batch in batches[:2]:
        state, _ = program.learn(state, batch)
    before = jax.device_get(state)
    frozen = jax.device_get(program.frozen)
    assert set(before["params"]) == {"head"}
    state = program.enter_stage(state)
    after = jax.device_get(state)
    assert program.frozen == NOTHING_FROZEN
    assert after["step"] == 2
    assert trees.digest(after["params"]) == trees.digest(trees.merge(before["params"], frozen["params"]))
    # the average of what did not move is its value
    assert trees.digest(after["ema"]["params"]["hidden"]) == trees.digest(frozen["params"]["hidden"])
    assert trees.digest(after["ema"]["params"]["head"]) == trees.digest(before["ema"]["params"]["head"])
    _, (head, hidden) = after["opt"]
    assert trees.digest(head) == trees.digest(before["opt"][1][0])
    counts = [int(leaf) for leaf in jax.tree.leaves(hidden) if leaf.dtype == np.int32]
    assert counts
    assert not any(counts)
    moments = [leaf for leaf in jax.tree.leaves(hidden) if leaf.shape]
    assert sum(leaf.size for leaf in moments) == 2 * HIDDEN
    assert not any(leaf.any() for leaf in moments)
    state, measures = program.learn(state, batches[2])  # donates the state, whose arrays must be its own
    assert measures["finite"]
    assert np.abs(np.asarray(state["params"]["hidden"]["layers"][0]["kernel"])
                  - frozen["params"]["hidden"]["layers"][0]["kernel"]).max() > 0  # fmt: skip


def test_a_moving_average_forgets_the_beginning_of_each_stage_as_soon_as_that_of_the_run():
    """At the first step of a stage that begins at 90, its share is 1 / 10, and that of what began before 91 / 100."""
    network = make_network_spec("cifar_resnet/8", side=8)
    freeze = FreezeSpec(stages=("stages/2, head", "all"))
    spec = make_step_spec(network, ema=True, freeze=freeze, stage_ends=(90,))
    whole = forward.get_network(network)
    zeros, ones = (
        jax.tree.map(lambda leaf, number=number: np.full(leaf.shape, number, np.float32), [whole.params, whole.stats])
        for number in (0, 1)
    )
    state = dict(step=np.int32(90), ema=dict(params=zeros[0], stats=zeros[1]))
    averages = step.update_ema(spec, state, *ones, dict(ema_decay=np.float32(0.999)))
    for leaves in averages.values():
        for path, leaf in trees.leaves_by_path(leaves).items():
            expected = 0.09 if path[0] == "head" or path[:2] == ("stages", 2) else 0.9
            np.testing.assert_allclose(leaf, expected, rtol=1e-5, err_msg=trees.keys_text(path))


def test_a_program_counts_the_moving_average_from_the_ends_of_its_stages():
    stages = "pretrained.stages=head/bias 3 steps, head/kernel 4 steps, all"
    averaging, plain = make_program("mlp", stages, "ema_decay=0.9"), make_program("mlp", stages)
    assert [averaging.part_of(stage).spec.stage_ends for stage in range(3)] == [(), (3,), (3, 7)]
    assert plain.part_of(2).spec.stage_ends == ()


def test_stages_are_a_run_of_the_head_and_then_one_of_everything():
    """Of SGD without momentum, which remembers nothing: the second is begun by hand from where the first ended."""
    network = make_network_spec()
    hyperparameters = make_hyperparameters()
    batches = [make_batch(seed=seed) for seed in range(4)]
    whole_spec = make_step_spec(network)
    whole = make_initial_state(step.build_step(whole_spec, devices.mesh()))
    values = jax.device_get(dict(params=whole["params"], stats=whole["stats"]))

    def learn_head(freeze):
        head, frozen = freezing.split_values(values, freezing.get_masks(network, freeze))
        spec = make_step_spec(network, freeze=freeze)
        state = step.build_step(spec, devices.mesh()).init_state(**head, hyperparameters=hyperparameters)
        state, _ = learn_batches(spec, hyperparameters, batches[:2], frozen=frozen, state=state)
        return state, frozen

    state, frozen = learn_head(FreezeSpec("all but head"))
    state = whole | dict(step=state["step"], params=trees.merge(state["params"], frozen["params"]))
    expected, _ = learn_batches(whole_spec, hyperparameters, batches[2:], state=state)
    state, frozen = learn_head(FreezeSpec(stages=("head",)))
    last_spec = make_step_spec(network, freeze=FreezeSpec(stages=("head", "all")))
    state = step.build_step(last_spec, devices.mesh()).enter_stage(state, frozen, hyperparameters)
    state, _ = learn_batches(last_spec, hyperparameters, batches[2:], state=state)
    for leaf, expected_leaf in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(expected["params"]), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_schedule_free_averages_each_stage_from_its_beginning():
    """What a stage adds is its own average after one step, by the weight of that step alone."""
    network = make_network_spec()
    hyperparameters = make_hyperparameters(
        optimizer=dict(b1=0.9, b2=0.999, epsilon=1e-8, weight_decay=0.0, weight_power=2.0)
    )
    batches = [make_batch(seed=seed) for seed in range(3)]
    first_spec, last_spec = (
        make_step_spec(network, optimizer="schedule_free_adamw", freeze=FreezeSpec(stages=stages))
        for stages in (("head",), ("head", "all"))
    )
    values = make_initial_state(step.build_step(make_step_spec(network), devices.mesh()))
    values = jax.device_get(dict(params=values["params"], stats=values["stats"]))
    head, frozen = freezing.split_values(values, freezing.get_masks(network, first_spec.freeze))
    state = step.build_step(first_spec, devices.mesh()).init_state(**head, hyperparameters=hyperparameters)
    state, _ = learn_batches(first_spec, hyperparameters, batches[:2], frozen=frozen, state=state)
    state = step.build_step(last_spec, devices.mesh()).enter_stage(state, frozen, hyperparameters)
    state, _ = learn_batches(last_spec, hyperparameters, batches[2:], state=state)
    _, (_, newest) = state["opt"]
    np.testing.assert_allclose(
        state["ema"]["params"]["hidden"]["layers"][0]["kernel"],
        newest.z["hidden"]["layers"][0]["kernel"],
        rtol=1e-5,
        atol=1e-6,
    )
    average, z = state["ema"]["params"]["head"]["kernel"], state["opt"][1][0].z["head"]["kernel"]
    assert np.abs(np.asarray(average) - np.asarray(z)).max() > 1e-4
    renewed = step.renew_numbers(last_spec, state, hyperparameters)
    assert trees.digest(renewed) == trees.digest(state)


def test_a_fork_takes_new_numbers_into_the_states_of_all_stages():
    """Of schedule-free AdamW, which keeps a number in its state and makes the parameters anew of it."""
    program = make_program(
        "mlp", "pretrained.stages=head 5 steps, all", "optimizer.name=schedule_free_adamw", "schedule.name=constant"
    )
    for stage in (0, 1):
        template = program.part_of(stage).state_template
        renewed = jax.eval_shape(program.renew_numbers, template)  # before it has entered the stage of the state
        assert trees.differences(renewed["params"], template["params"]) == []
        assert jax.tree.structure(renewed) == jax.tree.structure(template)


def test_muon_may_begin_with_the_head_alone_which_follows_adamw():
    program = make_program("cnn", "optimizer.name=muon", "pretrained.stages=head 3 steps, all")
    _, (head,) = program.part_of(0).state_template["opt"]
    adamw = make_program("cnn", "optimizer.name=adamw", "pretrained.stages=head 3 steps, all")
    assert jax.tree.structure(head) == jax.tree.structure(adamw.part_of(0).state_template["opt"][1][0])
    _, (_, others) = program.part_of(1).state_template["opt"]
    assert set(others.inner_states) == {"muon", "adamw"}


# A run ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run in two stages."""
    folder = tmp_path_factory.mktemp("stages") / "run"
    train("mlp", folder, *STAGES)
    return folder


def test_the_result_proves_each_stage_by_what_it_froze(run_folder):
    result = read_result(run_folder)
    proof = result["frozen"]
    assert proof["moved"] == []
    assert [stage["parameters"] for stage in proof["stages"]] == [HIDDEN, 0]
    assert [stage["pattern"] for stage in proof["stages"]] == ["all but head", "all but head, all"]
    assert all(stage["digest"] == stage["source_digest"] for stage in proof["stages"])
    assert result["trained_parameters"] == result["parameters"] == HIDDEN + HEAD


def test_a_fork_goes_on_in_the_stage_of_its_step_and_other_stages_are_refused(run_folder, tmp_path):
    train("mlp", tmp_path / "fork", *STAGES, "duration=14 steps", fork_from=run_folder)
    assert read_result(tmp_path / "fork")["frozen"]["moved"] == []
    changes = (*STAGES, "pretrained.stages=head 6 steps, all", "duration=14 steps")
    with pytest.raises(UserError, match=r"has pretrained\.stages=.* a fork goes on with what is trained there"):
        train("mlp", tmp_path / "other", *changes, fork_from=run_folder)


def test_the_end_of_a_stage_is_saved_before_the_next_one_begins(tmp_path, monkeypatch):
    enter_stages = Run.enter_stages

    def fail_at_the_end_of_the_first(run, step, state):
        if step == 3:
            raise SurroundingsError("no memory is left")
        return enter_stages(run, step, state)

    monkeypatch.setattr(Run, "enter_stages", fail_at_the_end_of_the_first)
    with pytest.raises(SurroundingsError, match="no memory is left"):
        train("mlp", tmp_path, "pretrained.stages=head 3 steps, all")
    assert committed_steps(tmp_path) == [3]


def test_a_last_stage_that_needs_more_memory_than_is_free_is_refused_before_the_first_step(tmp_path, monkeypatch):
    """Its intermediate results fit beside the values of the first stage, and not beside its own."""
    program = make_program("mlp", *STAGES)
    first, last = program.compile_step(0), program.compile_step(1)
    assert last.values > first.values
    free = iter([10**12, last.intermediate + last.values - first.values - 1])
    monkeypatch.setattr(devices, "free_memory", lambda mesh: next(free))
    with pytest.raises(SurroundingsError, match=f"a step needs {re.escape(last.as_text())}"):
        train("mlp", tmp_path, *STAGES)
    assert committed_steps(tmp_path) == []


def test_patience_is_counted_in_the_last_stage_alone(tmp_path):
    """Evaluations at 2, 4, 6 and 8 are none of its; that at 10 is the best, for no parameter moves, and 14 the last."""
    still = ("optimizer.learning_rate=1e-60", "evaluate_every=2", "early_stop=2")
    train("mlp", tmp_path, *still, "pretrained.stages=head 9 steps, all", "duration=20 steps")
    result = read_result(tmp_path)
    assert (result["steps"], result["best"]["step"]) == (14, 2)


@pytest.mark.slow
def test_a_fork_with_other_batches_is_refused_where_its_step_is_of_another_stage(tmp_path, monkeypatch, capsys):
    """Of 256 examples, an epoch is 8 steps of the origin and 4 of the fork; a best checkpoint may be left behind."""
    stages, origin = "pretrained.stages=head 1 epochs, all", tmp_path / "origin"
    with monkeypatch.context() as patch:
        call_at_step(patch, 6, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", origin, stages)
    larger = (stages, "data.batch_size=64", "duration=14 steps")
    with pytest.raises(UserError, match=r"ends at step 8, and in this run at step 4, .* step 6 is of another stage"):
        train("mlp", tmp_path / "early", *larger, fork_from=origin)
    monkeypatch.setattr(journal, "best_evaluation", lambda evaluations: evaluations[0])
    train("mlp", origin, stages)
    train("mlp", tmp_path / "fork", *larger, fork_from=origin)
    assert "step 5 is of another stage" in capsys.readouterr().err
    assert read_result(tmp_path / "fork")["steps"] == 14
    with pytest.raises(UserError, match="step 5 is of another stage"):
        train("mlp", tmp_path / "best", *larger, "test_weights=best", fork_from=origin)


def test_the_best_checkpoint_may_be_of_an_earlier_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "best_evaluation", lambda self: self.journal.evaluations()[0])
    train("lora", tmp_path, *STAGES, "test_weights=best")
    result = read_result(tmp_path)
    assert result["tested"]["step"] == 5
    network = trained.load(tmp_path)
    hidden = network.params["hidden"]["layers"][0]["kernel"]
    initial = make_program("lora").start.values["params"]["hidden"]["layers"][0]["kernel"]
    np.testing.assert_array_equal(hidden, initial)


@pytest.mark.parametrize("steps", [5, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (4, 6, 8))])
def test_a_run_that_is_stopped_beside_the_end_of_a_stage_goes_on_to_the_same_bits(
    steps, run_folder, tmp_path, monkeypatch
):
    """With a moving average; what is loaded before the resume is of the stage of its step."""
    with monkeypatch.context() as patch:
        call_at_step(patch, steps, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", tmp_path, *STAGES)
    hidden = trained.load(tmp_path).params["hidden"]["layers"][0]["kernel"]
    initial = make_program("mlp").start.values["params"]["hidden"]["layers"][0]["kernel"]
    assert np.array_equal(hidden, initial) == (steps <= 5)
    train("mlp", tmp_path, *STAGES)
    assert read_outcome(tmp_path) == read_outcome(run_folder)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 9])
def test_three_stages_resume_to_the_same_bits_in_each_of_them(steps, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        call_at_step(patch, steps, send_signal)
        with pytest.raises(StoppedError):
            train("staged", tmp_path)
    train("staged", tmp_path)
    assert read_outcome(tmp_path) == undisturbed_outcome("staged")
