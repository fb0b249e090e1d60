"""Collecting rollouts: segments that go on where the last one stopped, or whole episodes."""

import torch
from torch import Tensor

from rlrun.collectors.contract import Actor
from rlrun.data.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.data.rollout import Rollout
from rlrun.data.rollout_buffer import Tape
from rlrun.envs.control import ControlEnv


class SegmentCollector:
    """Steps every environment ``horizon`` times; the next rollout goes on where this one stops."""

    def __init__(
        self,
        env: ControlEnv,
        *,
        horizon: int,
        observation_normalizer: ObservationNormalizer,
        reward_normalizer: RewardNormalizer,
        device: torch.device,
    ):
        self.env = env
        self.steps = 0
        self._tape = Tape(env, horizon)
        self._mask = torch.ones(horizon, env.num_envs, dtype=torch.bool)
        self.observation_normalizer = observation_normalizer
        self.reward_normalizer = reward_normalizer
        self.device = device

    def reset(self, seed: int) -> None:
        """Start new episodes in every environment."""
        self.env.reset(seed)

    def collect(self, actor: Actor) -> Rollout:
        """Let the actor act for a horizon of steps (see :class:`Collector`)."""
        return self._tape.to_rollout(
            actor,
            # The copy is an ordinary tensor, which autograd takes; those of inference mode are not.
            action=self._play(actor).clone(),
            mask=self._mask,
            group=None,
            whole_episodes=False,
            observation_normalizer=self.observation_normalizer,
            reward_normalizer=self.reward_normalizer,
            device=self.device,
        )

    @torch.inference_mode()
    def _play(self, actor: Actor) -> Tensor:
        """Fill the tape; return the actions, [T, N] or [T, N, A]."""
        current, actions = self.env.obs, []
        for t in range(len(self._mask)):
            action = actor.act(self.observation_normalizer(current))
            step = self.env.step(action)
            self._tape.record(t, current, step)
            current = step.obs
            actions.append(action)
        self.steps += self._mask.numel()
        return torch.stack(actions)

    def state_dict(self) -> dict:
        """Return the state of the environments and of the rewards' scale."""
        return {
            "env": self.env.state_dict(),
            "reward_normalizer": self.reward_normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state, in the middle of the episodes."""
        self.env.load_state_dict(state["env"])
        self.reward_normalizer.load_state_dict(state["reward_normalizer"])
