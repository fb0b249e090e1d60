"""Twin delayed deep deterministic policy gradient.

Fujimoto, van Hoof & Meger 2018, "Addressing Function Approximation Error in Actor-Critic Methods",
algorithm 1: DDPG with two critics, of which the smaller one counts, with noise in the target's
action, and with a policy and targets that are updated once in d updates of the critics:

    v(s') = min_i Q̄_i(s', clip(μ̄(s') + ε̃)),  ε̃ = clip(σ̃ ε, ±c)

Departures: actions while the run warms up are uniform, as in the authors' code; the updates of an
iteration go on beside its environment steps, so that they learn from what was seen before them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlrun import loops
from rlrun.algos.off_policy.action_kinds import Function
from rlrun.algos.off_policy.deterministic_update import Deterministic, DeterministicUpdate
from rlrun.algos.off_policy.replay_update import explore, update
from rlrun.config.types import Count, Fraction, NonNegative
from rlrun.data.replay.buffer import Replay
from rlrun.learning.contract import Context
from rlrun.learning.optimizers import Adam
from rlrun.models.explorers import ActionNoise


@dataclass(kw_only=True, eq=False)
class TD3:
    """Hyperparameters (explained in ``conf/algo/td3.yaml``), and v(s')."""

    loop: ClassVar = staticmethod(loops.off_policy)
    explore, update = explore, update

    num_envs: Count
    horizon: Count
    gamma: Fraction
    policy_delay: Count
    noise: ActionNoise
    target_noise: NonNegative
    target_noise_clip: NonNegative
    replay: Replay
    target_rate: Fraction
    policy_optimizer: Adam
    critic_optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.body = DeterministicUpdate(context, self, critics=2, delay=self.policy_delay).body
        self.agent, self.buffer, self.learners, self.parts = self.body.contract

    def next_value(
        self, policy: Deterministic, critics: Function, next_obs: Tensor, noise: Tensor
    ) -> Tensor:
        """v(s') = min_i Q̄_i(s', clip(μ̄(s') + ε̃))."""
        bound = self.target_noise_clip
        smoothing = (self.target_noise * noise).clamp(-bound, bound)
        chosen = policy(next_obs)
        action = chosen.box.clip(chosen.action + chosen.box.scale * smoothing)
        return critics(next_obs, action).amin(0)
