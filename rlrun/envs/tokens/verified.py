"""Tasks whose prompts come from elsewhere, and whose responses a verifier judges."""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from rlrun.config.types import Count, Positive
from rlrun.envs.tokens.pretrained import PretrainedTokenizer
from rlrun.envs.tokens.task import Judge, Reward, TokenTask
from rlrun.envs.tokens.verifiers.judge import Verifier, VerifierJudge
from rlrun.envs.tokens.vocabulary import Bytes, Language, Tokenizer, Vocabulary
from rlrun.errors import UserError

# What a tokeniser is called that is no directory's.
BYTES, CHARACTERS = "bytes", "characters"


@dataclass(kw_only=True)
class VerifiedTask(TokenTask):
    """What such tasks have in common.

    Attributes:
        tokenizer: "characters", "bytes", or the directory of a model.
        max_response_tokens: tokens after which a response is truncated.
        verifier_seconds: that a verifier may take for a response.
        stop: texts of further tokens that end a response; runs from before have none.
    """

    tokenizer: str
    max_response_tokens: Count
    verifier_seconds: Positive
    stop: list[str] = field(default_factory=list)

    without: ClassVar[tuple[Reward, ...]] = ("prefix",)

    @property
    @abstractmethod
    def verify(self) -> Verifier:
        """Say what a response is worth: response, what `answer_to` returns -> score."""

    @abstractmethod
    def answer_to(self, prompt: str) -> Any:
        """Return what the verifier compares responses to a prompt with."""

    @property
    @abstractmethod
    def prompt_rows(self) -> int:
        """Tokens of the longest prompt."""

    @abstractmethod
    def characters(self) -> str:
        """Return what prompts and answers are made of.

        Raises:
            UserError: nobody knows.
        """

    def open_judge(self) -> Judge:
        """Return who asks the verifier."""
        return VerifierJudge(self.verify, self.answer_to, self.verifier_seconds)

    @cached_property
    def vocabulary(self) -> Tokenizer:
        """Between texts and tokens."""
        kinds: dict[str, Callable[[], Tokenizer]] = {
            BYTES: Bytes,
            CHARACTERS: lambda: Vocabulary(self.characters()),
        }
        if self.tokenizer in kinds:
            return kinds[self.tokenizer]()
        return PretrainedTokenizer(self.tokenizer, "env.tokenizer")

    @cached_property
    def language(self) -> Language:
        """What a model and a collector have to know."""
        return Language(
            size=len(self.vocabulary),
            end=self.vocabulary.end,
            prompt_rows=self.prompt_rows,
            response_rows=self.max_response_tokens,
            answer_rows=None,
            tokens=self.vocabulary.tokens,
            stops=self.stops,
        )

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Further tokens that end a response.

        Raises:
            UserError: one is no token.
        """
        return tuple(self._number_of(text) for text in self.stop)

    def _number_of(self, text: str) -> int:
        """Return the number of the token that is all of a text."""
        if text in self.vocabulary.tokens:
            return self.vocabulary.tokens.index(text)
        try:
            tokens = self.vocabulary.encode(text)
        except KeyError:  # a character that is no token
            tokens = []
        # What is unknown is a token, too, by some tokenisers: one of no text.
        if len(tokens) != 1 or self.vocabulary.decode(tokens) != text:
            raise UserError(
                f"env.stop: {text!r} is not one token of env.tokenizer={self.tokenizer}"
            )
        return tokens[0]

    def ends_early(self, answer: Sequence[int]) -> bool:
        """Say whether nobody can write an answer, as a token in it ends a response."""
        return not set(self.stops).isdisjoint(answer)

    def remarks(self) -> list[str]:
        """Say that a model ends responses with tokens that are none here."""
        if not isinstance(self.vocabulary, PretrainedTokenizer):
            return []
        others = {*self.vocabulary.ends_of_model()} - {self.vocabulary.end, *self.stops}
        if not others:
            return []
        names = [self.vocabulary.tokens[token] for token in sorted(others)]
        named = json.dumps(names, ensure_ascii=False)
        return [
            f"{self.tokenizer} names further tokens that end a response (generation_config.json), "
            f"which go on here without env.stop={named}"
        ]
