"""Tasks whose prompts come from elsewhere, and whose responses a verifier judges."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from rlrun.config.types import Count, Positive
from rlrun.envs.tokens.pretrained import PretrainedTokenizer
from rlrun.envs.tokens.task import Judge, Reward, TokenTask
from rlrun.envs.tokens.verifiers.judge import Verifier, VerifierJudge
from rlrun.envs.tokens.vocabulary import Bytes, Language, Tokenizer, Vocabulary

# What a tokeniser is called that is no directory's.
BYTES, CHARACTERS = "bytes", "characters"


@dataclass(kw_only=True)
class VerifiedTask(TokenTask):
    """What such tasks have in common.

    Attributes:
        tokenizer: "characters", "bytes", or the directory of a model.
        max_response_tokens: tokens after which a response is truncated.
        verifier_seconds: that a verifier may take for a response.
    """

    tokenizer: str
    max_response_tokens: Count
    verifier_seconds: Positive

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
        )
