"""What tables are learned from: steps in numbers, and what an episode of them comes to."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from rlrun.algos.tabular.table import TableAgent
from rlrun.envs.control import EnvStep

# Which visits in an episode count.
Visits = Literal["first", "every"]

K = TypeVar("K")


class Experience(NamedTuple):
    """One step of the environment.

    Attributes:
        state: s, its number.
        action: a.
        reward: r.
        next_state: s', its number; the final state at an episode's end.
        terminated: whether nothing follows s'.
        truncated: whether the episode was cut after s', but would have gone on.
    """

    state: int
    action: int
    reward: float
    next_state: int
    terminated: bool
    truncated: bool

    @property
    def over(self) -> bool:
        """Whether the episode has ended."""
        return self.terminated or self.truncated


def experience(agent: TableAgent, obs: Tensor, action: Tensor, step: EnvStep) -> Experience:
    """Return a step in numbers.

    Args:
        agent: knows the states' numbers.
        obs: where it began, [1, D].
        action: what was done, [1].
        step: what the environment made of it.
    """
    return Experience(
        int(agent.states(obs)[0]),
        int(action[0]),
        float(step.reward[0]),
        int(agent.states(step.next_obs)[0]),
        bool(step.terminated[0]),
        bool(step.truncated[0]),
    )


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

    def forget_episode(self) -> None:
        """Leave out the steps so far, whose returns nobody will know."""
        self.steps = []

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
