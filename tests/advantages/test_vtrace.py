"""V-trace against arithmetic, the paper's sum, a plain loop, torchrl, and its limit on policy."""

import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from random_rollouts import assert_equal_where_it_counts, filled_in, segment, whole_episodes
from tiny import Corridor, bare_rollout, control, set_up
from torch import Tensor

from rlrun.advantages.off_policy import vtrace
from rlrun.advantages.temporal import baseline_value, gae, td
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError

GAMMA = 0.9
ORACLE = Path(__file__).parent / "oracles" / "torchrl_vtrace.json"
ROLLOUTS = {
    "segment": segment(13, 1),
    "segment_without_an_end": segment(7, 2, end_probability=0.0),
    "every_step_ends": segment(5, 3, end_probability=1.0),
    "one_step": segment(1, 4),
    "whole_episodes": whole_episodes([3, 6, 1, 4], 5, padding=2),
}
every_rollout = pytest.mark.parametrize("rollout", ROLLOUTS.values(), ids=ROLLOUTS)
thresholds = pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (2.0, 0.5), (1e9, 1e9)])


def test_by_hand():
    # Ratios 2 and ½ with ρ̄ = 1.5 and c̄ = 1: ρ = 1.5, ½ and c = 1, ½. With γ = ½:
    #   δ₀ = 1 + ½·4 − 2 = 1;  δ₁ = 2 + ½·6 − 4 = 1
    #   v₁ = 4 + ½·1 = 4.5;  v₀ = 2 + 1.5·1 + ½·1·(4.5 − 4) = 3.75
    #   Â₀ = 1.5 (1 + ½·4.5 − 2) = 1.875;  Â₁ = ½ (2 + ½·6 − 4) = ½
    rollout = bare_rollout(
        torch.tensor([[1.0], [2.0]]),
        value=torch.tensor([[2.0], [4.0]]),
        next_value=torch.tensor([[4.0], [6.0]]),
        logp=torch.tensor([[0.2], [0.4]]).log(),
        policy_logp=torch.tensor([[0.4], [0.2]]).log(),
    )
    advantage, target = vtrace(rollout, gamma=0.5, rho_bar=1.5, c_bar=1.0)
    assert advantage[:, 0].tolist() == pytest.approx([1.875, 0.5])
    assert target[:, 0].tolist() == pytest.approx([3.75, 4.5])


def by_loop(rollout: Rollout, rho_bar: float, c_bar: float) -> tuple[Tensor, Tensor]:
    """Backwards over each column, with v_{t+1} as the paper has it."""
    advantage, target = torch.zeros_like(rollout.reward), torch.zeros_like(rollout.reward)
    steps, columns = rollout.reward.shape
    for i in range(columns):
        for t in reversed(range(steps)):
            ratio = math.exp(rollout.columns["policy_logp"][t, i] - rollout.logp[t, i])
            rho, c = min(rho_bar, ratio), min(c_bar, ratio)
            reward, value = rollout.reward[t, i], rollout.columns["value"][t, i]
            if rollout.terminated[t, i]:
                next_value = next_target = 0.0
            elif rollout.truncated[t, i] or t == steps - 1:
                next_value = next_target = rollout.columns["next_value"][t, i]
            else:
                next_value, next_target = rollout.columns["value"][t + 1, i], target[t + 1, i]
            delta = rho * (reward + GAMMA * next_value - value)
            target[t, i] = value + delta + GAMMA * c * (next_target - next_value)
            advantage[t, i] = rho * (reward + GAMMA * next_target - value)
    return advantage, target


@every_rollout
@thresholds
def test_equals_a_plain_loop(rollout, rho_bar, c_bar):
    ours = vtrace(rollout, gamma=GAMMA, rho_bar=rho_bar, c_bar=c_bar)
    for column, expected in zip(ours, by_loop(rollout, rho_bar, c_bar), strict=True):
        assert_equal_where_it_counts(rollout, column, expected)


@thresholds
def test_the_target_is_the_sum_of_the_paper(rho_bar, c_bar):
    # Eq. 1: v_s = V(x_s) + Σ_{t≥s} γ^{t−s} (Π_{i=s}^{t−1} c_i) ρ_t δ_t
    steps = 8
    rollout = segment(steps, 6, envs=1, end_probability=0.0)
    _, target = vtrace(rollout, gamma=GAMMA, rho_bar=rho_bar, c_bar=c_bar)
    ratio = (rollout.columns["policy_logp"] - rollout.logp).exp()[:, 0]
    delta, _ = td(rollout, gamma=GAMMA)
    for s in range(steps):
        expected = rollout.columns["value"][s, 0].item()
        for t in range(s, steps):
            traces = math.prod(min(c_bar, x) for x in ratio[s:t].tolist())
            rho = min(rho_bar, ratio[t].item())
            expected += GAMMA ** (t - s) * traces * rho * delta[t, 0].item()
        assert target[s, 0].item() == pytest.approx(expected)


def test_it_equals_torchrl():
    record = json.loads(ORACLE.read_text())
    gamma, answers = record.pop("gamma"), record.pop("answers")
    flags = {name: torch.tensor(record.pop(name)) for name in ("terminated", "truncated")}
    del record["torchrl"]
    columns = {name: torch.tensor(x, dtype=torch.float64) for name, x in record.items()}
    rollout = bare_rollout(**columns, **flags)
    assert rollout.terminated[:-1].any()
    assert rollout.truncated[:-1].any()
    ratio = (rollout.columns["policy_logp"] - rollout.logp).exp()
    assert ratio.min() < 0.5
    assert ratio.max() > 2.0
    for answer in answers:
        ours = vtrace(rollout, gamma=gamma, rho_bar=answer["rho_bar"], c_bar=answer["c_bar"])
        for column, name in zip(ours, ("advantage", "target"), strict=True):
            expected = torch.tensor(answer[name], dtype=torch.float64)
            # torchrl's discount is in single precision, whatever the rewards are in.
            torch.testing.assert_close(column, expected, atol=1e-5, rtol=1e-5)


@every_rollout
@pytest.mark.parametrize(("rho_bar", "c_bar"), [(1.0, 1.0), (3.0, 2.0)])
def test_on_policy_the_target_is_the_return_of_lambda_one(rollout, rho_bar, c_bar):
    rollout = filled_in(rollout, policy_logp=rollout.logp)
    ours = vtrace(rollout, gamma=GAMMA, rho_bar=rho_bar, c_bar=c_bar)
    for other in (baseline_value(rollout, gamma=GAMMA), gae(rollout, gamma=GAMMA, lam=1.0)):
        for column, expected in zip(ours, other, strict=True):
            assert_equal_where_it_counts(rollout, column, expected)


def test_on_policy_without_traces_it_is_the_td_error_with_a_corrected_value():
    rollout = filled_in(ROLLOUTS["segment"], policy_logp=ROLLOUTS["segment"].logp)
    _, target = vtrace(rollout, gamma=GAMMA, rho_bar=1.0, c_bar=0.0)
    torch.testing.assert_close(target, td(rollout, gamma=GAMMA)[1])


def test_an_action_that_the_policy_would_never_take_has_no_weight():
    rollout = ROLLOUTS["segment"]
    never = torch.full_like(rollout.logp, -torch.inf)
    advantage, target = vtrace(
        filled_in(rollout, policy_logp=never), gamma=GAMMA, rho_bar=1.0, c_bar=1.0
    )
    assert torch.equal(advantage, torch.zeros_like(advantage))
    assert torch.equal(target, rollout.columns["value"])


def test_a_ratio_too_large_for_a_number_is_cut_off_like_any_other():
    rollout = ROLLOUTS["segment"]
    both = [
        vtrace(
            filled_in(rollout, policy_logp=rollout.logp + x), gamma=GAMMA, rho_bar=1.0, c_bar=1.0
        )
        for x in (1.0, 1e4)
    ]
    for large, huge in zip(*both, strict=True):
        assert torch.equal(large, huge)


def test_the_value_behind_a_terminal_state_is_never_used():
    rollout = ROLLOUTS["segment"]
    assert rollout.terminated.any()
    lost = torch.where(rollout.terminated, torch.nan, rollout.columns["next_value"])
    both = [
        vtrace(r, gamma=GAMMA, rho_bar=1.0, c_bar=1.0)
        for r in (rollout, filled_in(rollout, next_value=lost))
    ]
    for with_it, without in zip(*both, strict=True):
        assert torch.equal(with_it, without)


@pytest.mark.parametrize(
    ("rho_bar", "c_bar", "message"),
    [
        (1.0, 2.0, r"c_bar must be in \[0, 1.0\], got 2.0"),
        (1.0, -0.1, r"c_bar must be in \[0, 1.0\], got -0.1"),
    ],
)
def test_thresholds_out_of_range_are_refused(rho_bar, c_bar, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        vtrace(ROLLOUTS["segment"], gamma=GAMMA, rho_bar=rho_bar, c_bar=c_bar)


@pytest.mark.parametrize("algo", ["ppo", "ppo_kl"])
def test_a_surrogate_with_a_ratio_of_its_own_does_not_get_another_one(algo):
    env, estimator = control(Corridor, 4), partial(vtrace, rho_bar=1.0, c_bar=1.0)
    message = (
        "^advantage: it weighs each step with the ratio of the policies, which the algorithm does "
        "too: algo.recompute_advantage=false$"
    )
    with pytest.raises(UserError, match=message):
        set_up(env, algo, estimator=estimator, recompute_advantage=True)
    # Before the first epoch all ratios are 1, and other estimators have none.
    set_up(env, algo, estimator=estimator, recompute_advantage=False)
    set_up(env, algo, estimator=td, recompute_advantage=True)
