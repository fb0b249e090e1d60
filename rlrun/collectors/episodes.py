"""Whole episodes, one in each environment, in groups that begin from one start."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlrun.collectors.contract import Actor
from rlrun.config.types import Count
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.rollout_buffer import RolloutBuffer
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """Settings of `EpisodeCollector`; ``conf/collector/episodes.yaml`` explains them."""

    group_size: Count

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """N episodes in groups (see :class:`~.contract.CollectorSpec`).

        Raises:
            UserError: groups do not fit into the environments, or episodes may go on for ever.
        """
        if num_envs % self.group_size:
            raise UserError(
                f"algo.num_envs={num_envs} is not a multiple of "
                f"collector.group_size={self.group_size}"
            )
        if problem.time_limit is None:
            raise UserError(
                f"{problem.env_id} has no time limit, which whole episodes need: "
                "env.max_episode_steps=1000, say"
            )
        return RolloutShape(
            num_envs=num_envs,
            longest=problem.time_limit,
            whole_episodes=True,
            group_size=self.group_size,
        )

    def open(self, env: ControlEnv, shape: RolloutShape, *, seed: int) -> "EpisodeCollector":
        """Make the collector (see :class:`~.contract.CollectorSpec`)."""
        return EpisodeCollector(env, shape, seed)


class EpisodeCollector:
    """Plays one whole episode in each environment, ``group_size`` of them from each start.

    The members of a group share the environment's seed, and so its start and its noise; their
    actions' noise is their own. An environment whose episode has ended waits for the others.

    Every episode counts, however long: taking those that happen to fit into a segment would
    favour short ones.
    """

    def __init__(self, env: ControlEnv, shape: RolloutShape, seed: int):
        """Begin before the first episode.

        Args:
            env: N environments.
            shape: of the rollouts.
            seed: of the first start; every start has one of its own, counted up from it.
        """
        self.env = env
        self._longest = shape.longest
        self._group = torch.arange(env.num_envs, device=env.device) // shape.group_size
        self._grouped = shape.group_size > 1
        self._next_seed = seed

    def collect(self, actor: Actor) -> Transitions:
        """Let the actor act until every episode has ended (see :class:`~.contract.Collector`).

        Raises:
            UserError: one goes on after its time limit.
        """
        buffer = RolloutBuffer()
        masks: list[Tensor] = []
        with torch.inference_mode():
            seeds = (self._group + self._next_seed).tolist()
            self._next_seed = seeds[-1] + 1
            obs = self.env.reset(seeds)
            running = torch.ones(self.env.num_envs, dtype=torch.bool, device=self.env.device)
            while running.any():
                if len(masks) == self._longest:
                    raise self._endless(running, seeds)
                action, behaviour = actor.act(obs)
                rows = None if running.all() else running.nonzero().squeeze(-1)
                step = self.env.step(action, rows)
                buffer.append(obs, action, behaviour, step)
                masks.append(running)
                obs, running = step.obs, running & ~(step.terminated | step.truncated)
        mask = torch.stack(masks)
        return buffer.transitions(
            mask=mask,
            group=self._group.expand_as(mask) if self._grouped else None,
            whole_episodes=True,
            policy_version=actor.version,
            steps=int(mask.sum()),
        )

    def _endless(self, running: Tensor, seeds: list[int]) -> UserError:
        """Say which episode goes on: a wrapper around the one that counts the steps may hide it."""
        late = int(running.int().argmax())
        return UserError(
            f"the episode of environment {late} (seed {seeds[late]}) goes on after "
            f"{self._longest} steps, the time limit, which whole episodes rely on: does a "
            "wrapper hide that it is truncated?"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the next start; no episode is under way."""
        return {"next_seed": self._next_seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._next_seed = state["next_seed"]
