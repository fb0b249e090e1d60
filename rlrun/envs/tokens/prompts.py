"""Prompts of the user's own: a file of them, and a verifier that knows what is right."""

import inspect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from rlrun.config.types import Count, FunctionIn
from rlrun.envs.tokens.datasets.examples import Example, known_as, read_examples, split
from rlrun.envs.tokens.verified import VerifiedTask
from rlrun.envs.tokens.verifiers import functions
from rlrun.envs.tokens.verifiers.reading import math_verify
from rlrun.errors import UserError

# Times the usual length from which a prompt is remarkable.
UNUSUAL = 20


@dataclass(kw_only=True)
class Prompts(VerifiedTask):
    """Settings; ``conf/env/prompts.yaml`` explains them."""

    path: str
    held_out_path: str | None
    max_prompt_tokens: Count | None
    verifier: Annotated[Callable[..., Any], FunctionIn(functions.__name__)]

    def __post_init__(self):
        """Refuse a function that is no verifier."""
        super().__post_init__()
        signature = inspect.signature(self.verifier)
        try:
            signature.bind("response", "answer")
        except TypeError as error:
            raise ValueError(
                f"verifier must take a response and an answer, and {self.verifier.__name__} takes "
                f"{signature}"
            ) from error

    @property
    def id(self) -> str:
        """Name of the data set."""
        return Path(self.path).stem

    @property
    def verify(self) -> Callable[[str, Any], Any]:
        """Say what a response is worth."""
        return self.verifier

    @property
    def has_answers(self) -> bool:
        """Whether there is a right answer to each prompt that can be written."""
        return self.verifier is not functions.regex

    def remarks(self) -> list[str]:
        """Say, too, by what boxed answers are compared, and whether one prompt makes all slow."""
        remarks = super().remarks()
        if self.verifier is functions.boxed and math_verify() is None:
            remarks.append(
                "env.verifier=boxed compares numbers and texts: with math-verify it knows that "
                "\\frac12 is 0.5 (pip install 'rlrun[math]')"
            )
        lengths = {text: len(tokens) for text, tokens in self._encoded.items()}
        longest, usual = max(lengths, key=lengths.__getitem__), statistics.median(lengths.values())
        if left_out := len(self._parts[1]) - len(self._seen):
            remarks.append(
                f"env.path={self.path}: {left_out} prompts have the tokens of prompts that are "
                "held out, and are left out of training"
            )
        if lengths[longest] > UNUSUAL * usual:
            remarks.append(
                f"{self._file_of(longest)}: line {self._parts[0][longest].line} has a prompt of "
                f"{lengths[longest]:,} tokens, where half of all have {usual:,.0f} at most: all "
                "are filled up to the longest, which takes time and memory"
            )
        return remarks

    # ------------------------------------------------------------------ prompts

    @cached_property
    def _parts(self) -> tuple[dict[str, Example], list[str], list[str]]:
        """All examples by their texts, and the texts of training and those held out.

        Raises:
            UserError: a file cannot be read, or there is nothing to train on.
        """
        examples = read_examples(self.path, "env.path")
        self._require_readable(examples, f"env.path={self.path}")
        if self.held_out_path is None:
            try:
                return examples, *split(list(examples), self.held_out)
            except ValueError as error:
                raise UserError(
                    f"env.held_out={self.held_out}: {error} to hold some out; env.held_out=0 "
                    "trains and evaluates on all of them"
                ) from error
        apart = read_examples(self.held_out_path, "env.held_out_path")
        place = f"env.held_out_path={self.held_out_path}"
        self._require_readable(apart, place)
        for text, example in apart.items():
            if text in examples:
                raise UserError(
                    f"{place}: line {example.line} is line {examples[text].line} of {self.path}: "
                    "training never sees what is held out"
                )
        return {**examples, **apart}, list(examples), list(apart)

    def _require_readable(self, examples: dict[str, Example], place: str) -> None:
        """Refuse answers that the verifier cannot read, if it is one of rlrun's.

        Raises:
            UserError: names the line.
        """
        if self.verifier.__module__ != functions.__name__:
            return
        for example in examples.values():
            try:
                self.verifier("", example.answer)
            except ValueError as error:
                raise UserError(
                    f"{place}: line {example.line}: env.verifier={self.verifier.__name__} cannot "
                    f"read the answer: {error}"
                ) from error

    def prompt(self, generator: np.random.Generator, *, held_out: bool = False) -> str:
        """Draw a prompt, each alike (see :class:`~rlrun.envs.tokens.task.TokenTask`)."""
        texts = self._parts[2] if held_out else self._seen
        return texts[generator.integers(len(texts))]

    def held_out_prompts(self, count: int, seed: int) -> list[str]:
        """Shuffle the prompts of evaluations: none comes twice before each has come once."""
        texts, generator = self._parts[2], np.random.default_rng(seed)
        rounds = -(-count // len(texts))
        order = np.concatenate([generator.permutation(len(texts)) for _ in range(rounds)])
        return [texts[number] for number in order[:count]]

    def is_held_out(self, prompt: str) -> bool:
        """Say whether a prompt is one that training never sees: by its tokens, whoever asks it."""
        try:
            return tuple(self.encode_prompt(prompt)) in self._apart
        except (KeyError, UserError):  # nobody can ask it here
            return False

    @cached_property
    def _apart(self) -> frozenset[tuple[int, ...]]:
        """Tokens of the prompts of evaluations that training never sees."""
        _, training, apart = self._parts
        return frozenset(tuple(self._encoded[text]) for text in {*apart} - {*training})

    @cached_property
    def _seen(self) -> list[str]:
        """Prompts of training: without those that have the tokens of one that is held out.

        Raises:
            UserError: there are no others.
        """
        training = self._parts[1]
        seen = [text for text in training if tuple(self._encoded[text]) not in self._apart]
        if not seen:
            raise UserError(
                f"env.path={self.path}: by env.tokenizer={self.tokenizer} all its prompts have the "
                "tokens of prompts that are held out"
            )
        return seen

    def answer(self, prompt: str) -> str:
        """Return the answer in the file."""
        return self._parts[0][prompt].answer

    def answer_to(self, prompt: str) -> str:
        """Return the answer in the file."""
        return self.answer(prompt)

    # ------------------------------------------------------------------ tokens

    def characters(self) -> str:
        """Return those of the files, in order."""
        found = set()
        for example in self._parts[0].values():
            found |= {*example.text, *example.answer}
        return "".join(sorted(found))

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return a prompt's tokens.

        One that is not in the files has the system text that stands in a line before it, or that
        of all examples.

        Raises:
            UserError: it has none of those that the examples have.
        """
        known = self._encoded.get(prompt)
        if known is not None:
            return known
        # One may begin as another one does.
        for before in sorted(filter(None, self._systems), key=len, reverse=True):
            if prompt.startswith(known_as("", before)):
                rest = prompt.removeprefix(known_as("", before))
                return self.vocabulary.encode_prompt(rest, before)
        if None not in self._systems and len(self._systems) > 1:
            raise UserError(
                f"prompt {prompt!r}: all examples of {self.id} have a system text, and not all the "
                f"same; put one in a line before it, as {self._systems[0]!r}"
            )
        system = self._systems[0] if len(self._systems) == 1 else None
        return self.vocabulary.encode_prompt(prompt, system)

    @cached_property
    def _systems(self) -> list[str | None]:
        """The system texts of the examples, in the order of the files."""
        return list(dict.fromkeys(example.system for example in self._parts[0].values()))

    def encoded_answer(self, prompt: Sequence[int]) -> list[int]:
        """Return the tokens of the answer to a prompt, of which the tokens are given."""
        return self.vocabulary.encode(self.answer(self._texts[tuple(prompt)]))

    @cached_property
    def _encoded(self) -> dict[str, list[int]]:
        """The tokens of prompts, by their texts."""
        encode = self.vocabulary.encode_prompt
        return {
            text: encode(example.prompt, example.system) for text, example in self._parts[0].items()
        }

    @cached_property
    def _texts(self) -> dict[tuple[int, ...], str]:
        """Prompts by their tokens.

        Raises:
            UserError: two have the same, and not the same answer; their lines are named.
        """
        found: dict[tuple[int, ...], str] = {}
        for text, tokens in self._encoded.items():
            earlier = found.setdefault(tuple(tokens), text)
            if self.answer(earlier) != self.answer(text):
                line, other = (self._parts[0][each].line for each in (text, earlier))
                raise UserError(
                    f"{self._file_of(text)}: line {line} is told by no token from line {other} of "
                    f"{self._file_of(earlier)}, which has another answer: env.tokenizer="
                    f"{self.tokenizer} has the same tokens for both"
                )
        return found

    @cached_property
    def prompt_rows(self) -> int:
        """Tokens of the longest prompt.

        Raises:
            UserError: one is longer than it may be, or an answer is, or has the tokens of another
                one; their lines are named.
        """
        # Mistakes are said before the first step.
        if self.has_answers:
            len(self._texts)
        len(self._seen)
        longest = 0
        for text, example in self._parts[0].items():
            count, place = len(self._encoded[text]), f"{self._file_of(text)}: line"
            if self.max_prompt_tokens is not None and count > self.max_prompt_tokens:
                raise UserError(
                    f"{place} {example.line}: the prompt has {count} tokens, more than "
                    f"env.max_prompt_tokens={self.max_prompt_tokens}"
                )
            longest = max(longest, count)
            answer = self.vocabulary.encode(example.answer) if self.has_answers else []
            if self.ends_early(answer):
                raise UserError(f"{place} {example.line}: env.stop ends the answer before its end")
            written = len(answer) + self.has_answers
            if written > self.max_response_tokens:
                raise UserError(
                    f"{place} {example.line}: the answer has {written} tokens with its end, more "
                    f"than env.max_response_tokens={self.max_response_tokens}"
                )
        return longest

    def _file_of(self, text: str) -> str:
        """Name the file that an example is in."""
        if self.held_out_path is not None and text in self._parts[2]:
            return f"env.held_out_path={self.held_out_path}"
        return f"env.path={self.path}"
