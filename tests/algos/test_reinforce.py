"""REINFORCE: its step against a loop over the episodes, and whether it learns."""

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
    estimator_of,
    greedy_return,
    learn,
    set_up,
    torchs_step,
)
from torch import Tensor, nn

from rlrun.advantages.temporal import baseline_value
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError
from rlrun.models.distributions import Categorical

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
both = pytest.mark.parametrize("actions", [CHOICE, BOX], ids=["discrete", "continuous"])


def ready(actions: spaces.Space, **changes):
    """REINFORCE after one step, and episodes of 1 to 4 steps for the next.

    The first step leaves moments in Adam, and ε is so large that the size of a gradient counts.
    """
    env, _ = counting(4, actions)
    settings = {"adam_epsilon": 1.0, "learning_rate": 0.1, "max_grad_norm": float("inf")}
    algorithm, collector = set_up(env, "reinforce", group_size=1, **settings, **changes)
    learn(algorithm, collector, iterations=1)
    rollout = algorithm.collect(collector)
    assert len(set(rollout.mask.sum(0).tolist())) > 1
    return algorithm, rollout


# ---------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"adam_epsilon": 0.0}, "adam_epsilon must be positive"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be positive"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient must be at least 0"),
        ({"critic_learning_rate": 0.0}, "critic_learning_rate must be positive"),
        ({"critic_epochs": 0}, "critic_epochs must be at least 1, got 0"),
        ({"critic_minibatch_size": 0}, "critic_minibatch_size must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("reinforce", **changes)


def test_segments_are_refused():
    with pytest.raises(UserError, match=r"whole episodes: env\.group_size=1"):
        set_up(control(Corridor, 4), "reinforce", horizon=8)


# ---------------------------------------------------------------------- the step

# Weight of a step of an episode of `own` steps, where the episodes have `lengths`.
WEIGHTS = {
    "step_mean": lambda own, lengths: 1 / sum(lengths),
    "episode_mean_step_mean": lambda own, lengths: 1 / (len(lengths) * own),
    "episode_mean_step_sum": lambda own, lengths: 1 / len(lengths),
    "episode_mean_step_norm": lambda own, lengths: 1 / (len(lengths) * TIME_LIMIT),
}


def plain_loss(algorithm, policy: nn.Module, rollout: Rollout) -> Tensor:
    """The loss, episode by episode and step by step, with torch's distributions."""
    distribution, action = policy(rollout.obs), rollout.action.clone()
    if isinstance(distribution, Categorical):
        plain = torch.distributions.Categorical(logits=distribution.logits)
        logp, entropy = plain.log_prob(action), plain.entropy()
    else:
        plain = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        logp, entropy = plain.log_prob(action).sum(-1), plain.entropy().sum(-1)
    gamma, lengths = algorithm.gamma, rollout.mask.sum(0).tolist()
    returns = {}
    for i, length in enumerate(lengths):
        reward = rollout.reward[:, i]
        for t in range(length):
            returns[t, i] = sum(gamma ** (k - t) * reward[k] for k in range(t, length))
    coefficient = dict(returns)
    if algorithm.normalize_advantage:
        values = np.array(list(returns.values()))
        for row, value in returns.items():
            coefficient[row] = (value - values.mean()) / values.std(ddof=1)
    loss = torch.zeros(())
    for t, i in returns:
        weight = WEIGHTS[algorithm.aggregation](lengths[i], lengths)
        discount = gamma**t if algorithm.discount_states else 1.0
        gain = discount * coefficient[t, i] * logp[t, i]
        loss -= weight * (gain + algorithm.entropy_coefficient * entropy[t, i])
    return loss


CHANGES = {
    "default": {},
    "raw": {"normalize_advantage": False},
    "discounted_states": {"discount_states": True, "gamma": 0.5},
    "entropy": {"entropy_coefficient": 0.1},
}


@both
@pytest.mark.parametrize("aggregation", WEIGHTS)
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_step_equals_a_loop_and_torchs_adam(actions, aggregation, changes):
    algorithm, rollout = ready(actions, aggregation=aggregation, **changes)
    before = algorithm.policy_learner.parameters.vector.clone()
    expected, _ = torchs_step(
        algorithm.policy_learner, lambda policy: plain_loss(algorithm, policy, rollout), 0.1
    )
    algorithm.update(rollout, progress=0.0)
    theta = algorithm.policy_learner.parameters.vector
    assert (theta - before).abs().max() > 1e-4
    torch.testing.assert_close(theta, expected, atol=1e-6, rtol=1e-4)


@both
def test_padding_teaches_nothing(actions):
    (one, clean), (other, rollout) = (
        ready(actions, estimator=baseline_value, entropy_coefficient=0.1) for _ in range(2)
    )
    padding = ~rollout.mask
    assert padding.any()
    soiled = replace(
        rollout,
        obs=rollout.obs.masked_fill(padding.unsqueeze(-1), 3.0),
        action=torch.where(
            padding.view(*padding.shape, *[1] * (rollout.action.ndim - 2)), 1, rollout.action
        ).to(rollout.action.dtype),
        logp=rollout.logp.masked_fill(padding, -7.0),
        value=rollout.value.masked_fill(padding, 5.0),
    )
    metrics = one.update(clean, progress=0.0)
    for name, value in other.update(soiled, progress=0.0).items():
        assert torch.equal(value, metrics[name]), name
    for name, weight in other.agent.weights().items():
        assert torch.equal(weight, one.agent.weights()[name]), name


def test_the_step_sizes_fall_with_progress():
    algorithm, rollout = ready(CHOICE)
    assert algorithm.update(rollout, progress=0.75)["schedule/learning_rate"] == pytest.approx(
        0.025
    )
    algorithm, rollout = ready(CHOICE, anneal_learning_rate=False)
    assert algorithm.update(rollout, progress=0.75)["schedule/learning_rate"] == pytest.approx(0.1)


# ---------------------------------------------------------------------- the critic


def test_without_a_baseline_there_is_no_critic():
    algorithm, rollout = ready(CHOICE)
    assert algorithm.agent.critic is None
    assert algorithm.agent.action_critic is None
    metrics = algorithm.update(rollout, progress=0.0)
    assert not {"loss/value", "value/explained_variance"} & metrics.keys()


def test_the_baseline_is_the_critic_from_before_its_fit():
    thetas = []
    for epochs in (1, 20):
        algorithm, collector = set_up(
            control(Corridor, 4),
            "reinforce",
            group_size=1,
            estimator=baseline_value,
            critic_epochs=epochs,
        )
        rollout = algorithm.collect(collector)
        metrics = algorithm.update(rollout, progress=0.0)
        thetas.append(algorithm.policy_learner.parameters.vector.clone())
    assert torch.equal(*thetas)
    # The critic took 20 passes over them all, in minibatches of 256 at most.
    rows = int(rollout.mask.sum())
    assert rows < algorithm.critic_minibatch_size
    assert algorithm.critics.learners["value"].state.t == 20
    assert metrics["updates"] == 1


def test_the_critic_is_fitted_to_the_returns():
    algorithm, collector = set_up(
        control(PointMass, 8),
        "reinforce",
        group_size=1,
        estimator=baseline_value,
        critic_epochs=100,
        critic_learning_rate=1e-2,
    )
    rollout = algorithm.collect(collector)
    _, target = algorithm.estimate(rollout)
    algorithm.update(rollout, progress=0.0)
    fitted = algorithm.agent.judge(rollout)
    error, error_before = (torch.var(target - r.value) for r in (fitted, rollout))
    assert error < 0.8 * error_before


# ---------------------------------------------------------------------- learning

SETTINGS = {"hidden_sizes": [16], "learning_rate": 2e-2, "critic_learning_rate": 1e-2, "gamma": 0.9}
ESTIMATORS = {"reward_to_go": estimator_of("reinforce"), "baseline_value": baseline_value}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def trained_return(make_env, estimator, *, iterations: int, sign: int = 1) -> float:
    """The greedy policy's mean return after training; a sign of -1 is the classic mistake."""

    def signed(rollout, *, gamma):
        advantage, target = estimator(rollout, gamma=gamma)
        return sign * advantage, target

    algorithm, collector = set_up(
        control(make_env, 16), "reinforce", group_size=1, estimator=signed, **SETTINGS
    )
    learn(algorithm, collector, iterations)
    return greedy_return(make_env, algorithm, collector)


CORRIDOR = partial(trained_return, Corridor, iterations=40)
POINT_MASS = partial(trained_return, PointMass, iterations=60)


@every_estimator
def test_a_corridor_is_walked_to_its_end(estimator):
    assert CORRIDOR(estimator) == pytest.approx(0.7)
    assert CORRIDOR(estimator, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@every_estimator
def test_a_point_is_brought_to_its_place(estimator):
    assert POINT_MASS(estimator) > -0.6
    assert POINT_MASS(estimator, sign=-1) < -10.0


def test_compiling_is_not_asked_for():
    algorithm, collector = set_up(
        control(Corridor, 4), "reinforce", group_size=1, hardware=replace(CPU, compile="on")
    )
    assert algorithm.updates(10**9) == 0
    for learner in algorithm.learners.values():
        learner.warm_up()
    learn(algorithm, collector, iterations=1)
