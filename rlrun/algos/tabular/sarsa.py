"""SARSA.

Rummery & Niranjan 1994; Sutton & Barto 2018, §6.4. Learns the values of the policy that it acts by,
ε-greedy as it is, from the action that it takes next:

    Q(s, a) ← Q(s, a) + α [r + γ (1 − d) Q(s', a') − Q(s, a)]

with d = 1 where s' is terminal; a truncated episode is bootstrapped with an action that is drawn
and not taken.
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
class SARSA:
    """Hyperparameters (explained in ``conf/algo/sarsa.yaml``), and the target."""

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
        """Move Q(s, a) towards r + γ (1 − d) Q(s', a'), and take a' next."""
        s, a, r, successor, terminated, truncated = self.body.experience(obs, action, step)
        following = 0.0
        if not terminated:
            next_action = self.body.choose(successor, progress)
            following = float(self.agent.action_value[successor, next_action])
            if not truncated:
                self.body.promise(next_action)
        error = self.body.move(s, a, r + self.gamma * following, self.step_size)
        return {"value/td_error": error.abs()}
