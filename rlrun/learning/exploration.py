"""How much a policy tries out: how often an action is random, and what its entropy is worth."""

from dataclasses import dataclass

from rlrun.config.types import Finite, Fraction, Positive
from rlrun.learning.optimizers import Adam


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How often a random action is taken.

    Attributes:
        start: ε at the start of the run.
        end: ε from `share` of the run's steps on.
        share: of the steps, in which ε falls linearly.
    """

    start: Fraction
    end: Fraction
    share: Fraction

    def epsilon(self, progress: float) -> float:
        """Return ε when a share of the run's steps is done."""
        if progress >= self.share:
            return self.end
        return self.start + (self.end - self.start) * progress / self.share


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """α, the weight of the entropy.

    Attributes:
        initial: α at the start of the run.
        optimizer: fits log α, so that the policy keeps a certain entropy; None: α stays as it is.
        target_entropy: H̄; None: as the paper says, −A for a box of A numbers, in units in which it
            is −1…1, and 0.98 log K for a choice of K.
    """

    initial: Positive
    optimizer: Adam | None
    target_entropy: Finite | None
