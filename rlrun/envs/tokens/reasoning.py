"""Prompts of the package reasoning-gym (Stojanovski et al. 2025), a hundred generators of them."""

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, TypeVar

import numpy as np

from rlrun.config.types import Count
from rlrun.envs.tokens.procedural import MOST_DRAWS, share_of
from rlrun.envs.tokens.verified import CHARACTERS, VerifiedTask
from rlrun.envs.tokens.verifiers.judge import Verifier
from rlrun.errors import UserError, did_you_mean

K = TypeVar("K")
V = TypeVar("V")

# Prompts whose answers are known: those of an iteration, and many more.
KNOWN = 100_000

# Entries of a data set, most of which are made when they are drawn.
DEFAULTS = {"seed": 0, "size": 1_000_000}


@dataclass(kw_only=True)
class ReasoningGym(VerifiedTask):
    """Settings; ``conf/env/reasoning_gym.yaml`` explains them."""

    dataset: str
    options: dict[str, Any]
    max_prompt_tokens: Count

    # The entries that were drawn last, by their texts, and these by their tokens.
    entries: OrderedDict[str, dict[str, Any]] = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )
    texts: OrderedDict[tuple[int, ...], str] = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )

    @property
    def id(self) -> str:
        """Name of the data set."""
        return self.dataset

    @cached_property
    def _dataset(self) -> Any:
        """Make prompts by their numbers.

        Raises:
            UserError: the package is not there, or has no such data set.
        """
        if importlib.util.find_spec("reasoning_gym") is None:
            raise UserError(
                "env=reasoning_gym needs reasoning-gym: pip install 'rlrun[reasoning_gym]'"
            )
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self.dataset not in DATASETS:
            hint = did_you_mean(self.dataset, DATASETS)
            raise UserError(f"env.dataset={self.dataset}: reasoning-gym has no such data set{hint}")
        try:
            return reasoning_gym.create_dataset(self.dataset, **{**DEFAULTS, **self.options})
        except Exception as error:  # whatever a generator makes of its options
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"env.options: {self.dataset}: {reason}") from error

    @property
    def verify(self) -> Verifier:
        """Say what a response is worth: the data set's own score."""
        return score

    def answer_to(self, prompt: str) -> dict[str, Any]:
        """Return the entry of a prompt."""
        return self.entries[prompt]

    def answer(self, prompt: str) -> str:
        """Return the answer of an entry."""
        answer = self.entries[prompt]["answer"]
        if answer is None:
            raise UserError(f"env.dataset={self.dataset}: there is no answer to {prompt!r}")
        return str(answer)

    def prompt(self, generator: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a prompt that is not too long (see :class:`~rlrun.envs.tokens.task.TokenTask`)."""
        for _ in range(MOST_DRAWS):
            entry = self._dataset[int(generator.integers(len(self._dataset)))]
            text = entry["question"]
            if self.held_out > 0 and self.is_held_out(text) is not held_out:
                continue
            tokens = self.encode_prompt(text)
            if len(tokens) > self.max_prompt_tokens or not self._can_be_written(entry["answer"]):
                continue
            keep_newest(self.entries, text, entry)
            keep_newest(self.texts, tuple(tokens), text)
            return text
        raise UserError(
            f"env.dataset={self.dataset} has too few prompts of at most "
            f"env.max_prompt_tokens={self.max_prompt_tokens}, and answers of at most "
            f"env.max_response_tokens={self.max_response_tokens}, with "
            f"env.held_out={self.held_out} and env.stop={self.stop}"
        )

    def is_held_out(self, prompt: str) -> bool:
        """Say whether a prompt is one that training never sees."""
        return share_of(prompt) < self.held_out

    def encoded_answer(self, prompt: Sequence[int]) -> list[int]:
        """Return the tokens of the answer to a prompt, of which the tokens are given."""
        return self.vocabulary.encode(self.answer(self.texts[tuple(prompt)]))

    def _can_be_written(self, answer: Any) -> bool:
        """Say whether an answer is a response that ends in time; there may be none."""
        if answer is None:
            return True
        tokens = self.vocabulary.encode(str(answer))
        return len(tokens) < self.max_response_tokens and not self.ends_early(tokens)

    def characters(self) -> str:
        """Refuse: they are not known before they are drawn."""
        raise UserError(
            f"env.tokenizer={CHARACTERS}: those of {self.dataset} are not known; bytes, or the "
            "directory of a model"
        )

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return a prompt's tokens."""
        return self.vocabulary.encode_prompt(prompt, None)

    @property
    def prompt_rows(self) -> int:
        """Tokens of the longest prompt.

        Raises:
            UserError: there is no such data set.
        """
        len(self._dataset)  # made before the first step, which is when its mistakes are said
        return self.max_prompt_tokens


def keep_newest(known: OrderedDict[K, V], key: K, value: V) -> None:
    """Put in what was drawn now, and forget what was drawn the longest ago if there is too much."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > KNOWN:
        known.popitem(last=False)


def score(response: str, entry: dict[str, Any]) -> float:
    """Return what a response is worth, by the data set that made its prompt.

    Args:
        response: without the blanks around it.
        entry: of the data set.
    """
    return scorer(entry["metadata"]["source_dataset"])(response.strip(), entry)


@cache
def scorer(dataset: str) -> Callable[[str, dict[str, Any]], float]:
    """Return what scores responses to a data set's prompts: one of it is made for that."""
    import reasoning_gym

    return reasoning_gym.get_score_answer_fn(dataset)
