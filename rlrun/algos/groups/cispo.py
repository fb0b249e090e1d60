"""CISPO: clipped importance sampling weights.

MiniMax 2025, "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention"
(arXiv:2506.13585), eq. 4 and 5. Where PPO's clip takes the gradient from steps whose ratio has left
the band, this clips the ratio as a weight, and every step keeps its gradient:

    L(θ) = −1/Σ_i |o_i| Σ_i Σ_t sg(clip(ρ_it, 1 − ε_low, 1 + ε_high)) Â_it log π_θ(a|s)

with ρ_it = π_θ(a|s) / π_old(a|s), the advantages of GRPO (``advantage=grpo``), and no lower bound.
GC = clip(ρ_it, …) Â_it, which is REINFORCE's while π_θ = π_old.

Departures: the paper gives no ε_high, see the YAML. In the place of log π_θ stands log ρ, which
differs by a constant. A KL penalty is possible (``reference_kl.py``), which the paper leaves
out. The return may be discounted; an entropy bonus; the details of PPO in control (``ppo.py``):
orthogonal initialisation, normalised observations, Adam with ε = 1e-5, a falling step size, a
bounded gradient norm.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.groups import episode_update
from rlrun.algos.groups.episode_update import EpisodeBatch, compare, step_metrics
from rlrun.config.types import Count, Fraction, NonNegative, PositiveOrInfinite
from rlrun.data.normalize import Normalization
from rlrun.learning.contract import LossAndMetrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.losses.reference_kl import ReferenceKL
from rlrun.learning.losses.surrogates import clipped_weight_surrogate
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class CISPO:
    """Hyperparameters (explained in ``conf/algo/cispo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)
    setup, update = episode_update.setup, episode_update.update

    num_envs: Count
    epochs: Count
    episodes_per_minibatch: Count
    clip_low: PositiveOrInfinite
    clip_high: PositiveOrInfinite
    aggregation: Aggregation
    kl: ReferenceKL
    gamma: Fraction
    optimizer: Adam
    entropy_coefficient: NonNegative
    normalization: Normalization

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {sg(clip(ρ, 1 − ε_low, 1 + ε_high)) Â log π + c H(π) − β k(π, π_ref)}."""
        steps = compare(policy, batch)
        surrogate = clipped_weight_surrogate(
            steps.log_ratio, batch.advantage, self.clip_low, self.clip_high
        )
        penalty = self.kl.in_loss(steps.reference_log_ratio)
        gain = surrogate + self.entropy_coefficient * steps.entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **step_metrics(steps, self.clip_low, self.clip_high),
        }
