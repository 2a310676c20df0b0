"""Compiled programs are remembered, at most so many of each kind, and can be forgotten."""

import jax
import numpy as np
from stepping import NOTHING_FROZEN, batch, begun, network_spec, numbers, static

from cnn_vit.training import caches, devices, forward, step


def test_equal_arguments_give_the_same_program_however_they_are_written():
    spec, mesh = static(network_spec()), devices.mesh()
    built = step.build_step(spec, mesh)
    assert step.build_step(static(network_spec()), mesh, devices.REPLICATED, add_measures=None) is built
    assert step.build_step(spec=spec, mesh=mesh) is built


def test_at_most_so_many_programs_are_remembered_and_the_newest_stay():
    caches.clear_compiled()
    mesh = devices.mesh()
    oldest = step.build_step(static(network_spec(classes=2)), mesh)
    newest = [step.build_step(static(network_spec(classes=3 + count)), mesh) for count in range(caches.MOST_COMPILED)]
    assert step.build_step(static(network_spec(classes=2 + caches.MOST_COMPILED)), mesh) is newest[-1]
    assert step.build_step(static(network_spec(classes=2)), mesh) is not oldest


def test_what_is_cleared_is_built_anew_and_computes_the_same():
    spec, mesh = static(network_spec()), devices.mesh()
    evaluator = forward.build_eval_step(spec.network, mesh)
    losses = []
    for _ in range(2):
        built = step.build_step(spec, mesh)
        given = jax.device_put(numbers(), devices.replicated_sharding(mesh))
        _, measures = built.learn(begun(built), NOTHING_FROZEN, batch(), given)
        losses.append(np.asarray(measures["loss"]))
        caches.clear_compiled()
    assert forward.build_eval_step(spec.network, mesh) is not evaluator
    assert losses[0] == losses[1]
