import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CPU, Corridor, PointMass, algorithm_of, control, learn, set_up
from torch import Tensor, nn
from torch.func import functional_call, hessian

from rlrun.algos.policy_gradient.trpo import TRPO
from rlrun.hardware.spec import find_compiler
from rlrun.learning.trust_region import (
    TrustRegionBatch,
    TrustRegionStep,
    conjugate_gradient,
    fisher_vector_product,
)
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.flat_parameters import FlatParameters
from rlrun.models.networks import CategoricalPolicy, GaussianPolicy
from rlrun.runs.evaluate import play_episodes

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def small_policy(kind: str) -> tuple[nn.Module, FlatParameters, Tensor]:
    """A policy with weights of order 1, in double precision; θ; and observations [6, 2]."""
    generator = torch.Generator().manual_seed(0)
    policy: nn.Module
    if kind == "categorical":
        policy = CategoricalPolicy([2, 3, 3], generator)
    else:
        policy = GaussianPolicy([2, 3, 2], -0.3, generator)
    parameters = FlatParameters(policy.double())
    parameters.vector.add_(
        0.5 * torch.randn(len(parameters.vector), generator=generator, dtype=torch.double)
    )
    return policy, parameters, torch.randn(6, 2, generator=generator, dtype=torch.double)


def fisher_matrix(policy: nn.Module, parameters: FlatParameters, obs: Tensor) -> Tensor:
    """F [P, P], column by column from products with unit vectors."""

    def at(theta: Tensor):
        return functional_call(policy, parameters.unflatten(theta), (obs,))

    theta = parameters.vector
    columns = [fisher_vector_product(at, theta, unit) for unit in torch.eye(len(theta)).double()]
    return torch.stack(columns, -1)


# ---------------------------------------------------------------------- the Fisher matrix


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_the_fisher_product_is_that_of_the_kls_hessian(kind):
    policy, parameters, obs = small_policy(kind)
    old = policy(obs)

    def mean_kl(theta: Tensor) -> Tensor:
        return old.kl(functional_call(policy, parameters.unflatten(theta), (obs,))).mean()

    expected = hessian(mean_kl)(parameters.vector)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(fisher_matrix(policy, parameters, obs), expected)


def scores(policy: nn.Module, obs: Tensor, action: Tensor) -> Tensor:
    """∇_θ log π(a|s) of one row, [P], by autograd."""
    policy = copy.deepcopy(policy).requires_grad_(True)
    policy(obs).log_prob(action).backward()
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])


def test_the_fisher_matrix_is_the_mean_outer_product_of_scores():
    # Every state and action, each with its probability.
    policy, parameters, obs = small_policy("categorical")
    expected = torch.zeros(len(parameters.vector), len(parameters.vector), dtype=torch.double)
    for row in obs:
        for action, probability in enumerate(policy(row).logits.softmax(-1)):
            score = scores(policy, row, torch.tensor(action))
            expected += probability * torch.outer(score, score) / len(obs)
    torch.testing.assert_close(fisher_matrix(policy, parameters, obs), expected)


# ---------------------------------------------------------------------- conjugate gradient


def test_conjugate_gradient_solves_a_system():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.double)
    matrix, b = root @ root.T + torch.eye(8), torch.arange(8.0, dtype=torch.double)
    # In exact arithmetic it is done after as many products as there are unknowns.
    x, _ = conjugate_gradient(lambda v: matrix @ v, b, iterations=8, tolerance=0.0)
    torch.testing.assert_close(matrix @ x, b)
    rough, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=2, tolerance=0.0)
    torch.testing.assert_close(residual, b - matrix @ rough)
    assert torch.linalg.vector_norm(residual) > 0.1


def test_conjugate_gradient_stops_at_its_tolerance():
    calls = []

    def product(vector: Tensor) -> Tensor:
        calls.append(vector)
        return torch.tensor([1.0, 2.0, 4.0]) * vector

    b = torch.tensor([1.0, 1.0, 1.0])
    for tolerance, count in ((0.0, 3), (1.0, 1), (3.0, 0)):
        calls.clear()
        _, residual = conjugate_gradient(product, b, iterations=3, tolerance=tolerance)
        assert len(calls) == count
        assert residual @ residual <= tolerance + 1e-12


def test_conjugate_gradient_of_nothing_is_nothing():
    x, _ = conjugate_gradient(lambda v: 2 * v, torch.zeros(3), iterations=5, tolerance=0.0)
    assert torch.equal(x, torch.zeros(3))


# ---------------------------------------------------------------------- the step


class TwoActions(nn.Module):
    """One state, two actions, and their logits as parameters."""

    def __init__(self, logits: list[float]):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, obs: Tensor) -> Categorical:
        return Categorical(self.logits.expand(*obs.shape[:-1], 2))


class OneNormal(nn.Module):
    """One state, one action dimension, and mean and log σ as parameters."""

    def __init__(self, mean: float, log_std: float):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([mean]))
        self.log_std = nn.Parameter(torch.tensor([log_std]))

    def forward(self, obs: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean.expand(*obs.shape[:-1], 1), self.log_std)


def step_of(policy: nn.Module, **changes) -> TrustRegionStep:
    settings = {
        "max_kl": 1e-4,
        "damping": 1e-6,
        "cg_iterations": 5,
        "cg_tolerance": 1e-14,
        "line_search_steps": 10,
        "line_search_shrink": 0.8,
    }
    return TrustRegionStep(policy, **{**settings, **changes})


def test_two_actions_by_hand():
    # p = (¾, ¼); advantages 1 for the first action and −3 for the second, whose mean is 0.
    # g = E[Â ∇log π] = ¾·1·(¼, −¼) + ¼·(−3)·(−¾, ¾) = (¾, −¾)
    # F = p₁p₂ [[1, −1], [−1, 1]] = 3/16 [[1, −1], [−1, 1]];  F x = g at x = (2, −2)
    # xᵀFx = 3, so that the step is √(2δ/3) (2, −2) = √(8δ/3) (1, −1)
    policy = TwoActions([np.log(3.0), 0.0])
    action = torch.tensor([0, 0, 0, 1])
    advantage = torch.tensor([1.0, 1.0, 1.0, -3.0])
    step = step_of(policy, line_search_shrink=1.0, max_kl=1e-4)
    before = policy.logits.clone()
    metrics = step.take(TrustRegionBatch(torch.zeros(4, 1), action, advantage))
    length = np.sqrt(8 * 1e-4 / 3)
    moved = (policy.logits - before).tolist()
    assert moved == pytest.approx([length, -length], rel=1e-3)
    assert metrics["policy/kl"].item() == pytest.approx(1e-4, rel=0.02)
    # E[(ρ − 1) Â] = gᵀs to first order
    assert metrics["policy/improvement"].item() == pytest.approx(1.5 * length, rel=0.02)


def test_a_normal_distribution_by_hand():
    # F is 1/σ² for the mean and 2 for log σ. Actions μ ± σ with advantages ±1: g = (1/σ, 0),
    # x = (σ, 0), xᵀFx = 1: the mean moves by σ √(2δ), whatever σ is.
    for std in (0.1, 10.0):
        policy = OneNormal(3.0, np.log(std))
        action = torch.tensor([[3.0 + std], [3.0 - std]])
        step = step_of(policy, damping=0.0)
        step.take(TrustRegionBatch(torch.zeros(2, 1), action, torch.tensor([1.0, -1.0])))
        assert policy.mean.item() - 3.0 == pytest.approx(std * np.sqrt(2e-4), rel=1e-3)
        assert policy.log_std.item() == pytest.approx(np.log(std), abs=1e-4)


def test_damping_turns_the_step_towards_the_gradient():
    # Two states with little and much data: with heavy damping F + c I is c I.
    policy = OneNormal(0.0, np.log(0.1))
    batch = TrustRegionBatch(
        torch.zeros(2, 1), torch.tensor([[0.1], [-0.05]]), torch.tensor([1.0, -1.0])
    )
    directions = []
    for damping in (0.0, 1e6):
        step = step_of(copy.deepcopy(policy), damping=damping, max_kl=1e-3)
        before = step.parameters.vector.clone()
        gradient = step._gradient(before, batch)
        step.take(batch)
        moved = step.parameters.vector - before
        directions.append(torch.cosine_similarity(moved, gradient, dim=0).item())
    assert directions[0] < 0.99
    assert directions[1] == pytest.approx(1.0, abs=1e-3)


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
        rollout = algorithm.collect(collector)
        advantage, _ = algorithm.estimate(rollout)
        before = copy.deepcopy(algorithm.agent.policy)
        metrics = algorithm.update(rollout, progress=0.0)
        kl = mean_kl(before, algorithm.agent.policy, rollout.obs)
        new, old = (
            policy(rollout.obs).log_prob(rollout.action)
            for policy in (algorithm.agent.policy, before)
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
    rollout = algorithm.collect(collector)
    step = algorithm.policy_step
    # Lengths a thousand times too long: the gradient's scale cancels out, the matrix's does not.
    step._eager = step._eager._replace(
        product=lambda theta, vector, batch: 1e-6 * step._product(theta, vector, batch)
    )
    before = step.parameters.vector.clone()
    critic = copy.deepcopy(algorithm.agent.critic.state_dict())
    metrics = algorithm.update(rollout, progress=0.0)
    assert metrics["policy/line_search_accepted"] == 0
    assert metrics["policy/line_search_steps"] == 10
    assert metrics["policy/kl"] == 0
    assert metrics["policy/improvement"] == 0
    assert torch.equal(step.parameters.vector, before)
    # The critic learns all the same.
    assert not any(
        torch.equal(weight, critic[name])
        for name, weight in algorithm.agent.critic.state_dict().items()
    )


def test_a_step_that_makes_the_surrogate_worse_is_refused():
    algorithm, collector = set_up(control(Corridor, 4), "trpo")
    step = algorithm.policy_step
    step._eager = step._eager._replace(gradient=lambda theta, batch: -step._gradient(theta, batch))
    before = step.parameters.vector.clone()
    metrics = learn(algorithm, collector, 1)[0]
    assert metrics["policy/line_search_accepted"] == 0
    assert torch.equal(step.parameters.vector, before)


def test_the_line_search_shortens_the_step_until_it_fits():
    # A step 1/0.8³ times too long, and a bit: the fourth length is the first one that fits.
    generator = torch.Generator().manual_seed(0)
    policy = TwoActions([0.0, 0.0])
    action = torch.randint(2, (64,), generator=generator)
    batch = TrustRegionBatch(torch.zeros(64, 1), action, action * 2.0 - 1)
    step = step_of(policy, damping=0.0)
    factor = (0.8**2.5) ** 2
    step._eager = step._eager._replace(
        product=lambda theta, vector, batch: factor * step._product(theta, vector, batch)
    )
    metrics = step.take(batch)
    assert metrics["policy/line_search_steps"] == 4
    assert metrics["policy/line_search_accepted"] == 1
    assert 0.7e-4 < metrics["policy/kl"] <= 1e-4


def test_without_advantages_nothing_moves():
    policy = TwoActions([0.3, 0.0])
    step = step_of(policy)
    before = policy.logits.clone()
    metrics = step.take(
        TrustRegionBatch(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), torch.zeros(4))
    )
    assert torch.equal(policy.logits, before)
    assert all(value.isfinite() for value in metrics.values())


# ---------------------------------------------------------------------- the algorithm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"max_kl": 0.0}, "max_kl must be positive, got 0.0"),
        ({"damping": -0.1}, "damping must be at least 0, got -0.1"),
        ({"cg_iterations": 0}, "cg_iterations must be at least 1, got 0"),
        ({"cg_tolerance": -1.0}, "cg_tolerance must be at least 0, got -1.0"),
        ({"line_search_steps": 0}, "line_search_steps must be at least 1, got 0"),
        ({"line_search_shrink": 0.0}, "line_search_shrink must be positive, got 0.0"),
        ({"line_search_shrink": 1.5}, r"line_search_shrink must be in \[0, 1\], got 1.5"),
        ({"critic_epochs": 0}, "critic_epochs must be at least 1, got 0"),
        ({"minibatch_size": 0}, "minibatch_size must be at least 1, got 0"),
        ({"minibatch_size": 5}, "minibatch_size must divide num_envs x horizon = 32, got 5"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"adam_epsilon": 0.0}, "adam_epsilon must be positive"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        (
            {"num_envs": 1, "horizon": 1, "minibatch_size": 1},
            "num_envs x horizon must be at least 2, got 1",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("trpo", **changes)


def test_updates_are_counted_and_foreseen():
    algorithm, collector = set_up(control(Corridor, 4), "trpo", critic_epochs=3)
    # 4 environments x 8 steps = 32 rows = 4 minibatches of 8, three times; and the policy's step
    assert [int(m["updates"]) for m in learn(algorithm, collector, 2)] == [13, 13]
    assert algorithm.updates(total_steps=2 * 32) == 24
    assert [int(learner.state.t) for learner in algorithm.critics.learners.values()] == [24]


@both
def test_the_same_seed_gives_the_same_metrics(make_env):
    first, second = (learn(*set_up(control(make_env, 4), "trpo"), 3) for _ in range(2))
    for metrics, again in zip(first, second, strict=True):
        assert metrics.keys() == again.keys()
        for name in metrics:
            assert torch.equal(metrics[name], again[name]), name


@both
def test_a_loaded_learner_goes_on_alike(make_env):
    algorithm, collector = set_up(control(make_env, 4), "trpo")
    learn(algorithm, collector, 2)
    loaded, _ = set_up(control(make_env, 4), "trpo", seed=5)
    loaded.agent.load_weights({name: w.clone() for name, w in algorithm.agent.weights().items()})
    loaded.streams.load_state_dict(algorithm.streams.state_dict())
    for name, learner in algorithm.learners.items():
        loaded.learners[name].load_state_dict(copy.deepcopy(learner.state_dict()))
    rollout = algorithm.collect(collector)
    first, second = (a.update(rollout, progress=0.5) for a in (algorithm, loaded))
    for name in first:
        assert torch.equal(first[name], second[name]), name
    for name, weight in algorithm.agent.weights().items():
        assert torch.equal(weight, loaded.agent.weights()[name])


@both
def test_rows_that_are_masked_teach_nothing(make_env):
    weights = []
    for poison in (0.0, torch.nan):
        algorithm, collector = set_up(control(make_env, 4), "trpo")
        rollout = algorithm.collect(collector)
        mask = rollout.mask.clone()
        mask[:, :2] = False
        obs = rollout.obs.masked_fill(~mask[..., None], poison)
        metrics = algorithm.update(replace(rollout, mask=mask, obs=obs), progress=0.0)
        assert metrics["policy/line_search_accepted"] == 1
        weights.append(algorithm.agent.weights())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


@pytest.mark.parametrize("group_size", [1, 2])
@pytest.mark.parametrize("compile_", ["off", "on"])
def test_whole_episodes_train_without_a_compiler(group_size, compile_):
    algorithm, collector = set_up(
        control(Corridor, 4),
        "trpo",
        group_size=group_size,
        hardware=replace(CPU, compile=compile_),
    )
    for metrics in learn(algorithm, collector, 2):
        assert all(value.isfinite() for value in metrics.values())
    assert not algorithm.policy_step.is_compiled
    assert algorithm.updates(1_000_000) == 0


def trained_return(make_env, sign: int) -> float:
    """The greedy policy's mean return after training on advantages of this sign."""
    settings = {"horizon": 32, "minibatch_size": 64, "hidden_sizes": [16], "gamma": 0.9}
    algorithm, collector = set_up(
        control(make_env, 8), "trpo", max_kl=0.05, critic_epochs=10, **settings
    )
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


# ---------------------------------------------------------------------- compiled


def refuse(*arguments):
    raise AssertionError("a piece without the compiler")


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)")
def test_the_compiled_update_equals_the_eager_one(pytestconfig, monkeypatch):
    # Compiled code outlives the session, as it outlives a run: only the first one waits for g++.
    cache = pytestconfig.cache.mkdir("inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    settings = {"minibatch_size": 32, "hidden_sizes": [4], "critic_epochs": 2}
    in_turn = replace(CPU, compile="on")
    updates = {}
    for hardware in (CPU, in_turn, replace(in_turn, threads=2)):
        env = control(PointMass, 4)
        algorithm, collector = set_up(env, "trpo", hardware=hardware, **settings)
        before = copy.deepcopy(algorithm.agent.weights())
        for learner in algorithm.learners.values():
            learner.warm_up()
        for name, weight in algorithm.agent.weights().items():
            assert torch.equal(weight, before[name])  # nothing is learned from zeros
        if hardware.compile == "on":
            step = algorithm.policy_step
            step._eager = step._eager._make([refuse] * 3)
        threads = watch_threads(algorithm)
        metrics = algorithm.update(algorithm.collect(collector), progress=0.0)
        assert len(set(threads)) == hardware.threads
        updates[hardware] = metrics | algorithm.agent.weights()
    eager, compiled, side_by_side = updates.values()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], atol=1e-4, rtol=1e-3)
        assert torch.equal(side_by_side[name], compiled[name])


def watch_threads(algorithm: TRPO) -> list[int]:
    """The threads of the policy's step and of the critic's fits, from now on."""
    threads = []

    def watched(function):
        def noting(*arguments):
            threads.append(threading.get_ident())
            return function(*arguments)

        return noting

    algorithm.policy_step.take = watched(algorithm.policy_step.take)
    algorithm.critics.fit = watched(algorithm.critics.fit)
    return threads


def test_without_the_compiler_after_all_the_update_is_eager():
    settings = {"hidden_sizes": [4]}
    hardware = replace(CPU, compile="on", threads=2)
    algorithm, collector = set_up(control(PointMass, 4), "trpo", hardware=hardware, **settings)
    for learner in algorithm.learners.values():
        learner.run_eagerly()
    threads = watch_threads(algorithm)
    metrics = learn(algorithm, collector, 1)[0]
    expected = learn(*set_up(control(PointMass, 4), "trpo", **settings), 1)[0]
    for name in expected:
        assert torch.equal(metrics[name], expected[name]), name
    assert set(threads) == {threading.get_ident()}
