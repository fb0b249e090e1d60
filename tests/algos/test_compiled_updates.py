"""Compiled updates equal eager ones, one after the other and side by side."""

import copy
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import CPU, PointMass, compile_update, control, learn, set_up, small_model
from torch import Tensor

from rlrun.hardware.compile import find_compiler
from rlrun.hardware.spec import Hardware
from rlrun.learning.trust_region import TrustRegionStep

needs_compiler = pytest.mark.skipif(
    find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)"
)
IN_TURN = replace(CPU, compile="on")
SIDE_BY_SIDE = replace(IN_TURN, threads=2)


def ready(algo: str, hardware: Hardware, **settings: Any) -> tuple[Any, Any]:
    """A small algorithm, compiled if the hardware says so, and its collector."""
    model = small_model(hidden_sizes=[4])
    algorithm, collector = set_up(
        control(PointMass, 4), algo, hardware=hardware, model=model, **settings
    )
    before = copy.deepcopy(state_of(algorithm))
    assert compile_update(algorithm, hardware).wanted is (hardware.compile == "on")
    assert_equal(state_of(algorithm), before)  # nothing is learned from zeros
    return algorithm, collector


def state_of(algorithm: Any) -> dict[str, Tensor]:
    """The weights, and how many steps the critics have taken."""
    critics = algorithm.learners["critics"].learners
    taken = {name: learner.state.optimizer[-1].clone() for name, learner in critics.items()}
    return {**algorithm.agent.weights(), **taken}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The same names and numbers, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def refuse_eager_steps(algorithm: Any) -> None:
    """From now on a step that is not compiled fails."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("a step without the compiler")

    for learner in algorithm.learners.values():
        for function in learner.functions:
            function.eager = refuse


def watch_threads(algorithm: Any) -> list[int]:
    """The threads of the policy's and the critics' fits, from now on."""
    threads = []

    def watched(function):
        def noting(*arguments, **settings):
            threads.append(threading.get_ident())
            return function(*arguments, **settings)

        return noting

    policy, critics = algorithm.learners["policy"], algorithm.learners["critics"]
    if isinstance(policy, TrustRegionStep):
        policy.take = watched(policy.take)
    else:
        policy.fit = watched(policy.fit)
    critics.fit = watched(critics.fit)
    return threads


SETTINGS = {
    "ppo": {"minibatch_size": 32, "learning_rate": 1e-2},
    "ppo_kl": {"minibatch_size": 32, "learning_rate": 1e-2},
    "trpo": {"minibatch_size": 32},
    "a2c": {},
    "actor_critic_q": {},
}
every_algorithm = pytest.mark.parametrize("algo", SETTINGS)


@needs_compiler
@every_algorithm
def test_the_compiled_update_equals_the_eager_one(algo, compiler):
    updates = {}
    for hardware in (CPU, IN_TURN, SIDE_BY_SIDE):
        algorithm, collector = ready(algo, hardware, **SETTINGS[algo])
        if hardware.compile == "on":  # minibatches of this size need no eager step
            refuse_eager_steps(algorithm)
        threads = watch_threads(algorithm)
        # Coefficients and step sizes move in between, and nothing is compiled again for them.
        metrics = learn(algorithm, collector, iterations=3)[-1]
        assert len(set(threads)) == hardware.threads
        updates[hardware] = metrics | algorithm.agent.weights()
    eager, compiled, side_by_side = updates.values()
    tolerance = {"atol": 1e-4, "rtol": 1e-3} if algo == "trpo" else {"atol": 1e-5, "rtol": 1e-3}
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], **tolerance)
    assert_equal(side_by_side, compiled)


@every_algorithm
def test_without_compiled_code_the_update_is_eager(algo):
    model = small_model(hidden_sizes=[4])
    (metrics, threads), (expected, _) = (
        without_compiler(algo, hardware, model) for hardware in (SIDE_BY_SIDE, CPU)
    )
    assert_equal(metrics, expected)
    assert set(threads) == {threading.get_ident()}


def without_compiler(algo: str, hardware: Hardware, model: Any) -> tuple[dict, list[int]]:
    """The numbers of an update that is not compiled, and its threads."""
    algorithm, collector = set_up(control(PointMass, 4), algo, hardware=hardware, model=model)
    threads = watch_threads(algorithm)
    return learn(algorithm, collector, iterations=1)[0], threads
