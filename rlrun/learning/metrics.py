"""How the numbers of many minibatches or iterations become one: what a row of metrics says.

A number is averaged, unless its name ends in ``_max``: of these the largest is kept.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlrun.data.rollout import Rollout
from rlrun.learning.kl import approximate_kl


def is_maximum(name: str) -> bool:
    """Say whether the largest value of this number counts, and not the mean."""
    return name.endswith("_max")


def summarize(history: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each number over all minibatches, or its maximum, each [].

    Args:
        history: for each pass over a rollout, the numbers of its M minibatches, each [M].
    """
    names = history[0] if history else ()
    columns = {name: torch.cat([metrics[name] for metrics in history]) for name in names}
    return {
        name: column.max() if is_maximum(name) else column.mean()
        for name, column in columns.items()
    }


def policy_metrics(
    log_ratio: Tensor, entropy: Tensor, *, ratio: Tensor, clip: float, clip_high: float
) -> dict[str, Tensor]:
    """Say how far the policy has moved, for the logs.

    Args:
        log_ratio: log π_θ(a|s) − log π_old(a|s) of the steps that count, [B].
        entropy: H(π) at each of them, [B].
        ratio: logarithms of the ratios that the algorithm clips: the same, or one an episode.
        clip: ε of the band below ratio 1.
        clip_high: ε of the band above it.
    """
    return {
        "policy/entropy": entropy.mean(),
        "policy/kl": approximate_kl(log_ratio),
        **ratio_metrics(ratio, clip, clip_high),
    }


# PPO's clip (Schulman et al. 2017), for the logs of algorithms that do not clip.
USUAL_CLIP = 0.2


def ratio_metrics(
    log_ratio: Tensor, clip: float, clip_high: float | None = None
) -> dict[str, Tensor]:
    """Say how far the policy has moved from the one that sampled the data, for the logs.

    Args:
        log_ratio: log ρ = log π_θ(a|s) − log π_old(a|s), [B].
        clip: ε of the band around ratio 1.
        clip_high: ε above 1, where it differs from that below.

    Returns:
        Mean and maximum of ρ, the share outside [1 − ε, 1 + ε], and the effective sample size
        (Σρ)² / (B Σρ²), a share too: of B rows, so many would estimate as well without weights.
        Of these rows: an algorithm logs the mean over its minibatches of all epochs, the first of
        which have equal weights; the whole rollout under the last policy mostly has less.
    """
    ratio, change = log_ratio.exp(), torch.expm1(log_ratio)
    outside = (change < -clip) | (change > (clip if clip_high is None else clip_high))
    return {
        "policy/ratio_mean": ratio.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/clip_fraction": outside.float().mean(),
        "policy/effective_sample_size": ratio.mean().square() / ratio.square().mean(),
    }


def explained_variance(rollout: Rollout, target: Tensor) -> dict[str, Tensor]:
    """Say how good the rollout's critic is, for the logs.

    Returns:
        1 − Var(target − V) / Var(target) over the rows that count: 1 is a perfect critic, 0 a
        constant one. Nothing, if there is no critic V.
    """
    if rollout.value is None:
        return {}
    value, target = rollout.value[rollout.mask], target[rollout.mask]
    error, total = (target - value).var(correction=0), target.var(correction=0)
    return {"value/explained_variance": 1 - error / total.clamp_min(1e-12)}


class Ledger:
    """What iterations have said since the last row of metrics.

    Sums, or maxima where those are asked for (:func:`is_maximum`), stay tensors, so that nothing
    waits for a GPU between rows.

    Attributes:
        steps: environment steps since then.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps = 0
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._episodes: list[tuple[float, int]] = []

    def add(
        self, metrics: dict[str, Tensor], episodes: Sequence[tuple[float, int]], steps: int
    ) -> None:
        """Note one iteration.

        Args:
            metrics: its numbers, each [].
            episodes: (undiscounted return, length) of those that ended in it.
            steps: environment steps of it.
        """
        self.steps += steps
        self._episodes += episodes
        for name, value in metrics.items():
            value = value.detach().float()
            join = torch.maximum if is_maximum(name) else torch.add
            total = self._totals.get(name)
            self._totals[name] = value.clone() if total is None else join(total, value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """Return each number's mean (or maximum) over the iterations that had it."""
        values = {
            name: total.item() / (1 if is_maximum(name) else self._counts[name])
            for name, total in self._totals.items()
        }
        if self._episodes:
            returns, lengths = zip(*self._episodes, strict=True)
            values["train/return"] = sum(returns) / len(returns)
            values["train/length"] = sum(lengths) / len(lengths)
        values["train/episodes"] = len(self._episodes)
        return values

    def clear(self) -> None:
        """Begin the next row."""
        self.steps, self._totals, self._counts, self._episodes = 0, {}, {}, []

    def state_dict(self) -> dict:
        """Return what the next row will be made of."""
        return {
            "steps": self.steps,
            "totals": {name: total.cpu() for name, total in self._totals.items()},
            "counts": dict(self._counts),
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.steps, self._totals, self._counts = state["steps"], state["totals"], state["counts"]
        self._episodes = [(value, length) for value, length in state["episodes"]]
