"""Double Q-learning: two tables, of which one chooses the action that the other judges.

van Hasselt 2010, "Double Q-learning", algorithm 1; Sutton & Barto 2018, §6.7. The largest of
several noisy values is, on average, larger than the largest of the true ones: Q-learning's target
is too high where rewards are random. Here the noise that makes an action look best is not in its
value: after each step of a policy that is ε-greedy in Q_1 + Q_2, a coin says which table is i, and
with j the other

    Q_i(s, a) ← Q_i(s, a) + α [r + γ (1 − d) Q_j(s', argmax_a' Q_i(s', a')) − Q_i(s, a)]

with d = 1 where s' is terminal. A truncated episode is bootstrapped.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.experience import experience
from rlrun.algos.tabular.online import OnlineTable
from rlrun.config.types import Fraction, PositiveFraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics, Stateful
from rlrun.learning.exploration import Exploration


class TwoTables:
    """Q_1 and Q_2, zeros at first.

    Attributes:
        values: [2, S, A], float64.
    """

    def __init__(self, like: Tensor):
        """Make them of the size of one table [S, A]."""
        self.values = torch.stack([torch.zeros_like(like)] * 2)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of both."""
        return {"values": self.values.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from saved tables.

        Raises:
            ValueError: they are those of another task.
        """
        if state["values"].shape != self.values.shape:
            raise ValueError(f"tables of {list(state['values'].shape)}")
        self.values.copy_(state["values"])


@dataclass(kw_only=True, eq=False)
class DoubleQLearning:
    """Hyperparameters (explained in ``conf/algo/double_q_learning.yaml``), and the target."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    step_size: PositiveFraction
    exploration: Exploration

    def setup(self, context: Context) -> None:
        """Make the tables (see ``algos/contract.py``); the agent's is the mean of both."""
        self.body = OnlineTable(context, self.exploration)
        self.agent, self.act, self.learners = self.body.agent, self.body.act, self.body.learners
        self.forget_episode = self.body.forget_episode
        self.tables = TwoTables(self.agent.action_value)
        self.parts: dict[str, Stateful] = {**self.body.parts, "tables": self.tables}
        self._generator = context.streams.action

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Move Q_i(s, a) towards r + γ (1 − d) Q_j(s', argmax_a' Q_i(s', a'))."""
        seen = experience(self.agent, obs, action, step)
        i = int(torch.randint(2, (), generator=self._generator))
        own, other = self.tables.values[i], self.tables.values[1 - i]
        target = seen.reward
        if not seen.terminated:
            target += self.gamma * float(other[seen.next_state, own[seen.next_state].argmax()])
        error = target - own[seen.state, seen.action]
        own[seen.state, seen.action] += self.step_size * error

        self.agent.action_value[seen.state] = self.tables.values[:, seen.state].mean(0)
        self.agent.value[seen.state] = self.agent.action_value[seen.state].max()
        return {"value/td_error": error.abs(), **self.body.schedule(progress)}
