"""A2C: its one step against autograd and torch's RMSprop, and whether it learns."""

from functools import partial

import pytest
import torch
from tiny import (
    Corridor,
    PointMass,
    control,
    learn,
    log_prob_and_entropy,
    rollout_of,
    set_up,
    torchs_step,
    trained_return,
)
from torch import Tensor, nn

from rlrun.advantages.temporal import gae, nstep
from rlrun.data.rollout import Rollout

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def ready(make_env, **changes):
    """A2C after a few steps, and the next transitions, [8, 4]."""
    algorithm, collector = set_up(control(make_env, 4), "a2c", learning_rate=1e-3, **changes)
    learn(algorithm, collector, iterations=3)
    return algorithm, collector.collect(algorithm.agent.actor)


def plain_policy_loss(algorithm, policy: nn.Module, rollout: Rollout) -> Tensor:
    """The policy's loss, row by row, with torch's distributions."""
    logp, entropy = log_prob_and_entropy(policy, rollout)
    advantage, _ = gae(rollout, gamma=algorithm.gamma, lam=0.95)
    if algorithm.normalize_advantage:
        advantage = (advantage - advantage.mean()) / advantage.std()
    losses = [
        -advantage[t, n] * logp[t, n] - algorithm.entropy_coefficient * entropy[t, n]
        for t in range(8)
        for n in range(4)
    ]
    return torch.stack(losses).mean()


CHANGES = {
    "default": {},
    "entropy": {"entropy_coefficient": 0.1},
    "normalized_advantage": {"normalize_advantage": True},
    "clipped_gradient": {"max_grad_norm": 0.01},
}


@both
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_step_equals_autograd_and_torchs_rmsprop(make_env, changes):
    algorithm, transitions = ready(make_env, **changes)
    rollout = rollout_of(algorithm, transitions)
    critic = algorithm.learners["critics"].learners["value"]
    _, target = algorithm.agent.estimate(rollout)

    def value_loss(network: nn.Module) -> Tensor:
        return 0.5 * (network(rollout.obs) - target).square().mean()

    policy_after, norm = torchs_step(
        algorithm.learners["policy"],
        lambda policy: plain_policy_loss(algorithm, policy, rollout),
        1e-3,
    )
    critic_after, _ = torchs_step(critic, value_loss, 1e-3)
    assert norm > 0.01  # which is the bound in one of the cases
    algorithm.update(transitions, progress=0.0)
    close = partial(torch.testing.assert_close, atol=1e-6, rtol=1e-4)
    close(algorithm.learners["policy"].parameters.vector, policy_after)
    close(critic.parameters.vector, critic_after)


def test_a_rollout_is_one_update_of_a_falling_size():
    algorithm, transitions = ready(Corridor)
    metrics = algorithm.update(transitions, progress=0.75)
    assert metrics["updates"] == 1
    assert metrics["schedule/learning_rate"] == pytest.approx(1e-3 / 4)


# ---------------------------------------------------------------------- learning

ESTIMATORS = {"gae": partial(gae, lam=0.95), "nstep": partial(nstep, n=5)}
SETTINGS = {"learning_rate": 3e-3, "gamma": 0.9, "horizon": 5}


RETURN = partial(trained_return, algo="a2c", iterations=150, num_envs=16, log_std=-0.5, **SETTINGS)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


@every_estimator
def test_a_corridor_is_walked_to_its_end(estimator):
    assert RETURN(Corridor, estimator=estimator) == pytest.approx(0.7)
    assert RETURN(Corridor, estimator=estimator, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@every_estimator
def test_a_point_is_brought_to_its_place(estimator):
    assert RETURN(PointMass, estimator=estimator) > -0.6
    assert RETURN(PointMass, estimator=estimator, sign=-1) < -10.0
