"""The choice of the next token, computed without all logits of all tokens at once."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rlrun.data.draws import draw

# Logits that are held at once: 64 MiB of float32.
MOST_LOGITS = 2**24


class TokenCategorical:
    """A choice among V tokens, kept as what a decoder says and the head that makes logits of it.

    A minibatch of 64 responses of 1,024 tokens has 13 GB of logits where V is 50,000. They are
    computed for some rows at a time, and once more where a gradient is asked for.

    Attributes:
        hidden: what the decoder says, [..., d].
        head: logits = hidden · headᵀ, [V, d].
    """

    def __init__(self, hidden: Tensor, head: Tensor):
        """Compute nothing yet."""
        self.hidden = hidden
        self.head = head
        # Of the actions that `log_prob` was asked for: found in the same pass.
        self._entropy: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities, [..., V]: all of them."""
        return logits_of(self.hidden, self.head)

    @property
    def parameters(self) -> Tensor:
        """All that the distribution is made of, as one tensor: the logits, [..., V]."""
        return self.logits

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return the distribution of this kind that has other `parameters`."""
        other = copy.copy(self)
        other.hidden = parameters
        other.head = torch.eye(parameters.shape[-1], device=parameters.device)
        other._entropy = None
        return other

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw tokens, [...] (int64), each by one uniform number.

        Args:
            generator: source of the numbers, on the CPU wherever the distribution is.
        """
        uniform = torch.rand(self.hidden.shape[:-1], generator=generator).to(self.hidden.device)
        return draw(self.logits.log_softmax(-1), uniform)

    def mode(self) -> Tensor:
        """Return the most probable token, [...]."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log π(a|s) of tokens [...], as [...]."""
        logp, self._entropy = self._of_rows(chosen_and_entropy, action.long())
        return logp

    def entropy(self) -> Tensor:
        """Return −Σ_a π(a|s) log π(a|s), [...]."""
        if self._entropy is None:
            (self._entropy,) = self._of_rows(entropy)
        return self._entropy

    def kl(self, other: Self) -> Tensor:
        """Return the exact KL(self ‖ other), [...]."""
        (kl,) = self._of_rows(partial(kl_to, other_head=other.head), other.hidden)
        return kl

    def kl_from(self, parameters: Tensor) -> Tensor:
        """Return the exact KL(p ‖ self), [...], of the p of this kind that has these parameters."""
        return self.with_parameters(parameters).kl(self)

    def _of_rows(
        self, function: Callable[..., tuple[Tensor, ...]], *columns: Tensor
    ) -> list[Tensor]:
        """Compute something of each row, as many at a time as there is room for.

        Args:
            function: hidden [B, d], head and columns -> tensors [B].
            columns: of numbers [...] or vectors [..., d].
        """
        shape, size = self.hidden.shape[:-1], max(1, MOST_LOGITS // len(self.head))
        rows = self.hidden.flatten(0, -2) if self.hidden.ndim > 1 else self.hidden.unsqueeze(0)
        flat = [column.reshape(len(rows), *column.shape[len(shape) :]) for column in columns]
        if len(rows) <= size:
            results = function(rows, self.head, *flat)
        else:
            parts = [
                checkpoint(function, part[0], self.head, *part[1:], use_reentrant=False)
                for part in zip(*(column.split(size) for column in (rows, *flat)), strict=True)
            ]
            results = tuple(torch.cat(each) for each in zip(*parts, strict=True))
        return [result.view(shape) for result in results]


def logits_of(hidden: Tensor, head: Tensor) -> Tensor:
    """Return logits [..., V] in single precision, of vectors [..., d]."""
    return functional.linear(hidden, head.to(hidden.dtype)).float()


def chosen_and_entropy(hidden: Tensor, head: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return log π(a|s) of one token a row, and the entropy, [B] each."""
    log_probs = logits_of(hidden, head).log_softmax(-1)
    chosen = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return chosen, -(log_probs.exp() * log_probs).sum(-1)


def entropy(hidden: Tensor, head: Tensor) -> tuple[Tensor]:
    """Return the entropy of each row, [B]."""
    log_probs = logits_of(hidden, head).log_softmax(-1)
    return (-(log_probs.exp() * log_probs).sum(-1),)


def kl_to(hidden: Tensor, head: Tensor, other: Tensor, *, other_head: Tensor) -> tuple[Tensor]:
    """Return KL(p ‖ q) of each row, [B], of p by a hidden and q by another."""
    log_p = logits_of(hidden, head).log_softmax(-1)
    log_q = logits_of(other, other_head).log_softmax(-1)
    return ((log_p.exp() * (log_p - log_q)).sum(-1),)
