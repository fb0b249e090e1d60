"""Policy iteration.

Howard 1960; Sutton & Barto 2018, §4.3. A sweep evaluates the policy, and makes it greedy in its own
values, which makes it better wherever it changes (the policy improvement theorem):

    V^π = r_π + γ P_π V^π        π'(s) = argmax_a r(s, a) + γ Σ_s' P(s'|s, a) V^π(s')

until nothing changes. V^π is the solution of the linear equations (``exact``), or what repeating
them as an assignment comes to (``iterative``), until no value changes by more than θ.

Departures from Sutton & Barto: an action is replaced only by one that is better by more than θ, so
that the policy does not go to and fro between two that are as good.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.table import Plan
from rlrun.config.types import Decay, Positive
from rlrun.learning.bellman import action_values, exact_value, greedy, of_policy
from rlrun.learning.contract import Context, Metrics


@dataclass(kw_only=True, eq=False)
class PolicyIteration:
    """Hyperparameters (explained in ``conf/algo/policy_iteration.yaml``), and a sweep."""

    loop: ClassVar = staticmethod(loops.planning)
    num_envs: ClassVar = 1

    gamma: Decay
    evaluation: Literal["exact", "iterative"]
    tolerance: Positive

    def setup(self, context: Context) -> None:
        """Read the model (see ``algos/contract.py``)."""
        self.plan = Plan(context)
        self.agent, self.parts, self.learners = self.plan.agent, self.plan.parts, self.plan.learners

    def sweep(self) -> Metrics:
        """Evaluate the policy, and make it greedy in its values."""
        plan = self.plan
        if self.evaluation == "exact":
            value, passes = exact_value(plan.model, plan.policy, self.gamma), 1
        else:
            value, passes = self.iterated()
        action_value = action_values(plan.model, value, self.gamma)
        policy = greedy(action_value, plan.policy, tolerance=self.tolerance)
        changed = (policy != plan.policy).sum()
        change = (value - plan.value).abs().max()
        plan.adopt(value, policy, action_value)
        plan.converged = not changed
        return {
            "value/change": change,
            "value/mean": value.mean(),
            "policy/changed_states": changed,
            "value/evaluation_sweeps": torch.tensor(passes),
        }

    def iterated(self) -> tuple[Tensor, int]:
        """Assign V ← r_π + γ P_π V until it stands still; return it, [S], and how often."""
        plan, passes = self.plan, 0
        value, change = plan.value, torch.tensor(torch.inf)
        while change > self.tolerance:
            before = value
            value = of_policy(action_values(plan.model, before, self.gamma), plan.policy)
            change = (value - before).abs().max()
            passes += 1
        return value, passes
