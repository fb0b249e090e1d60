"""Value iteration.

Bellman 1957; Sutton & Barto 2018, §4.4. A sweep gives each state the value of its best action,

    V_{k+1}(s) = max_a r(s, a) + γ Σ_s' P(s'|s, a) V_k(s')

until no value changes by more than θ. V is then within θ γ / (1 − γ) of V*, and the policy greedy
in it is the plan.

Departures from Sutton & Barto: all states change at once, not in place, one after the other.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.tabular.table import Plan
from rlrun.config.types import Fraction, Positive
from rlrun.learning.bellman import action_values, greedy
from rlrun.learning.contract import Context, Metrics


@dataclass(kw_only=True, eq=False)
class ValueIteration:
    """Hyperparameters (explained in ``conf/algo/value_iteration.yaml``), and a sweep."""

    loop: ClassVar = staticmethod(loops.planning)
    num_envs: ClassVar = 1

    gamma: Fraction
    tolerance: Positive

    def setup(self, context: Context) -> None:
        """Read the model (see ``algos/contract.py``)."""
        self.plan = Plan(context)
        self.agent, self.parts, self.learners = self.plan.agent, self.plan.parts, self.plan.learners

    def sweep(self) -> Metrics:
        """Give each state the value of its best action."""
        action_value = action_values(self.plan.model, self.plan.value, self.gamma)
        value = action_value.max(-1).values
        change = (value - self.plan.value).abs().max()
        self.plan.adopt(value, greedy(action_value), action_value)
        self.plan.converged = bool(change <= self.tolerance)
        return {"value/change": change, "value/mean": value.mean()}
