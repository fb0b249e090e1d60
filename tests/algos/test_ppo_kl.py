import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import (
    CPU,
    Corridor,
    PointMass,
    algorithm_of,
    control,
    learn,
    set_up,
    torchs_step,
    yaml_of,
)
from torch import Tensor, nn

from rlrun.algos.policy_gradient.ppo_kl import PPOKL, PolicyBatch
from rlrun.hardware.spec import find_compiler
from rlrun.models.distributions import Categorical
from rlrun.runs.evaluate import play_episodes

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def ready(make_env, **settings) -> tuple[PPOKL, PolicyBatch]:
    """All rows of a rollout [32], and a policy that has moved away from its own."""
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", **settings)
    learn(algorithm, collector, 1)
    rollout = algorithm.collect(collector)
    advantage, _ = algorithm.estimate(rollout)
    old = algorithm.agent.policy(rollout.obs).parameters
    beta = torch.full_like(advantage, 0.7)
    columns = (rollout.obs, rollout.action, rollout.logp, advantage, old, beta)
    # Autograd refuses what was made in inference mode, unless it is a copy.
    batch = PolicyBatch(*(column.flatten(0, 1).clone() for column in columns))
    theta = algorithm.policy_learner.parameters.vector
    theta.add_(0.5 * torch.randn(len(theta), generator=torch.Generator().manual_seed(0)))
    return algorithm, batch


def torchs_distribution(rows: Tensor, discrete: bool) -> torch.distributions.Distribution:
    """Torch's own distribution with these parameters [K] or [2A]."""
    if discrete:
        return torch.distributions.Categorical(logits=rows)
    mean, log_std = rows.chunk(2, -1)
    return torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp()), 1)


def plain_loss(algorithm: PPOKL, policy: nn.Module, batch: PolicyBatch) -> Tensor:
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
            -ratio * advantage[i]
            + batch.kl_coefficient[i] * kl
            - algorithm.entropy_coefficient * new.entropy()
        )
    return torch.stack(losses).mean()


# ---------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"minibatch_size": 0}, "minibatch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"adam_epsilon": -1e-5}, "adam_epsilon must be positive"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"kl_coefficient": -1.0}, "kl_coefficient must be at least 0, got -1.0"),
        ({"kl_coefficient": 0.0}, "kl_coefficient must be positive to be adapted"),
        ({"target_kl": 0.0}, "target_kl must be positive, got 0.0"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient must be at least 0"),
        ({"minibatch_size": 5}, "minibatch_size must divide num_envs x horizon = 32, got 5"),
        ({"minibatch_size": 1}, "minibatch_size must be at least 2 to normalize_advantage"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("ppo_kl", **changes)


def test_a_fixed_coefficient_may_be_zero():
    algorithm, collector = set_up(
        control(Corridor, 4), "ppo_kl", kl_coefficient=0.0, target_kl=None
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
        ours, _ = algorithm.policy_loss(algorithm.agent.policy, batch)
        unpenalised, _ = algorithm.policy_loss(
            algorithm.agent.policy, batch._replace(kl_coefficient=torch.zeros(32))
        )
    torch.testing.assert_close(ours, loss(algorithm.agent.policy))
    assert ours > unpenalised + 0.01  # the policies differ, and the penalty counts
    expected, _ = torchs_step(algorithm.policy_learner, loss, 1e-3)
    one = batch._make(column[None] for column in batch)
    algorithm.policy_learner.fit(one, torch.tensor(1e-3))
    vector = algorithm.policy_learner.parameters.vector
    torch.testing.assert_close(vector, expected, atol=2e-6, rtol=1e-4)


@both
@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_at_ratio_one_the_gradient_is_that_of_reinforce(make_env, beta):
    # Whatever β is: the KL has its minimum there.
    algorithm, collector = set_up(control(make_env, 4), "ppo_kl", normalize_advantage=False)
    rollout = algorithm.collect(collector)
    obs, action, logp = (c.clone() for c in (rollout.obs, rollout.action, rollout.logp))
    advantage, _ = algorithm.estimate(rollout)
    policy = copy.deepcopy(algorithm.agent.policy).requires_grad_(True)
    distribution = policy(obs)
    old = distribution.parameters.detach()
    batch = PolicyBatch(obs, action, logp, advantage, old, torch.full_like(advantage, beta))
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
    rollout = algorithm.collect(collector)
    before = algorithm.agent.policy(rollout.obs).parameters.clone()
    metrics = algorithm.update(rollout, progress=0.0)
    after = algorithm.agent.policy(rollout.obs).parameters
    discrete = make_env is Corridor
    kl = torch.distributions.kl_divergence(
        torchs_distribution(before, discrete), torchs_distribution(after, discrete)
    )
    assert metrics["policy/kl"] > 1e-4
    torch.testing.assert_close(metrics["policy/kl"], kl.mean(), rtol=1e-4, atol=1e-7)


@both
def test_the_coefficient_follows_the_kl_of_its_iteration(make_env):
    settings = {"learning_rate": 1e-2, "kl_coefficient": 0.1, "epochs": 4}
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
        settings = {"kl_coefficient": beta, "target_kl": None, "learning_rate": 1e-2, "epochs": 8}
        algorithm, collector = set_up(control(Corridor, 4), "ppo_kl", **settings)
        kls.append(learn(algorithm, collector, 1)[0]["policy/kl"].item())
    assert kls[0] > 1.2 * kls[1] > 2 * kls[2]


def test_a_loaded_run_goes_on_with_its_coefficient():
    algorithm, collector = set_up(control(Corridor, 4), "ppo_kl")
    learn(algorithm, collector, 3)
    loaded, _ = set_up(control(Corridor, 4), "ppo_kl", seed=5)
    for name, part in algorithm.parts.items():
        loaded.parts[name].load_state_dict(part.state_dict())
    first, second = (
        a.update(a.collect(collector), progress=0.5)["schedule/kl_coefficient"]
        for a in (algorithm, loaded)
    )
    assert first == second != yaml_of("algo", "ppo_kl")["kl_coefficient"]


# ---------------------------------------------------------------------- learning


def trained_return(make_env, sign: int) -> float:
    """The greedy policy's mean return after training on advantages of this sign."""
    settings = {
        "horizon": 32,
        "epochs": 5,
        "minibatch_size": 64,
        "hidden_sizes": [16],
        "learning_rate": 1e-2,
        "gamma": 0.9,
        "target_kl": 0.03,
    }
    algorithm, collector = set_up(control(make_env, 8), "ppo_kl", **settings)
    estimate = algorithm.estimate

    def signed(rollout):
        advantage, target = estimate(rollout)
        return sign * advantage, target

    algorithm.estimate = signed
    learn(algorithm, collector, 25)

    def greedy(obs):
        return algorithm.agent.act_greedily(collector.observation_normalizer(obs))

    env = control(make_env, 20)
    return float(np.mean(play_episodes(greedy, env, seed=1, max_length=1000).returns))


def test_it_learns_and_with_the_sign_flipped_it_does_not():
    assert trained_return(Corridor, 1) == pytest.approx(0.7)
    assert trained_return(Corridor, -1) < 0.0
    assert trained_return(PointMass, 1) > -1.0 > trained_return(PointMass, -1)


@pytest.mark.parametrize("group_size", [1, 2])
def test_whole_episodes_train(group_size):
    algorithm, collector = set_up(control(Corridor, 4), "ppo_kl", group_size=group_size)
    for metrics in learn(algorithm, collector, 2):
        assert all(value.isfinite() for value in metrics.values())


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)")
def test_the_compiled_update_equals_the_eager_one(pytestconfig, monkeypatch):
    # Compiled code outlives the session, as it outlives a run: only the first one waits for g++.
    cache = pytestconfig.cache.mkdir("inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    settings = {"minibatch_size": 32, "hidden_sizes": [4], "learning_rate": 1e-2}
    results = []
    for hardware in (CPU, replace(CPU, compile="on")):
        algorithm, collector = set_up(
            control(PointMass, 4), "ppo_kl", hardware=hardware, **settings
        )
        for learner in algorithm.learners.values():
            learner.warm_up()
        # Three iterations: β moves in between, and nothing is compiled again for it.
        metrics = learn(algorithm, collector, 3)
        assert metrics[0]["schedule/kl_coefficient"] != metrics[2]["schedule/kl_coefficient"]
        results.append(metrics[-1] | algorithm.agent.weights())
    eager, compiled = results
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], atol=1e-5, rtol=1e-3)
