"""The right answers of a task, as somebody who writes them: what is learned from by imitation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun.collectors.writing import Writer
from rlrun.envs.tokens.task import TokenTask
from rlrun.errors import UserError


@dataclass(frozen=True)
class CertainToken:
    """A token that is written for certain.

    Attributes:
        logits: 0 for it, −∞ for all others, [n, V].
    """

    logits: Tensor


@dataclass
class Pages:
    """Answers, and how far they are written.

    Attributes:
        tokens: of the answers, with their ends, [L, N].
        row: that is written next.
    """

    tokens: Tensor
    row: int = 0

    def keep(self, rows: Tensor) -> None:
        """Forget all answers but these, numbers [n]."""
        self.tokens = self.tokens[:, rows]


class AnswerKey:
    """Writes the answer to each prompt (as a :class:`~rlrun.collectors.writing.Writer`)."""

    def __init__(self, task: TokenTask):
        """Take the task that has the answers."""
        self._task = task

    def start(self, prompts: Tensor, blank: Tensor, rows: int) -> tuple[CertainToken, Pages]:
        """Read prompts [P, N]; return the first tokens of the answers, and these.

        Raises:
            UserError: an answer is longer than a response may be.
        """
        tokens = prompts.new_full((rows, prompts.shape[1]), self._task.language.end)
        pairs = zip(prompts.T.tolist(), blank.tolist(), strict=True)
        for n, (prompt, above) in enumerate(pairs):
            answer = self._task.encoded_answer(prompt[above:])
            if len(answer) > rows:
                raise UserError(
                    f"the answer to {self._task.vocabulary.decode(prompt[above:])!r} has "
                    f"{len(answer)} tokens, and a response at most {rows}"
                )
            tokens[: len(answer), n] = torch.tensor(answer)
        pages = Pages(tokens)
        return self._next(pages), pages

    def go_on(self, token: Tensor, cache: Pages) -> CertainToken:
        """Return the next token of each answer."""
        return self._next(cache)

    def _next(self, pages: Pages) -> CertainToken:
        tokens = pages.tokens[pages.row]
        pages.row += 1
        logits = torch.full((len(tokens), self._task.language.size), -torch.inf)
        return CertainToken(logits.scatter(1, tokens.unsqueeze(1), 0.0))


@dataclass(frozen=True)
class Author:
    """Who writes what a policy learns from (as a ``collectors.writing.WritingActor``).

    Attributes:
        policy: writes.
        generator: source of the draws.
        device: where the policy is.
        version: of its weights, which do not change.
    """

    in_training: ClassVar[bool] = False

    policy: Writer
    generator: torch.Generator
    device: torch.device
    version: int = 0
