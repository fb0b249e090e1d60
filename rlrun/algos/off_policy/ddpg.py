"""Deep deterministic policy gradient.

Lillicrap et al. 2016, "Continuous control with deep reinforcement learning", algorithm 1:

    v(s') = Q̄(s', μ̄(s'))

Departures: no decay of the critic's weights and no batch normalisation, as in all published returns
since; noise without memory unless asked for (Fujimoto et al. 2018), which goes on across episodes;
actions while the run warms up are uniform; the updates of an iteration go on beside its environment
steps, so that they learn from what was seen before them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlrun import loops
from rlrun.algos.off_policy.action_kinds import Function
from rlrun.algos.off_policy.deterministic_update import Deterministic, DeterministicUpdate
from rlrun.algos.off_policy.replay_update import explore, update
from rlrun.config.types import Count, Fraction
from rlrun.data.replay.buffer import Replay
from rlrun.learning.contract import Context
from rlrun.learning.optimizers import Adam
from rlrun.models.explorers import ActionNoise


@dataclass(kw_only=True, eq=False)
class DDPG:
    """Hyperparameters (explained in ``conf/algo/ddpg.yaml``), and v(s')."""

    loop: ClassVar = staticmethod(loops.off_policy)
    explore, update = explore, update

    num_envs: Count
    horizon: Count
    gamma: Fraction
    noise: ActionNoise
    replay: Replay
    target_rate: Fraction
    policy_optimizer: Adam
    critic_optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.body = DeterministicUpdate(context, self, critics=1, delay=1).body
        self.agent, self.buffer, self.learners, self.parts = self.body.contract

    def next_value(
        self, policy: Deterministic, critics: Function, next_obs: Tensor, noise: Tensor
    ) -> Tensor:
        """v(s') = Q̄(s', μ̄(s'))."""
        return critics(next_obs, policy(next_obs).action)[0]
