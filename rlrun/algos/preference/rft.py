"""RFT: rejection-sampling fine-tuning, on the samples that the judge calls right.

Yuan et al. 2023, "Scaling Relationship on Learning Mathematical Reasoning with Large Language
Models" (arXiv:2308.01825): a policy writes several responses to each prompt, and those that are
right are learned from as if they were answers.

    L(θ) = −Σ w GC log π_θ(o_t|q, o_<t)     GC = 1 if o is right, else 0, o ~ π_ref or π_θ

With a reference, that one writes, and does not change ("RFT"); without, the policy itself ("online
RFT", Shao et al. 2024), which is REINFORCE with the outcome as return and no baseline.

Departures: equal responses to a prompt are all learned from, where Yuan et al. keep one.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.preference.imitation import Imitation, likelihood_loss, reference_of
from rlrun.config.types import Count
from rlrun.data.rollout import Transitions
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.optimizers import Adam
from rlrun.models.actor import Actor
from rlrun.models.language.answer_key import Author
from rlrun.models.language.networks import TokenPolicy


@dataclass(kw_only=True, eq=False)
class RFT:
    """Hyperparameters (explained in ``conf/algo/rft.yaml``)."""

    loop: ClassVar = staticmethod(loops.supervised)
    policy_loss = staticmethod(likelihood_loss)

    num_envs: Count
    reference: str | None
    aggregation: Aggregation
    optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the policy and what fits it (see ``algos/contract.py``)."""
        self.body = Imitation(context, self, "rft")
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts
        self.generator, self.frozen = context.streams.action, None
        if self.reference is not None:
            self.frozen = reference_of(context, self.reference, "rft", self.agent.device)
            self.parts["reference"] = self.frozen

    @property
    def author(self) -> Actor | Author:
        """The reference, or the policy itself."""
        if self.frozen is None:
            return self.agent.actor
        assert isinstance(self.frozen.policy, TokenPolicy)
        return Author(self.frozen.policy, self.generator, self.agent.device)

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take a step towards the right responses: GC = 1 for these, 0 for others."""
        assert transitions.outcome is not None
        right = (transitions.outcome.sum(0) > 0).float().expand_as(transitions.reward)
        return self.body.update(transitions, right.to(self.agent.device), progress)
