"""What the algorithms on tables share: the tables themselves, and who acts by them.

A table is a model like any other, so that acting, evaluating and saving a policy are those of any
other.
"""

import math

import torch
from gymnasium import spaces
from torch import Tensor

from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError
from rlrun.hardware.memory import require_memory
from rlrun.learning.contract import Context, Stateful, Trainable
from rlrun.models.actor import Actor
from rlrun.models.networks import Critic, GreedyPolicy, Networks
from rlrun.models.tables import Table

BYTES_PER_NUMBER = 8


class TableAgent:
    """Q of S states and A actions, V, and the policy that is greedy in Q.

    Attributes:
        networks: both tables.
        actor: who acts.
        action_value: Q, [S, A], float64; what is written into it is acted by.
        value: V, [S], float64, likewise.
    """

    def __init__(self, context: Context):
        """Begin with zeros.

        Raises:
            UserError: states or actions cannot be counted, or are too many.
        """
        problem = context.problem
        if problem.state_sizes is None or not isinstance(problem.action_space, spaces.Discrete):
            raise UserError(
                f"{problem.env_id} is no table: its states and actions cannot be counted"
            )
        states, actions = math.prod(problem.state_sizes), int(problem.action_space.n)
        require_memory(states * (actions + 1) * BYTES_PER_NUMBER, f"a table of {states:.3g} states")
        self._table = Table(problem.state_sizes, actions)
        value = Table(problem.state_sizes, 1)
        self.networks = Networks(GreedyPolicy(self._table), Critic(value), None)
        self.networks.requires_grad_(False)
        self.action_value, self.value = self._table.rows.data, value.rows.data[:, 0]
        as_it_is = ObservationNormalizer(problem.obs_size, clip=torch.inf, enabled=False)
        generator = context.streams.action
        self.actor = Actor(self.networks.policy, as_it_is, generator, torch.device("cpu"))

    def states(self, obs: Tensor) -> Tensor:
        """Return the number of the state of each observation [N, D], as [N]."""
        return self._table.states(obs)

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of both tables by name."""
        return {name: tensor.clone() for name, tensor in self.networks.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved tables."""
        self.networks.load_state_dict(weights)


class Plan:
    """The values and the policy of a planner, so far.

    Attributes:
        agent: has V and Q, and acts by Q.
        model: of the environment.
        policy: π, [S], int64.
        parts: what decides the planner's future beside the tables, by name.
        learners: none, as there is nothing to fit.
        converged: whether another sweep would change nothing.
    """

    def __init__(self, context: Context):
        """Begin with V = 0 and the first action everywhere.

        Raises:
            UserError: the environment has no model.
        """
        self.agent = TableAgent(context)
        self.model: TabularModel = context.read_table()
        self.policy = torch.zeros(len(self.value), dtype=torch.int64)
        self.parts: dict[str, Stateful] = {"plan": self}
        self.learners: dict[str, Trainable] = {}
        self.converged = False

    @property
    def value(self) -> Tensor:
        """V, [S]."""
        return self.agent.value

    @property
    def action_value(self) -> Tensor:
        """Q, of which the policy is the best, [S, A]."""
        return self.agent.action_value

    def adopt(self, value: Tensor, policy: Tensor, action_value: Tensor) -> None:
        """Take over a new V [S], π [S] and Q [S, A]."""
        self.policy = policy
        self.value.copy_(value)
        self.action_value.copy_(action_value)

    def state_dict(self) -> dict:
        """Return the policy."""
        return {"policy": self.policy}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: it is that of another table.
        """
        if state["policy"].shape != self.policy.shape:
            raise ValueError(f"a policy of {len(state['policy'])} states, not {len(self.policy)}")
        self.policy = state["policy"]
