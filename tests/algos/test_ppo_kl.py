"""PPO with a KL penalty: its loss against autograd, its coefficient, and whether it learns."""

import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from tiny import (
    Corridor,
    PointMass,
    control,
    learn,
    rollout_of,
    set_up,
    torchs_step,
    trained_return,
)
from torch import Tensor, nn

from rlrun.algos.policy_gradient.ppo_kl import PPOKL, PenalisedBatch
from rlrun.models.distributions import Categorical

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def ready(make_env, **settings) -> tuple[PPOKL, PenalisedBatch]:
    """All rows of a rollout [32], and a policy that has moved away from its own."""
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", **settings)
    learn(algorithm, collector, 1)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    advantage, _ = algorithm.agent.estimate(rollout)
    old = algorithm.agent.networks.policy(rollout.obs).parameters
    beta = torch.full_like(advantage, 0.7)
    weight = torch.linspace(0.5, 1.5, beta.numel()).view(beta.shape)
    columns = (rollout.obs, rollout.action, rollout.logp, advantage, old, weight, beta)
    batch = PenalisedBatch(*(column.flatten(0, 1) for column in columns))
    theta = algorithm.learners["policy"].parameters.vector
    theta.add_(0.5 * torch.randn(len(theta), generator=torch.Generator().manual_seed(0)))
    return algorithm, batch


def torchs_distribution(rows: Tensor, discrete: bool) -> torch.distributions.Distribution:
    """Torch's own distribution with these parameters [K] or [2A]."""
    if discrete:
        return torch.distributions.Categorical(logits=rows)
    mean, log_std = rows.chunk(2, -1)
    return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)


def plain_loss(algorithm: PPOKL, policy: nn.Module, batch: PenalisedBatch) -> Tensor:
    """The paper's loss, row by row, with torch's distributions."""
    distribution = policy(batch.obs)
    discrete = isinstance(distribution, Categorical)
    advantage = batch.advantage
    if algorithm.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    losses = []
    for i, row in enumerate(distribution.parameters):
        new = torchs_distribution(row, discrete)
        old = torchs_distribution(batch.old[i], discrete)
        ratio = torch.exp(new.log_prob(batch.action[i]) - batch.logp[i])
        kl = torch.distributions.kl_divergence(old, new)
        losses.append(
            -batch.weight[i] * ratio * advantage[i]
            + batch.kl_coefficient[i] * kl
            - algorithm.entropy_coefficient * new.entropy()
        )
    return torch.stack(losses).mean()


def test_a_fixed_coefficient_may_be_zero():
    algorithm, collector = set_up(
        control(Corridor, 4), "ppo_kl", **{"kl.coefficient": 0.0, "kl.target": None}
    )
    metrics = learn(algorithm, collector, 3)
    assert all(m["schedule/kl_coefficient"] == 0.0 for m in metrics)


# ---------------------------------------------------------------------- the loss


@both
@pytest.mark.parametrize("changes", [{}, {"normalize_advantage": False}], ids=["default", "raw"])
def test_a_step_equals_autograd_on_a_plain_loop(make_env, changes):
    algorithm, batch = ready(make_env, entropy_coefficient=0.1, **changes)

    def loss(policy: nn.Module) -> Tensor:
        return plain_loss(algorithm, policy, batch)

    with torch.no_grad():
        ours, _ = algorithm.policy_loss(algorithm.agent.networks.policy, batch)
        unpenalised, _ = algorithm.policy_loss(
            algorithm.agent.networks.policy, batch._replace(kl_coefficient=torch.zeros(32))
        )
    torch.testing.assert_close(ours, loss(algorithm.agent.networks.policy))
    assert ours > unpenalised + 0.01  # the policies differ, and the penalty counts
    expected, _ = torchs_step(algorithm.learners["policy"], loss, 1e-3)
    one = batch._make(column[None] for column in batch)
    algorithm.learners["policy"].fit(one, torch.tensor(1e-3))
    vector = algorithm.learners["policy"].parameters.vector
    torch.testing.assert_close(vector, expected, atol=2e-6, rtol=1e-4)


@both
@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_at_ratio_one_the_gradient_is_that_of_reinforce(make_env, beta):
    # Whatever β is: the KL has its minimum there.
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", normalize_advantage=False)
    rollout = rollout_of(algorithm, collector.collect(algorithm.agent.actor))
    obs, action, logp = rollout.obs, rollout.action, rollout.logp
    advantage, _ = algorithm.agent.estimate(rollout)
    policy = copy.deepcopy(algorithm.agent.networks.policy).requires_grad_(True)
    distribution = policy(obs)
    old = distribution.parameters.detach()
    one = torch.ones_like(advantage)
    batch = PenalisedBatch(obs, action, logp, advantage, old, one, beta * one)
    loss, _ = algorithm.policy_loss(policy, batch)
    reinforce = -(advantage * distribution.log_prob(action)).mean()
    parameters = list(policy.parameters())
    ours = torch.autograd.grad(loss, parameters, retain_graph=True)
    for gradient, expected in zip(ours, torch.autograd.grad(reinforce, parameters), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in ours) > 1e-3


# ---------------------------------------------------------------------- the coefficient


@both
def test_the_reported_kl_is_that_of_the_whole_iteration(make_env):
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", learning_rate=1e-2)
    transitions = collector.collect(algorithm.agent.actor)
    rollout = rollout_of(algorithm, transitions)
    before = algorithm.agent.networks.policy(rollout.obs).parameters.clone()
    metrics = algorithm.update(transitions, progress=0.0)
    after = algorithm.agent.networks.policy(rollout.obs).parameters
    discrete = make_env is Corridor
    kl = torch.distributions.kl_divergence(
        torchs_distribution(before, discrete), torchs_distribution(after, discrete)
    )
    assert metrics["policy/kl"] > 1e-4
    torch.testing.assert_close(metrics["policy/kl"], kl.mean(), rtol=1e-4, atol=1e-7)


@both
def test_the_coefficient_follows_the_kl_of_its_iteration(make_env):
    settings = {"learning_rate": 1e-2, "kl.coefficient": 0.1, "epochs": 4}
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", **settings)
    moves = []
    for before, after in pairwise(learn(algorithm, collector, 15)):
        kl = before["policy/kl"].item()
        move = (after["schedule/kl_coefficient"] / before["schedule/kl_coefficient"]).item()
        moves.append(move)
        assert move == (0.5 if kl < 0.01 / 1.5 else 2.0 if kl > 0.015 else 1.0)
    assert {0.5, 2.0} <= set(moves)


def test_a_large_coefficient_holds_the_policy_back():
    kls = []
    for beta in (0.0, 1.0, 100.0):
        settings = {"kl.coefficient": beta, "kl.target": None, "learning_rate": 1e-2, "epochs": 8}
        algorithm, collector = set_up(control(Corridor, 4), "ppo_kl", **settings)
        kls.append(learn(algorithm, collector, 1)[0]["policy/kl"].item())
    assert kls[0] > 1.2 * kls[1] > 2 * kls[2]


def test_a_loaded_run_goes_on_with_its_coefficient():
    algorithm, collector = set_up(control(Corridor, 4), "ppo_kl")
    learn(algorithm, collector, 3)
    loaded, _ = set_up(control(Corridor, 4), "ppo_kl", seed=5)
    for name, part in algorithm.parts.items():
        loaded.parts[name].load_state_dict(part.state_dict())
    transitions = collector.collect(algorithm.agent.actor)
    first, second = (
        a.update(transitions, progress=0.5)["schedule/kl_coefficient"] for a in (algorithm, loaded)
    )
    assert first == second != algorithm.kl.coefficient


# ---------------------------------------------------------------------- learning


SETTINGS = {
    "horizon": 32,
    "epochs": 5,
    "minibatch_size": 64,
    "learning_rate": 1e-2,
    "gamma": 0.9,
    "kl.target": 0.03,
}
RETURN = partial(trained_return, algo="ppo_kl", iterations=25, **SETTINGS)


def test_it_learns_and_with_the_sign_flipped_it_does_not():
    assert RETURN(Corridor, sign=1) == pytest.approx(0.7)
    assert RETURN(Corridor, sign=-1) < 0.0
    assert RETURN(PointMass, sign=1) > -1.0 > RETURN(PointMass, sign=-1)


@pytest.mark.parametrize("group_size", [1, 2])
def test_whole_episodes_train(group_size):
    algorithm, collector = set_up(control(Corridor, 4), "ppo_kl", group_size=group_size)
    for metrics in learn(algorithm, collector, 2):
        assert all(value.isfinite() for value in metrics.values())
