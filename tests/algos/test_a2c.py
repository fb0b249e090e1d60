"""A2C: its one step against autograd and torch's RMSprop, and whether it learns."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny import (
    CPU,
    Corridor,
    PointMass,
    algorithm_of,
    control,
    greedy_return,
    learn,
    set_up,
    torchs_step,
)
from torch import Tensor, nn

from rlrun.advantages.temporal import gae, nstep
from rlrun.data.rollout import Rollout
from rlrun.hardware.spec import find_compiler
from rlrun.models.distributions import Categorical

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": -0.5}, r"gamma must be in \[0, 1\], got -0.5"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"rmsprop_alpha": 1.1}, r"rmsprop_alpha must be in \[0, 1\], got 1.1"),
        ({"rmsprop_epsilon": 0.0}, "rmsprop_epsilon must be positive"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient must be at least 0"),
        ({"hidden_sizes": [0]}, "hidden_sizes must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("a2c", **changes)


# ---------------------------------------------------------------------- the step


def ready(make_env, **changes):
    """A2C after a few steps, and the next rollout, [8, 4]."""
    algorithm, collector = set_up(control(make_env, 4), "a2c", learning_rate=1e-3, **changes)
    learn(algorithm, collector, iterations=3)
    return algorithm, algorithm.collect(collector)


def plain_policy_loss(algorithm, policy: nn.Module, rollout: Rollout) -> Tensor:
    """The policy's loss, row by row, with torch's distributions."""
    distribution, action = policy(rollout.obs), rollout.action.clone()
    if isinstance(distribution, Categorical):
        plain = torch.distributions.Categorical(logits=distribution.logits)
        logp, entropy = plain.log_prob(action), plain.entropy()
    else:
        plain = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        logp, entropy = plain.log_prob(action).sum(-1), plain.entropy().sum(-1)
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
    algorithm, rollout = ready(make_env, **changes)
    critic = algorithm.critics.learners["value"]
    _, target = algorithm.estimate(rollout)

    def value_loss(network: nn.Module) -> Tensor:
        return 0.5 * (network(rollout.obs) - target).square().mean()

    policy_after, norm = torchs_step(
        algorithm.policy_learner, lambda policy: plain_policy_loss(algorithm, policy, rollout), 1e-3
    )
    critic_after, _ = torchs_step(critic, value_loss, 1e-3)
    assert norm > 0.01  # which is the bound in one of the cases
    algorithm.update(rollout, progress=0.0)
    close = partial(torch.testing.assert_close, atol=1e-6, rtol=1e-4)
    close(algorithm.policy_learner.parameters.vector, policy_after)
    close(critic.parameters.vector, critic_after)


def test_a_rollout_is_one_update_of_a_falling_size():
    algorithm, rollout = ready(Corridor)
    metrics = algorithm.update(rollout, progress=0.75)
    assert metrics["updates"] == 1
    assert metrics["schedule/learning_rate"] == pytest.approx(1e-3 / 4)
    # 4 environments x 8 steps
    assert algorithm.updates(total_steps=3200) == 100


def test_padding_teaches_nothing():
    (one, clean), (other, rollout) = (
        set_up_episodes(Corridor, entropy_coefficient=0.1) for _ in range(2)
    )
    padding = ~rollout.mask
    assert padding.any()
    soiled = replace(
        rollout,
        obs=rollout.obs.masked_fill(padding.unsqueeze(-1), 3.0),
        value=rollout.value.masked_fill(padding, 5.0),
    )
    one.update(clean, progress=0.0)
    other.update(soiled, progress=0.0)
    for name, weight in other.agent.weights().items():
        assert torch.equal(weight, one.agent.weights()[name]), name


def set_up_episodes(make_env, **changes):
    """A2C and a rollout of whole episodes."""
    algorithm, collector = set_up(control(make_env, 4), "a2c", group_size=1, **changes)
    return algorithm, algorithm.collect(collector)


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_compiled_steps_equal_eager_ones():
    weights = []
    for compile_steps in ("off", "on"):
        algorithm, collector = set_up(
            control(Corridor, 4), "a2c", hardware=replace(CPU, compile=compile_steps)
        )
        for learner in algorithm.learners.values():
            learner.warm_up()
        assert algorithm.policy_learner.is_compiled is (compile_steps == "on")
        learn(algorithm, collector, iterations=5)
        weights.append(algorithm.agent.weights())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------- learning

ESTIMATORS = {"gae": partial(gae, lam=0.95), "nstep": partial(nstep, n=5)}
SETTINGS = {"hidden_sizes": [16], "learning_rate": 3e-3, "gamma": 0.9, "horizon": 5}


def trained_return(make_env, *, estimator, iterations: int, sign: int = 1) -> float:
    """The greedy policy's mean return after training; a sign of -1 is the classic mistake."""

    def signed(rollout, *, gamma):
        advantage, target = estimator(rollout, gamma=gamma)
        return sign * advantage, target

    algorithm, collector = set_up(control(make_env, 16), "a2c", estimator=signed, **SETTINGS)
    learn(algorithm, collector, iterations)
    return greedy_return(make_env, algorithm, collector)


CORRIDOR = partial(trained_return, Corridor, iterations=150)
POINT_MASS = partial(trained_return, PointMass, iterations=150)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


@every_estimator
def test_a_corridor_is_walked_to_its_end(estimator):
    assert CORRIDOR(estimator=estimator) == pytest.approx(0.7)
    assert CORRIDOR(estimator=estimator, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@every_estimator
def test_a_point_is_brought_to_its_place(estimator):
    assert POINT_MASS(estimator=estimator) > -0.6
    assert POINT_MASS(estimator=estimator, sign=-1) < -10.0
