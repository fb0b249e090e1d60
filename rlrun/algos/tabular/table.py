"""What planners share: the table of values, and the agent that acts by it.

A table is a linear function of the one-hot state, so that acting, evaluating and saving a policy
are those of any other.
"""

import torch
from torch import Tensor, nn

from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError
from rlrun.learning.contract import Context, Stateful
from rlrun.models.actor import Actor
from rlrun.models.networks import CategoricalPolicy, Critic, Networks


class TableAgent:
    """A deterministic policy of S states, and its value.

    Attributes:
        networks: both, as linear functions of the one-hot state.
        actor: who acts.
    """

    def __init__(self, context: Context, states: int, actions: int):
        """Begin with zeros.

        Raises:
            UserError: observations are not one-hot states.
        """
        if context.problem.obs_size != states:
            raise UserError(
                f"{context.problem.env_id} has {states} states, but its observations "
                f"{context.problem.obs_size} numbers"
            )
        self._logits = nn.Linear(states, actions, bias=False)
        self._value = nn.Linear(states, 1, bias=False)
        self.networks = Networks(CategoricalPolicy(self._logits), Critic(self._value), None)
        self.networks.requires_grad_(False)
        self.show(torch.zeros(states, dtype=torch.int64), torch.zeros(states))
        as_it_is = ObservationNormalizer(states, clip=torch.inf, enabled=False)
        generator = context.streams.action
        self.actor = Actor(self.networks.policy, as_it_is, generator, torch.device("cpu"))

    def show(self, policy: Tensor, value: Tensor) -> None:
        """Act by a policy from now on.

        Args:
            policy: the action of each state, [S].
            value: of each state, [S].
        """
        chosen = nn.functional.one_hot(policy, self._logits.out_features)
        self._logits.weight.copy_(chosen.T)
        self._value.weight.copy_(value.unsqueeze(0))

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of both tables by name."""
        return {name: tensor.clone() for name, tensor in self.networks.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved tables."""
        self.networks.load_state_dict(weights)


class Plan:
    """The values and the policy of a planner, so far.

    Attributes:
        model: of the environment.
        value: V, [S], float64.
        policy: π, [S], int64.
        action_value: Q, of which the policy is the best, [S, A].
        agent: acts by them.
        parts: what decides the planner's future, by name.
    """

    def __init__(self, context: Context):
        """Begin with V = 0 and the first action everywhere.

        Raises:
            UserError: the environment has no model.
        """
        self.model: TabularModel = context.read_table()
        states, actions = self.model.reward.shape
        self.value = torch.zeros(states, dtype=torch.float64)
        self.policy = torch.zeros(states, dtype=torch.int64)
        self.action_value = torch.zeros_like(self.model.reward)
        self.agent = TableAgent(context, states, actions)
        self.parts: dict[str, Stateful] = {"plan": self}

    def adopt(self, value: Tensor, policy: Tensor, action_value: Tensor) -> None:
        """Take over a new V [S], π [S] and Q [S, A]."""
        self.value, self.policy, self.action_value = value, policy, action_value
        self.agent.show(policy, value)

    def state_dict(self) -> dict:
        """Return values and policy."""
        return {"value": self.value, "policy": self.policy, "action_value": self.action_value}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is that of another table.
        """
        for name, tensor in self.state_dict().items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} {list(state[name].shape)}, not {list(tensor.shape)}")
        self.adopt(state["value"], state["policy"], state["action_value"])
