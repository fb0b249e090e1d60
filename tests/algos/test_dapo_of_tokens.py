"""DAPO on tokens: each of its four changes acts (Yu et al. 2025, §3.1 to 3.4)."""

import pytest
import torch
from languages import generator, policy_of, random_sequences, task_of
from running import PLAIN, experiment
from tiny import part_of

from rlrun.algos.groups.episode_update import EpisodeBatch
from rlrun.data.groups import return_spreads
from rlrun.runs.setup.assembly import Assembly

SMALL = (*PLAIN, "model.width=8", "model.heads=2")


def opened(*words: str):
    """DAPO on a task of language, and what collects for it."""
    assembly = Assembly(experiment(["algo=dapo", *SMALL, *words]), None)
    return assembly.algorithm, assembly.open_collector()


def learned_from(algorithm, transitions) -> EpisodeBatch:
    """The minibatch of the update's only step."""
    fit, batches = algorithm.learners["policy"].fit, []

    def watched(batch, rate):
        batches.append(batch)
        return fit(batch, rate)

    algorithm.learners["policy"].fit = watched
    algorithm.update(transitions, progress=0.0)
    ((batch,),) = (zip(*batches[0], strict=True),)
    return EpisodeBatch(*batch)


def test_groups_without_a_spread_of_outcomes_are_replaced_whatever_they_were_paid():
    words = ("env=mod_add", "env.modulus=3", "env.reward=format", "algo.num_envs=32")
    algorithm, collector = opened(*words, "collector.refill.max_refills=10")
    seen, collect = [], collector._groups.collect

    def watched(actor):
        seen.append(collect(actor))
        return seen[-1]

    collector._groups.collect = watched
    transitions = collector.collect(algorithm.agent.actor)
    spreads = [
        (
            return_spreads(played.reward, played.mask, 8),
            return_spreads(played.outcome, played.mask, 8),
        )
        for played in seen
    ]
    # Some are paid differently for their form, and none of them is right.
    assert sum(((paid > 0) & (right == 0)).sum() for paid, right in spreads) > 0
    assert (return_spreads(transitions.outcome, transitions.mask, 8) == 1).all()
    assert transitions.mask.shape[1] == 32
    assert transitions.metrics["groups/refills"] == len(seen) - 1 >= 1
    assert transitions.metrics["groups/dropped"] == sum((right == 0).sum() for _, right in spreads)
    assert transitions.steps == sum(int(played.mask.sum()) for played in seen)


def test_every_token_counts_alike():
    algorithm, collector = opened("env=add", "algo.num_envs=32", "collector.refill=null")
    transitions = collector.collect(algorithm.agent.actor)
    lengths = transitions.mask.sum(0)
    assert lengths.unique().numel() > 2
    weight = learned_from(algorithm, transitions).weight
    assert sorted((weight > 0).sum(0).tolist()) == sorted(lengths.tolist())
    torch.testing.assert_close(
        weight[weight > 0], torch.full((int(lengths.sum()),), 1 / int(lengths.sum()))
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.25, 1.0, True),  # beyond PPO's 1.2, within 1.28
        (1.30, 1.0, False),
        (0.85, -1.0, True),
        (0.75, -1.0, False),
        (1.50, -1.0, True),  # pessimistic
        (0.50, 1.0, True),
    ],
)
def test_the_band_of_ratios_reaches_further_up_than_down(ratio, advantage, moves):
    task = task_of("add")
    policy, obs = policy_of(task).requires_grad_(True), random_sequences(task, 4, 3)
    action = torch.randint(task.language.size, (3, 4), generator=generator(3))
    with torch.no_grad():
        logp = policy(obs).log_prob(action)
    one = torch.ones(3, 4)
    batch = EpisodeBatch(
        obs, action, logp - torch.tensor(ratio).log(), advantage * one, one / 12, logp, 0 * one
    )
    loss, metrics = part_of("algo", "dapo").policy_loss(policy, batch)
    gradient = torch.autograd.grad(loss, policy.reader.decoder.embedding.weight)[0]
    assert bool(gradient.abs().max() > 1e-4) is moves
    assert metrics["policy/clip_fraction"] == float(not 0.8 <= ratio <= 1.28)


def test_long_responses_are_fined():
    words = ("env=add", "algo.num_envs=32", "collector.refill=null")
    fine = ("algo.overlong_buffer=3", "algo.overlong_penalty=2.0")
    algorithm, collector = opened(*words, *fine)
    transitions = collector.collect(algorithm.agent.actor)
    # Nothing is right, so that nothing but the fine tells responses apart.
    assert transitions.outcome.sum() == 0
    lengths = transitions.mask.sum(0)
    limit = algorithm.longest
    assert lengths.min() < limit - 3 < lengths.max() == limit
    shaped = algorithm.shaped(algorithm.agent.rollout(transitions)).reward.sum(0)
    expected = -2.0 * (lengths - (limit - 3)).clamp_min(0) / 3
    torch.testing.assert_close(shaped, expected)
    batch = learned_from(algorithm, transitions)
    mean = {
        long: batch.advantage[0, ((batch.weight > 0).sum(0) == limit) == long].mean().item()
        for long in (True, False)
    }
    assert mean[True] < 0 < mean[False]
    algorithm, collector = opened(*words)
    unfined = learned_from(algorithm, collector.collect(algorithm.agent.actor))
    assert unfined.advantage.abs().max() == 0
