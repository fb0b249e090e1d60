"""What is true of every algorithm that collects: found by globbing, so a new one is covered."""

import copy
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from running import differences
from tiny import (
    SMALL,
    Corridor,
    PointMass,
    algorithm_of,
    algorithms,
    brought,
    context_of,
    control,
    counting,
    estimator_of,
    learn,
    part_of,
    set_up,
)
from torch import Tensor

from rlrun import loops
from rlrun.algos.contract import OnPolicyAlgorithm
from rlrun.collectors.contract import CollectorSpec
from rlrun.data.rollout import Transitions
from rlrun.data.seeding import Streams
from rlrun.errors import UserError
from rlrun.learning.contract import Stateful, Trainable
from rlrun.runs.setup.preflight import check_contract

ALGORITHMS = algorithms(loops.on_policy)
every_algorithm = pytest.mark.parametrize("algo", ALGORITHMS)
ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def collector_of(algo: str) -> CollectorSpec:
    """The collector that an algorithm brings along, with short segments and groups of two."""
    name = brought(algo, "collector")
    assert name is not None
    if name == "segments":
        return part_of("collector", name, horizon=SMALL["horizon"])
    return part_of("collector", name, **({} if name == "episodes" else {"group_size": 2}))


def ready(algo: str, make_env=Corridor, *, seed: int = 0) -> tuple[Any, Any]:
    """A small algorithm and its collector."""
    return set_up(control(make_env, 4), algo, seed=seed, collector=collector_of(algo))


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """The same names and numbers, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# ---------------------------------------------------------------------- the contract


@every_algorithm
def test_it_keeps_the_contract_of_its_loop(algo):
    algorithm, _ = ready(algo)
    check_contract(algorithm)
    contract = {name: None for base in OnPolicyAlgorithm.__mro__[:2] for name in vars(base)}
    annotated = {name for base in OnPolicyAlgorithm.__mro__[:2] for name in base.__annotations__}
    for name in annotated | contract.keys():
        if not name.startswith("_"):
            assert hasattr(algorithm, name), name
    for protocol, parts in ((Trainable, algorithm.learners), (Stateful, algorithm.parts)):
        members = [name for base in (protocol, Stateful) for name in vars(base) if name[0] != "_"]
        for name, part in parts.items():
            assert all(hasattr(part, member) for member in members), name


@every_algorithm
def test_it_needs_an_estimator(algo):
    env = control(Corridor, 4)
    with pytest.raises(UserError, match=r"^this algorithm needs an estimator: advantage=…"):
        algorithm_of(algo).setup(context_of(env, collector_of(algo)))


# ---------------------------------------------------------------------- the update


@every_algorithm
@both
def test_its_numbers_are_finite_scalars_without_a_graph(algo, make_env):
    for metrics in learn(*ready(algo, make_env), iterations=2):
        assert metrics["updates"] >= 1
        assert "policy/entropy" in metrics
        for name, value in metrics.items():
            assert value.shape == (), name
            assert value.isfinite(), name
            assert not value.requires_grad, name


@every_algorithm
@both
def test_it_changes_each_of_its_networks(algo, make_env):
    algorithm, collector = ready(algo, make_env)
    before = copy.deepcopy(algorithm.agent.weights())
    learn(algorithm, collector, iterations=3)
    changed = {
        name.partition(".")[0]
        for name, weight in algorithm.agent.weights().items()
        if not torch.equal(weight, before[name])
    }
    assert changed == {name.partition(".")[0] for name in before}


@every_algorithm
@both
def test_the_same_seed_learns_the_same(algo, make_env):
    runs = [ready(algo, make_env, seed=seed) for seed in (1, 1, 2)]
    histories = [learn(*run, iterations=2) for run in runs]
    for metrics, again in zip(histories[0], histories[1], strict=True):
        assert_equal(metrics, again)
    assert_equal(*(algorithm.agent.weights() for algorithm, _ in runs[:2]))
    assert any(histories[0][1][name] != histories[2][1][name] for name in histories[0][1])


@every_algorithm
def test_an_update_leaves_its_transitions_as_they_are(algo):
    algorithm, collector = ready(algo)
    transitions = collector.collect(algorithm.agent.actor)
    before = copy.deepcopy(transitions)
    algorithm.update(transitions, progress=0.0)
    for field in fields(Transitions):
        now, then = (getattr(those, field.name) for those in (transitions, before))
        if isinstance(now, Tensor):
            assert torch.equal(now, then), field.name
    assert_equal(*(moments_of(those) for those in (transitions, before)))


def moments_of(transitions: Transitions) -> dict[str, Tensor]:
    """The observations' mean and variance."""
    moments = transitions.obs_moments
    return {"mean": moments.mean, "variance": moments.variance}


ACTIONS = {"discrete": Discrete(3), "continuous": Box(-1.0, 1.0, (2,), np.float32)}


@every_algorithm
@pytest.mark.parametrize("actions", ACTIONS.values(), ids=ACTIONS)
def test_rows_that_do_not_count_teach_nothing(algo, actions):
    # Those who usually learn from segments get whole episodes, too.
    learned = []
    for rubbish in (0.0, 1.0):
        env, _ = counting(4, actions)
        algorithm, collector = set_up(env, algo, group_size=2)
        learn(algorithm, collector, iterations=1)
        transitions = collector.collect(algorithm.agent.actor)
        padding = ~transitions.mask
        assert padding.any()
        action = transitions.action
        soiled = replace(
            transitions,
            obs=transitions.obs.masked_fill(padding.unsqueeze(-1), 3 * rubbish),
            next_obs=transitions.next_obs.masked_fill(padding.unsqueeze(-1), -rubbish),
            action=action.masked_fill(padding.view(4, 4, *[1] * (action.ndim - 2)), rubbish),
            logp=transitions.logp.masked_fill(padding, -7 * rubbish),
        )
        metrics = algorithm.update(soiled, progress=0.0)
        learned.append(metrics | algorithm.agent.weights())
    assert_equal(*learned)


@every_algorithm
def test_what_an_estimator_says_of_rows_that_do_not_count_teaches_nothing(algo):
    learned = []
    for rubbish in (0.0, float("nan")):
        env, _ = counting(4, ACTIONS["discrete"])
        algorithm, collector = set_up(env, algo, group_size=2)
        algorithm.agent.estimate = soiled(algorithm.agent.estimate, rubbish)
        transitions = collector.collect(algorithm.agent.actor)
        assert not transitions.mask.all()
        metrics = algorithm.update(transitions, progress=0.0)
        learned.append(metrics | algorithm.agent.weights())
    assert_equal(*learned)
    assert all(value.isfinite().all() for value in learned[1].values())


def soiled(estimate, rubbish: float):
    """An estimator with rubbish behind the ends of episodes."""
    return lambda rollout: tuple(
        tensor.masked_fill(~rollout.mask, rubbish) for tensor in estimate(rollout)
    )


# ---------------------------------------------------------------------- saving


@every_algorithm
@both
def test_a_loaded_algorithm_goes_on_alike(algo, make_env):
    algorithm, collector, streams = with_streams(algo, make_env, seed=0)
    learn(algorithm, collector, iterations=3)
    loaded, _, other_streams = with_streams(algo, make_env, seed=5)
    loaded.agent.load_weights(algorithm.agent.weights())
    for held in ("learners", "parts"):
        for name, part in getattr(algorithm, held).items():
            getattr(loaded, held)[name].load_state_dict(copy.deepcopy(part.state_dict()))
    other_streams.load_state_dict(streams.state_dict())
    for progress in (0.25, 0.5):  # its critics' and optimisers' states count in the second
        transitions = collector.collect(algorithm.agent.actor)
        # Which has drawn random numbers for the actor of the one alone.
        other_streams.load_state_dict(streams.state_dict())
        first, second = (a.update(transitions, progress=progress) for a in (algorithm, loaded))
        assert_equal(first, second)
        assert_equal(algorithm.agent.weights(), loaded.agent.weights())


def with_streams(algo: str, make_env, *, seed: int) -> tuple[Any, Any, Streams]:
    """A small algorithm, its collector, and where both get their random numbers from."""
    env, spec = control(make_env, 4), collector_of(algo)
    context = context_of(env, spec, seed=seed, estimator=estimator_of(algo))
    algorithm = algorithm_of(algo, num_envs=4)
    algorithm.setup(context)
    return algorithm, spec.open(env, context.shape, seed=0), context.streams


@every_algorithm
def test_a_saved_state_stays_what_it_was(algo):
    algorithm, collector = ready(algo)
    learn(algorithm, collector, iterations=1)

    def state() -> dict[str, Any]:
        parts = {**algorithm.learners, **algorithm.parts}
        saved = {name: part.state_dict() for name, part in parts.items()}
        return {**saved, "weights": algorithm.agent.weights()}

    saved = state()
    then = copy.deepcopy(saved)
    learn(algorithm, collector, iterations=2)
    assert differences(saved, then) == []
    assert differences(saved, state()) != []
