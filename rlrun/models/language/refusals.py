"""What models of language are not there for: methods of theirs that say so."""

from typing import ClassVar, NoReturn, Protocol

import torch

from rlrun.envs.problem import Problem
from rlrun.envs.tokens.vocabulary import Language
from rlrun.errors import UserError


class LanguageModel(Protocol):
    """A model that reads tokens.

    Attributes:
        choice: of the group `model`.
    """

    choice: ClassVar[str]


def action_critic(self: LanguageModel, problem: Problem, generator: torch.Generator) -> NoReturn:
    """Refuse: there is no Q(s, a)."""
    raise _has_no(self, "Q(s, a)")


def policy_over_a_box(
    self: LanguageModel, problem: Problem, generator: torch.Generator
) -> NoReturn:
    """Refuse: a token is a choice."""
    raise _has_no(self, "policy over a box of actions")


def action_values(
    self: LanguageModel,
    problem: Problem,
    generator: torch.Generator,
    *,
    dueling: bool,
    sigma: float | None,
) -> NoReturn:
    """Refuse: there is no Q(s, ·)."""
    raise _has_no(self, "Q(s, ·)")


def language_of(model: LanguageModel, problem: Problem) -> Language:
    """Return the language of a problem.

    Args:
        model: what is to read it.
        problem: any.

    Raises:
        UserError: it has none.
    """
    if problem.language is None:
        raise UserError(
            f"model={model.choice} reads tokens, and {problem.env_id} shows numbers: model=mlp"
        )
    return problem.language


def _has_no(model: LanguageModel, what: str) -> UserError:
    return UserError(
        f"model={model.choice} has no {what}: this algorithm, or its advantage estimator, cannot "
        "take tokens"
    )
