"""RLOO: REINFORCE with the returns of the group's other members as baseline.

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs" (arXiv:2402.14740), eq. 8; Kool et al. 2019. G episodes are played from one
start, and an episode is one action: its advantage A_i is its return minus the mean return of the
others (``advantage=rloo``), its probability the product of its steps'. Minibatches of B episodes
descend

    L(θ) = −1/B Σ_i min(ρ_i A_i, clip(ρ_i, 1 ± ε) A_i),   ρ_i = exp Σ_t log π_θ(a|s) / π_old(a|s)

which is the policy gradient itself while π_θ = π_old: with one epoch and one minibatch, always. The
KL to a reference policy is taken from the rewards (k1, ``reference_penalty.py``), as in the paper.

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

import torch

from rlrun import loops
from rlrun.algos.groups.episode_update import EpisodeBatch, EpisodeUpdate
from rlrun.config.types import Count, Fraction, NonNegative, PositiveOrInfinite
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.aggregation import Aggregation
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.metrics import policy_metrics, ratio_metrics
from rlrun.learning.optimizers import Adam
from rlrun.learning.reference_penalty import ReferenceKL
from rlrun.learning.surrogates import bounded, clipped_surrogate, of_each_step


@dataclass(kw_only=True, eq=False)
class RLOO:
    """Hyperparameters (explained in ``conf/algo/rloo.yaml``), and the loss."""

    num_envs: Count
    gamma: Fraction
    epochs: Count
    episodes_per_minibatch: Count
    kl: ReferenceKL
    optimizer: Adam
    clip: PositiveOrInfinite
    aggregation: Aggregation
    entropy_coefficient: NonNegative
    normalization: Normalization

    loop: ClassVar = staticmethod(loops.on_policy)

    def setup(self, context: Context) -> None:
        """Build the policy and what fits it (see ``algos/contract.py``)."""
        self.body = EpisodeUpdate(context, self, self.policy_loss, kl=self.kl)
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Improve the policy on groups of episodes (see ``algos/contract.py``)."""
        return self.body.update(self.agent.rollout(transitions), progress)

    def policy_loss(self, policy: PolicyFunction, batch: EpisodeBatch) -> LossAndMetrics:
        """L(θ) = −Σ w {min(ρ_i Â, clip(ρ_i, 1 ± ε) Â) + c H(π) − β k(π, π_ref)}."""
        distribution, counts = policy(batch.obs), batch.weight > 0
        logp, entropy = distribution.log_prob(batch.action), distribution.entropy()
        log_ratio = torch.where(counts, logp - batch.logp, 0.0)  # of each step, [T, n]
        episode = bounded(log_ratio.sum(0))  # log ρ_i, [n]
        surrogate = clipped_surrogate(of_each_step(episode, log_ratio), batch.advantage, self.clip)
        penalty = self.body.penalty.in_loss(torch.where(counts, logp - batch.reference_logp, 0.0))
        gain = surrogate + self.entropy_coefficient * entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **policy_metrics(log_ratio, entropy, clip=self.clip, mask=counts),
            **ratio_metrics(episode, self.clip),
        }
