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
    compile_update,
    control,
    counting,
    estimator_of,
    learn,
    log_prob_and_entropy,
    rollout_of,
    set_up,
    torchs_step,
    trained_return,
)
from torch import Tensor, nn

from rlrun.advantages.temporal import baseline_value
from rlrun.collectors.segments import Segments
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
both = pytest.mark.parametrize("actions", [CHOICE, BOX], ids=["discrete", "continuous"])


def ready(actions: spaces.Space, **changes):
    """REINFORCE after one step, and episodes of 1 to 4 steps for the next.

    The first step leaves moments in Adam, and ε is so large that the size of a gradient counts.
    """
    env, _ = counting(4, actions)
    settings = {"epsilon": 1.0, "learning_rate": 0.1, "max_grad_norm": float("inf"), **changes}
    algorithm, collector = set_up(env, "reinforce", group_size=1, **settings)
    learn(algorithm, collector, iterations=1)
    transitions = collector.collect(algorithm.agent.actor)
    assert len(set(transitions.mask.sum(0).tolist())) > 1
    return algorithm, transitions


def test_segments_are_refused():
    with pytest.raises(
        UserError, match=r"^reinforce learns from whole episodes: collector=episodes$"
    ):
        set_up(control(Corridor, 4), "reinforce", collector=Segments(horizon=8))


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
    logp, entropy = log_prob_and_entropy(policy, rollout)
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
    algorithm, transitions = ready(actions, aggregation=aggregation, **changes)
    rollout = rollout_of(algorithm, transitions)
    before = algorithm.policy_learner.parameters.vector.clone()
    expected, _ = torchs_step(
        algorithm.policy_learner, lambda policy: plain_loss(algorithm, policy, rollout), 0.1
    )
    algorithm.update(transitions, progress=0.0)
    theta = algorithm.policy_learner.parameters.vector
    assert (theta - before).abs().max() > 1e-4
    torch.testing.assert_close(theta, expected, atol=1e-6, rtol=1e-4)


def test_the_step_sizes_fall_with_progress():
    for anneal, expected in ((True, 0.025), (False, 0.1)):
        algorithm, transitions = ready(CHOICE, **{"optimizer.anneal_learning_rate": anneal})
        metrics = algorithm.update(transitions, progress=0.75)
        assert metrics["schedule/learning_rate"] == pytest.approx(expected)


def test_at_the_end_of_a_run_neither_policy_nor_critic_moves():
    algorithm, transitions = ready(CHOICE, estimator=baseline_value)
    before = algorithm.agent.weights()
    algorithm.update(transitions, progress=1.0)
    for name, weight in algorithm.agent.weights().items():
        assert torch.equal(weight, before[name]), name


# ---------------------------------------------------------------------- the critic


def test_without_a_baseline_there_is_no_critic():
    algorithm, transitions = ready(CHOICE)
    assert algorithm.agent.networks.critic is None
    assert algorithm.agent.networks.action_critic is None
    metrics = algorithm.update(transitions, progress=0.0)
    assert metrics["updates"] == 1
    assert not {"loss/value", "value/explained_variance"} & metrics.keys()


def test_the_baseline_is_the_critic_from_before_its_fit():
    thetas = []
    for epochs in (1, 20):
        algorithm, collector = set_up(
            control(Corridor, 4),
            "reinforce",
            group_size=1,
            estimator=baseline_value,
            **{"critic.epochs": epochs, "critic.minibatch_size": 256},
        )
        transitions = collector.collect(algorithm.agent.actor)
        metrics = algorithm.update(transitions, progress=0.0)
        thetas.append(algorithm.policy_learner.parameters.vector.clone())
    assert torch.equal(*thetas)
    # The critic took 20 passes over them all, in minibatches of 256 at most.
    assert int(transitions.mask.sum()) < algorithm.critic.minibatch_size
    assert algorithm.learners["critics"].learners["value"].state.optimizer.t == 20
    assert metrics["updates"] == 1 + 20


def test_every_step_is_counted():
    algorithm, transitions = ready(CHOICE, estimator=baseline_value)
    assert (algorithm.critic.epochs, algorithm.critic.minibatch_size) == (2, 8)
    steps = algorithm.learners["critics"].learners["value"].state.optimizer.t.item()
    metrics = algorithm.update(transitions, progress=0.0)
    assert metrics["updates"] == 1 + 2 * (transitions.mask.sum() // 8)
    taken = algorithm.learners["critics"].learners["value"].state.optimizer.t.item() - steps
    assert metrics["updates"] == 1 + taken


def test_the_critic_is_fitted_to_the_returns():
    algorithm, collector = set_up(
        control(PointMass, 8),
        "reinforce",
        group_size=1,
        estimator=baseline_value,
        **{"critic.epochs": 100, "critic.minibatch_size": 256},
        **{"critic.optimizer.learning_rate": 1e-2},
    )
    transitions = collector.collect(algorithm.agent.actor)
    rollout = rollout_of(algorithm, transitions)
    _, target = algorithm.agent.estimate(rollout)
    algorithm.update(transitions, progress=0.0)
    fitted = algorithm.agent.judge(rollout)
    error, error_before = (torch.var(target - r.columns["value"]) for r in (fitted, rollout))
    assert error < 0.8 * error_before


# ---------------------------------------------------------------------- learning

SETTINGS = {
    "learning_rate": 2e-2,
    "gamma": 0.9,
    "critic.epochs": 10,
    "critic.minibatch_size": 256,
    "critic.optimizer.learning_rate": 1e-2,
}
ESTIMATORS = {"reward_to_go": estimator_of("reinforce"), "baseline_value": baseline_value}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


RETURN = partial(
    trained_return, algo="reinforce", num_envs=16, group_size=1, log_std=-0.5, **SETTINGS
)


@every_estimator
def test_a_corridor_is_walked_to_its_end(estimator):
    assert RETURN(Corridor, iterations=40, estimator=estimator) == pytest.approx(0.7)
    assert RETURN(Corridor, iterations=40, estimator=estimator, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@every_estimator
def test_a_point_is_brought_to_its_place(estimator):
    assert RETURN(PointMass, iterations=60, estimator=estimator) > -0.6
    assert RETURN(PointMass, iterations=60, estimator=estimator, sign=-1) < -10.0


def test_nothing_is_compiled():
    # Whole episodes differ in size.
    algorithm, collector = set_up(
        control(Corridor, 4), "reinforce", group_size=1, hardware=replace(CPU, compile="on")
    )
    assert not compile_update(algorithm, replace(CPU, compile="on")).wanted
    learn(algorithm, collector, iterations=1)
