"""Collecting whole episodes, in groups from one start."""

import torch
from torch import Tensor

from rlrun.collectors.contract import Actor
from rlrun.data.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.data.rollout import Rollout
from rlrun.data.rollout_buffer import Tape
from rlrun.envs.control import ControlEnv
from rlrun.errors import UserError


class EpisodeCollector:
    """Plays one whole episode in each environment, ``group_size`` of them from each start.

    The members of a group share the environment's seed, and so its start and its noise; their
    actions' noise is their own. An environment whose episode has ended waits for the others.

    Every episode counts, however long: taking those that happen to fit into a segment would
    favour short ones.
    """

    def __init__(
        self,
        env: ControlEnv,
        *,
        horizon: int,
        group_size: int,
        seed: int,
        observation_normalizer: ObservationNormalizer,
        reward_normalizer: RewardNormalizer,
        device: torch.device,
    ):
        self.env = env
        self.steps = 0
        self._tape = Tape(env, horizon)
        self._horizon = horizon
        self._group = torch.arange(env.num_envs) // group_size
        self._grouped = group_size > 1
        # Every start has a seed of its own, counted up from the run's.
        self._next_seed = seed
        self.observation_normalizer = observation_normalizer
        self.reward_normalizer = reward_normalizer
        self.device = device

    def collect(self, actor: Actor) -> Rollout:
        """Let the actor act until every episode has ended (see :class:`Collector`).

        Raises:
            UserError: one goes on after its time limit.
        """
        action, mask = (column.clone() for column in self._play(actor))  # as for segments
        return self._tape.to_rollout(
            actor,
            action=action,
            mask=mask,
            group=self._group.expand_as(mask) if self._grouped else None,
            whole_episodes=True,
            observation_normalizer=self.observation_normalizer,
            reward_normalizer=self.reward_normalizer,
            device=self.device,
        )

    @torch.inference_mode()
    def _play(self, actor: Actor) -> tuple[Tensor, Tensor]:
        """Fill the tape; return the actions, [T, N] or [T, N, A], and the mask [T, N]."""
        seeds = self._group + self._next_seed
        self._next_seed = int(seeds[-1]) + 1
        current = self.env.reset(seeds.tolist())
        running, actions, masks = torch.ones(self.env.num_envs, dtype=torch.bool), [], []
        for t in range(self._horizon):
            action = actor.act(self.observation_normalizer(current))
            rows = None if running.all() else running.nonzero()[:, 0]
            step = self.env.step(action, rows)
            self._tape.record(t, current, step)
            current = step.obs
            actions.append(action)
            masks.append(running.clone())
            running &= ~(step.terminated | step.truncated)
            if not running.any():
                break
        else:
            # A wrapper around the one that counts the steps, say, hides that an episode was cut.
            late = int(running.int().argmax())
            raise UserError(
                f"the episode of environment {late} (seed {int(seeds[late])}) goes on after "
                f"{self._horizon} steps, the time limit, which whole episodes rely on: does a "
                "wrapper hide that it is truncated?"
            )
        mask = torch.stack(masks)
        self.steps += int(mask.sum())
        return torch.stack(actions), mask

    def state_dict(self) -> dict:
        """Return the next start and the rewards' scale; no episode is under way."""
        return {
            "next_seed": self._next_seed,
            "reward_normalizer": self.reward_normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self._next_seed = state["next_seed"]
        self.reward_normalizer.load_state_dict(state["reward_normalizer"])
