"""Collecting rollouts: segments that go on where the last one stopped, or whole episodes."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlrun.envs.control import ControlEnv, EnvStep
from rlrun.errors import UserError
from rlrun.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.rollout import Rollout


class Actor(Protocol):
    """What collecting needs of an agent."""

    def act(self, obs: Tensor) -> Tensor:
        """Sample actions [N] or [N, A] (CPU) at normalised observations [N, D] (CPU)."""
        ...

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s), [T, N], of a whole rollout."""
        ...

    def judge(self, rollout: Rollout) -> Rollout:
        """Fill in what policy and critics say of a rollout."""
        ...


class Collector(Protocol):
    """What an algorithm gets its rollouts from.

    Attributes:
        steps: environment steps simulated since the counter was last set to zero.
    """

    steps: int

    def collect(self, actor: Actor) -> Rollout:
        """Let the actor act.

        Columns of the rollout may be the collector's own buffers: they hold until the next call.

        Raises:
            EnvironmentFailure: an environment raised.
            NonFiniteError: an observation, a reward or an action is not finite.
            UserError: an episode that is to be whole goes on after its time limit.
        """
        ...

    def state_dict(self) -> dict:
        """Return what decides the future rollouts."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state."""
        ...


class Tape:
    """Room for T steps of N environments, allocated once."""

    def __init__(self, env: ControlEnv, horizon: int):
        shape = (horizon, env.num_envs)
        self.obs = torch.empty(*shape, env.obs_size)
        self.next_obs = torch.empty(*shape, env.obs_size)
        self.reward = torch.empty(shape)
        self.terminated = torch.empty(shape, dtype=torch.bool)
        self.truncated = torch.empty(shape, dtype=torch.bool)
        # Views of the buffers: writing a row through NumPy costs less than through torch.
        self._obs, self._next_obs = self.obs.numpy(), self.next_obs.numpy()
        self._reward = self.reward.numpy()
        self._terminated, self._truncated = self.terminated.numpy(), self.truncated.numpy()

    def record(self, t: int, obs: NDArray[np.float32], step: EnvStep) -> None:
        """Write down step t, which began at observations [N, D]."""
        self._obs[t] = obs
        self._next_obs[t] = step.next_obs
        self._reward[t] = step.reward
        self._terminated[t] = step.terminated
        self._truncated[t] = step.truncated

    @torch.no_grad()
    def to_rollout(
        self,
        actor: Actor,
        *,
        action: Tensor,
        mask: Tensor,
        group: Tensor | None,
        whole_episodes: bool,
        observation_normalizer: ObservationNormalizer,
        reward_normalizer: RewardNormalizer,
        device: torch.device,
    ) -> Rollout:
        """Make a rollout of the first T steps on the tape, T being that of ``action``.

        Log-probabilities and values are computed here, for all steps in one batch: the same
        numbers as one by one, for a fraction of the calls. The normalisers learn from it; the
        observations are scaled by the statistics under which the policy acted.

        Args:
            actor: who acted.
            action: what it did, [T, N] or [T, N, A] (CPU).
            mask: rows that count, [T, N].
            group: number of each row's group, [T, N], or None.
            whole_episodes: whether each column is one whole episode.
            observation_normalizer: of the run.
            reward_normalizer: of the run.
            device: where the learner lives.
        """
        length = len(action)
        raw_obs, raw_reward = self.obs[:length], self.reward[:length]
        terminated, truncated = self.terminated[:length], self.truncated[:length]
        obs = observation_normalizer(raw_obs).to(device)
        action = action.to(device)
        rollout = Rollout(
            obs=obs,
            next_obs=observation_normalizer(self.next_obs[:length]).to(device),
            raw_obs=raw_obs,
            action=action,
            logp=actor.log_prob(obs, action),
            reward=reward_normalizer(raw_reward, terminated | truncated, mask).to(device),
            raw_reward=raw_reward.to(device),
            terminated=terminated.to(device),
            truncated=truncated.to(device),
            mask=mask.to(device),
            whole_episodes=whole_episodes,
            group=None if group is None else group.to(device),
        )
        observation_normalizer.update(raw_obs[mask])
        return actor.judge(rollout)


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
            action = actor.act(self.observation_normalizer(torch.from_numpy(current)))
            step = self.env.step(action.numpy())
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
        running, actions, masks = np.ones(self.env.num_envs, bool), [], []
        for t in range(self._horizon):
            action = actor.act(self.observation_normalizer(torch.from_numpy(current)))
            rows = None if running.all() else running.nonzero()[0]
            step = self.env.step(action.numpy(), rows)
            self._tape.record(t, current, step)
            current = step.obs
            actions.append(action)
            masks.append(torch.from_numpy(running.copy()))
            running &= ~(step.terminated | step.truncated)
            if not running.any():
                break
        else:
            # A wrapper around the one that counts the steps, say, hides that an episode was cut.
            late = int(running.argmax())
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
