"""Tasks of characters whose prompts a program draws by the thousand, and answers."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlrun.envs.tokens.task import Judge, Judgement, TokenTask
from rlrun.envs.tokens.vocabulary import Language, Vocabulary
from rlrun.errors import UserError

# Prompts that are drawn for one of a share.
MOST_DRAWS = 10_000


@dataclass(kw_only=True)
class ProceduralTask(TokenTask):
    """What such tasks have in common; each says what its characters are, and draws and answers."""

    @property
    @abstractmethod
    def characters(self) -> str:
        """What prompts and responses are made of."""

    @property
    @abstractmethod
    def answer_characters(self) -> str:
        """What answers are made of."""

    @property
    @abstractmethod
    def longest_prompt(self) -> int:
        """Characters of the longest prompt."""

    @property
    @abstractmethod
    def longest_answer(self) -> int:
        """Characters of the longest answer."""

    @property
    def answer_rows(self) -> int | None:
        """Characters of every answer; None: answers differ in length, and end by a token."""
        return None

    @abstractmethod
    def draw(self, generator: np.random.Generator) -> str:
        """Draw a prompt."""

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Say what a response is worth.

        Args:
            prompt: one that was drawn.
            response: without the token that ends it.
            complete: whether it ended by itself.
        """
        answer = self.answer(prompt)
        ends = self.answer_rows is None
        places = max(len(answer), len(response)) + ends
        agree = [one == other for one, other in zip(response, answer, strict=False)]
        right = sum(agree)
        prefix = agree.index(False) if False in agree else len(agree)
        if complete and ends and len(response) == len(answer):
            right += 1
            prefix += prefix == len(answer)
        return Judgement(
            outcome=float(complete and response == answer),
            form=float(complete and self.is_well_formed(response)),
            fraction=right / places,
            prefix=prefix / places,
        )

    def is_well_formed(self, response: str) -> bool:
        """Say whether a response looks like an answer, right or wrong."""
        return response != "" and set(response) <= set(self.answer_characters)

    def open_judge(self) -> Judge:
        """Return who calls `judge`."""
        return ProgramJudge(self)

    def prompt(self, generator: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a prompt of training, or one that training never sees (see :class:`TokenTask`)."""
        for _ in range(MOST_DRAWS):
            prompt = self.draw(generator)
            if self.held_out == 0 or self.is_held_out(prompt) is held_out:
                return prompt
        raise UserError(
            f"env.held_out={self.held_out}: {self.id} has too few prompts to hold some out; "
            "env.held_out=0 trains and evaluates on all of them"
        )

    def is_held_out(self, prompt: str) -> bool:
        """Say whether training never sees a prompt: a function of its text alone."""
        return share_of(prompt) < self.held_out

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The characters as tokens."""
        return Vocabulary(self.characters)

    @cached_property
    def language(self) -> Language:
        """What a model and a collector have to know; a response may be longer than an answer."""
        rows = self.answer_rows
        return Language(
            size=len(self.vocabulary),
            end=self.vocabulary.end,
            prompt_rows=self.longest_prompt,
            response_rows=self.longest_answer + 2 if rows is None else rows,
            answer_rows=rows,
            tokens=self.vocabulary.tokens,
        )


def share_of(text: str) -> float:
    """Return a number in [0, 1) of a text, as if it were drawn."""
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class ProgramJudge:
    """Has a task judge one response after the other."""

    def __init__(self, task: ProceduralTask):
        """Take the task."""
        self._task = task

    def judge(
        self, prompts: Sequence[str], responses: Sequence[str], complete: Sequence[bool]
    ) -> list[Judgement]:
        """Judge N responses (see :class:`~rlrun.envs.tokens.task.Judge`)."""
        return [
            self._task.judge(prompt, response, complete=ended)
            for prompt, response, ended in zip(prompts, responses, complete, strict=True)
        ]

    def close(self) -> None:
        """Release nothing."""
