"""What a policy of language observes: whole sequences of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """N prompts with their responses, or some of their steps.

    The state of step t is the prompt and the first t tokens of the response, so that one tensor
    holds the states of all steps, and a causal network reads it once for all of them.

    Attributes:
        tokens: the prompts, which end in row P − 1, and below them the responses, [P + T, N]
            (int64). What stands above a prompt and behind the end of a response means nothing.
        blank: rows above each prompt, [N].
        prompt_rows: P.
        steps: the steps that are asked for, as numbers t·N + n, [B]; None: all of them, [T, N].
            What a network says of the sequences has this shape.
    """

    tokens: Tensor
    blank: Tensor
    prompt_rows: int
    steps: Tensor | None = None

    @property
    def length(self) -> int:
        """T, steps of the longest response."""
        return len(self.tokens) - self.prompt_rows

    @property
    def count(self) -> int:
        """N."""
        return self.tokens.shape[1]

    def to(self, device: torch.device) -> "Sequences":
        """Return the same on another device."""
        steps = None if self.steps is None else self.steps.to(device)
        return Sequences(self.tokens.to(device), self.blank.to(device), self.prompt_rows, steps)

    def columns(self, chosen: Tensor) -> "Sequences":
        """Return some of the sequences, numbers [n], with all of their steps."""
        return replace(self, tokens=self.tokens[:, chosen], blank=self.blank[chosen])

    def rows(self, chosen: Tensor) -> "Sequences":
        """Return some of the steps, numbers t·N + n, [B], and nothing of what they do not see."""
        columns, place = torch.unique(chosen % self.count, return_inverse=True)
        step = torch.div(chosen, self.count, rounding_mode="floor")
        longest = int(step.max()) + 1 if len(step) else 0
        tokens = self.tokens[: self.prompt_rows + longest, columns]
        steps = step * len(columns) + place
        return Sequences(tokens, self.blank[columns], self.prompt_rows, steps)

    def padded(self, length: int) -> "Sequences":
        """Return the sequences with responses of T = ``length`` rows, at least as long as now."""
        if length == self.length:
            return self
        rows = self.tokens.new_zeros(length - self.length, self.count)
        return replace(self, tokens=torch.cat([self.tokens, rows]))

    def successors(self) -> "Sequences":
        """Return the states after each step."""
        return replace(self.padded(self.length + 1), prompt_rows=self.prompt_rows + 1)


# What a policy observes: numbers [T, N, D] or [B, D], or sequences of tokens.
Observations = Tensor | Sequences


def join_sequences(parts: Sequence[Sequences]) -> Sequences:
    """Put sequences side by side; shorter responses get rows behind their ends.

    Args:
        parts: with prompts of the same P; at least one.
    """
    length = max(part.length for part in parts)
    tokens = torch.cat([part.padded(length).tokens for part in parts], dim=1)
    return replace(parts[0], tokens=tokens, blank=torch.cat([part.blank for part in parts]))
