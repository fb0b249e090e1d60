"""Collects whole responses to prompts, which a policy or another engine writes, in groups."""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from rlrun.collectors import engines
from rlrun.collectors.contract import Collector
from rlrun.collectors.dynamic_sampling import DynamicSamplingCollector
from rlrun.collectors.mismatch import corrected
from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import Responses, WritingActor
from rlrun.config.types import (
    Count,
    FunctionIn,
    NonNegative,
    NonNegativeInt,
    PositiveOrInfinite,
)
from rlrun.data.normalize import RunningMoments
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.sequences import Sequences
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import Prompts, TokenEnv, Verdict
from rlrun.envs.tokens.task import TokenTask
from rlrun.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Refill:
    """Dynamic sampling (see :class:`~.dynamic_sampling.DynamicSampling`).

    Attributes:
        max_refills: further generations that replace groups without a spread of outcomes.
        spread_tolerance: largest difference of a group's outcomes that counts as none.
    """

    max_refills: NonNegativeInt
    spread_tolerance: NonNegative


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Settings of `GenerationCollector`; ``conf/collector/generation.yaml`` explains them."""

    group_size: Count
    sampling: Sampling
    engine: Annotated[Callable[[], engines.Engine], FunctionIn(engines.__name__)]
    truncated_importance: PositiveOrInfinite | None
    refill: Refill | None

    def __post_init__(self):
        """Refuse an engine that cannot be opened."""
        if inspect.signature(self.engine).parameters:
            raise ValueError(
                "engine is to be a function without arguments, which returns what writes"
            )

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """N responses in groups (see :class:`~.contract.CollectorSpec`).

        Raises:
            UserError: groups do not fit.
        """
        assert problem.language is not None
        if num_envs % self.group_size:
            raise UserError(
                f"algo.num_envs={num_envs} is not a multiple of "
                f"collector.group_size={self.group_size}"
            )
        if self.refill is not None and self.group_size < 2:
            raise UserError(
                "collector.refill drops groups without a spread: collector.group_size=8, say"
            )
        return RolloutShape(
            num_envs=num_envs,
            longest=problem.language.response_rows,
            whole_episodes=True,
            group_size=self.group_size,
            may_be_empty=self.refill is not None,
            sequences=True,
        )

    def open(self, env: TokenEnv, shape: RolloutShape, *, seed: int) -> Collector:
        """Make the collector (see :class:`~.contract.CollectorSpec`).

        Raises:
            UserError: the engine cannot be opened.
        """
        engine = self.engine()
        if not callable(engine):
            raise UserError(
                f"collector.engine: {self.engine.__name__}() is to return what writes "
                f"(rlrun/collectors/engines.py), got {type(engine).__name__}"
            )
        groups = GenerationCollector(
            env,
            shape,
            self.sampling,
            seed,
            engine=engine,
            other_engine=self.engine is not engines.own,
            truncated_importance=self.truncated_importance,
        )
        if self.refill is None:
            return groups
        return DynamicSamplingCollector(
            groups,
            shape,
            max_refills=self.refill.max_refills,
            spread_tolerance=self.refill.spread_tolerance,
        )


class GenerationCollector:
    """Writes N responses a call, ``group_size`` of them to each prompt."""

    def __init__(
        self,
        env: TokenEnv,
        shape: RolloutShape,
        sampling: Sampling,
        seed: int,
        *,
        engine: engines.Engine,
        other_engine: bool,
        truncated_importance: float | None = None,
    ):
        """Begin before the first prompt.

        Args:
            env: N prompts at a time, and their judge.
            shape: of the rollouts.
            sampling: how tokens are drawn.
            seed: of the first prompt; every prompt has one of its own, counted up from it.
            engine: writes.
            other_engine: whether that is not the policy itself.
            truncated_importance: largest weight of a token that was not drawn from the policy as it
                is; None: they are not weighed.
        """
        self._engine = engine
        self._other_engine = other_engine
        self._bound = truncated_importance
        self.env = env
        self._sampling = sampling
        self._group = torch.arange(env.num_envs, device=env.device) // shape.group_size
        self._grouped = shape.group_size > 1
        self._next_seed = seed

    def collect(self, actor: Any) -> Transitions:
        """Write a response to each of N prompts (see :class:`~.contract.Collector`).

        Args:
            actor: a :class:`WritingActor`.

        Raises:
            UserError: the task has no prompts.
        """
        writer: WritingActor = actor
        env = self.env
        seeds = (self._group + self._next_seed).tolist()
        self._next_seed = seeds[-1] + 1
        prompts = env.prompts(seeds)
        responses = self._engine(
            writer.policy,
            prompts,
            env.task.language,
            sampling=self._sampling,
            generator=writer.generator,
            device=writer.device,
        )
        verdict = env.judge(prompts.texts, responses.tokens, responses.complete)
        env.note(verdict.reward, responses.lengths)
        transitions = transitions_of(
            prompts,
            responses,
            reward=verdict.reward,
            outcome=verdict.outcome,
            group=self._group if self._grouped else None,
            policy_version=writer.version,
            metrics=described(responses, verdict, env.task),
        )
        weighed = self._bound is not None and not self._sampling.changes_nothing
        if not writer.in_training or not (weighed or self._other_engine):
            return transitions
        return corrected(
            transitions,
            writer.policy,
            self._sampling,
            self._bound,
            other_engine=self._other_engine,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the next prompt; no response is under way."""
        return {"next_seed": self._next_seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._next_seed = state["next_seed"]


def transitions_of(
    prompts: Prompts,
    responses: Responses,
    *,
    reward: Tensor,
    outcome: Tensor,
    group: Tensor | None,
    policy_version: int,
    metrics: dict[str, Tensor],
) -> Transitions:
    """Make one batch of prompts, responses, and what these are worth.

    Args:
        prompts: N of them.
        responses: to them.
        reward: what each is paid, [N].
        outcome: whether it is right, [N].
        group: number of each one's group, [N], or None.
        policy_version: of the policy that wrote.
        metrics: for the logs, each [].
    """
    mask, complete = responses.mask, responses.complete
    after = torch.cat([mask[1:], torch.zeros_like(mask[:1])])
    last = mask & ~after
    tokens = torch.cat([prompts.tokens, responses.tokens])
    obs = Sequences(tokens, prompts.blank, len(prompts.tokens))
    return Transitions(
        obs=obs,
        next_obs=obs.successors(),
        action=responses.tokens,
        logp=responses.logp,
        reward=torch.where(last, reward, 0.0),
        terminated=last,  # also if it was cut: it has been judged, and nothing follows it
        truncated=last & ~complete,
        mask=mask,
        whole_episodes=True,
        group=None if group is None else group.expand_as(mask),
        policy_version=torch.full(mask.shape, policy_version),
        obs_moments=RunningMoments(1),
        steps=int(mask.sum()),
        outcome=torch.where(last, outcome, 0.0),
        metrics=metrics,
    )


def described(responses: Responses, verdict: Verdict, task: TokenTask) -> dict[str, Tensor]:
    """Say what was written, for the logs."""
    lengths = responses.lengths.float()
    return {
        **verdict.metrics("train", task.without),
        "train/truncated": (~responses.complete).float().mean(),
        "train/length_max": lengths.max(),
        "train/distinct": torch.tensor(len(Counter(verdict.texts)) / len(verdict.texts)),
    }
