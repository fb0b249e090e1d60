"""KL divergences from samples, and the coefficients β of a penalty on them.

A coefficient is fixed, or adapted so that the KL divergence nears a target.

Each has its present ``value``, a tensor [] so that compiled losses need not be compiled again when
it changes, and ``update(kl, samples)``, which is called once per iteration.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rlrun.config.types import NonNegative, Positive

# An adapted coefficient stays in this range, where it can be neither 0, from which no factor leads
# away, nor infinite.
SMALLEST, LARGEST = 1e-6, 1e6


class KLController(Protocol):
    """β of a penalty.

    Attributes:
        value: β now, [].
    """

    value: Tensor

    def update(self, kl: Tensor, samples: int) -> None:
        """Adapt β.

        Args:
            kl: KL divergence of the iteration, a mean over its steps, []. What it is between is the
                caller's: ``ppo_kl`` measures how far its updates led, a reference penalty how far
                from the reference the policy was that played, before them.
            samples: what the iteration learned from, in the unit of the rule: steps (``ppo_kl``) or
                episodes (a reference penalty).
        """
        ...

    def state_dict(self) -> dict:
        """Return β."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        ...


class FixedKLController:
    """β that stays as it is."""

    def __init__(self, value: float, *, device: torch.device):
        """Set β, at least 0."""
        self.value = torch.tensor(value, device=device)

    def update(self, kl: Tensor, samples: int) -> None:
        """Leave β alone, whatever the KL."""

    def state_dict(self) -> dict:
        """Return nothing: β is in the configuration."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Go on with the configured β."""


class DoublingKLController:
    """β/2 after an iteration with KL < target/1.5, 2β after one with KL > 1.5 target.

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", §4.
    """

    def __init__(self, value: float, *, target: float, device: torch.device):
        """Set the first β and the target, both above 0."""
        self.value = torch.tensor(value, device=device)
        self.target = target

    def update(self, kl: Tensor, samples: int) -> None:
        """Halve β, double it or leave it alone (see :class:`KLController`)."""
        down, up = kl < self.target / 1.5, kl > 1.5 * self.target
        value = torch.where(down, self.value / 2, torch.where(up, self.value * 2, self.value))
        self.value = value.clamp(SMALLEST, LARGEST)

    def state_dict(self) -> dict:
        """Return β."""
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        self.value = state["value"].to(self.value.device)


class ProportionalKLController:
    """β ← β (1 + clip(KL/target − 1, ±0.2) n/H) after an iteration on n samples.

    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", §2.2; H is 10,000 in
    verl and OpenRLHF.

    Departures: the paper's KL is that of a whole answer, a sum over its tokens; here KL and target
    are of one step, whatever the length of an episode. n counts as H where it is larger, so that β
    stays positive.
    """

    def __init__(self, value: float, *, target: float, horizon: int, device: torch.device):
        """Set the first β and the target, both above 0, and H, at least 1."""
        self.value = torch.tensor(value, device=device)
        self.target = target
        self.horizon = horizon

    def update(self, kl: Tensor, samples: int) -> None:
        """Move β by at most a fifth (see :class:`KLController`)."""
        error = (kl / self.target - 1).clamp(-0.2, 0.2)
        value = self.value * (1 + error * min(samples / self.horizon, 1.0))
        self.value = value.clamp(SMALLEST, LARGEST)

    def state_dict(self) -> dict:
        """Return β."""
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        self.value = state["value"].to(self.value.device)


@dataclass(frozen=True, kw_only=True)
class OldPolicyKL:
    """The penalty for leaving the policy that collected the data.

    Attributes:
        coefficient: β, or the first one, if it is adapted.
        target: mean KL of an iteration that β is adapted to; None: it stays as it is.
    """

    coefficient: NonNegative
    target: Positive | None

    def __post_init__(self):
        """Refuse a β that cannot be adapted: no factor leads away from zero."""
        if self.target is not None and self.coefficient == 0:
            raise ValueError(
                "coefficient must be positive to be adapted (target=null: it stays as it is), "
                f"got {self.coefficient}"
            )

    def controller(self, device: torch.device) -> KLController:
        """Make what β is taken from."""
        if self.target is None:
            return FixedKLController(self.coefficient, device=device)
        return DoublingKLController(self.coefficient, target=self.target, device=device)


def approximate_kl(log_ratio: Tensor, mask: Tensor | None = None) -> Tensor:
    """Estimate KL(π_old ‖ π_θ) from samples of π_old: mean of (ρ − 1) − log ρ, [].

    Unbiased and never negative (Schulman 2020, "Approximating KL divergence", k3).

    Args:
        log_ratio: log ρ = log π_θ(a|s) − log π_old(a|s), [...].
        mask: steps that count, [...]; None: all.
    """
    kl = torch.expm1(log_ratio) - log_ratio
    return kl.mean() if mask is None else torch.where(mask, kl, 0.0).sum() / mask.sum()


def k1(log_ratio: Tensor) -> Tensor:
    """Return log π − log π_ref of samples of π, [...].

    As a value: unbiased for KL(π ‖ π_ref). This and the next two: Schulman 2020, "Approximating KL
    divergence"; what they do to a policy is said in ``reference_kl.py``.

    Args:
        log_ratio: log π(a|s) − log π_ref(a|s), [...].
    """
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """Return ½ (log π − log π_ref)² of samples of π, [...]: biased, of low variance."""
    return 0.5 * log_ratio.square()


def k3(log_ratio: Tensor) -> Tensor:
    """Return π_ref/π − 1 − log π_ref/π of samples of π, [...]: unbiased, never negative."""
    return torch.expm1(-log_ratio) + log_ratio
