"""SFT: supervised fine-tuning, on the right answers.

The cross-entropy of the answers' tokens, those of the prompts not counted; what language models are
made of before they are rewarded (Ouyang et al. 2022, "Training language models to follow
instructions with human feedback"). The environment's answers are learned from, a new prompt each.

    L(θ) = −Σ w log π_θ(o_t|q, o_<t)       GC = 1, o ~ the answer key

Prompts and answers are padded to one length, or packed several in a row (``packed``), which do not
see each other: the loss is the same.

Departures: AdamW with the values of ``conf/algo/sft.yaml``.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from rlrun import loops
from rlrun.algos.preference.imitation import Imitation, likelihood_loss
from rlrun.config.types import Count
from rlrun.data.rollout import Transitions
from rlrun.errors import UserError
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.losses.aggregation import Aggregation
from rlrun.learning.optimizers import Adam
from rlrun.models.language.answer_key import Author


@dataclass(kw_only=True, eq=False)
class SFT:
    """Hyperparameters (explained in ``conf/algo/sft.yaml``)."""

    loop: ClassVar = staticmethod(loops.supervised)
    policy_loss = staticmethod(likelihood_loss)

    num_envs: Count
    aggregation: Aggregation
    packed: bool
    optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the policy and what fits it (see ``algos/contract.py``)."""
        self.body = Imitation(context, self, "sft", packed=self.packed)
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts
        if context.author is None:
            raise UserError("sft learns from answers, which this environment has not: env=add")
        self.author = Author(context.author(), context.streams.action, torch.device("cpu"))

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take a step towards the answers: GC = 1."""
        coefficient = torch.ones_like(transitions.reward)
        return self.body.update(transitions, coefficient.to(self.agent.device), progress)
