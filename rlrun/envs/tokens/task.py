"""A task of language: prompts by the thousand, and a program that says whether an answer is right.

A task is a Markov decision process: a state is the prompt with what was written so far, an action
the next token, a step a token, and the reward comes with the last one. It has two forms. The first
is a batch of prompts and their judge (`TokenEnv`), for who writes whole responses. The second is a
Gymnasium environment (`gymnasium_form.py`), for who takes single steps.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import gymnasium as gym
import numpy as np

from rlrun.config.types import Count, Decay
from rlrun.envs.actions import ActionUnits
from rlrun.envs.serial import SerialVectorEnv
from rlrun.envs.tokens.gymnasium_form import TokenTaskEnv
from rlrun.envs.tokens.vocabulary import Language, Vocabulary
from rlrun.errors import UserError

# What a response is paid for.
Reward = Literal["exact", "fraction", "prefix", "format"]

# Prompts that are drawn for one of a share.
MOST_DRAWS = 10_000

# What a well-formed answer that is wrong is paid by the reward `format` (as TinyZero).
PAID_FOR_FORM = 0.1


class Judgement(NamedTuple):
    """What a response is worth, in [0, 1] each.

    Attributes:
        outcome: 1 if it is right and complete, else 0.
        form: 1 if it looks like an answer and is complete, else 0.
        fraction: share of the places at which it agrees with the answer; the end is a place.
        prefix: share of the answer's places before the first mistake.
    """

    outcome: float
    form: float
    fraction: float
    prefix: float

    def reward(self, kind: Reward) -> float:
        """Return what it is paid: only a right answer is paid 1."""
        match kind:
            case "exact":
                return self.outcome
            case "fraction":
                return self.fraction
            case "prefix":
                return self.prefix
            case "format":
                return max(self.outcome, PAID_FOR_FORM * self.form)


@dataclass(kw_only=True)
class TokenTask(ABC):
    """What the tasks of ``conf/env/`` have in common.

    Attributes:
        reward: what a response is paid for.
        held_out: share of the prompts that training never sees and evaluations are on; 0: both are
            on all of them.
        samples: responses to each prompt of an evaluation, of which pass@1 and pass@k are
            estimated, beside the greedy one.
    """

    reward: Reward
    held_out: Decay
    samples: Count

    action_units: ClassVar[ActionUnits] = "raw"
    # Rewards that make no sense, as there are several right answers.
    without: ClassVar[tuple[Reward, ...]] = ()

    def __post_init__(self):
        """Refuse a reward that the task has not."""
        if self.reward in self.without:
            raise ValueError(
                f"reward must not be {self.reward}, which compares with one answer: this task has "
                "several right ones"
            )

    @property
    @abstractmethod
    def id(self) -> str:
        """Name of the task."""

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

    @abstractmethod
    def answer(self, prompt: str) -> str:
        """Return the answer to a prompt, or one of the right ones."""

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

    # ------------------------------------------------------------------ prompts

    def prompt(self, generator: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a prompt of training, or one that training never sees.

        Args:
            generator: source of the draw.
            held_out: which of the two.

        Raises:
            UserError: there is none.
        """
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
        digest = hashlib.blake2b(prompt.encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.held_out * 2**64

    # ------------------------------------------------------------------ as the rest of rlrun asks

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The characters as tokens."""
        return Vocabulary(self.characters)

    @cached_property
    def language(self) -> Language:
        """What a model and a collector have to know."""
        return Language(
            size=len(self.vocabulary),
            end=self.vocabulary.end,
            prompt_rows=self.longest_prompt,
            response_rows=self.time_limit,
            answer_rows=self.answer_rows,
            tokens=self.vocabulary.tokens,
        )

    @property
    def time_limit(self) -> int:
        """Tokens after which a response is truncated: some more than an answer has."""
        if self.answer_rows is not None:
            return self.answer_rows
        return self.longest_answer + 2

    def remarks(self) -> list[str]:
        """Return what a user may not have meant: nothing."""
        return []

    def make(self, *, num_envs: int, threads: int) -> SerialVectorEnv:
        """Make N of its Gymnasium form, of training's prompts (see `EnvironmentSpec`)."""
        del threads
        return SerialVectorEnv([lambda: self.make_single(render_mode=None)] * num_envs)

    def make_held_out(self, *, num_envs: int) -> SerialVectorEnv:
        """Make N of its Gymnasium form, of the prompts that training never sees."""
        return SerialVectorEnv([lambda: TokenTaskEnv(self, held_out=True)] * num_envs)

    def make_single(self, *, render_mode: str | None) -> gym.Env:
        """Make its Gymnasium form.

        Raises:
            UserError: it is to be drawn.
        """
        if render_mode is not None:
            raise UserError(f"{self.id} is text, of which there are no pictures")
        return TokenTaskEnv(self)
