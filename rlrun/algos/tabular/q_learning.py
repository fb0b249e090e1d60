"""Q-learning.

Watkins 1989; Watkins & Dayan 1992; Sutton & Barto 2018, §6.5. Acts ε-greedily, and learns the
values of the greedy policy, off-policy:

    Q(s, a) ← Q(s, a) + α [r + γ (1 − d) max_a' Q(s', a') − Q(s, a)]

with d = 1 where s' is terminal; a truncated episode is bootstrapped.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.online import EpsilonGreedy, Exploration
from rlrun.config.types import Fraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics, Trainable


@dataclass(kw_only=True, eq=False)
class QLearning:
    """Hyperparameters (explained in ``conf/algo/q_learning.yaml``), and the target."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    step_size: Fraction
    exploration: Exploration

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = EpsilonGreedy(context, self.exploration)
        self.agent, self.parts, self.act = self.body.agent, self.body.parts, self.body.act
        self.learners: dict[str, Trainable] = {}  # nothing is fitted

    @torch.no_grad()
    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Move Q(s, a) towards r + γ (1 − d) max_a' Q(s', a')."""
        s, a, r, successor, terminated, _ = self.body.experience(obs, action, step)
        following = 0.0 if terminated else float(self.agent.action_value[successor].max())
        error = self.body.move(s, a, r + self.gamma * following, self.step_size)
        return {"value/td_error": error.abs()}
