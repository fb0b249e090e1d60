"""The body of the methods that predict: a given policy, its exact value, and the error so far."""

import torch
from torch import Tensor

from rlrun.algos.tabular.table import TableAgent
from rlrun.envs.tabular import TabularModel
from rlrun.learning.bellman import action_values, exact_value, greedy
from rlrun.learning.contract import Context, Metrics, Stateful, Trainable

# Without a discount, going round in circles can be as good as arriving.
NEARLY_ONE = 0.9999

# By how much another action is better than the best so far, and not by rounding.
TOLERANCE = 1e-9


class GivenPolicy:
    """Acts by a policy that does not change, and compares estimates of its value with the exact.

    The policy takes a random action with a given probability, and else the best one.

    Attributes:
        agent: has the estimate V. Its Q is what V means for actions, in which an evaluation acts
            greedily: one step of policy improvement.
        exact: V^π, [S].
        parts: what decides the future beside the tables, by name.
        learners: none, as there is nothing to fit.
    """

    def __init__(self, context: Context, *, gamma: float, randomness: float):
        """Begin with V = 0.

        Args:
            context: the other parts of the run.
            gamma: discount γ.
            randomness: probability of a random action.

        Raises:
            UserError: the environment has no model, or the policy no value.
        """
        self.agent = TableAgent(context)
        self._model, self._gamma = context.read_table(), gamma
        self._policy = nearly_best(self._model, gamma, randomness)
        self.exact = exact_value(self._model, self._policy, gamma)
        self.parts: dict[str, Stateful] = {"policy": self}
        self.learners: dict[str, Trainable] = {}
        self._generator = context.streams.action
        self._reached = torch.zeros(len(self.exact), dtype=torch.bool)

    def act(self, obs: Tensor, progress: float) -> Tensor:
        """Draw an action, [1], at an observation [1, D]."""
        state = int(self.agent.states(obs)[0])
        if not self._reached[state]:
            self._reach(state)
        return torch.multinomial(self._policy[state], 1, generator=self._generator)

    def _reach(self, start: int) -> None:
        """Take note of the states that the policy can come to from one that it began in."""
        moves = torch.einsum("sa,sat->st", self._policy, self._model.transition) > 0
        new = torch.zeros_like(self._reached)
        new[start] = True
        while new.any():
            self._reached |= new
            new = moves[new].any(0) & ~self._reached

    def score(self) -> Metrics:
        """Return the error at the end of an episode.

        It is the root mean square of V − V^π over the states that the policy can come to.
        """
        value = self.agent.value
        self.agent.action_value.copy_(action_values(self._model, value, self._gamma))
        error = (value - self.exact)[self._reached]
        return {"value/rms_error": error.square().mean().sqrt()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the states that count."""
        return {"reached": self._reached.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is that of another table.
        """
        if state["reached"].shape != self._reached.shape:
            raise ValueError(f"{len(state['reached'])} states, not {len(self._reached)}")
        self._reached = state["reached"].clone()


def nearly_best(model: TabularModel, gamma: float, randomness: float) -> Tensor:
    """Return π(a|s), [S, A]: any action with a probability, else the best one.

    Args:
        model: P and r.
        gamma: discount γ.
        randomness: probability of a random action; 1: the best one does not matter.
    """
    gamma = min(gamma, NEARLY_ONE)
    best = torch.zeros(len(model.reward), dtype=torch.int64)
    changed = randomness < 1
    while changed:  # policy iteration, as in policy_iteration.py
        q = action_values(model, exact_value(model, best, gamma), gamma)
        better = greedy(q, best, tolerance=TOLERANCE)
        changed, best = not torch.equal(better, best), better
    policy = torch.full_like(model.reward, randomness / model.reward.shape[1])
    policy[torch.arange(len(policy)), best] += 1 - randomness
    return policy
