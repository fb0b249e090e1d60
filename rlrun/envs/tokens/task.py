"""A task of language: prompts by the thousand, and a program that says whether an answer is right.

A task is a Markov decision process: a state is the prompt with what was written so far, an action
the next token, a step a token, and the reward comes with the last one. It has two forms. The first
is a batch of prompts and their judge (`TokenEnv`), for who writes whole responses. The second is a
Gymnasium environment (`gymnasium_form.py`), for who takes single steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from rlrun.config.types import Count, Decay
from rlrun.envs.actions import ActionUnits
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.tokens.gymnasium_form import TokenTaskEnv
from rlrun.envs.tokens.vocabulary import Language, Tokenizer
from rlrun.errors import UserError

# What a response is paid for.
Reward = Literal["exact", "fraction", "prefix", "format"]

# What a well-formed answer that is wrong is paid by the reward `format` (as TinyZero).
PAID_FOR_FORM = 0.1


class Judgement(NamedTuple):
    """What a response is worth, in [0, 1] each.

    Attributes:
        outcome: 1 if it is right and complete, else 0.
        form: 1 if it looks like an answer and is complete, else 0.
        fraction: share of the places at which it agrees with the answer; the end is a place.
        prefix: share of the answer's places before the first mistake.
        failed: 1 if the judge failed, and the response is paid nothing for that.
    """

    outcome: float
    form: float
    fraction: float
    prefix: float
    failed: float = 0.0

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


class Judge(Protocol):
    """Says what responses are worth."""

    def judge(
        self, prompts: Sequence[str], responses: Sequence[str], complete: Sequence[bool]
    ) -> list[Judgement]:
        """Judge N responses.

        Args:
            prompts: that were drawn.
            responses: to them, without the token that ends one.
            complete: whether each ended by itself.
        """
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


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
    # Rewards that make no sense, as there are several right answers, or ways to write one.
    without: ClassVar[tuple[Reward, ...]] = ()

    def __post_init__(self):
        """Refuse a reward that the task has not."""
        if self.reward in self.without:
            raise ValueError(
                f"reward must not be {self.reward}, which compares with one answer: "
                "several are right here, or are written in several ways"
            )

    @property
    @abstractmethod
    def id(self) -> str:
        """Name of the task."""

    @property
    @abstractmethod
    def vocabulary(self) -> Tokenizer:
        """Between texts and tokens."""

    @property
    @abstractmethod
    def language(self) -> Language:
        """What a model and a collector have to know."""

    @abstractmethod
    def prompt(self, generator: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a prompt of training, or one that training never sees.

        Args:
            generator: source of the draw.
            held_out: which of the two.

        Raises:
            UserError: there is none.
        """

    def held_out_prompts(self, count: int, seed: int) -> list[str]:
        """Draw the prompts of an evaluation, which training never sees.

        Args:
            count: of them.
            seed: of the first one; each has its own.

        Raises:
            UserError: there are none.
        """
        seeds = range(seed, seed + count)
        return [self.prompt(np.random.default_rng(each), held_out=True) for each in seeds]

    @abstractmethod
    def is_held_out(self, prompt: str) -> bool:
        """Say whether a prompt is one that training never sees."""

    @abstractmethod
    def open_judge(self) -> Judge:
        """Return who says what responses are worth."""

    @property
    def has_answers(self) -> bool:
        """Whether there is a right answer to each prompt that can be written."""
        return True

    @abstractmethod
    def answer(self, prompt: str) -> str:
        """Return the answer to a prompt, or one of the right ones."""

    # ------------------------------------------------------------------ as the rest of rlrun asks

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return a prompt's tokens.

        Raises:
            KeyError: it has a character that is no token.
        """
        return self.vocabulary.encode(prompt)

    def encoded_answer(self, prompt: Sequence[int]) -> list[int]:
        """Return the tokens of the answer to a prompt, of which the tokens are given."""
        return self.vocabulary.encode(self.answer(self.vocabulary.decode(prompt)))

    @property
    def time_limit(self) -> int:
        """Tokens after which a response is truncated."""
        return self.language.response_rows

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
