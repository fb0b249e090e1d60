"""TRPO: its step within the trust region, its critic, and whether it learns."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny import (
    Corridor,
    PointMass,
    control,
    learn,
    rollout_of,
    set_up,
    trained_return,
)
from torch import Tensor, nn

from rlrun.errors import UserError
from rlrun.models.distributions import Categorical

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def mean_kl(before: nn.Module, after: nn.Module, obs: Tensor) -> Tensor:
    """The mean KL of two policies by torch's distributions, [] in double precision."""
    kinds = []
    for policy in (before, after):
        distribution = copy.deepcopy(policy).double()(obs.double())
        if isinstance(distribution, Categorical):
            kinds.append(torch.distributions.Categorical(logits=distribution.logits))
        else:
            normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
            kinds.append(torch.distributions.Independent(normal, 1))
    return torch.distributions.kl_divergence(*kinds).mean()


@both
@pytest.mark.parametrize("max_kl", [1e-3, 0.3])
def test_a_step_improves_the_surrogate_within_the_trust_region(make_env, max_kl):
    settings = {"max_kl": max_kl, "horizon": 64, "normalize_advantage": False}
    algorithm, collector = set_up(control(make_env, 4), "trpo", **settings)
    accepted = 0
    for _ in range(6):
        transitions = collector.collect(algorithm.agent.actor)
        rollout = rollout_of(algorithm, transitions)
        advantage, _ = algorithm.agent.estimate(rollout)
        before = copy.deepcopy(algorithm.agent.networks.policy)
        metrics = algorithm.update(transitions, progress=0.0)
        kl = mean_kl(before, algorithm.agent.networks.policy, rollout.obs)
        new, old = (
            policy(rollout.obs).log_prob(rollout.action)
            for policy in (algorithm.agent.networks.policy, before)
        )
        improvement = ((torch.exp(new - old) - 1) * advantage).mean()
        torch.testing.assert_close(metrics["policy/kl"].double(), kl, rtol=0.05, atol=1e-6)
        torch.testing.assert_close(metrics["policy/improvement"], improvement, rtol=1e-3, atol=1e-6)
        if metrics["policy/line_search_accepted"] == 1:
            accepted += 1
            assert 0 < kl <= max_kl * 1.01
            assert improvement > 0
        else:
            assert kl == 0
    assert accepted >= 4


@both
def test_a_small_step_has_the_kl_that_was_asked_for(make_env):
    # Where the quadratic model holds, the first length is right.
    algorithm, collector = set_up(control(make_env, 4), "trpo", max_kl=1e-4, damping=1e-4)
    metrics = learn(algorithm, collector, 1)[0]
    assert metrics["policy/line_search_steps"] <= 2
    assert 0.5e-4 < metrics["policy/kl"] <= 1e-4


def test_no_length_will_do():
    algorithm, collector = set_up(control(Corridor, 4), "trpo", max_kl=1e-3)
    transitions = collector.collect(algorithm.agent.actor)
    step = algorithm.policy_step
    # Lengths a thousand times too long: the gradient's scale cancels out, the matrix's does not.
    product = step.product
    step.product = lambda theta, vector, batch: 1e-6 * product(theta, vector, batch)
    before = step.parameters.vector.clone()
    critic = copy.deepcopy(algorithm.agent.networks.critic.state_dict())
    metrics = algorithm.update(transitions, progress=0.0)
    assert metrics["policy/line_search_accepted"] == 0
    assert metrics["policy/line_search_steps"] == 10
    assert metrics["policy/kl"] == 0
    assert metrics["policy/improvement"] == 0
    assert torch.equal(step.parameters.vector, before)
    # The critic learns all the same.
    assert not any(
        torch.equal(weight, critic[name])
        for name, weight in algorithm.agent.networks.critic.state_dict().items()
    )


def test_a_step_that_makes_the_surrogate_worse_is_refused():
    algorithm, collector = set_up(control(Corridor, 4), "trpo")
    step = algorithm.policy_step
    gradient = step.gradient
    step.gradient = lambda theta, batch: -gradient(theta, batch)
    before = step.parameters.vector.clone()
    metrics = learn(algorithm, collector, 1)[0]
    assert metrics["policy/line_search_accepted"] == 0
    assert torch.equal(step.parameters.vector, before)


def test_minibatches_that_leave_out_rows_are_refused():
    message = r"^algo: minibatch_size must divide num_envs x horizon = 32, got 5$"
    with pytest.raises(UserError, match=message):
        set_up(control(Corridor, 4), "trpo", minibatch_size=5)


def test_the_critics_step_size_falls_if_it_is_to():
    for anneal in (False, True):
        settings = {"learning_rate": 1e-2, "anneal_learning_rate": anneal}
        settings = {f"critic.optimizer.{name}": value for name, value in settings.items()}
        algorithm, collector = set_up(control(Corridor, 4), "trpo", **settings)
        before = copy.deepcopy(algorithm.agent.networks.critic.state_dict())
        transitions = collector.collect(algorithm.agent.actor)
        metrics = algorithm.update(transitions, progress=1.0)
        assert metrics["schedule/learning_rate"] == (0.0 if anneal else pytest.approx(1e-2))
        for name, weight in algorithm.agent.networks.critic.state_dict().items():
            assert torch.equal(weight, before[name]) is anneal


def test_updates_are_counted():
    algorithm, collector = set_up(control(Corridor, 4), "trpo", epochs=3)
    # 4 environments x 8 steps = 32 rows = 4 minibatches of 8, three times; and the policy's step
    assert [int(m["updates"]) for m in learn(algorithm, collector, 2)] == [13, 13]
    assert [
        int(learner.state.optimizer.t)
        for learner in algorithm.learners["critics"].learners.values()
    ] == [24]


@both
def test_rows_that_are_masked_teach_nothing(make_env):
    weights = []
    for poison in (0.0, torch.nan):
        algorithm, collector = set_up(control(make_env, 4), "trpo")
        transitions = collector.collect(algorithm.agent.actor)
        mask = transitions.mask.clone()
        mask[:, :2] = False
        obs = transitions.obs.masked_fill(~mask[..., None], poison)
        metrics = algorithm.update(replace(transitions, mask=mask, obs=obs), progress=0.0)
        assert metrics["policy/line_search_accepted"] == 1
        weights.append(algorithm.agent.weights())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


@pytest.mark.parametrize("group_size", [1, 2])
def test_whole_episodes_train_without_a_compiler(group_size):
    algorithm, collector = set_up(control(Corridor, 4), "trpo", group_size=group_size)
    assert not algorithm.policy_step.gradient.expected
    for metrics in learn(algorithm, collector, 2):
        assert all(value.isfinite() for value in metrics.values())


SETTINGS = {"horizon": 32, "minibatch_size": 64, "epochs": 10, "gamma": 0.9, "max_kl": 0.05}
RETURN = partial(trained_return, algo="trpo", iterations=25, **SETTINGS)


def test_it_learns_and_with_the_sign_flipped_it_does_not():
    assert RETURN(Corridor, sign=1) == pytest.approx(0.7)
    assert RETURN(Corridor, sign=-1) < 0.0
    assert RETURN(PointMass, sign=1) > -1.0 > RETURN(PointMass, sign=-1)
