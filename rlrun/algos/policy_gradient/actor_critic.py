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

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS, Estimator
from rlrun.algos.contract import check_rollout_settings
from rlrun.collectors.contract import Collector
from rlrun.config.types import positive
from rlrun.data.minibatches import all_rows, take
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.hardware.spec import Hardware
from rlrun.learning.critics import CriticBatch, Critics, critic_batches
from rlrun.learning.learner import Learner
from rlrun.learning.metrics import explained_variance, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.protocols import Stateful
from rlrun.models.agent import make_agent
from rlrun.models.distributions import Categorical, DiagonalGaussian


class ActorBatch(NamedTuple):
    """B rows of a rollout for the actor: [B, D], [B] or [B, A], and Ψ [B]."""

    obs: Tensor
    action: Tensor
    advantage: Tensor


@dataclass(kw_only=True, eq=False)
class ActorCritic:
    """Hyperparameters (their meaning and source stand in ``conf/algo/actor_critic_*.yaml``).

    Attributes:
        agent: policy and critics.
        learners: what fits them.
        parts: what else decides the future.
    """

    num_envs: int
    horizon: int | None
    actor_learning_rate: float
    critic_learning_rate: float
    adam_epsilon: float
    gamma: float
    normalize_observation: bool
    normalize_reward: bool
    normalizer_clip: float
    hidden_sizes: list[int]
    log_std: float

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse values outside their range."""
        check_rollout_settings(self)
        positive(
            actor_learning_rate=self.actor_learning_rate,
            critic_learning_rate=self.critic_learning_rate,
            adam_epsilon=self.adam_epsilon,
        )

    def setup(
        self,
        problem: Problem,
        *,
        hardware: Hardware,
        streams: Streams,
        estimator: Estimator | None,
        compiled: bool,
        from_checkpoint: bool,
    ) -> None:
        """Build the networks and what fits them (see ``rlrun/algos/contract.py``)."""
        self.agent, self.estimate = make_agent(
            self,
            problem,
            algorithm="an actor-critic",
            estimator=estimator,
            offers=ACTOR_CRITIC_COLUMNS,
            hardware=hardware,
            streams=streams,
        )
        adam = Adam(epsilon=self.adam_epsilon)
        self.actor_learner = Learner(
            self.agent.policy,
            self.actor_loss,
            minibatches=1,
            optimizer=adam,
            max_grad_norm=math.inf,
        )
        self.critics = Critics(self.agent, minibatches=1, optimizer=adam, max_grad_norm=math.inf)
        self.learners = {"actor": self.actor_learner, "critics": self.critics}
        self.parts: dict[str, Stateful] = {}
        self.run_both = hardware.run_both
        rows = problem.rollout_length(self.horizon, self.num_envs) * self.num_envs
        # Rollouts of whole episodes differ in size.
        if compiled and not problem.whole_episodes:
            obs, action, zeros = self.agent.example(rows)
            self.actor_learner.compile(hardware.compiled, ActorBatch(obs, action, zeros))
            self.critics.compile(hardware, CriticBatch(obs, action, zeros, zeros))

    def updates(self, total_steps: int) -> int:
        """Return how many steps of actor and critic a run of ``total_steps`` takes."""
        return 0 if self.horizon is None else total_steps // (self.num_envs * self.horizon)

    def collect(self, collector: Collector) -> Rollout:
        """Return what the current policy does."""
        return collector.collect(self.agent)

    @torch.no_grad()
    def update(self, rollout: Rollout, *, progress: float) -> dict[str, Tensor]:
        """Take one step of actor and critic on all of a rollout.

        Args:
            rollout: what the current policy did, [T, N].
            progress: share of the run's steps done, which changes nothing here.

        Returns:
            Means, each [], and ``updates``, the number of steps.
        """
        device = self.agent.device
        # Both from the critic as it was; the target is held constant (semi-gradient).
        advantage, target = self.estimate(rollout)
        rows = all_rows(rollout.mask)
        actor_batch = ActorBatch(*take(rows, rollout.obs, rollout.action, advantage))
        critic_batch = critic_batches(rollout, target, rows)
        actor_rate = torch.tensor(self.actor_learning_rate, device=device)
        critic_rate = torch.tensor(self.critic_learning_rate, device=device)
        actor_metrics, critic_metrics = self.run_both(
            partial(self.actor_learner.fit, actor_batch, actor_rate),
            partial(self.critics.fit, critic_batch, critic_rate),
            compiled=self.actor_learner.is_compiled,
        )
        return {
            **summarize([actor_metrics | critic_metrics]),
            **explained_variance(rollout, target),
            "updates": torch.tensor(1),
        }

    def actor_loss(
        self, policy: Callable[[Tensor], Categorical | DiagonalGaussian], batch: ActorBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[Ψ log π(a|s)]."""
        distribution = policy(batch.obs)
        loss = -(batch.advantage * distribution.log_prob(batch.action)).mean()
        return loss, {"loss/policy": loss, "policy/entropy": distribution.entropy().mean()}
