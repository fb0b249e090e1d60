import math

import pytest
import torch
from tiny import algorithm_of

from rlrun.errors import UserError
from rlrun.learning.losses.kl import (
    LARGEST,
    SMALLEST,
    DoublingKLController,
    FixedKLController,
    ProportionalKLController,
)

CPU = torch.device("cpu")


def doubling(value: float = 1.0) -> DoublingKLController:
    return DoublingKLController(value, target=0.01, device=CPU)


def proportional(value: float = 0.2, horizon: int = 10_000) -> ProportionalKLController:
    return ProportionalKLController(value, target=6.0, horizon=horizon, device=CPU)


def updated(coefficient, kl: float, samples: int = 512) -> float:
    """β after an iteration."""
    coefficient.update(torch.tensor(kl), samples)
    return coefficient.value.item()


# 0.01 / 1.5 = 0.00667, 0.01 x 1.5 = 0.015
@pytest.mark.parametrize(
    ("kl", "factor"),
    [(0.0, 0.5), (0.0066, 0.5), (0.0068, 1.0), (0.01, 1.0), (0.0149, 1.0), (0.0151, 2.0), (9, 2.0)],
)
def test_the_papers_rule_halves_and_doubles(kl, factor):
    assert updated(doubling(3.0), kl) == 3.0 * factor


def test_the_papers_rule_does_not_ask_how_many_samples():
    assert updated(doubling(), 1.0, samples=1) == updated(doubling(), 1.0, samples=10**9) == 2.0


def test_the_papers_rule_finds_the_coefficient_of_its_target():
    # A task whose KL is 0.05 / β: within a factor of 1.5 of the target at β in [3.3, 7.5].
    for start in (1e-3, 1.0, 1e3):
        coefficient = doubling(start)
        for _ in range(20):
            before = coefficient.value.item()
            after = updated(coefficient, 0.05 / before)
            assert after / before in (0.5, 1.0, 2.0)
        assert 0.01 / 1.5 <= 0.05 / coefficient.value.item() <= 0.01 * 1.5


# n/H = 512/10,000 = 0.0512
@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.2),  # error 0
        (6.6, 0.2 * (1 + 0.1 * 0.0512)),
        (5.4, 0.2 * (1 - 0.1 * 0.0512)),
        (60.0, 0.2 * (1 + 0.2 * 0.0512)),  # the error is cut at 0.2
        (0.0, 0.2 * (1 - 0.2 * 0.0512)),
    ],
)
def test_zieglers_rule_by_hand(kl, expected):
    assert updated(proportional(), kl) == pytest.approx(expected, rel=1e-6)


def test_zieglers_coefficient_stays_positive_however_many_samples():
    # Taken by the letter, 10 H samples would give 1 − 0.2·10 = −1.
    assert updated(proportional(), 0.0, samples=100_000) == pytest.approx(0.2 * 0.8)
    assert updated(proportional(), 60.0, samples=10_000) == pytest.approx(0.2 * 1.2)


def test_a_fixed_coefficient_stays():
    coefficient = FixedKLController(0.3, device=CPU)
    assert updated(coefficient, 100.0) == pytest.approx(0.3)
    assert updated(FixedKLController(0.0, device=CPU), 100.0) == 0.0


@pytest.mark.parametrize("make", [doubling, lambda value: proportional(value, horizon=1)])
def test_an_adapted_coefficient_comes_back_from_its_ends(make):
    for kl, end in ((0.0, SMALLEST), (1e3, LARGEST)):
        coefficient = make(1.0)
        for _ in range(200):
            updated(coefficient, kl)
        assert coefficient.value.item() == pytest.approx(end)
        assert updated(coefficient, 1e3 if kl == 0 else 0.0) != pytest.approx(end)


@pytest.mark.parametrize("make", [doubling, proportional])
def test_a_loaded_coefficient_goes_on_alike(make):
    first, second = make(1.0), make(0.5)
    updated(first, 100.0)
    saved = first.state_dict()
    updated(first, 100.0)  # which leaves what was saved
    assert saved["value"] < first.value
    second.load_state_dict(saved)
    assert updated(second, 100.0) == first.value.item()
    assert second.value.dtype == torch.float32


def test_a_fixed_coefficient_has_no_state():
    coefficient = FixedKLController(0.3, device=CPU)
    coefficient.load_state_dict(coefficient.state_dict())
    assert coefficient.value.item() == pytest.approx(0.3)


@pytest.mark.parametrize("make", [doubling, proportional])
def test_a_state_is_a_snapshot(make):
    controller = make(1.0)
    state = controller.state_dict()
    before = state["value"].item()
    updated(controller, 100.0)
    assert state["value"].item() == before != controller.value.item()


@pytest.mark.parametrize(
    ("algo", "changes", "message"),
    [
        (
            "ppo_kl",
            {"kl.coefficient": 0.0},
            "coefficient must be positive .*, got 0.0",
        ),
        ("ppo_kl", {"kl.coefficient": math.nan}, "coefficient must be at least 0, got nan"),
        ("ppo_kl", {"kl.target": 0.0}, "target must be positive, got 0.0"),
        ("grpo", {"kl.coefficient": -1.0}, "coefficient must be at least 0, got -1.0"),
        ("grpo", {"kl.horizon": 0}, "horizon must be at least 1, got 0"),
    ],
)
def test_a_value_out_of_range_is_refused(algo, changes, message):
    with pytest.raises(UserError, match=rf"^algo\.kl\.{message}$"):
        algorithm_of(algo, **changes)


@pytest.mark.parametrize(
    ("target", "kind"), [(None, FixedKLController), (0.01, ProportionalKLController)]
)
def test_a_penalty_has_the_controller_that_its_target_means(target, kind):
    settings = {"kl.reference": "x", "kl.coefficient": 0.3, "kl.target": target, "kl.horizon": 4}
    controller = algorithm_of("grpo", **settings).kl.controller(CPU)
    assert type(controller) is kind
    assert updated(controller, 100.0, samples=4) == pytest.approx(0.3 * (1.2 if target else 1.0))
