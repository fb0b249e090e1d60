"""DPO: direct preference optimisation.

Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward
Model" (arXiv:2305.18290), eq. 7. Of two responses y_w and y_l to a prompt the first is better:

    L(θ) = −E[ (1 − ε) log σ(β Δ) + ε log σ(−β Δ) ],
    Δ = log π_θ(y_w)/π_ref(y_w) − log π_θ(y_l)/π_ref(y_l)

with ε = 0; ε > 0 is "conservative" DPO, for which an ε of the pairs are the wrong way round
(Mitchell 2023; ``algo=cdpo`` is this with ε = 0.1). The gradient coefficient is
GC = β (σ(−β Δ) − ε), with + for y_w and − for y_l.

The reference writes the responses, and the judge ranks them: of each group the best and the worst
are a pair; or a file has pairs (``collector=pairs``).

Departures: with ``length_normalized`` the log-ratios are means over a response's tokens (as in Shao
et al. 2024; TRL's "sigmoid_norm"), so that a long one is not told apart by its length; each GC is
then over |o|. Where IPO (``ipo.py``) has a square of the same Δ, this has a sigmoid: both are one
loss on ``pairs.py: log_ratios``, which is where lengths are normalised for either.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval
from torch.nn.functional import logsigmoid

from rlrun import loops
from rlrun.algos.preference import pairs
from rlrun.algos.preference.pairs import PairBatch, log_ratios, pair_metrics
from rlrun.config.types import Count, Positive
from rlrun.learning.contract import LossAndMetrics, PolicyFunction
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class DPO:
    """Hyperparameters (explained in ``conf/algo/dpo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.supervised)
    setup, update, author = pairs.setup, pairs.update, property(pairs.author)

    num_envs: Count
    reference: str | None
    beta: Positive
    label_smoothing: Annotated[float, Interval(ge=0, lt=0.5)]
    length_normalized: bool
    optimizer: Adam

    def policy_loss(self, policy: PolicyFunction, batch: PairBatch) -> LossAndMetrics:
        """L(θ) = −mean[(1 − ε) log σ(β Δ) + ε log σ(−β Δ)]."""
        better, worse = log_ratios(policy, batch, length_normalized=self.length_normalized)
        logit = self.beta * (better - worse)
        smoothed = self.label_smoothing * logsigmoid(-logit)
        loss = -((1 - self.label_smoothing) * logsigmoid(logit) + smoothed).mean()
        return loss, pair_metrics(loss, better, worse, self.beta)
