"""RLOO: REINFORCE with the returns of the group's other members as baseline.

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs" (arXiv:2402.14740), eq. 8; Kool et al. 2019. G episodes are played from one
start, and an episode is one action: its advantage A_i is its return minus the mean return of the
others (``advantage=rloo``), its probability the product of its steps'. Minibatches of B episodes
descend

    L(θ) = −1/B Σ_i min(ρ_i A_i, clip(ρ_i, 1 ± ε) A_i),   ρ_i = exp Σ_t log π_θ(a|s) / π_old(a|s)

which is the policy gradient itself while π_θ = π_old: with one epoch and one minibatch, always. The
KL to a reference policy is taken from the rewards (k1, ``reference_kl.py``), as in the paper.

Departures: the paper takes one step a batch and has no ratio; ratio and clip are those of TRL's
RLOOTrainer. log ρ_i is kept within ±20, since a product over hundreds of steps may overflow.
Each step has the ratio of its episode and the gradient of its own, which gives the same gradient
and allows advantages that differ between steps; the value that is logged is |o_i| times as large.
The return may be discounted; an entropy bonus; the details of PPO in control (``ppo.py``):
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
from rlrun.learning.losses.surrogates import bounded, clipped_surrogate, of_each_step
from rlrun.learning.metrics import ratio_metrics
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class RLOO:
    """Hyperparameters (explained in ``conf/algo/rloo.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)
    setup, update = episode_update.setup, episode_update.update

    num_envs: Count
    gamma: Fraction
    kl: ReferenceKL
    epochs: Count
    episodes_per_minibatch: Count
    optimizer: Adam
    clip: PositiveOrInfinite
    aggregation: Aggregation
    entropy_coefficient: NonNegative
    normalization: Normalization

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {min(ρ_i Â, clip(ρ_i, 1 ± ε) Â) + c H(π) − β k(π, π_ref)}."""
        steps = compare(policy, batch)
        episode = bounded(steps.log_ratio.sum(0))  # log ρ_i, [n]
        surrogate = clipped_surrogate(
            of_each_step(episode, steps.log_ratio), batch.advantage, self.clip
        )
        penalty = self.kl.in_loss(steps.reference_log_ratio)
        gain = surrogate + self.entropy_coefficient * steps.entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **step_metrics(steps, self.clip),
            **ratio_metrics(episode, self.clip),
        }
