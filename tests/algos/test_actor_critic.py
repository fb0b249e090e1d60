"""The actor-critic: one step of each against autograd, for both critics, and whether it learns."""

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

from rlrun.advantages.action_values import advantage_q

ENVS = {"discrete": Corridor, "continuous": PointMass}
both_envs = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)
ALGORITHMS = ["actor_critic_td", "actor_critic_q"]
both_critics = pytest.mark.parametrize("algo", ALGORITHMS)


# ---------------------------------------------------------------------- the step


def ready(make_env, algo: str, **changes):
    """An actor-critic after a few steps, and the next transitions, [8, 4]."""
    settings = {"optimizer.learning_rate": 1e-2, "critic_optimizer.learning_rate": 3e-2, **changes}
    algorithm, collector = set_up(control(make_env, 4), algo, **settings)
    learn(algorithm, collector, iterations=3)
    return algorithm, collector.collect(algorithm.agent.actor)


@both_critics
@both_envs
def test_a_step_of_each_equals_autograd_and_torchs_adam(make_env, algo):
    algorithm, transitions = ready(make_env, algo)
    rollout = rollout_of(algorithm, transitions)
    goes_on = algorithm.gamma * (~rollout.terminated).float()
    if algo == "actor_critic_td":
        critic = algorithm.learners["critics"].learners["value"]
        target = rollout.reward + goes_on * rollout.columns["next_value"]
        coefficient = target - rollout.columns["value"]
        inputs = [rollout.obs]
    else:
        critic = algorithm.learners["critics"].learners["action_value"]
        target = rollout.reward + goes_on * rollout.columns["next_q"]
        coefficient = rollout.columns["q"]
        inputs = [rollout.obs, rollout.action]

    def actor_loss(policy: nn.Module) -> Tensor:
        logp, _ = log_prob_and_entropy(policy, rollout)
        gains = [coefficient[t, n] * logp[t, n] for t in range(8) for n in range(4)]
        return -torch.stack(gains).mean()

    def critic_loss(network: nn.Module) -> Tensor:
        return 0.5 * (network(*inputs) - target).square().mean()

    actor_after, _ = torchs_step(algorithm.learners["policy"], actor_loss, 1e-2)
    critic_after, _ = torchs_step(critic, critic_loss, 3e-2)
    algorithm.update(transitions, progress=0.5)
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-4)
    close(algorithm.learners["policy"].parameters.vector, actor_after)
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
    algorithm, transitions = ready(Corridor, algo, estimator=estimator)
    assert list(algorithm.learners["critics"].learners) == critics
    metrics = algorithm.update(transitions, progress=0.0)
    assert {f"loss/{name}" for name in critics} == metrics.keys() & {
        "loss/value",
        "loss/action_value",
    }


def test_a_rollout_is_one_update():
    algorithm, transitions = ready(Corridor, "actor_critic_td")
    assert algorithm.update(transitions, progress=0.0)["updates"] == 1


@pytest.mark.parametrize("annealed", ["optimizer", "critic_optimizer", "neither"])
def test_each_step_size_falls_if_it_is_to(annealed):
    # Where the run has ended it is 0.
    changes = {f"{annealed}.anneal_learning_rate": True} if annealed != "neither" else {}
    algorithm, transitions = ready(Corridor, "actor_critic_td", **changes)
    before = algorithm.agent.weights()
    algorithm.update(transitions, progress=1.0)
    for name, weight in algorithm.agent.weights().items():
        network = {"policy": "optimizer", "critic": "critic_optimizer"}[name.partition(".")[0]]
        assert torch.equal(weight, before[name]) == (network == annealed), name


# ---------------------------------------------------------------------- learning

SETTINGS = {
    "optimizer.learning_rate": 3e-3,
    "critic_optimizer.learning_rate": 1e-2,
    "gamma": 0.9,
    "horizon": 5,
}


CORRIDOR = partial(trained_return, Corridor, iterations=150, num_envs=16, log_std=-0.5, **SETTINGS)
POINT_MASS = partial(
    trained_return, PointMass, iterations=200, num_envs=16, log_std=-0.5, **SETTINGS
)


@both_critics
def test_a_corridor_is_walked_to_its_end(algo):
    assert CORRIDOR(algo) == pytest.approx(0.7)
    assert CORRIDOR(algo, sign=-1) < 0.0


# Doing nothing pays 10·E[x²] = 10/3.
@both_critics
def test_a_point_is_brought_to_its_place(algo):
    assert POINT_MASS(algo) > -0.6
    assert POINT_MASS(algo, sign=-1) < -10.0
