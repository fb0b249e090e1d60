"""DAPO: which groups it learns from, its two bounds, and its fine for overlong episodes."""

import pytest
import torch
from moods import Moods
from tiny import (
    Corridor,
    algorithm_of,
    control,
    learn,
    part_of,
    set_up,
)

from rlrun.collectors.contract import Actor
from rlrun.collectors.dynamic_sampling import DynamicSampling, DynamicSamplingCollector
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.learning.losses.surrogates import clipped_surrogate


class Watched:
    """Settings of dynamic sampling, whose collector remembers what each collection has brought."""

    def __init__(self, **settings):
        self.settings = DynamicSampling(**{"spread_tolerance": 0.0, **settings})
        self.seen: list[Transitions] = []

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        return self.settings.shape(problem, num_envs)

    def open(self, env: ControlEnv, shape: RolloutShape, *, seed: int) -> DynamicSamplingCollector:
        sampling = self.settings.open(env, shape, seed=seed)
        collect = sampling._groups.collect

        def watched(actor: Actor) -> Transitions:
            self.seen.append(collect(actor))
            return self.seen[-1]

        sampling._groups.collect = watched
        return sampling


def moods(
    num_envs: int,
    *,
    matters=lambda seed: seed % 2 == 0,
    group_size: int = 4,
    max_refills: int = 3,
    spread_tolerance: float = 0.0,
    **changes,
):
    """DAPO among moods, without normalised observations, what collects for it, and what is seen."""
    watched = Watched(
        group_size=group_size, max_refills=max_refills, spread_tolerance=spread_tolerance
    )
    settings = {
        "normalization.observation": False,
        "episodes_per_minibatch": num_envs,
        **changes,
    }
    env = control(lambda: Moods(matters), num_envs)
    algorithm, collector = set_up(env, "dapo", collector=watched, **settings)
    return algorithm, collector, watched.seen


def group_returns(transitions: Transitions) -> dict[int, set[float]]:
    """The raw returns of each group, by its number."""
    returns: dict[int, set[float]] = {}
    if transitions.mask.shape[1] == 0:
        return returns
    for i, group in enumerate(transitions.group[0].tolist()):
        own = sum(transitions.reward[t, i].item() for t in range(3) if transitions.mask[t, i])
        returns.setdefault(group, set()).add(own)
    return returns


# ---------------------------------------------------------------------- dynamic sampling


def test_it_learns_from_groups_with_a_spread_alone():
    algorithm, collector, seen = moods(16, epochs=1, max_refills=5)
    fit, batches = algorithm.learners["policy"].fit, []

    def watched(batch, learning_rate):
        batches.append(batch)
        return fit(batch, learning_rate)

    algorithm.learners["policy"].fit = watched
    learn(algorithm, collector, iterations=6)
    played = [group for transitions in seen for group in group_returns(transitions).values()]
    assert sum(len(returns) == 1 for returns in played) >= 12  # there was something to drop
    assert len(batches) == 6
    for batch in batches:
        assert (batch.obs[..., 0] == 1).all()
        # In each episode, if it is not by chance at its group's mean.
        assert (batch.advantage.abs().sum((0, 1)) > 0).float().mean() > 0.5
        by_start = {}
        for start, advantage in zip(
            batch.obs[0, 0, :, 1].tolist(), batch.advantage[0, 0].tolist(), strict=True
        ):
            by_start.setdefault(start, []).append(advantage)
        for advantages in by_start.values():
            assert len(advantages) % 4 == 0
            assert max(advantages) > 0 > min(advantages)


def test_dropped_groups_are_replaced_and_counted():
    # Two groups a collection, one of them without a spread: two collections make two groups.
    algorithm, collector, seen = moods(8, max_refills=5)
    transitions = collector.collect(algorithm.agent.actor)
    played = [group_returns(transitions) for transitions in seen]
    flat = sum(len(returns) == 1 for groups in played for returns in groups.values())
    assert transitions.mask.shape[1] == 8
    assert all(len(returns) > 1 for returns in group_returns(transitions).values())
    assert len(group_returns(transitions)) == 2
    assert transitions.metrics["groups/dropped"] == flat >= 2
    assert transitions.metrics["groups/refills"] == len(seen) - 1 >= 1


def test_what_was_dropped_counts_as_steps_and_was_observed():
    algorithm, collector, seen = moods(8, max_refills=5)
    transitions = collector.collect(algorithm.agent.actor)
    assert len(seen) > 1
    assert transitions.steps == 3 * 8 * len(seen) > transitions.mask.sum()
    observed = torch.cat([played.obs[played.mask] for played in seen]).double()
    moments = transitions.obs_moments
    assert moments.count == len(observed)
    torch.testing.assert_close(moments.mean, observed.mean(0))
    torch.testing.assert_close(moments.variance, observed.var(0, correction=0))


def test_more_than_it_needs_is_left():
    # Three of four groups have a spread: the second collection has more than the one missing.
    algorithm, collector, seen = moods(16, matters=lambda seed: seed % 4 > 0, max_refills=5)
    transitions = collector.collect(algorithm.agent.actor)
    assert len(seen) == 2
    assert transitions.mask.shape == (3, 16)
    assert sorted(group_returns(transitions)) == sorted(set(transitions.group[0].tolist()))
    assert len(group_returns(transitions)) == 4


def test_after_the_last_refill_it_goes_on_with_fewer():
    algorithm, collector, seen = moods(
        16, matters=lambda seed: seed % 4 == 0, max_refills=1, epochs=1
    )
    transitions = collector.collect(algorithm.agent.actor)
    assert len(seen) == 2
    assert 0 < transitions.mask.shape[1] <= 8
    assert transitions.metrics["groups/refills"] == 1
    assert transitions.metrics["groups/dropped"] >= 6
    assert algorithm.update(transitions, progress=0.0)["updates"] == 1


def test_without_refills_it_plays_once():
    algorithm, collector, seen = moods(8, max_refills=0)
    collector.collect(algorithm.agent.actor)
    assert len(seen) == 1


def test_where_no_group_has_a_spread_nothing_is_learned():
    algorithm, collector, _ = moods(8, matters=lambda seed: False, max_refills=2)
    before = algorithm.learners["policy"].parameters.vector.clone()
    transitions = collector.collect(algorithm.agent.actor)
    assert transitions.metrics == {"groups/dropped": 6, "groups/refills": 2}
    assert transitions.steps == 3 * 8 * 3
    assert algorithm.update(transitions, progress=0.0) == {"updates": 0}
    assert torch.equal(algorithm.learners["policy"].parameters.vector, before)


def test_what_teaches_nothing_is_seen_all_the_same():
    # Statistics of observations are those of all steps.
    algorithm, collector, _ = moods(
        8, matters=lambda seed: False, max_refills=2, **{"normalization.observation": True}
    )
    learn(algorithm, collector, iterations=1)
    assert algorithm.agent.observation_normalizer.moments.count == 3 * 8 * 3


def test_a_run_that_never_learns_says_so_once(capsys):
    algorithm, collector, _ = moods(4, matters=lambda seed: False, max_refills=0)
    learn(algorithm, collector, iterations=9)
    assert capsys.readouterr().err == ""
    learn(algorithm, collector, iterations=15)
    assert capsys.readouterr().err == (
        "warning: nothing was learned in 10 iterations in a row: the returns of each group are "
        "equal, the task being solved or out of reach\n"
    )


def test_a_group_with_a_spread_now_and_then_is_enough(capsys):
    # One group an iteration; the seeds of the starts count up.
    algorithm, collector, _ = moods(4, matters=lambda seed: seed % 9 == 0, max_refills=0)
    history = learn(algorithm, collector, iterations=30)
    assert {int(metrics["updates"]) > 0 for metrics in history} == {True, False}
    assert capsys.readouterr().err == ""


def test_who_cannot_go_on_from_nothing_refuses_it():
    with pytest.raises(UserError, match=r"dynamic sampling .*: collector=groups"):
        set_up(
            control(Corridor, 4),
            "ppo",
            collector=part_of("collector", "dynamic_sampling", group_size=2),
        )


def test_a_spread_within_the_tolerance_is_none():
    everywhere = {"matters": lambda seed: True, "max_refills": 0}
    algorithm, collector, _ = moods(8, spread_tolerance=6.0, **everywhere)  # returns are 0 to 6
    assert collector.collect(algorithm.agent.actor).mask.shape[1] == 0
    algorithm, collector, _ = moods(8, spread_tolerance=0.5, **everywhere)
    assert collector.collect(algorithm.agent.actor).mask.shape[1] == 8


# ---------------------------------------------------------------------- clip-higher


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.27, 2.0, 2.54, 2.0),  # further up than down
        (1.29, 2.0, 2.56, 0.0),
        (0.81, -2.0, -1.62, -2.0),
        (0.79, -2.0, -1.6, 0.0),
        (0.5, 2.0, 1.0, 2.0),  # what would lower the objective is never clipped
        (1.5, -2.0, -3.0, -2.0),
    ],
)
def test_the_band_reaches_further_up_than_down(ratio, advantage, value, slope):
    settings = algorithm_of("dapo")
    assert (settings.clip_low, settings.clip_high) == (0.2, 0.28)
    ratio = torch.tensor(ratio, requires_grad=True)
    objective = clipped_surrogate(
        ratio.log(), torch.tensor(advantage), settings.clip_low, settings.clip_high
    )
    objective.backward()
    assert objective.item() == pytest.approx(value)
    assert ratio.grad.item() == pytest.approx(slope)


def test_it_knows_no_reference_policy():
    with pytest.raises(UserError, match=r"^algo\.kl: no such setting"):
        algorithm_of("dapo", kl={"reference": "outputs/a-run"})
