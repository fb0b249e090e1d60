"""Running statistics that bring observations and rewards to unit scale."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlrun.config.types import PositiveOrInfinite
from rlrun.data.discounting import discounted_sums
from rlrun.data.sequences import Observations, Sequences


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """What is brought to unit scale before it is learned from.

    Attributes:
        observation: whether observations are scaled by their running mean and standard deviation.
        reward: whether rewards are divided by the running standard deviation of the return.
        clip: bound of scaled observations and rewards.
    """

    observation: bool
    reward: bool
    clip: PositiveOrInfinite


class RunningMoments:
    """Mean and variance of everything seen so far, merged batch by batch.

    Attributes:
        mean: [D], float64.
        variance: population variance [D], float64; 1 before the first batch.
        count: number of rows seen.
    """

    def __init__(self, size: int):
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.variance = torch.ones(size, dtype=torch.float64)
        self.count = 0

    @classmethod
    def of(cls, batch: Tensor) -> "RunningMoments":
        """Take those of a batch [B, D], which may be empty: all groups of it may be dropped."""
        moments = cls(batch.shape[-1])
        if len(batch):
            moments.variance, moments.mean = torch.var_mean(batch.double(), dim=0, correction=0)
            moments.count = len(batch)
        return moments

    def merge(self, other: "RunningMoments") -> None:
        """Take in what others have seen (Chan, Golub & LeVeque 1979)."""
        if other.count == 0:
            return
        total = self.count + other.count
        delta = other.mean - self.mean
        # M2 = M2_a + M2_b + δ² n_a n_b / n
        squares = self.variance * self.count + other.variance * other.count
        squares += delta.square() * (self.count * other.count / total)
        # New tensors: a state that was taken before stays what it was.
        self.variance = squares / total
        self.mean = self.mean + delta * (other.count / total)
        self.count = total

    def state_dict(self) -> dict:
        """Return everything that the statistics depend on."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is of another size.
        """
        sizes = tuple(state["mean"].shape), tuple(state["variance"].shape)
        if sizes != (self.mean.shape, self.mean.shape):
            raise ValueError(f"statistics of {sizes[0]} numbers, not of {tuple(self.mean.shape)}")
        self.mean, self.variance = state["mean"], state["variance"]
        self.count = state["count"]


class ObservationNormalizer:
    """(s − mean) / std, clipped, or the identity when it is not enabled.

    The statistics are those of all earlier rollouts: they stay fixed while a rollout is collected
    and trained on, so that a ratio of probabilities compares the same inputs.

    Attributes:
        mean: float32 copy of the mean, [D]: it is used at every environment step.
        inverse_std: likewise, 1 / std, [D].
    """

    epsilon = 1e-8

    def __init__(self, size: int, *, clip: float, enabled: bool):
        self.moments = RunningMoments(size)
        self.clip = clip
        self.enabled = enabled
        self._refresh()

    def _refresh(self) -> None:
        self.mean = self.moments.mean.float()
        self.inverse_std = torch.rsqrt(self.moments.variance + self.epsilon).float()

    def __call__(self, obs: Observations) -> Observations:
        """Normalise observations [..., D] (float32, CPU); sequences stay as they are."""
        if isinstance(obs, Sequences) or not self.enabled:
            return obs
        return ((obs - self.mean) * self.inverse_std).clamp_(-self.clip, self.clip)

    def learn(self, moments: RunningMoments) -> None:
        """Take in what actors have seen since."""
        if self.enabled:
            self.moments.merge(moments)
            self._refresh()

    def state_dict(self) -> dict:
        """Return the statistics."""
        return self.moments.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue from saved statistics."""
        self.moments.load_state_dict(state)
        self._refresh()


class RewardNormalizer:
    """r / std of the running discounted return, clipped, or the identity when not enabled.

    Dividing by a scale keeps the sign of every reward; a shift of the mean would pay or fine an
    agent for staying alive (Huang et al. 2022, continuous control 7 and 8).
    """

    epsilon = 1e-8

    def __init__(self, num_envs: int | None, *, gamma: float, clip: float, enabled: bool):
        """Begin with a scale of 1.

        Args:
            num_envs: N, whose episodes go on in the next rollout; None: rollouts are whole
                episodes, of any number.
            gamma: discount of the return.
            clip: bound of scaled rewards.
            enabled: whether rewards are scaled.
        """
        self.moments = RunningMoments(1)
        # γ (1 − done) R of the last step seen, which the next rollout's first return goes on from.
        self.carried = None if num_envs is None else torch.zeros(num_envs, dtype=torch.float64)
        self.gamma = gamma
        self.clip = clip
        self.enabled = enabled

    def __call__(self, reward: Tensor, done: Tensor, mask: Tensor) -> Tensor:
        """Learn the scale from a rollout's rewards [T, N] and return them scaled, [T, N].

        Args:
            reward: raw rewards.
            done: terminated or truncated, where the running return starts again, [T, N].
            mask: rows that count, [T, N].
        """
        if not self.enabled:
            return reward
        # R_t = r_t + γ (1 − done_{t−1}) R_{t−1}: a recurrence forwards, so solved on reversed time
        decay = self.gamma * (~done).double()
        raw = reward.to(torch.float64, copy=True)
        if self.carried is not None:
            raw[0] += self.carried
        earlier = torch.cat([torch.zeros_like(decay[:1]), decay[:-1]])
        returns = discounted_sums(raw.flip(0), earlier.flip(0)).flip(0)
        if self.carried is not None:
            self.carried = decay[-1] * returns[-1]
        self.moments.merge(RunningMoments.of(returns[mask].unsqueeze(-1)))
        scale = torch.rsqrt(self.moments.variance + self.epsilon).float()
        return (reward * scale).clamp_(-self.clip, self.clip)

    def state_dict(self) -> dict:
        """Return the statistics and the running returns."""
        return {"moments": self.moments.state_dict(), "carried": self.carried}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.moments.load_state_dict(state["moments"])
        self.carried = state["carried"]
