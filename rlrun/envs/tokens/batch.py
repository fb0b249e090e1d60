"""A batch of prompts, and the judge of the responses to them: tensors of tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlrun.envs.tokens.task import Judgement, Reward, TokenTask
from rlrun.envs.tokens.vocabulary import padded_above
from rlrun.errors import UserError


class Prompts(NamedTuple):
    """N prompts.

    Attributes:
        tokens: each ends in the last row, [P, N] (int64).
        blank: rows above each of them, [N].
        texts: as they were drawn.
    """

    tokens: Tensor
    blank: Tensor
    texts: list[str]


class Verdict(NamedTuple):
    """What N responses are worth.

    Attributes:
        reward: what they are paid, [N].
        outcome: whether they are right, 0 or 1, [N].
        judgements: what there is to say of each.
        texts: as the judge read them.
    """

    reward: Tensor
    outcome: Tensor
    judgements: list[Judgement]
    texts: list[str]

    def metrics(self, prefix: str, without: Sequence[Reward]) -> dict[str, Tensor]:
        """Return the mean of each part of what they are worth, whichever is paid, each [].

        Args:
            prefix: of the names ("train").
            without: rewards that say nothing of this task.
        """
        outcome, form, fraction, shared, failed = torch.tensor(self.judgements).mean(0)
        parts = {"fraction": fraction, "prefix": shared}
        return {
            f"{prefix}/outcome": outcome,
            f"{prefix}/format": form,
            **{f"{prefix}/{name}": parts[name] for name in parts if name not in without},
            f"{prefix}/verifier_failed": failed,
        }


class TokenEnv:
    """N prompts of a task at a time.

    Attributes:
        device: where the tensors are that come out and go in.
        num_envs: N.
        task: whose prompts they are.
        restarted: prompts that a saved state could not go on with: it has none of its own.
    """

    device = torch.device("cpu")
    restarted: tuple[int, ...] = ()

    def __init__(self, task: TokenTask, *, num_envs: int):
        """Take a task.

        Args:
            task: from ``conf/env/``.
            num_envs: N.
        """
        self.task = task
        self.num_envs = num_envs
        self._judge = task.open_judge()
        self._episodes: list[tuple[float, int]] = []

    def prompts(self, seeds: Sequence[int]) -> Prompts:
        """Draw prompts of training; equal seeds draw the same one.

        Args:
            seeds: of each, N numbers.

        Raises:
            UserError: there are none.
        """
        drawn = {
            seed: self.task.prompt(np.random.default_rng(seed)) for seed in dict.fromkeys(seeds)
        }
        return self.encoded([drawn[seed] for seed in seeds])

    def held_out_prompts(self, seed: int) -> Prompts:
        """Draw prompts that training never sees.

        Args:
            seed: of all N.

        Raises:
            UserError: there are none.
        """
        return self.encoded(self.task.held_out_prompts(self.num_envs, seed))

    def encoded(self, texts: list[str]) -> Prompts:
        """Return prompts as tokens.

        Args:
            texts: N prompts.

        Raises:
            UserError: one is too long or empty, or has a character that the task has not.
        """
        rows, language = self.task.language.prompt_rows, self.task.language
        tokens = []
        for text in texts:
            try:
                encoded = self.task.encode_prompt(text)
            except KeyError as error:
                known = "".join(language.tokens[: language.end])
                raise UserError(
                    f"prompt {text!r}: {self.task.id} has no character {error}; it has {known}"
                ) from error
            if not 0 < len(encoded) <= rows:
                raise UserError(
                    f"prompt {text!r} has {len(encoded)} tokens; a prompt of {self.task.id} has 1 "
                    f"to {rows}"
                )
            tokens.append(encoded)
        blank = torch.tensor([rows - len(row) for row in tokens])
        return Prompts(torch.tensor(padded_above(tokens, rows, 0)).T.contiguous(), blank, texts)

    def judge(self, texts: Sequence[str], response: Tensor, complete: Tensor) -> Verdict:
        """Say what responses are worth.

        Args:
            texts: the prompts.
            response: tokens, [T, N]; behind the token that ends one they mean nothing.
            complete: whether each ended by itself, [N]; those that did not have T tokens.
        """
        responses = self.written(response)
        judgements = self._judge.judge(texts, responses, complete.tolist())
        return Verdict(
            torch.tensor([judgement.reward(self.task.reward) for judgement in judgements]),
            torch.tensor([judgement.outcome for judgement in judgements]),
            judgements,
            responses,
        )

    def written(self, response: Tensor) -> list[str]:
        """Return the texts of responses [T, N], each as far as the token that ends it."""
        language, decode = self.task.language, self.task.vocabulary.decode
        return [decode(language.until_end(row)) for row in response.T.tolist()]

    def note(self, rewards: Tensor, lengths: Tensor) -> None:
        """Take note of responses, for the logs: what they were paid, and their tokens, [N]."""
        self._episodes += zip(rewards.tolist(), lengths.tolist(), strict=True)

    def drain_episodes(self) -> list[tuple[float, int]]:
        """Return reward and length of the responses since the last call, and forget them."""
        episodes, self._episodes = self._episodes, []
        return episodes

    def close(self) -> None:
        """Let the judge go."""
        self._judge.close()
