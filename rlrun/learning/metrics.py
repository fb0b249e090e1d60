"""How the numbers of many minibatches or iterations become one: what a row of metrics says.

A number is averaged, unless its name ends in ``_max``: of these the largest is kept.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlrun.data.groups import return_spreads
from rlrun.data.rollout import Rollout
from rlrun.learning.losses.kl import approximate_kl


def is_maximum(name: str) -> bool:
    """Say whether the largest value of this number counts, and not the mean."""
    return name.endswith("_max")


def summarize(history: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each number over all minibatches, or its maximum, each [].

    Args:
        history: for each pass over a rollout, the numbers of its M minibatches, each [M].

    Returns:
        The numbers, and ``updates``: how many minibatches there were, each of them one step.
    """
    names = history[0] if history else ()
    columns = {name: torch.cat([metrics[name] for metrics in history]) for name in names}
    return {
        "updates": torch.tensor(max(map(len, columns.values()), default=0)),
        **{
            name: column.max() if is_maximum(name) else column.mean()
            for name, column in columns.items()
        },
    }


# PPO's clip (Schulman et al. 2017), for the logs of algorithms that do not clip.
USUAL_CLIP = 0.2


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the entries that count, all of them without a mask, []."""
    return x.mean() if mask is None else torch.where(mask, x, 0.0).sum() / mask.sum()


def policy_metrics(
    log_ratio: Tensor,
    entropy: Tensor,
    clip: float,
    clip_high: float | None = None,
    *,
    mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """Say how far the policy has moved from the one that sampled the data, for the logs.

    Args:
        log_ratio: log ρ = log π_θ(a|s) − log π_old(a|s), [...].
        entropy: H(π) at each of the steps, [...].
        clip: ε of the band around ratio 1.
        clip_high: ε above 1, where it differs from that below.
        mask: steps that count, [...]; None: all.
    """
    return {
        "policy/entropy": masked_mean(entropy, mask),
        "policy/kl": approximate_kl(log_ratio, mask),
        **ratio_metrics(log_ratio, clip, clip_high, mask),
    }


def ratio_metrics(
    log_ratio: Tensor, clip: float, clip_high: float | None = None, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """Describe the ratios ρ of a surrogate, for the logs.

    Args:
        log_ratio: log ρ, of steps or of whole episodes, [...].
        clip: ε of the band around ratio 1.
        clip_high: ε above 1, where it differs from that below.
        mask: those that count, [...]; None: all.

    Returns:
        Mean and maximum of ρ, the share outside [1 − ε, 1 + ε], and the effective sample size
        (Σρ)² / (B Σρ²), a share too: of B rows, so many would estimate as well without weights.
        Of these rows: an algorithm logs the mean over its minibatches of all epochs, the first of
        which have equal weights; the whole rollout under the last policy mostly has less.
    """
    ratio, change = log_ratio.exp(), torch.expm1(log_ratio)
    outside = (change < -clip) | (change > (clip if clip_high is None else clip_high))
    mean = masked_mean(ratio, mask)
    return {
        "policy/ratio_mean": mean,
        "policy/ratio_max": (ratio if mask is None else torch.where(mask, ratio, 0.0)).max(),
        "policy/clip_fraction": masked_mean(outside.float(), mask),
        "policy/effective_sample_size": mean.square() / masked_mean(ratio.square(), mask),
    }


def explained_variance(rollout: Rollout, target: Tensor) -> dict[str, Tensor]:
    """Say how good the rollout's critic is, for the logs.

    Returns:
        1 − Var(target − V) / Var(target) over the rows that count: 1 is a perfect critic, 0 a
        constant one. Nothing, if there is no critic V.
    """
    if "value" not in rollout.columns:
        return {}
    value, target = rollout.columns["value"][rollout.mask], target[rollout.mask]
    error, total = (target - value).var(correction=0), target.var(correction=0)
    return {"value/explained_variance": 1 - error / total.clamp_min(1e-12)}


def spread_metrics(rollout: Rollout, group_size: int) -> dict[str, Tensor]:
    """Return the share of groups whose returns are all equal, which teach nothing, for the logs.

    Args:
        rollout: whole episodes, the members of a group side by side.
        group_size: episodes of a group.
    """
    if rollout.group is None:
        return {}
    spreads = return_spreads(rollout.raw_reward, rollout.mask, group_size)
    return {"groups/without_spread": (spreads == 0).float().mean()}


class MetricAverager:
    """What iterations have said since the last row of metrics.

    Sums, or maxima where those are asked for (:func:`is_maximum`), stay tensors, so that nothing
    waits for a GPU between rows.

    Attributes:
        since: environment step of that row.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.since = 0
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._episodes: list[tuple[float, int]] = []

    def add(self, metrics: Mapping[str, Tensor], episodes: Sequence[tuple[float, int]]) -> None:
        """Note one iteration.

        Args:
            metrics: its numbers, each [].
            episodes: (undiscounted return, length) of those that ended in it.
        """
        self._episodes += episodes
        for name, value in metrics.items():
            if name == "updates":
                continue  # an axis of its own
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

    def clear(self, step: int) -> None:
        """Begin the next row, at an environment step."""
        self.since, self._totals, self._counts, self._episodes = step, {}, {}, []

    def state_dict(self) -> dict:
        """Return what the next row will be made of."""
        return {
            "since": self.since,
            "totals": {name: total.cpu() for name, total in self._totals.items()},
            "counts": dict(self._counts),
            "episodes": list(self._episodes),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self.since, self._totals = state["since"], dict(state["totals"])
        self._counts = dict(state["counts"])
        self._episodes = [(value, length) for value, length in state["episodes"]]
