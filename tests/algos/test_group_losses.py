"""The losses of RLOO, GRPO, DAPO and GSPO against a loop over their papers' formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from one_step import BOX, CHOICE, ready
from tiny import TIME_LIMIT, log_prob_and_entropy, rollout_of, torchs_step
from torch import Tensor, nn
from torch.func import functional_call

from rlrun.advantages.groups import time_group
from rlrun.algos.groups.episode_update import EpisodeBatch
from rlrun.data.minibatches import take_columns
from rlrun.data.rollout import Rollout
from rlrun.learning.losses.aggregation import minibatch_weights, step_weights

both = pytest.mark.parametrize("actions", [CHOICE, BOX], ids=["discrete", "continuous"])
every_algorithm = pytest.mark.parametrize("algo", ["rloo", "grpo", "dapo", "gspo", "cispo"])


# ---------------------------------------------------------------------- the loss


def plain_advantages(algo: str, algorithm, rollout: Rollout) -> list[float]:
    """A of each episode, from its discounted return and those of its group of four."""
    lengths = rollout.mask.sum(0).tolist()
    returns = [
        sum(algorithm.gamma**t * rollout.reward[t, i].item() for t in range(lengths[i]))
        for i in range(8)
    ]
    advantages = []
    for i in range(8):
        members = [j for j in range(8) if j // 4 == i // 4]
        if algo == "rloo":
            advantages.append(returns[i] - np.mean([returns[j] for j in members if j != i]))
        else:
            group = [returns[j] for j in members]
            advantages.append((returns[i] - np.mean(group)) / (np.std(group, ddof=1) + 1e-4))
    return advantages


def pessimistic(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    """min(ρ A, clip(ρ, 1 − low, 1 + high) A)."""
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def plain_loss(algo: str, algorithm, policy: nn.Module, rollout: Rollout) -> Tensor:
    """Each paper's formula, episode by episode and step by step."""
    logp, entropy = log_prob_and_entropy(policy, rollout)
    lengths = rollout.mask.sum(0).tolist()
    advantages = plain_advantages(algo, algorithm, rollout)
    loss, bonus = torch.zeros(()), algorithm.entropy_coefficient
    for i, (length, advantage) in enumerate(zip(lengths, advantages, strict=True)):
        changes = [logp[t, i] - rollout.logp[t, i] for t in range(length)]
        entropies = sum(entropy[t, i] for t in range(length))
        match algo:
            case "rloo":
                ratio = torch.exp(sum(changes))
                gain = pessimistic(ratio, advantage, algorithm.clip, algorithm.clip)
                loss -= (gain + bonus * entropies) / 8
            case "grpo":
                clip = algorithm.clip
                gain = sum(pessimistic(c.exp(), advantage, clip, clip) for c in changes)
                loss -= (gain + bonus * entropies) / (8 * length)
            case "dapo":
                low, high = algorithm.clip_low, algorithm.clip_high
                gain = sum(pessimistic(c.exp(), advantage, low, high) for c in changes)
                loss -= (gain + bonus * entropies) / sum(lengths)
            case "cispo":
                low, high = algorithm.clip_low, algorithm.clip_high
                gain = sum(
                    c.exp().detach().clamp(1 - low, 1 + high) * advantage * c for c in changes
                )
                loss -= (gain + bonus * entropies) / sum(lengths)
            case "gspo":
                ratio = torch.exp(sum(changes) / length)
                gain = pessimistic(ratio, advantage, algorithm.clip_low, algorithm.clip_high)
                loss -= (gain + bonus * entropies / length) / 8
    return loss


CHANGES = {
    "default": {},
    "entropy": {"entropy_coefficient": 0.5},
    "undiscounted": {"gamma": 1.0},
    "bounded_gradient": {"max_grad_norm": 0.05},
}


@every_algorithm
@both
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_step_is_one_on_the_loss_of_a_loop(algo, actions, changes):
    moved = 0.1 if actions is CHOICE else 0.03
    bounds = {"clip_low": 0.1, "clip_high": 0.1} if algo == "cispo" else {}
    algorithm, transitions = ready(algo, actions, moved=moved, **bounds, **changes)
    rollout = rollout_of(algorithm, transitions)
    learner = algorithm.learners["policy"]
    expected, _ = torchs_step(
        learner, lambda policy: plain_loss(algo, algorithm, policy, rollout), learning_rate=0.02
    )
    before = learner.parameters.vector.clone()
    metrics = algorithm.update(transitions, progress=0.0)
    assert 0 < metrics["policy/clip_fraction"] < 1  # some are clipped, some are not
    assert (learner.parameters.vector - before).abs().max() > 1e-5
    torch.testing.assert_close(learner.parameters.vector, expected, atol=2e-6, rtol=1e-4)


# ---------------------------------------------------------------------- minibatches and padding


def gradient(algorithm, rollout: Rollout, episodes: Tensor, *, padding: int = 0) -> Tensor:
    """Mean ∇L of minibatches of these episodes [M, n], with rows of rubbish behind their ends."""
    weight = step_weights(rollout.mask, algorithm.aggregation, longest=TIME_LIMIT)
    advantage, _ = algorithm.agent.estimate(rollout)
    weight = minibatch_weights(weight, size=episodes.shape[1])
    columns = take_columns(episodes, rollout.obs, rollout.action, rollout.logp, advantage)
    rubbish = torch.Generator().manual_seed(2)

    def pad(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), padding, *x.shape[2:], generator=rubbish)
        return torch.cat([x, (3 * noise).abs().clamp_max(2).to(x.dtype)], dim=1)

    obs, action, logp, advantage = (pad(column) for column in columns)
    (weight,) = take_columns(episodes, weight)
    weight = torch.cat([weight, weight.new_zeros(len(weight), padding, weight.shape[2])], dim=1)
    zeros, learner = torch.zeros_like(logp), algorithm.learners["policy"]
    gradients = []
    for k in range(len(episodes)):
        theta = learner.parameters.vector.clone().requires_grad_(True)
        named = learner.parameters.unflatten(theta)
        batch = EpisodeBatch(
            obs[k], action[k], logp[k], advantage[k], weight[k], zeros[k], zeros[k]
        )
        loss, _ = algorithm.policy_loss(
            lambda *x, named=named: functional_call(learner.network, named, x), batch
        )
        gradients.append(torch.autograd.grad(loss, theta)[0])
    return torch.stack(gradients).mean(0)


@every_algorithm
@both
def test_neither_a_cut_into_minibatches_nor_padding_changes_the_gradient(algo, actions):
    algorithm, transitions = ready(algo, actions, moved=0.1)
    rollout = rollout_of(algorithm, transitions)
    whole = gradient(algorithm, rollout, torch.arange(8).view(1, 8))
    assert whole.abs().max() > 1e-3
    shuffled = torch.tensor([5, 2, 7, 0, 1, 4, 6, 3])
    for size in (1, 2, 4):
        torch.testing.assert_close(gradient(algorithm, rollout, shuffled.view(-1, size)), whole)
    padded = gradient(algorithm, rollout, shuffled.view(-1, 4), padding=3)
    torch.testing.assert_close(padded, whole)


# ---------------------------------------------------------------------- other estimators


@every_algorithm
def test_at_ratio_one_every_step_has_the_gradient_of_its_own_advantage(algo):
    algorithm, transitions = ready(algo, CHOICE, estimator=time_group)
    rollout = rollout_of(algorithm, transitions)
    advantage, _ = time_group(rollout, gamma=algorithm.gamma)
    lengths = rollout.mask.sum(0)

    def loss(policy: nn.Module) -> Tensor:
        logp, _ = log_prob_and_entropy(policy, rollout)
        scores = advantage * logp * rollout.mask
        if algo == "rloo":
            return -scores.sum() / 8
        if algo in ("dapo", "cispo"):
            return -scores.sum() / lengths.sum()
        return -(scores.sum(0) / lengths).mean()

    expected, norm = torchs_step(algorithm.learners["policy"], loss, learning_rate=0.02)
    assert norm > 0.01
    algorithm.update(transitions, progress=0.0)
    torch.testing.assert_close(
        algorithm.learners["policy"].parameters.vector, expected, atol=2e-6, rtol=1e-4
    )


@every_algorithm
def test_an_enormous_ratio_breaks_nothing(algo):
    algorithm, transitions = ready(algo, BOX)
    improbable = replace(transitions, logp=transitions.logp - 25.0)  # e^100 is no float32
    metrics = algorithm.update(improbable, progress=0.0)
    assert all(value.isfinite() for value in metrics.values())
    assert algorithm.learners["policy"].parameters.vector.isfinite().all()
