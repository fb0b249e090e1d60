"""Pairs of responses that others have written and compared: a file of them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlrun.collectors.contract import Actor, Collector
from rlrun.collectors.generation import transitions_of
from rlrun.collectors.writing import Responses
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import Prompts, TokenEnv
from rlrun.envs.tokens.datasets.examples import known_as
from rlrun.envs.tokens.datasets.lines import Line, read_lines
from rlrun.errors import UserError, warn

# What a line of the file has, each a text.
KEYS = ("prompt", "chosen", "rejected")


class Comparison(NamedTuple):
    """A line of the file.

    Attributes:
        place: where it is, for messages.
        prompt: what was asked.
        chosen: the better response.
        rejected: the worse one.
    """

    place: str
    prompt: str
    chosen: str
    rejected: str


class Encoded(NamedTuple):
    """M comparisons as tokens.

    Attributes:
        prompts: M of them.
        tokens: of the better responses, then of the worse ones, with their ends, [T, 2M].
        lengths: tokens of each response, [2M].
        left_out: further comparisons, to prompts that training never sees.
    """

    prompts: Prompts
    tokens: Tensor
    lengths: Tensor
    left_out: int


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Settings; ``conf/collector/pairs.yaml`` explains them."""

    path: str

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """N responses, two to a prompt (see :class:`~.contract.CollectorSpec`).

        Raises:
            UserError: N is odd, or there are no prompts.
        """
        if problem.language is None:
            raise UserError(f"collector=pairs has responses, for which {problem.env_id} is no task")
        if num_envs % 2:
            raise UserError(f"algo.num_envs={num_envs} must be even: a pair is two responses")
        return RolloutShape(
            num_envs=num_envs,
            longest=problem.language.response_rows,
            whole_episodes=True,
            group_size=2,
            sequences=True,
            recorded=True,
        )

    def open(self, env: TokenEnv, shape: RolloutShape, *, seed: int) -> Collector:
        """Make the collector (see :class:`~.contract.CollectorSpec`)."""
        pairs = self.read(env)
        if pairs.left_out:
            warn(
                f"collector.path={self.path}: {pairs.left_out} of "
                f"{pairs.left_out + len(pairs.prompts.texts)} pairs are left out, as their prompts "
                "are those of evaluations, which training never sees"
            )
        return PairCollector(pairs, shape, seed)

    def read(self, env: TokenEnv) -> Encoded:
        """Read the file.

        Args:
            env: whose prompts and responses they are.

        Raises:
            UserError: a line is no comparison of responses to a prompt of this task.
        """
        found = self._comparisons()
        comparisons = [each for each in found if not env.task.is_held_out(each.prompt)]
        if not comparisons:
            raise UserError(
                f"collector.path={self.path}: all its prompts are held out: env.held_out=0, say"
            )
        rows = env.task.language.response_rows
        for each in comparisons:
            try:
                env.encoded([each.prompt])
            except UserError as error:
                raise UserError(f"{each.place}: {error}") from error
        responses = [
            response_tokens(env, text, f"{each.place}: {key}")
            for key in KEYS[1:]
            for each in comparisons
            for text in [each._asdict()[key]]
        ]
        tokens = torch.zeros(rows, len(responses), dtype=torch.int64)
        for n, response in enumerate(responses):
            tokens[: len(response), n] = torch.tensor(response)
        return Encoded(
            env.encoded([each.prompt for each in comparisons]),
            tokens,
            torch.tensor([len(response) for response in responses]),
            len(found) - len(comparisons),
        )

    def _comparisons(self) -> list[Comparison]:
        """Read the comparisons.

        Raises:
            UserError: a line is none, or there are none.
        """
        lines = read_lines(self.path, "collector.path", ", ".join(KEYS))
        found = [comparison(line) for line in lines]
        if not found:
            raise UserError(f"collector.path={self.path} has no pairs")
        return found


def comparison(line: Line) -> Comparison:
    """Return the comparison of a line.

    Raises:
        UserError: says what is wrong with it, and where.
    """
    prompt = line.text("prompt")
    chosen, rejected = (line.text(key, may_be_empty=True) for key in KEYS[1:])
    if chosen == rejected:
        raise UserError(f"{line.place}: chosen and rejected are the same")
    return Comparison(line.place, known_as(prompt, line.system), chosen, rejected)


def response_tokens(env: TokenEnv, text: str, place: str) -> list[int]:
    """Return the tokens of a response, with the one that ends it.

    Raises:
        UserError: the task has no such response.
    """
    task, language = env.task, env.task.language
    try:
        tokens = task.vocabulary.encode(text)
    except KeyError as error:
        raise UserError(f"{place} {text!r}: {task.id} has no character {error}") from error
    if language.answer_rows is not None:
        if len(tokens) != language.answer_rows:
            raise UserError(
                f"{place} {text!r} has {len(tokens)} tokens; an answer of {task.id} has "
                f"{language.answer_rows}"
            )
        return tokens
    if not set(language.stops).isdisjoint(tokens):
        raise UserError(f"{place} {text!r}: env.stop ends it before its end")
    tokens = [*tokens, language.end]
    if len(tokens) > language.response_rows:
        raise UserError(
            f"{place} {text!r} has {len(tokens)} tokens with its end; a response of {task.id} has "
            f"at most {language.response_rows}"
        )
    return tokens


class PairCollector:
    """Returns N/2 pairs a call, shuffled anew whenever all have been returned."""

    def __init__(self, pairs: Encoded, shape: RolloutShape, seed: int):
        """Begin before the first pair.

        Args:
            pairs: M of them.
            shape: of the rollouts.
            seed: of the shuffles.
        """
        self._pairs = pairs
        self._count = shape.num_envs // 2
        self._seed = seed
        self._returned = 0

    def collect(self, actor: Actor) -> Transitions:
        """Return the next pairs, whoever acts (see :class:`~.contract.Collector`).

        Of each pair the better response is paid 1, the worse one 0.
        """
        pairs, total = self._pairs, len(self._pairs.prompts.texts)
        numbers = torch.from_numpy(self._next(total))
        both = torch.stack([numbers, numbers + total], 1).flatten()  # of responses, [N]
        asked = numbers.repeat_interleave(2)
        prompts = Prompts(
            pairs.prompts.tokens[:, asked],
            pairs.prompts.blank[asked],
            [pairs.prompts.texts[number] for number in asked.tolist()],
        )
        longest = int(pairs.lengths[both].max())
        tokens = pairs.tokens[:longest, both]
        mask = torch.arange(longest)[:, None] < pairs.lengths[both]
        unknown = torch.full(mask.shape, torch.nan)
        responses = Responses(tokens, unknown, mask, torch.ones(len(both), dtype=torch.bool))
        better = (both < total).float()
        return transitions_of(
            prompts,
            responses,
            reward=better,
            outcome=better,
            group=torch.arange(len(both)) // 2,
            policy_version=0,
            metrics={"pairs/epoch": torch.tensor(self._returned / total)},
        )

    def _next(self, total: int) -> np.ndarray:
        """Return the numbers of the next pairs, [N/2]."""
        places = np.arange(self._returned, self._returned + self._count)
        self._returned += self._count
        epochs = range(places[0] // total, places[-1] // total + 1)
        orders = [np.random.default_rng([self._seed, epoch]).permutation(total) for epoch in epochs]
        return np.concatenate(orders)[places - epochs.start * total]

    def state_dict(self) -> dict[str, Any]:
        """Return how many pairs were returned."""
        return {"returned": self._returned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._returned = state["returned"]
