"""Temporal-difference prediction: the value of a given policy, learned from the estimate itself.

Sutton & Barto 2018, §6.1, ch. 7 and ch. 12. With δ_t = r_t + γ (1 − d) V(s_{t+1}) − V(s_t):

    TD(0)    V(s_t) ← V(s_t) + α δ_t
    n-step   V(s_t) ← V(s_t) + α [r_t + … + γ^{n−1} r_{t+n−1} + γ^n V(s_{t+n}) − V(s_t)]
    TD(λ)    e ← γ λ e + 1(s_t),  V ← V + α δ_t e

A truncated episode is bootstrapped.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.experience import Experience, experience
from rlrun.algos.tabular.prediction import GivenPolicy
from rlrun.config.types import Count, Fraction, PositiveFraction
from rlrun.envs.control import EnvStep
from rlrun.errors import UserError
from rlrun.learning.contract import Context, Metrics


@dataclass(kw_only=True, eq=False)
class TDPrediction:
    """Hyperparameters (explained in ``conf/algo/td_prediction.yaml``), and what a step teaches."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    randomness: Fraction
    step_size: PositiveFraction
    n_step: Count
    trace_decay: Fraction

    def __post_init__(self) -> None:
        """Refuse both ways to look further than one step at once."""
        if self.n_step > 1 and self.trace_decay > 0:
            raise UserError("algo.n_step and algo.trace_decay: one of them looks ahead, not both")

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = GivenPolicy(context, gamma=self.gamma, randomness=self.randomness)
        self.agent, self.act = self.body.agent, self.body.act
        self.parts = {**self.body.parts, "traces": self}
        self.learners = self.body.learners
        self.trace = torch.zeros_like(self.agent.value)  # e, [S]
        self.window: list[Experience] = []  # the last n steps

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Move values towards what followed."""
        seen = experience(self.agent, obs, action, step)
        if self.n_step > 1:
            self.look_back(seen)
        else:
            self.follow_traces(seen)
        return self.body.score() if seen.over else {}

    def follow_traces(self, seen: Experience) -> None:
        """TD(λ), and TD(0) with λ = 0: V ← V + α δ e."""
        value = self.agent.value
        error = seen.reward + self.gamma * self.following(seen) - value[seen.state]  # δ
        self.trace *= self.gamma * self.trace_decay
        self.trace[seen.state] += 1
        value += self.step_size * error * self.trace
        if seen.over:
            self.trace.zero_()

    def look_back(self, seen: Experience) -> None:
        """n-step TD: the state of n steps ago, and all of the last n at an episode's end."""
        value = self.agent.value
        self.window.append(seen)
        while self.window and (len(self.window) == self.n_step or seen.over):
            target = self.following(seen)
            for earlier in reversed(self.window):
                target = earlier.reward + self.gamma * target
            state = self.window.pop(0).state
            value[state] += self.step_size * (target - value[state])

    def following(self, seen: Experience) -> Tensor:
        """(1 − d) V(s'), []."""
        return self.agent.value[seen.next_state] * (not seen.terminated)

    def forget_episode(self) -> None:
        """Leave out the steps that are not learned from yet, and who is to hear of the next."""
        self.trace.zero_()
        self.window = []

    def state_dict(self) -> dict:
        """Return the trace, and the steps that are not learned from yet."""
        return {"trace": self.trace.clone(), "window": [tuple(step) for step in self.window]}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is that of another table.
        """
        if state["trace"].shape != self.trace.shape:
            raise ValueError(f"a trace of {len(state['trace'])} states, not {len(self.trace)}")
        self.trace = state["trace"].clone()
        self.window = [Experience(*step) for step in state["window"]]
