"""The KL divergence to a frozen reference policy, which keeps a policy near what it was.

With x ~ π and the estimators (Schulman 2020, "Approximating KL divergence")

    k1 = log π/π_ref      k2 = ½ k1²      k3 = π_ref/π − 1 − log π_ref/π

what an estimator does depends on where it stands: in the reward, as r − β k (a number, which the
advantage estimator carries to the actions), or in the loss, as + β k (differentiated). Expected
gradients on-policy, per unit of β (Tang & Munos 2025, arXiv:2506.09477):

    estimator   as a value       in the loss         in the reward
    k1          unbiased         0: no effect        ∇KL(π ‖ π_ref)
    k2          biased           ∇KL(π ‖ π_ref)      not the gradient of a KL
    k3          unbiased, >= 0   ∇KL(π_ref ‖ π)      ∇KL(π ‖ π_ref) − ∇KL(π_ref ‖ π): not a KL's

k1 in the loss is refused. The KL that is logged, and that an adaptive β follows, is the exact one.

In the reward the penalty is a reward like any other: γ discounts it, and what an estimator does to
returns it does to the penalty. One that divides by the spread of a group (``advantage=grpo``)
undoes β where the raw returns tie: the spread is that of the penalties alone then, and their noise
is brought to the size of any other signal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlrun.config.types import Count, NonNegative, Positive
from rlrun.learning.losses.kl import (
    FixedKLController,
    KLController,
    ProportionalKLController,
    k1,
    k2,
    k3,
)

KLEstimator = Literal["k1", "k2", "k3"]
KLPlace = Literal["reward", "loss"]

ESTIMATORS: dict[KLEstimator, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


@dataclass(frozen=True, kw_only=True)
class ReferenceKL:
    """Settings of the penalty.

    Attributes:
        reference: a run's directory or a checkpoint's; None: there is no penalty.
        estimator: k1, k2 or k3.
        place: where it stands: in the reward or in the loss.
        coefficient: β, or the first one, if it is adapted.
        target: mean KL of a step that β is adapted to; None: it stays as it is.
        horizon: episodes in which β changes by at most a fifth.
        refresh_every: iterations after which the policy becomes the reference; None: it never does.
    """

    reference: str | None
    estimator: KLEstimator
    place: KLPlace
    coefficient: NonNegative
    target: Positive | None
    horizon: Count
    refresh_every: Count | None

    def __post_init__(self):
        """Refuse what does not fit together."""
        if self.refresh_every is not None and self.reference is None:
            raise ValueError("refresh_every must be null without a reference to begin with")
        if self.target is not None and self.coefficient == 0:
            raise ValueError("target multiplies coefficient, which must not be 0 then")
        if self.coefficient > 0:
            if self.reference is None:
                raise ValueError(
                    "coefficient must be 0 without a policy to stay near, which "
                    f"reference=<run or checkpoint> gives, got {self.coefficient}"
                )
            if (self.estimator, self.place) == ("k1", "loss"):
                raise ValueError(
                    "estimator must be k2 or k3 with place=loss, where the expected gradient of "
                    "k1 is 0"
                )

    def require_in_reward(self) -> None:
        """Check, for a loss that has no such penalty, that it belongs into the reward.

        Raises:
            ValueError: it belongs into the loss.
        """
        if self.place != "reward":
            raise ValueError("kl.place must be reward: this algorithm's loss has no such penalty")

    def in_reward(self, log_ratio: Tensor) -> Tensor:
        """Return the penalty of the reward per unit of β, [...], from log π − log π_ref."""
        return self._estimate(log_ratio, "reward")

    def in_loss(self, log_ratio: Tensor) -> Tensor:
        """Return the penalty of the loss per unit of β, [...], from log π − log π_ref."""
        return self._estimate(log_ratio, "loss")

    def _estimate(self, log_ratio: Tensor, place: KLPlace) -> Tensor:
        """Return k1, k2 or k3 where the penalty stands, and 0 elsewhere, [...]."""
        if self.reference is None or place != self.place:
            return torch.zeros_like(log_ratio)
        return ESTIMATORS[self.estimator](log_ratio)

    def controller(self, device: torch.device) -> KLController:
        """Make what β is taken from."""
        if self.target is None:
            return FixedKLController(self.coefficient, device=device)
        return ProportionalKLController(
            self.coefficient, target=self.target, horizon=self.horizon, device=device
        )


# For an algorithm that has no such penalty, and for runs from before it had one.
NO_PENALTY = ReferenceKL(
    reference=None,
    estimator="k1",
    place="reward",
    coefficient=0.0,
    target=None,
    horizon=1,
    refresh_every=None,
)
