"""Running statistics that bring observations and rewards to unit scale."""

import torch
from torch import Tensor

from rlrun.data.discounting import reverse_linear_recurrence


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

    def update(self, batch: Tensor) -> None:
        """Merge a batch [B, D] (Chan, Golub & LeVeque 1979)."""
        batch = batch.to(torch.float64)
        rows = len(batch)
        variance, mean = torch.var_mean(batch, dim=0, correction=0)
        total = self.count + rows
        delta = mean - self.mean
        # M2 = M2_a + M2_b + δ² n_a n_b / n
        squares = self.variance * self.count + variance * rows
        self.variance = (squares + delta.square() * (self.count * rows / total)) / total
        self.mean = self.mean + delta * (rows / total)
        self.count = total

    def state_dict(self) -> dict:
        """Return everything that the statistics depend on."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.mean, self.variance = state["mean"], state["variance"]
        self.count = state["count"]


class ObservationNormalizer:
    """(s − mean) / std, clipped, or the identity when it is not enabled.

    The statistics are those of all earlier rollouts: they stay fixed while a rollout is collected
    and trained on, so that a ratio of probabilities compares the same inputs.
    """

    epsilon = 1e-8

    def __init__(self, size: int, *, clip: float, enabled: bool):
        self.moments = RunningMoments(size)
        self.clip = clip
        self.enabled = enabled
        self._refresh()

    def _refresh(self) -> None:
        """Keep float32 copies: they are used at every environment step."""
        self._mean = self.moments.mean.float()
        self._inverse_std = torch.rsqrt(self.moments.variance + self.epsilon).float()

    def __call__(self, obs: Tensor) -> Tensor:
        """Normalise observations [..., D] (float32, CPU)."""
        if not self.enabled:
            return obs
        return ((obs - self._mean) * self._inverse_std).clamp_(-self.clip, self.clip)

    def update(self, obs: Tensor) -> None:
        """Learn from raw observations, [B, D]."""
        if self.enabled:
            self.moments.update(obs)
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

    def __init__(self, num_envs: int, *, gamma: float, clip: float, enabled: bool):
        self.moments = RunningMoments(1)
        # γ (1 − done) R of the last step seen, which the next rollout's first return goes on from.
        self.carried = torch.zeros(num_envs, dtype=torch.float64)
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
        raw = reward.double()
        raw[0] += self.carried
        earlier = torch.cat([torch.zeros_like(decay[:1]), decay[:-1]])
        returns = reverse_linear_recurrence(raw.flip(0), earlier.flip(0)).flip(0)
        self.carried = decay[-1] * returns[-1]
        self.moments.update(returns[mask].unsqueeze(-1))
        scale = torch.rsqrt(self.moments.variance + self.epsilon).float()
        return (reward * scale).clamp_(-self.clip, self.clip)

    def state_dict(self) -> dict:
        """Return the statistics and the running returns."""
        return {"moments": self.moments.state_dict(), "carried": self.carried}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.moments.load_state_dict(state["moments"])
        self.carried = state["carried"]
