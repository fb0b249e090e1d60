"""IPO: identity preference optimisation.

Azar et al. 2024, "A General Theoretical Paradigm to Understand Learning from Human Preferences"
(arXiv:2310.12036), eq. 17. Where DPO's loss falls for ever as a pair is told further apart, this
one has a margin to reach:

    L(θ) = E[ (Δ − 1/(2β))² ],  Δ = log π_θ(y_w)/π_ref(y_w) − log π_θ(y_l)/π_ref(y_l)

GC = 2 (1/(2β) − Δ), with + for y_w and − for y_l. Pairs are those of ``dpo.py``. Departures: with
``length_normalized`` the log-ratios are means over tokens (TRL's, not the paper's).
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.preference import pairs
from rlrun.algos.preference.pairs import PairBatch, log_ratios, pair_metrics
from rlrun.config.types import Count, Positive
from rlrun.learning.contract import LossAndMetrics, PolicyFunction
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class IPO:
    """Hyperparameters (explained in ``conf/algo/ipo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.supervised)
    setup, update, author = pairs.setup, pairs.update, property(pairs.author)

    num_envs: Count
    reference: str | None
    beta: Positive
    length_normalized: bool
    optimizer: Adam

    def policy_loss(self, policy: PolicyFunction, batch: PairBatch) -> LossAndMetrics:
        """L(θ) = mean[(Δ − 1/(2β))²]."""
        better, worse = log_ratios(policy, batch, length_normalized=self.length_normalized)
        loss = (better - worse - 1 / (2 * self.beta)).square().mean()
        return loss, pair_metrics(loss, better, worse, self.beta)
