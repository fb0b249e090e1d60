"""Temporal-difference control: Q-learning, SARSA and expected SARSA, which differ in one number.

Sutton & Barto 2018, §6.4 to 6.6. After each step of an ε-greedy policy π,

    Q(s, a) ← Q(s, a) + α [r + γ (1 − d) v(s') − Q(s, a)]

with d = 1 where s' is terminal, and

    v(s') = max_a' Q(s', a')             Q-learning (Watkins 1989): the greedy policy, off-policy
    v(s') = Q(s', a'), a' ~ π(·|s')      SARSA (Rummery & Niranjan 1994): the action taken next
    v(s') = Σ_a' π(a'|s') Q(s', a')      expected SARSA (van Seijen et al. 2009): its mean

A truncated episode is bootstrapped; SARSA does it with an action that is drawn and not taken.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.experience import Experience, experience
from rlrun.algos.tabular.online import OnlineTable
from rlrun.config.types import Fraction, PositiveFraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.exploration import Exploration


def setup(self: Any, context: Context) -> None:
    """Make the table: the `setup` of every algorithm here (see ``algos/contract.py``)."""
    self.body = OnlineTable(context, self.exploration)
    self.agent, self.parts, self.act = self.body.agent, self.body.parts, self.body.act
    self.learners, self.forget_episode = self.body.learners, self.body.forget_episode


def learn(self: Any, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
    """Move Q(s, a) towards r + γ (1 − d) v(s'): the `learn` of every algorithm here."""
    seen = experience(self.agent, obs, action, step)
    following = 0.0 if seen.terminated else float(self.next_value(self.body, seen, progress))
    target = seen.reward + self.gamma * following
    error = self.body.move(seen.state, seen.action, target, self.step_size)
    return {"value/td_error": error.abs(), **self.body.schedule(progress)}


@dataclass(kw_only=True, eq=False)
class QLearning:
    """Hyperparameters (explained in ``conf/algo/q_learning.yaml``), and v(s')."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1
    setup, learn = setup, learn

    gamma: Fraction
    step_size: PositiveFraction
    exploration: Exploration

    def next_value(self, body: OnlineTable, seen: Experience, progress: float) -> Tensor:
        """max_a' Q(s', a')."""
        return body.agent.action_value[seen.next_state].max()


@dataclass(kw_only=True, eq=False)
class SARSA:
    """Hyperparameters (explained in ``conf/algo/sarsa.yaml``), and v(s')."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1
    setup, learn = setup, learn

    gamma: Fraction
    step_size: PositiveFraction
    exploration: Exploration

    def next_value(self, body: OnlineTable, seen: Experience, progress: float) -> Tensor:
        """Q(s', a') of the action that is taken next."""
        next_action = body.choose(seen.next_state, progress)
        if not seen.truncated:
            body.promise(next_action)
        return body.agent.action_value[seen.next_state, next_action]


@dataclass(kw_only=True, eq=False)
class ExpectedSARSA:
    """Hyperparameters (explained in ``conf/algo/expected_sarsa.yaml``), and v(s')."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1
    setup, learn = setup, learn

    gamma: Fraction
    step_size: PositiveFraction
    exploration: Exploration

    def next_value(self, body: OnlineTable, seen: Experience, progress: float) -> Tensor:
        """Σ_a' π(a'|s') Q(s', a')."""
        policy = body.probabilities(seen.next_state, progress)
        return policy @ body.agent.action_value[seen.next_state]
