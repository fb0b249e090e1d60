"""How often a random action is taken."""

from dataclasses import dataclass

from rlrun.config.types import Fraction


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
