"""Estimators from TD errors against arithmetic, closed forms, loops and Stable-Baselines3."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny import bare_rollout
from torch import Tensor

from rlrun.advantages.temporal import baseline_value, gae, nstep, td, td_errors
from rlrun.data.rollout import Rollout

GAMMA = 0.9
ORACLE = Path(__file__).parent / "oracles" / "sb3_gae.json"

ESTIMATORS = {
    "td": td,
    "nstep1": partial(nstep, n=1),
    "nstep3": partial(nstep, n=3),
    "nstep99": partial(nstep, n=99),
    "gae0": partial(gae, lam=0.0),
    "gae.95": partial(gae, lam=0.95),
    "gae1": partial(gae, lam=1.0),
    "baseline_value": baseline_value,
}
every_estimator = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)


def rollout(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor
) -> Rollout:
    """What estimators look at, each [T, N], in an otherwise empty rollout."""
    return bare_rollout(
        reward, value=value, next_value=next_value, terminated=terminated, truncated=truncated
    )


def one_env(reward, value, next_value, *, terminated=(), truncated=()) -> Rollout:
    """A rollout of one environment from lists; the flags are given as the steps that have them."""
    flags = torch.zeros(2, len(reward), 1, dtype=torch.bool)
    flags[0, list(terminated)] = True
    flags[1, list(truncated)] = True
    columns = (torch.tensor(x, dtype=torch.float64)[:, None] for x in (reward, value, next_value))
    return rollout(*columns, *flags)


def random_rollout(steps: int, seed: int, end_probability: float = 0.25) -> Rollout:
    """Four environments with random numbers and random ends of both kinds."""
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, 4)
    reward, value, final = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    ends = torch.rand(shape, generator=generator) < end_probability
    terminates = torch.rand(shape, generator=generator) < 0.5
    next_value = torch.where(ends, final, torch.cat([value[1:], final[-1:]]))
    return rollout(reward, value, next_value, ends & terminates, ends & ~terminates)


# r = 1, 2, 3 with V = 0.5, 1, 2 and V(s₃) = 4, without an end:
#   δ₂ = 3 + 0.9·4 − 2 = 4.6;  δ₁ = 2 + 0.9·2 − 1 = 2.8;  δ₀ = 1 + 0.9·1 − 0.5 = 1.4
THREE_STEPS = {"reward": [1.0, 2.0, 3.0], "value": [0.5, 1.0, 2.0], "next_value": [1.0, 2.0, 4.0]}


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (td, [1.4, 2.8, 4.6]),
        # Two steps: 1.4 + 0.9·2.8 = 3.92;  2.8 + 0.9·4.6 = 6.94;  the rollout ends: 4.6
        (partial(nstep, n=2), [3.92, 6.94, 4.6]),
        # γλ = 0.45: 4.6;  2.8 + 0.45·4.6 = 4.87;  1.4 + 0.45·4.87 = 3.5915
        (partial(gae, lam=0.5), [3.5915, 4.87, 4.6]),
        # G₂ = 3 + 0.9·4 = 6.6;  G₁ = 2 + 0.9·6.6 = 7.94;  G₀ = 1 + 0.9·7.94 = 8.146;  minus V
        (baseline_value, [7.646, 6.94, 4.6]),
    ],
    ids=["td", "nstep", "gae", "baseline_value"],
)
def test_by_hand(estimate, expected):
    advantage, target = estimate(one_env(**THREE_STEPS), gamma=GAMMA)
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(advantage[:, 0], expected)
    value = torch.tensor(THREE_STEPS["value"], dtype=torch.float64)
    torch.testing.assert_close(target[:, 0], expected + value)


@pytest.mark.parametrize(
    ("end", "td_expected", "gae_expected"),
    [
        # δ₁ = 2 + 0.9·2 − 1 = 2.8 bootstraps; Â₀ = 1.4 + 0.45·2.8 = 2.66; nothing of step 2 in it
        ({"truncated": [1]}, [1.4, 2.8, 4.6], [2.66, 2.8, 4.6]),
        # δ₁ = 2 − 1 = 1;  Â₀ = 1.4 + 0.45·1 = 1.85
        ({"terminated": [1]}, [1.4, 1.0, 4.6], [1.85, 1.0, 4.6]),
    ],
    ids=["truncated", "terminated"],
)
def test_an_end_in_the_middle_by_hand(end, td_expected, gae_expected):
    ended = one_env(**THREE_STEPS, **end)
    assert td(ended, gamma=GAMMA)[0][:, 0].tolist() == pytest.approx(td_expected)
    assert gae(ended, gamma=GAMMA, lam=0.5)[0][:, 0].tolist() == pytest.approx(gae_expected)


# ---------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("steps", [1, 2, 13, 64])
def test_limits_of_lambda_and_n(steps):
    random = random_rollout(steps, seed=steps)
    same = (
        (partial(gae, lam=0.0), td),
        (partial(gae, lam=1.0), baseline_value),
        (partial(nstep, n=1), td),
        (partial(nstep, n=steps), baseline_value),
        (partial(nstep, n=steps + 5), baseline_value),
    )
    for left, right in same:
        for ours, theirs in zip(left(random, gamma=GAMMA), right(random, gamma=GAMMA), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lam", [0.3, 0.95])
def test_gae_is_the_weighted_mean_of_nstep_advantages(lam):
    # Within one segment: Â = (1 − λ) Σ_{n<T} λ^{n−1} Â⁽ⁿ⁾ + λ^{T−1} Â⁽ᵀ⁾ at t = 0
    # (systems.md §1.4; the weight of the sum is λ^{n−1}, correction E5).
    steps = 9
    random = random_rollout(steps, seed=0, end_probability=0.0)
    first = {n: nstep(random, gamma=GAMMA, n=n)[0][0] for n in range(1, steps + 1)}
    mixture = lam ** (steps - 1) * first[steps]
    for n in range(1, steps):
        mixture = mixture + (1 - lam) * lam ** (n - 1) * first[n]
    torch.testing.assert_close(gae(random, gamma=GAMMA, lam=lam)[0][0], mixture)


@every_estimator
def test_constant_reward_is_worth_its_geometric_series(estimate):
    # V = 1/(1 − γ) solves V = 1 + γV: its own target, with no advantage, under every estimator.
    steps, worth = 20, 1 / (1 - GAMMA)
    constant = one_env([1.0] * steps, [worth] * steps, [worth] * steps)
    advantage, target = estimate(constant, gamma=GAMMA)
    torch.testing.assert_close(advantage, torch.zeros_like(advantage))
    torch.testing.assert_close(target, torch.full_like(target, worth))


def test_constant_reward_without_a_critic_bootstrapped_at_the_end():
    # V = 0 but for V(s_T) = 1/(1 − γ): the reward-to-go is 1/(1 − γ) at every step.
    steps, worth = 20, 1 / (1 - GAMMA)
    next_value = [0.0] * (steps - 1) + [worth]
    constant = one_env([1.0] * steps, [0.0] * steps, next_value)
    for estimate in (baseline_value, partial(gae, lam=1.0), partial(nstep, n=steps)):
        advantage, target = estimate(constant, gamma=GAMMA)
        torch.testing.assert_close(advantage, torch.full_like(advantage, worth))
        torch.testing.assert_close(target, advantage)


def test_gamma_one_sums_the_rewards():
    # γ = 1 is allowed for episodes: G = 3, 2, 1 before the terminal state.
    episode = one_env([1.0] * 3, [0.0] * 3, [0.0, 0.0, 50.0], terminated=[2])
    assert baseline_value(episode, gamma=1.0)[1][:, 0].tolist() == [3.0, 2.0, 1.0]


# ---------------------------------------------------------------------- plain loops


def bootstrap(random: Rollout, t: int, n: int, gamma: float) -> float:
    """γ V(s_{t+1}), or 0 at a terminal state."""
    return 0.0 if random.terminated[t, n] else gamma * random.columns["next_value"][t, n].item()


def loop_gae(random: Rollout, gamma: float, lam: float) -> Tensor:
    advantage = torch.zeros_like(random.reward)
    steps, envs = random.reward.shape
    for n in range(envs):
        following = 0.0
        for t in reversed(range(steps)):
            if random.terminated[t, n] or random.truncated[t, n]:
                following = 0.0
            delta = (
                random.reward[t, n] + bootstrap(random, t, n, gamma) - random.columns["value"][t, n]
            )
            following = delta + gamma * lam * following
            advantage[t, n] = following
    return advantage


def loop_nstep(random: Rollout, gamma: float, most: int) -> Tensor:
    """Walks forwards from every step: rewards until ``most``, an end, or the rollout's end."""
    advantage = torch.zeros_like(random.reward)
    steps, envs = random.reward.shape
    for n in range(envs):
        for start in range(steps):
            total, weight = 0.0, 1.0
            for t in range(start, min(start + most, steps)):
                total += weight * random.reward[t, n].item()
                last = t == min(start + most, steps) - 1
                if random.terminated[t, n] or random.truncated[t, n] or last:
                    total += weight * bootstrap(random, t, n, gamma)
                    break
                weight *= gamma
            advantage[start, n] = total - random.columns["value"][start, n]
    return advantage


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 16, 37])
@pytest.mark.parametrize("end_probability", [0.0, 0.25, 1.0])
def test_equals_a_plain_loop(steps, end_probability):
    random = random_rollout(steps, seed=100 + steps, end_probability=end_probability)
    pairs = [
        (td(random, gamma=GAMMA), loop_nstep(random, GAMMA, 1)),
        (baseline_value(random, gamma=GAMMA), loop_nstep(random, GAMMA, steps)),
        (gae(random, gamma=GAMMA, lam=0.95), loop_gae(random, GAMMA, 0.95)),
    ]
    pairs += [(nstep(random, gamma=GAMMA, n=n), loop_nstep(random, GAMMA, n)) for n in (2, 3, 5)]
    for (advantage, target), expected in pairs:
        torch.testing.assert_close(advantage, expected)
        torch.testing.assert_close(target, expected + random.columns["value"])


def test_gae_equals_stable_baselines3():
    record = json.loads(ORACLE.read_text())
    numbers = (torch.tensor(record[key]) for key in ("reward", "value", "next_value"))
    flags = (torch.tensor(record[key]) for key in ("terminated", "truncated"))
    recorded = rollout(*numbers, *flags)
    assert recorded.terminated.any()
    assert recorded.truncated.any()
    for lam, expected in record["advantage"].items():
        advantage, _ = gae(recorded, gamma=record["gamma"], lam=float(lam))
        torch.testing.assert_close(advantage, torch.tensor(expected), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------- episode ends


@every_estimator
def test_a_truncated_episode_is_worth_more_than_a_terminated_one(estimate):
    # V = 5 everywhere: being cut keeps the γ·5 of the next state, which a terminal one has not.
    steps = {"reward": [1.0, 1.0], "value": [5.0, 5.0], "next_value": [5.0, 5.0]}
    cut, _ = estimate(one_env(**steps, truncated=[1]), gamma=GAMMA)
    over, _ = estimate(one_env(**steps, terminated=[1]), gamma=GAMMA)
    assert (cut[1] - over[1]).item() == pytest.approx(GAMMA * 5.0)
    assert cut[0] >= over[0]


@every_estimator
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_nothing_leaks_across_an_episodes_end(estimate, end):
    columns = {"reward": [1.0] * 6, "value": [0.5] * 6, "next_value": [0.5] * 6}
    changed = {key: x[:3] + [1e6] * 3 for key, x in columns.items()}
    before, after = (estimate(one_env(**x, **{end: [2]}), gamma=GAMMA) for x in (columns, changed))
    for left, right in zip(before, after, strict=True):
        assert torch.equal(left[:3], right[:3])
        assert not torch.equal(left[3:], right[3:])


@every_estimator
def test_the_value_behind_a_terminal_state_is_never_used(estimate):
    # Not even when it is not a number: 0 · nan would be nan.
    columns = {"reward": [1.0] * 4, "value": [0.5] * 4}
    finite = one_env(**columns, next_value=[0.5, 0.5, 0.5, 0.5], terminated=[1, 3])
    lost = one_env(**columns, next_value=[0.5, torch.nan, 0.5, torch.nan], terminated=[1, 3])
    for left, right in zip(estimate(finite, gamma=GAMMA), estimate(lost, gamma=GAMMA), strict=True):
        assert torch.equal(left, right)


@every_estimator
def test_estimators_change_nothing(estimate):
    random, copy = random_rollout(9, seed=3), random_rollout(9, seed=3)
    estimate(random, gamma=GAMMA)
    for name in ("reward", "terminated", "truncated"):
        assert torch.equal(vars(random)[name], vars(copy)[name])
    for name in ("value", "next_value"):
        assert torch.equal(random.columns[name], copy.columns[name])


def test_environments_do_not_mix():
    random = random_rollout(11, seed=5)
    for estimate in ESTIMATORS.values():
        together, _ = estimate(random, gamma=GAMMA)
        for n in range(4):
            columns = (
                random.reward,
                *(random.columns[name] for name in ("value", "next_value")),
                *(random.terminated, random.truncated),
            )
            alone, _ = estimate(rollout(*(x[:, n : n + 1] for x in columns)), gamma=GAMMA)
            torch.testing.assert_close(alone, together[:, n : n + 1])


def test_td_errors_of_the_true_value_have_mean_zero():
    # A step pays ±1 by a fair coin and V = 0 is true: the errors are ±1, their mean is 0
    # (correction E23: a perfect critic's TD error is not zero, its mean is).
    coins = torch.randint(2, (10_000, 1), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    zero, never = torch.zeros_like(coins), torch.zeros_like(coins, dtype=torch.bool)
    delta = td_errors(rollout(coins, zero, zero, never, never), gamma=GAMMA)
    assert delta.abs().min() == 1.0
    assert abs(delta.mean().item()) < 4 / 100  # four standard errors of 1/√10,000
