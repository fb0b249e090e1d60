"""What PPO's two learners descend: their losses, and steps on real rollouts."""

import pytest
import torch
from tiny import Corridor, PointMass, control, learn, rollout_of, set_up, torchs_step
from torch import Tensor, nn

from rlrun.advantages.columns import column
from rlrun.algos.policy_gradient.actor_critic_update import PolicyBatch
from rlrun.algos.policy_gradient.ppo import PPO
from rlrun.learning.critics import CriticBatch
from rlrun.learning.learner import GradientLearner
from rlrun.models.distributions import Categorical

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)
RATE = torch.tensor(1e-3)


def critic_learner(algorithm: PPO) -> GradientLearner:
    """What fits V(s)."""
    return algorithm.learners["critics"].learners["value"]


def ready(make_env, **settings) -> tuple[PPO, PolicyBatch, CriticBatch]:
    """PPO after one iteration, all rows of its second rollout [32], and other weights by then."""
    algorithm, collector = set_up(control(make_env, 4), **settings)
    learn(algorithm, collector, iterations=1)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    columns = (rollout.obs, rollout.action, rollout.logp, rollout.columns["value"])
    columns = (*columns, *algorithm.agent.estimate(rollout))
    obs, action, logp, value, advantage, target = (column.flatten(0, 1) for column in columns)
    generator = torch.Generator().manual_seed(0)
    # Far enough from the old policy that ratios leave the band, and values theirs.
    for learner in (algorithm.learners["policy"], critic_learner(algorithm)):
        theta = learner.parameters.vector
        theta.add_(0.6 * torch.randn(len(theta), generator=generator))
    # Targets on both sides of the old values and of the new ones.
    target += torch.randn(len(target), generator=generator)
    return (
        algorithm,
        PolicyBatch(obs, action, logp, advantage, torch.linspace(0.5, 1.5, len(logp))),
        CriticBatch(obs, action, value, target),
    )


def assert_one_step(
    learner: GradientLearner, loss, batch: PolicyBatch | CriticBatch
) -> dict[str, Tensor]:
    """Check a step against autograd and torch's Adam; return its metrics."""
    expected, norm = torchs_step(learner, loss, RATE.item())
    assert norm > 0.01  # which is the bound in one of the cases
    t = learner.state.optimizer.t.item()
    metrics = learner.fit(batch._make(column[None] for column in batch), RATE)
    torch.testing.assert_close(learner.parameters.vector, expected, atol=2e-6, rtol=1e-4)
    assert learner.state.optimizer.t == t + 1
    return {name: values[0] for name, values in metrics.items()}


# ---------------------------------------------------------------------- the policy


def plain_policy_loss(algorithm: PPO, policy: nn.Module, batch: PolicyBatch) -> Tensor:
    """The paper's loss, row by row, with torch's distributions."""
    distribution = policy(batch.obs)
    if isinstance(distribution, Categorical):
        plain = torch.distributions.Categorical(logits=distribution.logits)
        logp, entropy = plain.log_prob(batch.action), plain.entropy()
    else:
        plain = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        logp, entropy = plain.log_prob(batch.action).sum(-1), plain.entropy().sum(-1)
    advantage = batch.advantage
    if algorithm.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    losses = []
    for i in range(len(advantage)):
        ratio = torch.exp(logp[i] - batch.logp[i])
        clipped = min(max(ratio, 1 - algorithm.clip), 1 + algorithm.clip)
        surrogate = min(ratio * advantage[i], clipped * advantage[i])
        losses.append(-batch.weight[i] * surrogate - algorithm.entropy_coefficient * entropy[i])
    return torch.stack(losses).mean()


POLICY = {
    "default": {},
    "entropy": {"entropy_coefficient": 0.1},
    "raw_advantage": {"normalize_advantage": False},
    "narrow_band": {"clip": 0.1},
    "clipped_gradient": {"max_grad_norm": 0.01},
}


@both
@pytest.mark.parametrize("changes", POLICY.values(), ids=POLICY)
def test_a_policy_step_equals_autograd_and_torchs_adam(make_env, changes):
    algorithm, batch, _ = ready(make_env, **changes)
    critic = critic_learner(algorithm).parameters.vector.clone()

    def loss(policy: nn.Module) -> Tensor:
        return plain_policy_loss(algorithm, policy, batch)

    expected = loss(algorithm.agent.networks.policy)
    metrics = assert_one_step(algorithm.learners["policy"], loss, batch)
    bonus = algorithm.entropy_coefficient * metrics["policy/entropy"]
    torch.testing.assert_close(metrics["loss/policy"] - bonus, expected)
    assert metrics["policy/clip_fraction"] > 0.1
    assert torch.equal(critic_learner(algorithm).parameters.vector, critic)


@both
def test_the_ratio_is_one_on_the_first_minibatch(make_env):
    # Also in later iterations, when the normaliser's statistics have changed in between.
    algorithm, collector = set_up(control(make_env, 4), epochs=1, learning_rate=1e-2)
    first, fit = [], algorithm.learners["policy"].fit

    def watched(batches, learning_rate):
        distribution = algorithm.agent.networks.policy(batches.obs[0])
        first.append(distribution.log_prob(batches.action[0]) - batches.logp[0])
        return fit(batches, learning_rate)

    algorithm.learners["policy"].fit = watched
    for _ in range(3):
        algorithm.update(collector.collect(algorithm.agent.actor), progress=0.0)
    assert len(first) == 3  # one epoch an iteration
    for log_ratio in first:
        assert log_ratio.abs().max() < 1e-5


@both
def test_the_first_step_of_an_iteration_sees_no_kl_and_clips_nothing(make_env):
    settings = {"epochs": 1, "minibatch_size": 32, "learning_rate": 1e-2}
    algorithm, collector = set_up(control(make_env, 4), **settings)
    for _ in range(3):
        metrics = algorithm.update(collector.collect(algorithm.agent.actor), progress=0.0)
        assert metrics["policy/kl"] < 1e-8
        assert metrics["policy/clip_fraction"] == 0
        assert abs(metrics["loss/policy"]) < 1e-5  # minus the mean of normalised advantages


def test_an_action_with_a_positive_advantage_becomes_likelier():
    def prefer_right(rollout, *, gamma):
        return rollout.action.float() * 2 - 1, rollout.reward

    algorithm, collector = set_up(control(Corridor, 4), estimator=prefer_right)
    transitions = collector.collect(algorithm.agent.actor)
    obs, policy = rollout_of(algorithm, transitions).obs, algorithm.agent.networks.policy
    right = torch.ones_like(transitions.action)
    before = policy(obs).log_prob(right)
    algorithm.update(transitions, progress=0.0)
    assert (policy(obs).log_prob(right) > before).all()


# ---------------------------------------------------------------------- the critic


def plain_critic_loss(algorithm: PPO, critic: nn.Module, batch: CriticBatch) -> Tensor:
    """Half the mean squared error, row by row."""
    losses = []
    for value, old, target in zip(critic(batch.obs), batch.value, batch.target, strict=True):
        error = (value - target) ** 2
        if algorithm.value_clip is not None:
            low, high = old - algorithm.value_clip, old + algorithm.value_clip
            error = max(error, (min(max(value, low), high) - target) ** 2)
        losses.append(0.5 * error)
    return torch.stack(losses).mean()


CRITIC = {
    "default": {},
    "value_clip": {"value_clip": 0.05},
    "clipped_gradient": {"max_grad_norm": 0.01},
}


@both
@pytest.mark.parametrize("changes", CRITIC.values(), ids=CRITIC)
def test_a_critic_step_equals_autograd_and_torchs_adam(make_env, changes):
    algorithm, _, batch = ready(make_env, **changes)
    policy = algorithm.learners["policy"].parameters.vector.clone()

    def loss(critic: nn.Module) -> Tensor:
        return plain_critic_loss(algorithm, critic, batch)

    expected = loss(algorithm.agent.networks.critic)
    if algorithm.value_clip is not None:  # which makes a difference
        error = algorithm.agent.networks.critic(batch.obs) - batch.target
        assert expected > 1.01 * error.square().mean() / 2
    metrics = assert_one_step(critic_learner(algorithm), loss, batch)
    torch.testing.assert_close(metrics["loss/value"], expected)
    assert torch.equal(algorithm.learners["policy"].parameters.vector, policy)


def test_a_clipped_value_stays_near_the_old_one():
    # Targets far above: unclipped, the critic runs after them; clipped, it stops near its bound.
    def far(rollout, *, gamma):
        generator = torch.Generator().manual_seed(0)
        return torch.randn(rollout.reward.shape, generator=generator), column(
            rollout, "value"
        ) + 100.0

    moved = {}
    for value_clip in (None, 0.01):
        settings = {"epochs": 30, "learning_rate": 1e-3, "estimator": far}
        algorithm, collector = set_up(control(Corridor, 4), value_clip=value_clip, **settings)
        transitions = collector.collect(algorithm.agent.actor)
        rollout = rollout_of(algorithm, transitions)
        algorithm.update(transitions, progress=0.0)
        value = algorithm.agent.networks.critic(rollout.obs)
        moved[value_clip] = (value - rollout.columns["value"]).abs().max().item()
    assert moved[0.01] < 0.2 * moved[None]
