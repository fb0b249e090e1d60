"""The actor-critic of the textbook, with a state value or an action value.

Sutton & Barto 2018, §13.5, "One-step Actor-Critic"; Konda & Tsitsiklis 2000, "Actor-Critic
Algorithms". After every few steps actor and critic take one gradient step each:

    actor_critic_td   Ψ = δ = r + γ V_w(s′) − V_w(s)      critic: semi-gradient TD(0) of V_w
    actor_critic_q    Ψ = Q_w(s, a)                       critic: SARSA of Q_w

    actor   θ ← θ + α_θ E[Ψ ∇_θ log π_θ(a|s)]
    critic  w ← w + α_w E[(target − V_w(s)) ∇_w V_w(s)]   (or Q_w(s, a) for V_w(s))

The two are one algorithm with two advantage estimators, which bring the critic and its target
along.

Departures from the textbook: a step is taken on a few steps of several environments instead of one
of one; Adam instead of plain ascent; the factor γ^t of a state is left out, as in practice; a
truncated episode is bootstrapped; observations and rewards are normalised, unless switched off.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate, PolicyBatch
from rlrun.config.types import Count, Fraction
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.optimizers import Adam


@dataclass(kw_only=True, eq=False)
class ActorCritic:
    """Hyperparameters (explained in ``conf/algo/actor_critic_*.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    horizon: Count
    gamma: Fraction
    optimizer: Adam
    critic_optimizer: Adam
    normalization: Normalization

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.body = ActorCriticUpdate(context, self, critic_optimizer=self.critic_optimizer)
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take one step of actor and critic on all of a rollout."""
        return self.body.one_step(self.agent.rollout(transitions), progress)

    def policy_loss(self, policy: PolicyFunction, batch: PolicyBatch) -> LossAndMetrics:
        """L(θ) = −E[w Ψ log π(a|s)]."""
        distribution = policy(batch.obs)
        advantage = batch.weight * batch.advantage
        loss = -(advantage * distribution.log_prob(batch.action)).mean()
        return loss, {"loss/policy": loss, "policy/entropy": distribution.entropy().mean()}
