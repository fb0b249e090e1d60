"""What an on-policy iteration is made of: collect a rollout, then cut it into minibatches."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rlrun.envs.control import ControlEnv
from rlrun.normalize import ObservationNormalizer, RewardNormalizer


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T steps of N environments, time-major. Row [t, n] is one transition.

    Attributes:
        obs: normalised observation s_t, [T, N, D].
        next_obs: the true successor s_{t+1}, normalised; the final observation where an episode
            ended, never the first one of the next, [T, N, D].
        action: as sampled, not clipped to the bounds, [T, N] (int64) or [T, N, A].
        logp: log-probability of ``action`` under the policy that sampled it, [T, N].
        value: V(s_t) of the critic at the time of collection, [T, N].
        next_value: V(s_{t+1}), [T, N].
        reward: r_t as the algorithm sees it (scaled, if it asked for that), [T, N].
        terminated: s_{t+1} is terminal: nothing follows it, [T, N] (bool).
        truncated: the episode was cut after this step, but would have gone on, [T, N] (bool).
        mask: rows that count, [T, N] (bool).
        group: number of the group of episodes with a common start that a row belongs to, [T, N];
            None where every episode has a start of its own.
    """

    obs: Tensor
    next_obs: Tensor
    action: Tensor
    logp: Tensor
    value: Tensor
    next_value: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    group: Tensor | None


class Actor(Protocol):
    """What collection needs of an algorithm."""

    def act(self, obs: Tensor) -> Tensor:
        """Sample actions [N] or [N, A] (CPU) at normalised observations [N, D] (CPU)."""
        ...

    def judge(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return log π(a|s) and V(s), each [T, N], of a whole rollout."""
        ...

    def value(self, obs: Tensor) -> Tensor:
        """Return V(s) [T, N] of observations [T, N, D]."""
        ...


class Collector:
    """Steps the environments and writes what happens into buffers that are allocated once.

    Inside the loop only the policy runs. Log-probabilities and values are computed for the whole
    rollout afterwards, in one batch: the same numbers for a fraction of the calls.
    """

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
        self.observation_normalizer = observation_normalizer
        self.reward_normalizer = reward_normalizer
        self.device = device
        shape = (horizon, env.num_envs)
        self._obs = torch.empty(*shape, env.obs_size)
        self._next_obs = torch.empty(*shape, env.obs_size)
        self._reward = torch.empty(shape)
        self._terminated = torch.empty(shape, dtype=torch.bool)
        self._truncated = torch.empty(shape, dtype=torch.bool)

    def reset(self, seed: int) -> None:
        """Start new episodes in every environment."""
        self.env.reset(seed)

    @torch.inference_mode()
    def _step_through(self, actor: Actor) -> Tensor:
        """Fill the buffers; return the actions, [T, N] or [T, N, A]."""
        # NumPy views of the buffers: writing a row through them costs less than through torch.
        obs, next_obs = self._obs.numpy(), self._next_obs.numpy()
        reward, terminated = self._reward.numpy(), self._terminated.numpy()
        truncated = self._truncated.numpy()
        normalize = self.observation_normalizer
        current, actions = self.env.obs, []
        for t in range(len(obs)):
            obs[t] = current
            action = actor.act(normalize(torch.from_numpy(current)))
            step = self.env.step(action.numpy())
            next_obs[t] = step.next_obs
            reward[t] = step.reward
            terminated[t] = step.terminated
            truncated[t] = step.truncated
            current = step.obs
            actions.append(action)
        return torch.stack(actions)

    def collect(self, actor: Actor) -> Rollout:
        """Run the actor for a horizon of steps in every environment.

        Columns of the rollout may be the collector's own buffers: they hold until the next call.

        Raises:
            EnvironmentFailure: an environment raised.
            NonFiniteError: an observation, a reward or an action is not finite.
        """
        actions = self._step_through(actor)
        with torch.no_grad():
            done = self._terminated | self._truncated
            reward = self.reward_normalizer(self._reward, done)
            obs = self.observation_normalizer(self._obs).to(self.device)
            next_obs = self.observation_normalizer(self._next_obs).to(self.device)
            action = actions.clone().to(self.device)
            logp, value = actor.judge(obs, action)
            rollout = Rollout(
                obs=obs,
                next_obs=next_obs,
                action=action,
                logp=logp,
                value=value,
                next_value=actor.value(next_obs),
                reward=reward.to(self.device),
                terminated=self._terminated.to(self.device),
                truncated=self._truncated.to(self.device),
                mask=torch.ones_like(done, device=self.device),
                group=None,
            )
            self.observation_normalizer.update(self._obs)
        return rollout

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


def minibatches(mask: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Shuffle the rows that count and cut them into minibatches.

    Args:
        mask: rows that count, [T, N].
        size: rows a minibatch.
        generator: source of the shuffle (CPU).

    Returns:
        Row numbers into the flattened rollout, [minibatches, size]. A remainder smaller than a
        minibatch is left out of this epoch.
    """
    rows = mask.flatten().nonzero().squeeze(-1)
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    count = len(rows) // size
    return rows[order[: count * size]].view(count, size)
