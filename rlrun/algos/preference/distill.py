"""On-policy distillation: a policy becomes like its teacher on what it writes itself.

Agarwal et al. 2024, "On-Policy Distillation of Language Models: Learning from Self-Generated
Mistakes" (GKD, arXiv:2306.13649), with the reverse KL divergence and only samples of the student;
Gu et al. 2024, "MiniLLM" (arXiv:2306.08543).

    L(θ) = Σ w KL(π_θ(·|q, o_<t) ‖ π_T(·|q, o_<t)),  o ~ π_θ

As in GKD, the states are held constant: of each state the gradient is
E_{a ~ π_θ}[GC ∇ log π_θ(a)] with GC = log π_T(a) − log π_θ(a), here as a sum over all tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from rlrun import loops
from rlrun.algos.preference.imitation import Imitation, WeightedSteps, reference_of
from rlrun.config.types import Count
from rlrun.data.rollout import Transitions
from rlrun.data.sequences import Sequences
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.optimizers import Adam
from rlrun.models.language.token_distributions import TokenCategorical


@dataclass(kw_only=True, eq=False)
class Distill:
    """Hyperparameters (explained in ``conf/algo/distill.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    reference: str | None
    aggregation: Aggregation
    optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the policy and what fits it (see ``algos/contract.py``)."""
        self.body = Imitation(context, self, "distill")
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts
        self.teacher = reference_of(context, self.reference, "distill", self.agent.device)
        self.parts["reference"] = self.teacher

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take a step towards the teacher, on all that was written."""
        everywhere = torch.ones_like(transitions.reward).to(self.agent.device)
        return self.body.update(transitions, everywhere, progress)

    def policy_loss(self, policy: PolicyFunction, batch: WeightedSteps) -> LossAndMetrics:
        """L(θ) = Σ w KL(π_θ ‖ π_T)."""
        assert isinstance(batch.obs, Sequences)
        distribution = policy(batch.obs)
        with torch.no_grad():
            teacher = self.teacher(batch.obs)
        assert isinstance(distribution, TokenCategorical)
        assert isinstance(teacher, TokenCategorical)
        kl = distribution.kl(teacher)
        loss = (batch.weight * kl).sum()
        return loss, {
            "loss/policy": loss,
            "policy/entropy": distribution.entropy().mean(),
            "policy/reference_kl": kl.mean(),
        }
