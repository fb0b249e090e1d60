"""A2C: the synchronous form of the asynchronous advantage actor-critic, A3C.

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", §4. Many environments take
a few steps each; then policy and critic take one gradient step on all of them, and the steps are
thrown away:

    policy  ∇_θ E[Â log π_θ(a|s) + c H(π_θ)]      critic  −∇_φ ½ E[(V_φ(s) − target)²]

Departures from Mnih et al.: environments wait for each other, so that there is one learner and one
set of weights; advantages are GAE's mixture instead of one n-step return (`advantage=nstep` is
theirs); observations and rewards are normalised and the weights orthogonal (Weng et al. 2022,
"Tianshou"); policy and critic, which share no parameters, each have an optimiser and a gradient
norm of their own; a truncated episode is bootstrapped.
"""

from dataclasses import dataclass
from typing import ClassVar

from rlrun import loops
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate, PolicyBatch
from rlrun.config.types import Count, Fraction, NonNegative
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.contract import Context, LossAndMetrics, Metrics, PolicyFunction
from rlrun.learning.losses.surrogates import standardize
from rlrun.learning.optimizers import RMSprop


@dataclass(kw_only=True, eq=False)
class A2C:
    """Hyperparameters (explained in ``conf/algo/a2c.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.on_policy)

    num_envs: Count
    horizon: Count
    optimizer: RMSprop
    gamma: Fraction
    entropy_coefficient: NonNegative
    normalize_advantage: bool
    normalization: Normalization

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.body = ActorCriticUpdate(context, self)
        self.agent, self.learners, self.parts = self.body.agent, self.body.learners, self.body.parts

    def update(self, transitions: Transitions, *, progress: float) -> Metrics:
        """Take one step of policy and critic on all of a rollout."""
        return self.body.one_step(self.agent.rollout(transitions), progress)

    def policy_loss(self, policy: PolicyFunction, batch: PolicyBatch) -> LossAndMetrics:
        """L(θ) = −E[w Â log π(a|s)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        loss = -(batch.weight * advantage * distribution.log_prob(batch.action)).mean()
        entropy = distribution.entropy().mean()
        return loss - self.entropy_coefficient * entropy, {
            "loss/policy": loss,
            "policy/entropy": entropy,
        }
