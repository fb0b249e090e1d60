"""RLOO, GRPO, DAPO and GSPO: what they refuse, their ratios, and the episodes of a step."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from one_step import CHOICE, ready
from tiny import (
    CPU,
    Corridor,
    PointMass,
    compile_update,
    control,
    counting,
    learn,
    log_prob_and_entropy,
    rollout_of,
    set_up,
)

from rlrun.advantages.temporal import gae
from rlrun.algos.groups.episode_update import EpisodeBatch
from rlrun.collectors.segments import Segments
from rlrun.errors import UserError

every_algorithm = pytest.mark.parametrize("algo", ["rloo", "grpo", "dapo", "gspo", "cispo"])


@every_algorithm
def test_segments_are_refused(algo):
    message = r"^this algorithm learns from whole episodes: collector=groups$"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), algo, collector=Segments(horizon=8))


@every_algorithm
def test_episodes_that_are_alone_are_refused(algo):
    message = (
        r"^advantage: .* one start: collector\.group_size=8, say; got collector\.group_size=1$"
    )
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), algo, group_size=1)


@every_algorithm
def test_an_estimator_with_a_critic_is_refused(algo):
    message = r"^advantage: it needs a critic V\(s\), which this algorithm has not:"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), algo, group_size=2, estimator=partial(gae, lam=0.95))


@every_algorithm
def test_it_runs_where_compiling_was_asked_for(algo, compiler):
    hardware = replace(CPU, compile="on")
    # Where dapo does not drop a group: no two of its returns are equal.
    env = control(PointMass, 4)
    algorithm, collector = set_up(env, algo, group_size=2, hardware=hardware)
    compile_update(algorithm, hardware)
    assert learn(algorithm, collector, iterations=1)[0]["updates"] > 0


# ---------------------------------------------------------------------- ratios


@every_algorithm
def test_the_ratio_is_one_on_the_first_minibatch(algo):
    # Also in later iterations, when the normaliser's statistics have changed in between.
    env, _ = counting(8, CHOICE)
    algorithm, collector = set_up(env, algo, group_size=4, epochs=1, episodes_per_minibatch=8)
    for metrics in learn(algorithm, collector, iterations=3):
        assert metrics["policy/ratio_max"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["policy/effective_sample_size"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["policy/clip_fraction"] == 0
        assert metrics["policy/kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["updates"] == 1


@every_algorithm
def test_ratios_are_measured_where_they_are_clipped(algo):
    algorithm, transitions = ready(algo, CHOICE, moved=0.1)
    rollout = rollout_of(algorithm, transitions)
    logp, _ = log_prob_and_entropy(algorithm.agent.networks.policy, rollout)
    change, mask = logp - rollout.logp, rollout.mask
    ratio = {
        "rloo": (change * mask).sum(0).exp(),
        "grpo": change[mask].exp(),
        "dapo": change[mask].exp(),
        "cispo": change[mask].exp(),
        "gspo": ((change * mask).sum(0) / mask.sum(0)).exp(),
    }[algo]
    metrics = algorithm.update(transitions, progress=0.0)
    torch.testing.assert_close(metrics["policy/ratio_mean"], ratio.mean())
    torch.testing.assert_close(metrics["policy/ratio_max"], ratio.max())
    weights = ratio / ratio.sum()
    ess = 1 / (len(ratio) * weights.square().sum())
    torch.testing.assert_close(metrics["policy/effective_sample_size"], ess)
    torch.testing.assert_close(metrics["policy/kl"], (change[mask].exp() - 1 - change[mask]).mean())


@pytest.mark.parametrize("algo", ["rloo", "grpo", "gspo"])
def test_groups_that_teach_nothing_are_counted(algo):
    algorithm, transitions = ready(algo, CHOICE)
    assert algorithm.update(transitions, progress=0.0)["groups/without_spread"] == 0
    reward = transitions.reward.clone()
    reward[:, 4:] = 0.0
    half = replace(transitions, reward=reward)
    assert algorithm.update(half, progress=0.0)["groups/without_spread"] == 0.5


@every_algorithm
def test_every_update_is_counted(algo):
    env, _ = counting(8, CHOICE)
    algorithm, collector = set_up(env, algo, group_size=4, epochs=3, episodes_per_minibatch=2)
    assert learn(algorithm, collector, iterations=1)[0]["updates"] == 3 * 8 / 2


# ---------------------------------------------------------------------- the episodes of a step


@every_algorithm
def test_episodes_that_do_not_fill_the_minibatches_are_refused(algo):
    message = r"^algo\.episodes_per_minibatch must divide num_envs=8, got 3$"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 8), algo, group_size=2, episodes_per_minibatch=3)


@every_algorithm
def test_a_step_has_the_rows_of_the_longest_episode_and_weighs_those_that_count(algo):
    # Nothing is put below an episode but what the collector put there.
    env, _ = counting(8, CHOICE)
    algorithm, collector = set_up(env, algo, group_size=4, epochs=2, episodes_per_minibatch=4)
    transitions = collector.collect(algorithm.agent.actor)
    batches: list[EpisodeBatch] = []
    learner = algorithm.learners["policy"]
    fit = learner.fit

    def watched(several, learning_rate):
        batches.append(several)
        return fit(several, learning_rate)

    learner.fit = watched
    rollout = rollout_of(algorithm, transitions)
    algorithm.update(transitions, progress=0.0)
    longest = int(transitions.mask.sum(0).max())
    assert len(batches) == 2
    for epoch in batches:
        assert epoch.obs.shape == (2, longest, 4, 3)
        assert all(column.shape[:3] == (2, longest, 4) for column in epoch)
        # All episodes, each of them once.
        rows = epoch.weight > 0
        assert int(rows.sum()) == int(transitions.mask.sum())
        assert sorted(rows.sum(1).flatten().tolist()) == sorted(transitions.mask.sum(0).tolist())
        taken, given = epoch.obs[rows], rollout.obs[rollout.mask]
        assert torch.equal(taken.unique(dim=0), given.unique(dim=0))
