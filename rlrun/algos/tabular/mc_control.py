"""Monte Carlo control.

Sutton & Barto 2018, §5.4, on-policy and ε-greedy. After an episode, Q(s, a) of each of its pairs is
the mean of the returns that followed it so far,

    Q(s, a) ← Q(s, a) + [G_t − Q(s, a)] / n(s, a)        G_t = r_t + γ r_{t+1} + …

counting the first visit of an episode, or every one.

Departures: an episode that is truncated counts with the return that it had by then.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.online import EpsilonGreedy, Experience, experience
from rlrun.config.types import Fraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.exploration import Exploration


@dataclass(kw_only=True, eq=False)
class MCControl:
    """Hyperparameters (explained in ``conf/algo/mc_control.yaml``), and what an episode teaches."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    visits: Literal["first", "every"]
    exploration: Exploration

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = EpsilonGreedy(context, self.exploration)
        self.agent, self.act = self.body.agent, self.body.act
        self.memory = Episode(self.agent.action_value)
        self.parts = {**self.body.parts, "episode": self.memory}
        self.learners = self.body.learners

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Remember the step; at the end of the episode, learn from all of them, backwards."""
        seen = experience(self.agent, obs, action, step)
        self.memory.steps.append(seen)
        if not seen.over:
            return {}
        following, errors = 0.0, []
        first = {(e.state, e.action): t for t, e in reversed([*enumerate(self.memory.steps)])}
        for t in reversed(range(len(self.memory.steps))):
            s, a, r, *_ = self.memory.steps[t]
            following = r + self.gamma * following  # G_t
            if self.visits == "every" or first[s, a] == t:
                self.memory.count[s, a] += 1
                errors.append(self.body.move(s, a, following, 1 / float(self.memory.count[s, a])))
        self.memory.steps = []
        return {"value/mc_error": torch.stack(errors).abs().mean()}


class Episode:
    """What is remembered: the steps of this episode, and how often each pair was counted.

    Attributes:
        steps: so far.
        count: n(s, a), [S, A], or n(s), [S], float64.
    """

    def __init__(self, like: Tensor):
        """Begin with nothing.

        Args:
            like: Q, [S, A], or V, [S].
        """
        self.steps: list[Experience] = []
        self.count = torch.zeros_like(like)

    def state_dict(self) -> dict[str, Any]:
        """Return both."""
        return {"steps": [tuple(step) for step in self.steps], "count": self.count.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is that of another table.
        """
        if state["count"].shape != self.count.shape:
            raise ValueError(f"counts {list(state['count'].shape)}, not {list(self.count.shape)}")
        self.steps = [Experience(*step) for step in state["steps"]]
        self.count = state["count"].clone()
