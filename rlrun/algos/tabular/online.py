"""The body of the methods that learn a table while they act: ε-greedy steps of one environment."""

from typing import Any

import torch
from torch import Tensor

from rlrun.algos.tabular.table import TableAgent
from rlrun.learning.contract import Context, Metrics, Stateful, Trainable
from rlrun.learning.exploration import Exploration


class OnlineTable:
    """A table that is acted on ε-greedily, and learned on the way.

    It remembers the next action where a method has chosen it already.

    Attributes:
        agent: has Q.
        parts: what decides the future beside the table, by name.
        learners: none, as there is nothing to fit.
    """

    def __init__(self, context: Context, exploration: Exploration):
        """Begin with Q = 0.

        Raises:
            UserError: states or actions cannot be counted.
        """
        self.agent = TableAgent(context)
        self.parts: dict[str, Stateful] = {"next_action": self}
        self.learners: dict[str, Trainable] = {}
        self._exploration = exploration
        self._generator = context.streams.action
        self._next: int | None = None

    def act(self, obs: Tensor, progress: float) -> Tensor:
        """Choose an action, [1], at an observation [1, D]: the one that was promised, if one was.

        Args:
            obs: as the environment gave it.
            progress: share of the run's steps done, for ε.
        """
        chosen, self._next = self._next, None
        if chosen is None:
            chosen = self.choose(int(self.agent.states(obs)[0]), progress)
        return torch.tensor([chosen])

    def choose(self, state: int, progress: float) -> int:
        """Draw an action: random with probability ε, else one of the best."""
        values = self.agent.action_value[state]
        if torch.rand((), generator=self._generator) < self._exploration.epsilon(progress):
            return int(torch.randint(len(values), (), generator=self._generator))
        # The values are equal at first: always the first action would run against one wall.
        best = (values == values.max()).nonzero()[:, 0]
        return int(best[torch.randint(len(best), (), generator=self._generator)])

    def promise(self, action: int) -> None:
        """Have `act` take this action next."""
        self._next = action

    def probabilities(self, state: int, progress: float) -> Tensor:
        """Return π(a|s) of this policy, [A]: ε/A each, and the rest shared by the best."""
        values = self.agent.action_value[state]
        epsilon = self._exploration.epsilon(progress)
        best = (values == values.max()).double()
        return epsilon / len(values) + (1 - epsilon) * best / best.sum()

    def move(self, state: int, action: int, target: float, rate: float) -> Tensor:
        """Q(s, a) ← Q(s, a) + α (target − Q(s, a)); return the error target − Q(s, a), []."""
        error = target - self.agent.action_value[state, action]
        self.agent.action_value[state, action] += rate * error
        self.agent.value[state] = self.agent.action_value[state].max()
        return error

    def forget_episode(self) -> None:
        """Promise nothing."""
        self._next = None

    def schedule(self, progress: float) -> Metrics:
        """Return ε, for the logs."""
        return {"schedule/epsilon": torch.tensor(self._exploration.epsilon(progress))}

    def state_dict(self) -> dict[str, Any]:
        """Return the action that is promised."""
        return {"next_action": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._next = state["next_action"]
