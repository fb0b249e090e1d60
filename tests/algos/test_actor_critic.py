"""The actor-critic: one step of each against autograd, for both critics, and whether it learns."""

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
    estimator_of,
    greedy_return,
    learn,
    problem_of,
    set_up,
    torchs_step,
)
from torch import Tensor, nn

from rlrun.advantages.action_values import advantage_q
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.errors import UserError
from rlrun.hardware.spec import find_compiler
from rlrun.models.distributions import Categorical

ENVS = {"discrete": Corridor, "continuous": PointMass}
both_envs = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)
ALGORITHMS = ["actor_critic_td", "actor_critic_q"]
both_critics = pytest.mark.parametrize("algo", ALGORITHMS)


@both_critics
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 2.0}, r"gamma must be in \[0, 1\], got 2.0"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"actor_learning_rate": 0.0}, "actor_learning_rate must be positive, got 0.0"),
        ({"critic_learning_rate": -1.0}, "critic_learning_rate must be positive, got -1.0"),
        ({"adam_epsilon": 0.0}, "adam_epsilon must be positive"),
    ],
)
def test_a_value_out_of_range_is_refused(algo, changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of(algo, **changes)


@both_critics
def test_the_message_about_its_estimator_fits_both_of_its_names(algo):
    with pytest.raises(UserError, match=r"^an actor-critic needs an estimator: advantage=…"):
        algorithm_of(algo).setup(
            problem_of(control(Corridor, 4)),
            hardware=CPU,
            streams=Streams.from_seed(0),
            estimator=None,
            compiled=False,
            from_checkpoint=False,
        )


# ---------------------------------------------------------------------- the step


def ready(make_env, algo: str, **changes):
    """An actor-critic after a few steps, and the next rollout, [8, 4]."""
    settings = {"actor_learning_rate": 1e-2, "critic_learning_rate": 3e-2, **changes}
    algorithm, collector = set_up(control(make_env, 4), algo, **settings)
    learn(algorithm, collector, iterations=3)
    return algorithm, algorithm.collect(collector)


def log_prob(policy: nn.Module, rollout: Rollout) -> Tensor:
    """log π(a|s) by torch's distributions, [T, N]."""
    distribution, action = policy(rollout.obs), rollout.action.clone()
    if isinstance(distribution, Categorical):
        return torch.distributions.Categorical(logits=distribution.logits).log_prob(action)
    plain = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
    return plain.log_prob(action).sum(-1)


@both_critics
@both_envs
def test_a_step_of_each_equals_autograd_and_torchs_adam(make_env, algo):
    algorithm, rollout = ready(make_env, algo)
    goes_on = algorithm.gamma * (~rollout.terminated).float()
    if algo == "actor_critic_td":
        critic = algorithm.critics.learners["value"]
        target = rollout.reward + goes_on * rollout.next_value
        coefficient = target - rollout.value
        inputs = [rollout.obs]
    else:
        critic = algorithm.critics.learners["action_value"]
        target = rollout.reward + goes_on * rollout.next_q
        coefficient = rollout.q
        inputs = [rollout.obs, rollout.action.clone()]

    def actor_loss(policy: nn.Module) -> Tensor:
        gains = [
            coefficient[t, n] * log_prob(policy, rollout)[t, n] for t in range(8) for n in range(4)
        ]
        return -torch.stack(gains).mean()

    def critic_loss(network: nn.Module) -> Tensor:
        return 0.5 * (network(*inputs) - target).square().mean()

    actor_after, _ = torchs_step(algorithm.actor_learner, actor_loss, 1e-2)
    critic_after, _ = torchs_step(critic, critic_loss, 3e-2)
    algorithm.update(rollout, progress=0.5)
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
    close(algorithm.actor_learner.parameters.vector, actor_after)
    close(critic.parameters.vector, critic_after)


@pytest.mark.parametrize(
    ("algo", "estimator", "critics"),
    [
        ("actor_critic_td", None, ["value"]),
        ("actor_critic_q", None, ["action_value"]),
        ("actor_critic_q", partial(advantage_q, baseline="value"), ["value", "action_value"]),
        ("actor_critic_q", partial(advantage_q, baseline="policy_mean"), ["action_value"]),
    ],
    ids=["td", "q_value", "advantage_q", "advantage_q_policy_mean"],
)
def test_the_critics_are_those_that_the_estimator_needs(algo, estimator, critics):
    algorithm, rollout = ready(Corridor, algo, estimator=estimator)
    assert list(algorithm.critics.learners) == critics
    metrics = algorithm.update(rollout, progress=0.0)
    assert {f"loss/{name}" for name in critics} == metrics.keys() & {
        "loss/value",
        "loss/action_value",
    }


def test_a_rollout_is_one_update():
    algorithm, rollout = ready(Corridor, "actor_critic_td")
    assert algorithm.update(rollout, progress=0.0)["updates"] == 1
    # 4 environments x 8 steps
    assert algorithm.updates(total_steps=3200) == 100


@both_critics
def test_padding_teaches_nothing(algo):
    pairs = []
    for _ in range(2):
        algorithm, collector = set_up(control(Corridor, 4), algo, group_size=1)
        pairs.append((algorithm, algorithm.collect(collector)))
    (one, clean), (other, rollout) = pairs
    padding = ~rollout.mask
    assert padding.any()
    soiled = replace(rollout, obs=rollout.obs.masked_fill(padding.unsqueeze(-1), 3.0))
    one.update(clean, progress=0.0)
    other.update(soiled, progress=0.0)
    for name, weight in other.agent.weights().items():
        assert torch.equal(weight, one.agent.weights()[name]), name


@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")
def test_compiled_steps_equal_eager_ones():
    weights = []
    for compile_steps in ("off", "on"):
        algorithm, collector = set_up(
            control(PointMass, 4), "actor_critic_q", hardware=replace(CPU, compile=compile_steps)
        )
        for learner in algorithm.learners.values():
            learner.warm_up()
        assert algorithm.actor_learner.is_compiled is (compile_steps == "on")
        learn(algorithm, collector, iterations=5)
        weights.append(algorithm.agent.weights())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------- learning

SETTINGS = {
    "hidden_sizes": [16],
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 1e-2,
    "gamma": 0.9,
    "horizon": 5,
}


def trained_return(make_env, algo: str, *, iterations: int, sign: int = 1, estimator=None) -> float:
    """The greedy policy's mean return after training; a sign of -1 is the classic mistake."""
    plain = estimator or estimator_of(algo)

    def signed(rollout, *, gamma):
        advantage, target = plain(rollout, gamma=gamma)
        return sign * advantage, target

    algorithm, collector = set_up(control(make_env, 16), algo, estimator=signed, **SETTINGS)
    learn(algorithm, collector, iterations)
    return greedy_return(make_env, algorithm, collector)


CORRIDOR = partial(trained_return, Corridor, iterations=150)
POINT_MASS = partial(trained_return, PointMass, iterations=200)


@both_critics
def test_a_corridor_is_walked_to_its_end(algo):
    assert CORRIDOR(algo) == pytest.approx(0.7)
    assert CORRIDOR(algo, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@both_critics
def test_a_point_is_brought_to_its_place(algo):
    assert POINT_MASS(algo) > -0.6
    assert POINT_MASS(algo, sign=-1) < -10.0
