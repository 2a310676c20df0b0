"""Compiled programs are remembered, at most so many of each kind, and can be forgotten."""

import jax
import numpy as np
from stepping import (
    NOTHING_FROZEN,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit.training import caches, devices, forward, step


def build_step_for(classes, mesh):
    """Builds the step of a network with so many classes."""
    return step.build_step(make_step_spec(make_network_spec(classes=classes)), mesh)


def test_equal_arguments_give_the_same_program_however_they_are_written():
    spec, mesh = make_step_spec(make_network_spec()), devices.mesh()
    equal_spec = make_step_spec(make_network_spec())
    built_step = step.build_step(spec, mesh)
    assert step.build_step(equal_spec, mesh, devices.REPLICATED, add_measures=None) is built_step
    assert step.build_step(spec=spec, mesh=mesh) is built_step


def test_at_most_so_many_programs_are_remembered_and_the_newest_stay():
    caches.clear_compiled()
    mesh = devices.mesh()
    oldest = build_step_for(2, mesh)
    later_steps = [build_step_for(3 + count, mesh) for count in range(caches.MOST_COMPILED)]
    assert build_step_for(2 + caches.MOST_COMPILED, mesh) is later_steps[-1]
    assert build_step_for(2, mesh) is not oldest


def test_what_is_cleared_is_built_anew_and_computes_the_same():
    spec, mesh = make_step_spec(make_network_spec()), devices.mesh()
    eval_step = forward.build_eval_step(spec.network, mesh)
    hyperparameters = jax.device_put(make_hyperparameters(), devices.replicated_sharding(mesh))
    losses = []
    for _ in range(2):
        built_step = step.build_step(spec, mesh)
        _, measures = built_step.learn(make_initial_state(built_step), NOTHING_FROZEN, make_batch(), hyperparameters)
        losses.append(np.asarray(measures["loss"]))
        caches.clear_compiled()
    assert forward.build_eval_step(spec.network, mesh) is not eval_step
    assert losses[0] == losses[1]
