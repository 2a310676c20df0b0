"""Learning rates of parts of a network: multipliers by pattern, and layer-wise decay, in every rule."""

import jax
import numpy as np
import pytest
from running import load_settings
from stepping import (
    default_numbers,
    learn_batches,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.settings import read_rule
from cnn_vit.training import adapting, devices, forward, optimizers, plan, rates, step
from cnn_vit.training.rates import RatesSpec

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

NETWORK = make_network_spec(hidden=(6, 5))
BATCHES = [make_batch(seed=seed) for seed in range(3)]
RULES = [name for name, rule in optimizers.OPTIMIZERS.items() if rule.multiplies != "nowhere"]
FAST_RULES = ("schedule_free_adamw",)


def learn(name, *, patterns=(), multipliers=(), factor=1.0, batches=BATCHES):
    """Trains with a rule; `factor` multiplies each of its base rates. Returns the state and the step that was built."""
    numbers = default_numbers("optimizer", name)
    for keyword in numbers:
        if keyword.endswith("learning_rate"):
            numbers[keyword] *= factor
    hyperparameters = make_hyperparameters(
        learning_rate=read_rule("optimizer", name).learning_rate * factor, optimizer=numbers
    )
    hyperparameters["rates"] = {"multipliers": [np.float32(multiplier) for multiplier in multipliers]}
    spec = make_step_spec(NETWORK, optimizer=name, rates=RatesSpec(patterns))
    state, _ = learn_batches(spec, hyperparameters, batches)
    return jax.device_get(state), step.build_step(spec, devices.mesh())


@pytest.mark.parametrize(
    "name", [name if name in FAST_RULES else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)
def test_a_multiplier_of_all_is_another_rate_in_every_rule(name):
    """What the rule returns, its averages and what it is evaluated at."""
    multiplied, _ = learn(name, patterns=("all",), multipliers=(0.5,))
    slower, _ = learn(name, factor=0.5)
    plain, _ = learn(name)
    for tree in ("params", "ema"):
        for leaf, expected in zip(jax.tree.leaves(multiplied[tree]), jax.tree.leaves(slower[tree]), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6)
    change = np.abs(plain["params"]["head"]["kernel"] - slower["params"]["head"]["kernel"]).max()
    assert change > 1e-5


def test_each_part_learns_at_its_own_rate_and_another_number_compiles_nothing():
    """After one step of SGD without momentum, by hand: the change of a part is its multiplier times the change."""
    patterns = ("head", "hidden/layers/0")
    before = make_initial_state(step.build_step(make_step_spec(NETWORK), devices.mesh()))["params"]
    before = jax.tree.map(np.array, before)
    plain, _ = learn("sgd", batches=BATCHES[:1])
    first, _ = learn("sgd", patterns=patterns, multipliers=(10, 0.25), batches=BATCHES[:1])
    expected = {"head": 10, "0": 0.25, "1": 1}
    changes = jax.tree.map(lambda new, old: np.float64(new) - old, plain["params"], before)
    for path, change in trees.leaves_by_path(changes).items():
        part = "head" if path[0] == "head" else str(path[2])
        new = trees.leaves_by_path(first["params"])[path] - np.float64(trees.leaves_by_path(before)[path])
        np.testing.assert_allclose(new, expected[part] * change, rtol=1e-3, atol=1e-7)
    second, built_step = learn("sgd", patterns=patterns, multipliers=(3, 0.5), batches=BATCHES[:1])
    assert trees.digest(second["params"]) != trees.digest(first["params"])
    assert built_step.learn._cache_size() == 1


def test_layer_decay_multiplies_by_its_powers_and_multipliers_on_top():
    """Of a ViT of two blocks: 1, 0.5, 0.25 and 0.125 from the head to the patches; the head ten times as much."""
    spec = make_network_spec("vit/test", side=8, depth=2)
    numbers = {"layer_decay": np.float32(0.5), "multipliers": [np.float32(10), np.float32(0.1)]}
    rates_spec = RatesSpec(("head", "blocks/0/attention"), layer_decay=True)
    multipliers = rates.find_multipliers(spec, rates_spec, forward.get_network(spec).params, numbers)
    by_path = {trees.keys_text(path): float(number) for path, number in trees.leaves_by_path(multipliers).items()}
    expected = {
        **{"head/kernel": 10, "norm/scale": 1, "blocks/1/mlp/dense1/kernel": 0.5, "blocks/0/mlp/dense1/kernel": 0.25},
        **{"blocks/0/attention/query/kernel": 0.025, "patches/kernel": 0.125, "pos_embed/embedding": 0.125},
    }
    assert {path: by_path[path] for path in expected} == pytest.approx(expected)


def test_the_factors_of_an_adapter_learn_at_the_rate_of_their_kernel():
    spec = make_network_spec("vit/test", side=8, depth=2)
    params = {"blocks": {0: {"attention": {"query": {"lora_a": 0, "lora_b": 0}}}}, "head": {"bias": 0}}
    numbers = {"layer_decay": np.float32(0.5), "multipliers": [np.float32(3)]}
    multipliers = rates.find_multipliers(spec, RatesSpec(("blocks/0/attention",), True), params, numbers)
    assert multipliers["blocks"][0]["attention"]["query"] == {"lora_a": 0.75, "lora_b": 0.75}
    assert multipliers["head"]["bias"] == 1


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("pretrained.multipliers=head",), "which has no number"),
        (("optimizer.name=prodigy", "pretrained.multipliers=head=2"), "pretrained.multipliers is set, and prodigy est"),
        (("optimizer.name=prodigy", "pretrained.layer_decay=0.9"), "pretrained.layer_decay is set, and prodigy est"),
        (("pretrained.lora_alpha=4",), "there are no adapters; set pretrained.lora too"),
        (("pretrained.lora_on=stem",), "there are no adapters; set pretrained.lora too"),
        (("pretrained.stages=head, all",), "holds 'head', which does not say how long"),
        (("pretrained.stages=head 3x steps, all",), "holds 'head 3x steps', which does not say how long"),
        (("pretrained.stages=head 2 epochs, all 3 steps",), "the last stage lasts until the end of the run; leave out"),
        (("pretrained.stages=all",), "holds 'all' alone, and a run has two stages or more"),
        (
            ("pretrained.stages=head 2 epochs",),
            "holds 'head 2 epochs' alone, and a run has two stages or more, the last",
        ),
        (("pretrained.stages=stem, head 2 epochs, all",), "a list in quotes, ('stem, head 2 epochs', 'all')"),
        (("pretrained.stages=head 0 epochs, all",), "head 0 epochs is shorter than a step; make it longer"),
        (("pretrained.stages=head 99 epochs, all",), "of a run of 12; make the stages before it shorter"),
        (("pretrained.stages=head 2 epochs, stages//1 1 epoch, all",), "'stages//1' is no part of a network"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_data_are_read(changes, sentence):
    with pytest.raises(UserError) as error:
        plan.check(load_settings("cnn", *changes))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (("pretrained.multipliers=haed=2",), "there is no haed; did you mean head?"),
        (("pretrained.multipliers=stem=2", "pretrained.freeze=stem"), "all of 'stem' is frozen, by pretrained.freeze="),
        (("pretrained.stages=head 2 steps, haed",), "pretrained.stages='haed': there is no haed; did you mean head?"),
        (("pretrained.stages=head 2 steps, head/bias 2 steps, all",), "the stage 'head/bias' trains nothing"),
        (
            ("pretrained.stages=head 2 steps, stem", "pretrained.freeze=stem"),
            "the stage 'stem' trains nothing that was not trained before; leave it out, or name more than "
            "pretrained.freeze leaves",
        ),
        (
            ("optimizer.name=muon", "pretrained.stages=head/bias 2 steps, head"),
            "and the network trains none; take adamw",
        ),
    ],
)
def test_patterns_that_do_not_fit_the_network_are_refused(changes, sentence):
    settings = load_settings("cnn", *changes)
    network = plan.network_spec(settings, classes=10, image_shape=(8, 8, 1))
    with pytest.raises(UserError) as error:
        adapting.check_parts(settings, network)
    assert sentence in str(error.value)


def test_a_multiplier_of_a_kernel_with_an_adapter_is_of_its_factors():
    settings = load_settings("mlp", "pretrained.lora=2", "pretrained.multipliers=hidden=2")
    adapting.check_parts(settings, plan.network_spec(settings, classes=10, image_shape=(8, 8, 1)))
