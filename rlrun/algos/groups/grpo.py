"""GRPO: group-relative policy optimisation.

Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language
Models" (arXiv:2402.03300), eq. 3. G episodes are played from one start; an episode's advantage is
its return minus the group's mean, over the group's standard deviation (``advantage=grpo``), the
same for all of its steps; no critic is learned. Several passes of minibatches of episodes descend

    L(θ) = −1/B Σ_i 1/|o_i| Σ_t { min(ρ_it Â_it, clip(ρ_it, 1 ± ε) Â_it) − β k3(π_θ, π_ref) }

with ρ_it = π_θ(a|s) / π_old(a|s) and B episodes of |o_i| steps. The clip bounds what one update
gains from moving away from π_old, the penalty how far all of them lead away from π_ref.

Departures: the return may be discounted (``gamma``); other estimators, aggregations and KL
penalties can be chosen; an entropy bonus; there is no reference policy unless one is given, and it
is not replaced during a run; the details of PPO in control (``ppo.py``): orthogonal
initialisation, normalised observations, Adam with ε = 1e-5, a falling step size, a bounded gradient
norm.
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
from rlrun.learning.metrics import policy_metrics
from rlrun.learning.optimizers import Adam
from rlrun.learning.reference_penalty import ReferenceKL
from rlrun.learning.surrogates import clipped_surrogate


@dataclass(kw_only=True, eq=False)
class GRPO:
    """Hyperparameters (explained in ``conf/algo/grpo.yaml``), and the loss."""

    num_envs: Count
    clip: PositiveOrInfinite
    kl: ReferenceKL
    aggregation: Aggregation
    epochs: Count
    episodes_per_minibatch: Count
    optimizer: Adam
    gamma: Fraction
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
        """L(θ) = −Σ w {min(ρ Â, clip(ρ, 1 ± ε) Â) + c H(π) − β k(π, π_ref)}."""
        distribution, counts = policy(batch.obs), batch.weight > 0
        logp, entropy = distribution.log_prob(batch.action), distribution.entropy()
        log_ratio = torch.where(counts, logp - batch.logp, 0.0)  # log ρ_it, [T, n]
        surrogate = clipped_surrogate(log_ratio, batch.advantage, self.clip)
        penalty = self.body.penalty.in_loss(torch.where(counts, logp - batch.reference_logp, 0.0))
        gain = surrogate + self.entropy_coefficient * entropy - batch.kl_coefficient * penalty
        return -(batch.weight * gain).sum(), {
            "loss/policy": -(batch.weight * surrogate).sum(),
            **policy_metrics(log_ratio, entropy, clip=self.clip, mask=counts),
        }
