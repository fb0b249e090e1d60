"""Segments: every environment takes T steps; the next rollout goes on where this one stops."""

from dataclasses import dataclass
from typing import Any

import torch

from rlrun.collectors.contract import Actor
from rlrun.config.types import Count
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.data.rollout_buffer import RolloutBuffer
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Settings of `SegmentCollector`; ``conf/collector/segments.yaml`` explains them."""

    horizon: Count

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """T rows of each of N environments (see :class:`~.contract.CollectorSpec`)."""
        return RolloutShape(
            num_envs=num_envs, longest=self.horizon, whole_episodes=False, group_size=1
        )

    def open(self, env: ControlEnv, shape: RolloutShape, *, seed: int) -> "SegmentCollector":
        """Start new episodes in every environment (see :class:`~.contract.CollectorSpec`)."""
        env.reset(seed)
        return SegmentCollector(env, self.horizon)


class SegmentCollector:
    """Steps every environment T times, whatever begins or ends on the way."""

    def __init__(self, env: ControlEnv, horizon: int):
        """Go on from where the environments are.

        Args:
            env: N environments, reset.
            horizon: T, steps of a call.
        """
        self.env = env
        self.horizon = horizon

    def collect(self, actor: Actor) -> Transitions:
        """Let the actor act for T steps (see :class:`~.contract.Collector`)."""
        buffer = RolloutBuffer()
        with torch.inference_mode():
            for _ in range(self.horizon):
                obs = self.env.obs
                action, behaviour = actor.act(obs)
                buffer.append(obs, action, behaviour, self.env.step(action))
        mask = torch.ones(self.horizon, self.env.num_envs, dtype=torch.bool, device=self.env.device)
        return buffer.transitions(
            mask=mask,
            group=None,
            whole_episodes=False,
            policy_version=actor.version,
            steps=mask.numel(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the environments, in the middle of their episodes."""
        return {"env": self.env.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.env.load_state_dict(state["env"])
