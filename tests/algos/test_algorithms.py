"""What is true of every algorithm in conf/algo: found by globbing, so that a new one is covered."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import CPU, Corridor, PointMass, control, learn, set_up, yaml_of

from rlrun.algos.contract import OnPolicyAlgorithm
from rlrun.config.experiment import conf_directory
from rlrun.hardware.spec import Hardware
from rlrun.learning.contract import Stateful, Trainable

ALGORITHMS = sorted(path.stem for path in (conf_directory() / "algo").glob("*.yaml"))
every_algorithm = pytest.mark.parametrize("algo", ALGORITHMS)
ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)
GROUP_SIZES = {"whole": 1, "in_groups": 2}


def ready(
    algo: str, make_env=Corridor, *, seed: int = 0, hardware: Hardware = CPU
) -> tuple[Any, Any]:
    """A small algorithm and its collector; episodes are in groups of two where it wants groups."""
    defaults = [entry for entry in yaml_of("algo", algo)["defaults"] if entry != "_self_"]
    choice = {key: name for entry in defaults for key, name in entry.items()}
    sizes = [GROUP_SIZES[choice[key]] for key in choice if key.startswith("/env/episodes@")]
    group_size = sizes[0] if sizes else None
    env = control(make_env, 4)
    return set_up(env, algo, seed=seed, group_size=group_size, hardware=hardware)


@every_algorithm
def test_it_keeps_the_contract_of_its_loop(algo):
    algorithm, _ = ready(algo)
    for name in (*OnPolicyAlgorithm.__annotations__, *vars(OnPolicyAlgorithm)):
        if not name.startswith("_"):
            assert hasattr(algorithm, name), name
    for protocol, parts in ((Trainable, algorithm.learners), (Stateful, algorithm.parts)):
        members = [name for base in (protocol, Stateful) for name in vars(base) if name[0] != "_"]
        for name, part in parts.items():
            assert all(hasattr(part, member) for member in members), name
    for learner in algorithm.learners.values():  # nothing to compile, and nothing breaks
        learner.warm_up()
        learner.run_eagerly()


@every_algorithm
def test_it_counts_its_updates_if_there_is_something_to_compile_for_them(algo):
    algorithm, _ = ready(algo, hardware=replace(CPU, compile="on"))
    compiles = any(learner.is_compiled for learner in algorithm.learners.values())
    assert (algorithm.updates(total_steps=1_000_000) > 0) == compiles
    assert compiles == (algorithm.horizon is not None)


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
def test_the_same_seed_learns_the_same(algo):
    histories = [learn(*ready(algo, seed=seed), iterations=2) for seed in (1, 1, 2)]
    for metrics, again in zip(histories[0], histories[1], strict=True):
        assert metrics.keys() == again.keys()
        assert all(torch.equal(metrics[name], again[name]) for name in metrics)
    assert any(histories[0][1][name] != histories[2][1][name] for name in histories[0][1])


@every_algorithm
def test_an_update_leaves_its_rollout_as_it_is(algo):
    algorithm, collector = ready(algo)
    rollout = algorithm.collect(collector)
    before = copy.deepcopy(vars(rollout))
    algorithm.update(rollout, progress=0.0)
    for name, column in vars(rollout).items():
        if isinstance(column, torch.Tensor):
            assert torch.equal(column, before[name]), name
