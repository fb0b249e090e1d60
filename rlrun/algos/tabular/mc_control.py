"""Monte Carlo control.

Sutton & Barto 2018, §5.4, on-policy and ε-greedy. After an episode, Q(s, a) of each of its pairs is
the mean of the returns that followed it so far,

    Q(s, a) ← Q(s, a) + [G_t − Q(s, a)] / n(s, a)        G_t = r_t + γ r_{t+1} + …

counting the first visit of an episode, or every one.

Departures: an episode that is truncated counts with the return that it had by then.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.online import Experience, OnlineTable, experience
from rlrun.config.types import Fraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.exploration import Exploration

# Which visits in an episode count.
Visits = Literal["first", "every"]

K = TypeVar("K")


@dataclass(kw_only=True, eq=False)
class MCControl:
    """Hyperparameters (explained in ``conf/algo/mc_control.yaml``), and what an episode teaches."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    visits: Visits
    exploration: Exploration

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = OnlineTable(context, self.exploration)
        self.agent, self.act = self.body.agent, self.body.act
        self.memory = Episode(self.agent.action_value)
        self.parts = {**self.body.parts, "episode": self.memory}
        self.learners = self.body.learners

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Remember the step; at the end of the episode, learn from all of them, backwards."""
        errors = []
        seen = experience(self.agent, obs, action, step)
        for (s, a), following in self.memory.learned(seen, self.gamma, self.visits, pair):
            self.memory.count[s, a] += 1
            errors.append(self.body.move(s, a, following, 1 / float(self.memory.count[s, a])))
        return {"value/mc_error": torch.stack(errors).abs().mean()} if errors else {}


def pair(seen: Experience) -> tuple[int, int]:
    """Return what Q is of: (s, a)."""
    return seen.state, seen.action


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

    def learned(
        self,
        seen: Experience,
        gamma: float,
        visits: Visits,
        key: Callable[[Experience], K],
    ) -> Iterator[tuple[K, float]]:
        """Remember a step; at the end of its episode, go through all of them backwards.

        Args:
            seen: the step.
            gamma: discount γ.
            visits: which of them count.
            key: what a table has an entry of.

        Yields:
            For each visit that counts, its key and G_t.
        """
        self.steps.append(seen)
        if not seen.over:
            return
        steps, self.steps = self.steps, []
        first = {key(earlier): t for t, earlier in reversed([*enumerate(steps)])}
        following = 0.0
        for t in reversed(range(len(steps))):
            following = steps[t].reward + gamma * following  # G_t
            if visits == "every" or first[key(steps[t])] == t:
                yield key(steps[t]), following

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
