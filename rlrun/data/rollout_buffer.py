"""Room for what environments do, allocated once."""

import torch
from torch import Tensor

from rlrun.collectors.contract import Actor
from rlrun.data.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.data.rollout import Rollout
from rlrun.envs.control import ControlEnv, EnvStep


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

    def record(self, t: int, obs: Tensor, step: EnvStep) -> None:
        """Write down step t, which began at observations [N, D]."""
        self._obs[t] = obs.numpy()
        self._next_obs[t] = step.next_obs.numpy()
        self._reward[t] = step.reward.numpy()
        self._terminated[t] = step.terminated.numpy()
        self._truncated[t] = step.truncated.numpy()

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
