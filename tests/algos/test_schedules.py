"""The schedule of the learning rate, in every algorithm that has one: what is logged, and done."""

from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from tiny import PointMass, algorithms, brought, control, part_of, set_up, yaml_of
from torch import Tensor

from rlrun import loops

ALGORITHMS = algorithms(loops.on_policy)
# One optimiser step of each network: two steps would not be one twice as long.
ONE_STEP = {"epochs": 1, "minibatch_size": 32, "episodes_per_minibatch": 4}
# A trust region says how far a policy goes; only TRPO's critic has a learning rate.
WITHOUT_LEARNING_RATE = {("trpo", "policy")}


def leaves(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The settings of an algorithm's YAML file by their paths ("optimizer.learning_rate")."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{path}{key}.")
        elif key != "defaults":
            found[f"{path}{key}"] = value
    return found


def schedules(algo: str) -> list[str]:
    """The paths of the settings that make a learning rate fall."""
    return [path for path in leaves(yaml_of("algo", algo)) if "anneal" in path]


ANNEALED = [algo for algo in ALGORITHMS if schedules(algo)]
# With an estimator other than its own, None being that, where that brings another network.
CASES = {**{algo: (algo, None) for algo in ANNEALED}}
CASES["reinforce with a critic"] = ("reinforce", "baseline_value")
every_case = pytest.mark.parametrize(("algo", "estimator"), CASES.values(), ids=CASES)


def one_update(
    algo: str, estimator: str | None, *, falls: bool, progress: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The first update of an algorithm, made at some point of a run.

    Returns:
        What it logs, and by how much it moves each network, [P].
    """
    known = leaves(yaml_of("algo", algo))
    sizes = {
        path: ONE_STEP[path.rpartition(".")[2]]
        for path in known
        if path.rpartition(".")[2] in ONE_STEP
    }
    spec = brought(algo, "collector")
    collector = (
        part_of("collector", spec, horizon=8)
        if spec == "segments"
        else part_of("collector", spec, group_size=2)
    )
    algorithm, opened = set_up(
        control(PointMass, 4),
        algo,
        collector=collector,
        estimator=estimator and instantiate(yaml_of("advantage", estimator)),
        **{"gamma": 0.9, **sizes, **dict.fromkeys(schedules(algo), falls)},
    )
    before = algorithm.agent.weights()
    metrics = algorithm.update(opened.collect(algorithm.agent.actor), progress=progress)
    moved: dict[str, list[Tensor]] = {}
    for name, weight in algorithm.agent.weights().items():
        moved.setdefault(name.partition(".")[0], []).append((weight - before[name]).flatten())
    return metrics, {network: torch.cat(parts) for network, parts in moved.items()}


def test_algorithms_have_schedules():
    assert {"ppo", "a2c", "grpo", "reinforce", "trpo"} <= set(ANNEALED)


@every_case
def test_the_learning_rate_falls_with_progress_and_so_does_the_step(algo, estimator):
    start, whole = one_update(algo, estimator, falls=True, progress=0.0)
    assert all(moved.norm() > 0 for moved in whole.values())
    rate = start["schedule/learning_rate"].item()
    for progress in (0.25, 0.75):
        metrics, moved = one_update(algo, estimator, falls=True, progress=progress)
        share = 1 - progress
        assert metrics["schedule/learning_rate"].item() == pytest.approx(share * rate)
        for network, step in whole.items():
            expected = step if (algo, network) in WITHOUT_LEARNING_RATE else share * step
            torch.testing.assert_close(moved[network], expected, rtol=1e-2, atol=1e-7)


@every_case
def test_a_learning_rate_that_does_not_fall_stays_what_it_is(algo, estimator):
    start, whole = one_update(algo, estimator, falls=False, progress=0.0)
    later, moved = one_update(algo, estimator, falls=False, progress=0.75)
    assert later["schedule/learning_rate"] == start["schedule/learning_rate"]
    for network, step in whole.items():
        assert torch.equal(moved[network], step)


@pytest.mark.parametrize("algo", ANNEALED)
def test_it_starts_at_the_learning_rate_that_was_set(algo):
    known = leaves(yaml_of("algo", algo))
    rates = [value for path, value in known.items() if path.endswith("learning_rate")]
    rates = [float(rate) for rate in rates if not isinstance(rate, bool)]
    metrics, _ = one_update(algo, None, falls=True, progress=0.0)
    assert metrics["schedule/learning_rate"].item() in [pytest.approx(rate) for rate in rates]
