"""From what a policy says of the next token to what is drawn: temperature, top-k, top-p."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlrun.config.types import Count, Positive, PositiveFraction


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the behaviour policy μ comes of the policy π.

    Attributes:
        temperature: logits are divided by it; 1: none.
        top_k: only the k most probable tokens are drawn; None: all.
        top_p: only the fewest most probable tokens are drawn that have this probability together,
            after the temperature and `top_k`; 1: all (Holtzman et al. 2020).
    """

    temperature: Positive
    top_k: Count | None
    top_p: PositiveFraction

    @property
    def changes_nothing(self) -> bool:
        """Whether μ is π."""
        return self.temperature == 1 and self.top_k is None and self.top_p == 1

    def log_probs(self, logits: Tensor) -> Tensor:
        """Return log μ of each token, −∞ for those that are not drawn, [..., V].

        Args:
            logits: of π, [..., V].
        """
        log_probs = (logits / self.temperature).log_softmax(-1)
        if self.top_k is not None and self.top_k < log_probs.shape[-1]:
            least = log_probs.topk(self.top_k, -1).values[..., -1:]
            log_probs = log_probs.masked_fill(log_probs < least, -torch.inf).log_softmax(-1)
        if self.top_p < 1:
            ordered, order = log_probs.sort(-1, descending=True)
            probability = ordered.exp()
            # Those before it have not reached p yet: the first one always stays.
            dropped = probability.cumsum(-1) - probability >= self.top_p
            dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
            log_probs = log_probs.masked_fill(dropped, -torch.inf).log_softmax(-1)
        return log_probs
