"""RLOO, GRPO, DAPO and GSPO: the loss of each against a loop over its paper's formula, and more."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import (
    CPU,
    TIME_LIMIT,
    Corridor,
    PointMass,
    algorithm_of,
    control,
    counting,
    learn,
    problem_of,
    set_up,
    torchs_step,
)
from torch import Tensor, nn
from torch.func import functional_call

from rlrun.advantages.groups import time_group
from rlrun.advantages.temporal import gae
from rlrun.data.minibatches import take_episodes
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.errors import UserError
from rlrun.learning.aggregation import minibatch_weights, step_weights
from rlrun.learning.reference_penalty import PenalisedBatch
from rlrun.models.distributions import Categorical

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
both = pytest.mark.parametrize("actions", [CHOICE, BOX], ids=["discrete", "continuous"])
every_algorithm = pytest.mark.parametrize("algo", ["rloo", "grpo", "dapo", "gspo"])

# One gradient step on all eight episodes, where the size of a gradient counts: Adam's ε is large.
ONE_STEP = {
    "epochs": 1,
    "episodes_per_minibatch": 8,
    "adam_epsilon": 1.0,
    "learning_rate": 0.02,
    "anneal_learning_rate": False,
    "max_grad_norm": float("inf"),
}


def ready(algo: str, actions: spaces.Space, *, moved: float = 0.0, **changes):
    """An algorithm after one step, episodes of 1 to 4 steps for the next, and other weights since.

    Args:
        algo: the algorithm.
        actions: what there is to do.
        moved: standard deviation of what is added to each weight after the episodes were played.
        changes: of the algorithm's settings.
    """
    env, _ = counting(8, actions)
    estimator = changes.pop("estimator", None)
    settings = {**ONE_STEP, **changes}
    algorithm, collector = set_up(env, algo, group_size=4, estimator=estimator, **settings)
    learn(algorithm, collector, iterations=1)
    rollout = algorithm.collect(collector)
    assert len(set(rollout.mask.sum(0).tolist())) > 1
    theta = algorithm.policy_learner.parameters.vector
    theta.add_(moved * torch.randn(len(theta), generator=torch.Generator().manual_seed(1)))
    return algorithm, rollout


# ---------------------------------------------------------------------- hyperparameters


@every_algorithm
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"adam_epsilon": 0.0}, "adam_epsilon must be positive"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be positive"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient must be at least 0"),
        ({"episodes_per_minibatch": 0}, "episodes_per_minibatch must be at least 1"),
        (
            {"num_envs": 8, "episodes_per_minibatch": 3},
            "episodes_per_minibatch must divide num_envs=8, got 3",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(algo, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of(algo, **changes)


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        ("rloo", "clip"),
        ("grpo", "clip"),
        *[(algo, name) for algo in ("dapo", "gspo") for name in ("clip_low", "clip_high")],
    ],
)
def test_a_clip_of_zero_is_refused(algo, name):
    with pytest.raises(ValueError, match=f"^{name} must be positive, got 0"):
        algorithm_of(algo, **{name: 0.0})


@every_algorithm
def test_segments_are_refused(algo):
    with pytest.raises(UserError, match=rf"^{algo} learns from whole episodes: env\.group_size=8"):
        set_up(control(Corridor, 4), algo, horizon=TIME_LIMIT)


@every_algorithm
def test_episodes_that_are_alone_are_refused(algo):
    with pytest.raises(UserError, match=r"env\.group_size=8, say"):
        set_up(control(Corridor, 4), algo, group_size=1)


@every_algorithm
def test_an_estimator_with_a_critic_is_refused(algo):
    message = rf"^advantage: it needs a critic V\(s\), which {algo} has not;"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), algo, group_size=2, estimator=partial(gae, lam=0.95))


@every_algorithm
def test_it_needs_an_estimator(algo):
    env = control(Corridor, 4)
    with pytest.raises(UserError, match=rf"^{algo} needs an estimator"):
        algorithm_of(algo).setup(
            problem_of(env, group_size=2),
            hardware=CPU,
            streams=Streams.from_seed(0),
            estimator=None,
            compiled=False,
            from_checkpoint=False,
        )


@every_algorithm
def test_it_runs_where_compiling_was_asked_for(algo):
    hardware = replace(CPU, compile="on")
    # Where dapo does not drop a group: no two of its returns are equal.
    env = control(PointMass, 4)
    algorithm, collector = set_up(env, algo, group_size=2, hardware=hardware)
    assert algorithm.updates(1_000_000) == 0
    algorithm.policy_learner.warm_up()
    assert not algorithm.policy_learner.is_compiled
    assert learn(algorithm, collector, iterations=1)[0]["updates"] > 0


# ---------------------------------------------------------------------- the loss


def log_prob_and_entropy(policy: nn.Module, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Both of each step, [T, N], with torch's distributions."""
    distribution, action = policy(rollout.obs), rollout.action.clone()
    if isinstance(distribution, Categorical):
        plain = torch.distributions.Categorical(logits=distribution.logits)
        return plain.log_prob(action), plain.entropy()
    plain = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
    return plain.log_prob(action).sum(-1), plain.entropy().sum(-1)


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
    algorithm, rollout = ready(algo, actions, moved=moved, **changes)
    learner = algorithm.policy_learner
    expected, _ = torchs_step(
        learner, lambda policy: plain_loss(algo, algorithm, policy, rollout), learning_rate=0.02
    )
    before = learner.parameters.vector.clone()
    metrics = algorithm.update(rollout, progress=0.0)
    assert 0 < metrics["policy/clip_fraction"] < 1  # some are clipped, some are not
    assert (learner.parameters.vector - before).abs().max() > 1e-5
    torch.testing.assert_close(learner.parameters.vector, expected, atol=2e-6, rtol=1e-4)


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
    algorithm, rollout = ready(algo, CHOICE, moved=0.1)
    logp, _ = log_prob_and_entropy(algorithm.agent.policy, rollout)
    change, mask = logp - rollout.logp, rollout.mask
    ratio = {
        "rloo": (change * mask).sum(0).exp(),
        "grpo": change[mask].exp(),
        "dapo": change[mask].exp(),
        "gspo": ((change * mask).sum(0) / mask.sum(0)).exp(),
    }[algo]
    metrics = algorithm.update(rollout, progress=0.0)
    torch.testing.assert_close(metrics["policy/ratio_mean"], ratio.mean())
    torch.testing.assert_close(metrics["policy/ratio_max"], ratio.max())
    weights = ratio / ratio.sum()
    ess = 1 / (len(ratio) * weights.square().sum())
    torch.testing.assert_close(metrics["policy/effective_sample_size"], ess)
    torch.testing.assert_close(metrics["policy/kl"], (change[mask].exp() - 1 - change[mask]).mean())


@pytest.mark.parametrize("algo", ["rloo", "grpo", "gspo"])
def test_groups_that_teach_nothing_are_counted(algo):
    algorithm, rollout = ready(algo, CHOICE)
    assert algorithm.update(rollout, progress=0.0)["groups/without_spread"] == 0
    raw_reward = rollout.raw_reward.clone()
    raw_reward[:, 4:] = 0.0
    half = replace(rollout, raw_reward=raw_reward)
    assert algorithm.update(half, progress=0.0)["groups/without_spread"] == 0.5


@every_algorithm
def test_every_update_is_counted(algo):
    env, _ = counting(8, CHOICE)
    algorithm, collector = set_up(env, algo, group_size=4, epochs=3, episodes_per_minibatch=2)
    assert learn(algorithm, collector, iterations=1)[0]["updates"] == 3 * 8 / 2


# ---------------------------------------------------------------------- minibatches and padding


def gradient(algorithm, rollout: Rollout, episodes: Tensor, *, padding: int = 0) -> Tensor:
    """Mean ∇L of minibatches of these episodes [M, n], with rows of rubbish behind their ends."""
    weight = step_weights(rollout.mask, algorithm.aggregation, longest=TIME_LIMIT)
    advantage, _ = algorithm.estimate(rollout)
    weight = minibatch_weights(weight, size=episodes.shape[1])
    columns = take_episodes(episodes, rollout.obs, rollout.action, rollout.logp, advantage)
    rubbish = torch.Generator().manual_seed(2)

    def pad(x: Tensor) -> Tensor:
        noise = torch.randn(len(x), padding, *x.shape[2:], generator=rubbish)
        return torch.cat([x, (3 * noise).abs().clamp_max(2).to(x.dtype)], dim=1)

    obs, action, logp, advantage = (pad(column) for column in columns)
    (weight,) = take_episodes(episodes, weight)
    weight = torch.cat([weight, weight.new_zeros(len(weight), padding, weight.shape[2])], dim=1)
    zeros, learner = torch.zeros_like(logp), algorithm.policy_learner
    gradients = []
    for k in range(len(episodes)):
        theta = learner.parameters.vector.clone().requires_grad_(True)
        named = learner.parameters.unflatten(theta)
        batch = PenalisedBatch(
            obs[k], action[k], logp[k], advantage[k], weight[k], zeros[k], torch.zeros(())
        )
        loss, _ = algorithm.policy_loss(
            lambda *x, named=named: functional_call(learner.network, named, x), batch
        )
        gradients.append(torch.autograd.grad(loss, theta)[0])
    return torch.stack(gradients).mean(0)


@every_algorithm
@both
def test_neither_a_cut_into_minibatches_nor_padding_changes_the_gradient(algo, actions):
    algorithm, rollout = ready(algo, actions, moved=0.1)
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
    algorithm, rollout = ready(algo, CHOICE, estimator=time_group)
    advantage, _ = time_group(rollout, gamma=algorithm.gamma)
    lengths = rollout.mask.sum(0)

    def loss(policy: nn.Module) -> Tensor:
        logp, _ = log_prob_and_entropy(policy, rollout)
        scores = advantage * logp * rollout.mask
        if algo == "rloo":
            return -scores.sum() / 8
        if algo == "dapo":
            return -scores.sum() / lengths.sum()
        return -(scores.sum(0) / lengths).mean()

    expected, norm = torchs_step(algorithm.policy_learner, loss, learning_rate=0.02)
    assert norm > 0.01
    algorithm.update(rollout, progress=0.0)
    torch.testing.assert_close(
        algorithm.policy_learner.parameters.vector, expected, atol=2e-6, rtol=1e-4
    )


@every_algorithm
def test_an_enormous_ratio_breaks_nothing(algo):
    algorithm, rollout = ready(algo, BOX)
    improbable = replace(rollout, logp=rollout.logp - 25.0)  # e^100 is no float32
    metrics = algorithm.update(improbable, progress=0.0)
    assert all(value.isfinite() for value in metrics.values())
    assert algorithm.policy_learner.parameters.vector.isfinite().all()
