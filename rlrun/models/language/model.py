"""Models of language: what ``conf/model/*.yaml`` name for tasks of tokens."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from rlrun.config.types import Count
from rlrun.envs.problem import Problem
from rlrun.models.language import refusals
from rlrun.models.language.caches import DecoderShape
from rlrun.models.language.networks import Precision, Reader, TokenCritic, TokenPolicy
from rlrun.models.language.transformer import Decoder
from rlrun.models.networks import Policy, StateCritic


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Settings; ``conf/model/transformer.yaml`` explains them."""

    choice: ClassVar[str] = "transformer"
    action_critic = refusals.action_critic
    squashed_policy = deterministic_policy = refusals.policy_over_a_box
    action_values = refusals.action_values

    layers: Count
    width: Count
    heads: Count
    micro_batch: Count | None
    precision: Precision
    init: str | None

    def __post_init__(self):
        """Refuse a width that the heads cannot share."""
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width must be a multiple of twice the heads, 2 x {self.heads}, got {self.width}"
            )

    def policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Build π(a|s) (see :class:`~rlrun.models.networks.Model`)."""
        return TokenPolicy(self._reader(problem, generator))

    def critic(self, problem: Problem, generator: torch.Generator) -> StateCritic:
        """Build V(s), a transformer of its own (see :class:`~rlrun.models.networks.Model`)."""
        return TokenCritic(self._reader(problem, generator))

    def _reader(self, problem: Problem, generator: torch.Generator) -> Reader:
        language = refusals.language_of(self, problem)
        shape = DecoderShape(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            vocabulary=language.size,
            context=language.prompt_rows + language.response_rows + 1,
        )
        decoder = Decoder(shape, generator)
        return Reader(decoder, language, self.micro_batch, self.precision)
