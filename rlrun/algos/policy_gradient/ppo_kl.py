"""Proximal policy optimisation with a KL penalty instead of a clipped objective.

Schulman, Wolski, Dhariwal, Radford & Klimov 2017, "Proximal Policy Optimization Algorithms", §4:
maximise ρ Â − β KL(π_old ‖ π_θ), with β fixed or adapted after each iteration, so that the KL
divergence stays near a target. The KL is exact: these distributions have a closed form.

Departures: the details that decide PPO's results (Huang et al. 2022, "The 37 implementation details
of PPO"), the same as in ``ppo.py``; an adapted β has a smallest and a largest value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.agent import Agent, refuse_second_ratio
from rlrun.algos.contract import Context
from rlrun.algos.policy_gradient.actor_critic_update import ActorCriticUpdate
from rlrun.config.types import Count, Fraction, NonNegative, Positive
from rlrun.data.minibatches import take
from rlrun.data.normalize import Normalization
from rlrun.data.rollout import Transitions
from rlrun.learning.kl import DoublingKLController, FixedKLController, KLController
from rlrun.learning.metrics import USUAL_CLIP, explained_variance, policy_metrics, summarize
from rlrun.learning.optimizers import Adam
from rlrun.learning.surrogates import standardize
from rlrun.models.distributions import Categorical, DiagonalGaussian

Distribution = TypeVar("Distribution", Categorical, DiagonalGaussian)


class PenalisedBatch(NamedTuple):
    """B rows of a rollout for the policy.

    Attributes:
        obs: [B, D].
        action: [B] or [B, A].
        logp: log π_old(a|s), [B].
        advantage: Â, [B].
        old: parameters of π_old(·|s): logits [B, K], or mean and log σ [B, 2A].
        kl_coefficient: β, the same in every row, [B]: compiled code takes it as an input.
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor
    old: Tensor
    kl_coefficient: Tensor


@dataclass(frozen=True, kw_only=True)
class OldPolicyKL:
    """The penalty for leaving the policy that collected the data.

    Attributes:
        coefficient: β, or the first one, if it is adapted.
        target: mean KL of an iteration that β is adapted to; None: it stays as it is.
    """

    coefficient: NonNegative
    target: Positive | None

    def __post_init__(self):
        """Refuse a β that cannot be adapted: no factor leads away from zero."""
        if self.target is not None and self.coefficient == 0:
            raise ValueError(
                "coefficient must be positive to be adapted (target=null: it stays as it is), "
                f"got {self.coefficient}"
            )

    def controller(self, device: torch.device) -> KLController:
        """Make what β is taken from."""
        if self.target is None:
            return FixedKLController(self.coefficient, device=device)
        return DoublingKLController(self.coefficient, target=self.target, device=device)


@dataclass(kw_only=True, eq=False)
class PPOKL:
    """Hyperparameters (explained in ``conf/algo/ppo_kl.yaml``), and the loss."""

    num_envs: Count
    horizon: Count
    gamma: Fraction
    epochs: Count
    minibatch_size: Count
    kl: OldPolicyKL
    optimizer: Adam
    entropy_coefficient: NonNegative
    normalize_advantage: bool
    recompute_advantage: bool
    normalization: Normalization

    loop: ClassVar = staticmethod(loops.on_policy)

    def __post_init__(self):
        """Refuse minibatches of one row, whose advantage would be normalised to 0."""
        if self.normalize_advantage and self.minibatch_size == 1:
            raise ValueError("minibatch_size must be at least 2 to normalize_advantage, got 1")

    def setup(self, context: Context) -> None:
        """Build the networks and what fits them (see ``algos/contract.py``)."""
        self.agent = Agent(context, self, critics=True)
        if self.recompute_advantage:
            refuse_second_ratio(self.agent)
        self.controller = self.kl.controller(self.agent.device)
        obs, action, zeros = self.agent.example(self.minibatch_size)
        old = self.agent.networks.policy(obs).parameters
        self.body = ActorCriticUpdate(
            self.agent,
            context,
            self.policy_loss,
            optimizer=self.optimizer,
            epochs=self.epochs,
            minibatch_size=self.minibatch_size,
            example=PenalisedBatch(obs, action, zeros, zeros, old, zeros),
        )
        self.learners = self.body.learners
        self.parts = {**self.agent.parts, "kl_coefficient": self.controller}

    @torch.no_grad()
    def update(self, transitions: Transitions, *, progress: float) -> dict[str, Tensor]:
        """Improve policy and critic on one rollout, for several epochs; then adapt β."""
        learning_rate = torch.tensor(self.optimizer.rate(progress), device=self.agent.device)
        rollout = self.agent.rollout(transitions)
        estimate, policy = self.agent.estimate(rollout), self.agent.networks.policy
        kl_coefficient, old = self.controller.value, policy(rollout.obs).parameters
        history = []
        for epoch in self.body.passes(
            rollout,
            estimate,
            epochs=self.epochs,
            minibatch_size=self.minibatch_size,
            recompute=self.recompute_advantage,
        ):
            beta = kl_coefficient.expand_as(epoch.advantage)
            columns = (rollout.obs, rollout.action, rollout.logp, epoch.advantage, old, beta)
            batches = PenalisedBatch(*take(epoch.rows, *columns))
            history.append(self.body.fit(batches, rollout, epoch, learning_rate=learning_rate))
        new = policy(rollout.obs)
        kl = new.with_parameters(old).kl(new)[rollout.mask].mean()
        self.controller.update(kl, samples=int(rollout.mask.sum()))
        return {
            **summarize(history),
            **explained_variance(rollout, estimate[1]),
            "policy/kl": kl,
            "schedule/kl_coefficient": kl_coefficient,
            "schedule/learning_rate": learning_rate,
        }

    def policy_loss(
        self, policy: Callable[[Tensor], Distribution], batch: PenalisedBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(θ) = −E[ρ Â] + β E[KL(π_old ‖ π_θ)] − c E[H(π)]."""
        distribution = policy(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.logp  # log ρ
        advantage = batch.advantage
        if self.normalize_advantage:
            advantage = standardize(advantage)
        surrogate = (log_ratio.exp() * advantage).mean()
        kl = distribution.with_parameters(batch.old).kl(distribution)
        entropy = distribution.entropy()
        penalty = (batch.kl_coefficient * kl).mean()
        return -surrogate + penalty - self.entropy_coefficient * entropy.mean(), {
            "loss/policy": -surrogate,
            **policy_metrics(log_ratio, entropy, clip=USUAL_CLIP),
        }
