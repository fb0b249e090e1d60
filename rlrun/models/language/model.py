"""Models of language: what ``conf/model/*.yaml`` name for tasks of tokens."""

from dataclasses import dataclass

import torch
from torch import nn

from rlrun.config.types import Count
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.models.language.caches import DecoderShape
from rlrun.models.language.networks import Precision, Reader, TokenCritic, TokenPolicy
from rlrun.models.language.transformer import Decoder
from rlrun.models.networks import ActionCritic, Policy, StateCritic


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Settings; ``conf/model/transformer.yaml`` explains them."""

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

    def action_critic(self, problem: Problem, generator: torch.Generator) -> ActionCritic:
        """Refuse: there is none."""
        raise _has_no("Q(s, a)")

    def squashed_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Refuse: a token is a choice."""
        raise _has_no("policy over a box of actions")

    def deterministic_policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Refuse: a token is a choice."""
        raise _has_no("policy over a box of actions")

    def action_values(
        self, problem: Problem, generator: torch.Generator, *, dueling: bool, sigma: float | None
    ) -> nn.Module:
        """Refuse: there are none."""
        raise _has_no("Q(s, ·)")

    def _reader(self, problem: Problem, generator: torch.Generator) -> Reader:
        language = problem.language
        if language is None:
            raise UserError(
                f"model=transformer reads tokens, and {problem.env_id} shows numbers: model=mlp"
            )
        shape = DecoderShape(
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            vocabulary=language.size,
            context=language.prompt_rows + language.response_rows + 1,
        )
        decoder = Decoder(shape, generator)
        return Reader(decoder, language, self.micro_batch, self.precision)


def _has_no(what: str) -> UserError:
    """Say what a transformer is not there for."""
    return UserError(f"model=transformer has no {what}: this algorithm cannot take tokens")
