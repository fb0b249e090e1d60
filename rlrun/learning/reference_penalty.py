"""The KL divergence to a frozen reference policy, which keeps a policy near what it was.

With x ~ π and the estimators (Schulman 2020, "Approximating KL divergence")

    k1 = log π/π_ref      k2 = ½ k1²      k3 = π_ref/π − 1 − log π_ref/π

what an estimator does depends on where it stands: in the reward, as r − β k (a number, which the
advantage estimator carries to the actions), or in the loss, as + β k (differentiated). Expected
gradients on-policy, per unit of β (Tang & Munos 2025, arXiv:2506.09477):

    estimator   as a value       in the loss         in the reward
    k1          unbiased         0: no effect        ∇KL(π ‖ π_ref)
    k2          biased           ∇KL(π ‖ π_ref)      not the gradient of a KL
    k3          unbiased, >= 0   ∇KL(π_ref ‖ π)      ∇KL(π ‖ π_ref) − ∇KL(π_ref ‖ π): not a KL's

k1 in the loss is refused. The KL that is logged, and that an adaptive β follows, is the exact one.

In the reward the penalty is a reward like any other: γ discounts it, and what an estimator does to
returns it does to the penalty. One that divides by the spread of a group (``advantage=grpo``)
undoes β where the raw returns tie: the spread is that of the penalties alone then, and their noise
is brought to the size of any other signal.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from rlrun.config.types import at_least, positive
from rlrun.data.minibatches import take_episodes
from rlrun.data.rollout import Rollout
from rlrun.envs.problem import Problem
from rlrun.errors import warn
from rlrun.learning.aggregation import minibatch_weights
from rlrun.learning.kl import Coefficient, FixedCoefficient, ProportionalCoefficient, k1, k2, k3
from rlrun.learning.protocols import Stateful
from rlrun.models.agent import Agent
from rlrun.models.reference import Reference, load_reference

KLEstimator = Literal["k1", "k2", "k3"]
KLPlace = Literal["reward", "loss"]

ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


class ReferenceSettings(Protocol):
    """The hyperparameters of the KL penalty.

    Attributes:
        reference: a run's directory or a checkpoint's, or None.
        kl_estimator: k1, k2 or k3.
        kl_place: where it stands: in the reward or in the loss.
        kl_coefficient: β, or the first one, if it is adapted.
        kl_target: mean KL of a step that β is adapted to, or None.
        kl_horizon: episodes in which it changes by at most a fifth.
    """

    reference: str | None
    kl_estimator: KLEstimator
    kl_place: KLPlace
    kl_coefficient: float
    kl_target: float | None
    kl_horizon: int


def check_reference_settings(settings: ReferenceSettings) -> None:
    """Refuse hyperparameters of the KL penalty that do not fit together.

    Raises:
        ValueError: names the first of them.
    """
    at_least(0, kl_coefficient=settings.kl_coefficient)
    at_least(1, kl_horizon=settings.kl_horizon)
    if settings.kl_target is not None:
        positive(kl_target=settings.kl_target)
        if settings.kl_coefficient == 0:
            raise ValueError("kl_target multiplies kl_coefficient, which must not be 0 then")
    if settings.kl_coefficient > 0:
        if settings.reference is None:
            raise ValueError(
                "kl_coefficient must be 0 without a policy to stay near, which "
                f"reference=<run or checkpoint> gives, got {settings.kl_coefficient}"
            )
        if (settings.kl_estimator, settings.kl_place) == ("k1", "loss"):
            raise ValueError(
                "kl_estimator must be k2 or k3 with kl_place=loss, where the expected gradient of "
                "k1 is 0"
            )


def warn_of_the_spread(settings: ReferenceSettings) -> None:
    """Say that the penalty is in what an estimator of groups may divide by the spread, if it is.

    Args:
        settings: of an algorithm that brings such an estimator.
    """
    if settings.kl_coefficient > 0 and settings.kl_place == "reward":
        warn(
            "algo.kl_place=reward: advantage=grpo divides the penalty by the spread of the group, "
            "too, which undoes kl_coefficient where returns tie; advantage=rloo does not"
        )


class Penalised(NamedTuple):
    """A rollout and what the penalty says of it.

    Attributes:
        rollout: with the penalty in its rewards, if it belongs there.
        reference_logp: log π_ref(a|s), [T, N].
        coefficient: β of this iteration, [].
        metrics: for the logs, each [].
    """

    rollout: Rollout
    reference_logp: Tensor
    coefficient: Tensor
    metrics: dict[str, Tensor]


class PenalisedBatch(NamedTuple):
    """n whole episodes of at most T steps for a policy that is to stay near the reference.

    Attributes:
        obs: [T, n, D].
        action: [T, n] or [T, n, A].
        logp: log π_old(a|s), [T, n].
        advantage: Â, [T, n].
        weight: w of each step in the loss, 0 behind the end of an episode, [T, n].
        reference_logp: log π_ref(a|s), [T, n].
        kl_coefficient: β, [].
    """

    obs: Tensor
    action: Tensor
    logp: Tensor
    advantage: Tensor
    weight: Tensor
    reference_logp: Tensor
    kl_coefficient: Tensor


def penalised_batches(
    penalised: Penalised, advantage: Tensor, weight: Tensor, episodes: Tensor
) -> PenalisedBatch:
    """Cut what the policy learns from into minibatches, M of them in each column.

    Args:
        penalised: episodes and what the penalty says of them, [T, N].
        advantage: Â, [T, N].
        weight: w of all steps of the update, [T, N].
        episodes: numbers of the episodes of each minibatch, [M, n].
    """
    rollout = penalised.rollout
    obs, action, logp, advantage, weight, reference_logp = take_episodes(
        episodes,
        rollout.obs,
        rollout.action,
        rollout.logp,
        advantage,
        minibatch_weights(weight, size=episodes.shape[1]),
        penalised.reference_logp,
    )
    coefficient = penalised.coefficient.expand(len(episodes))
    return PenalisedBatch(obs, action, logp, advantage, weight, reference_logp, coefficient)


class ReferencePenalty:
    """β KL(π ‖ π_ref), in the reward or in the loss; nothing at all without a reference.

    Attributes:
        in_loss: log π − log π_ref [...] -> the penalty of the loss per unit of β, [...].
        parts: what decides its future, by name.
    """

    def __init__(
        self,
        settings: ReferenceSettings,
        problem: Problem,
        agent: Agent,
        *,
        from_checkpoint: bool,
    ):
        """Read the reference policy, if there is one and no checkpoint has it.

        Args:
            settings: an algorithm's hyperparameters.
            problem: what is to be learned.
            agent: the policy that is to stay near.
            from_checkpoint: whether the states of `parts` are loaded after this, the reference
                policy being among them; nothing is read here then.

        Raises:
            UserError: there is no such policy, or it is one for something else.
        """
        self._agent = agent
        self.in_loss: Callable[[Tensor], Tensor] = torch.zeros_like
        self._in_reward: Callable[[Tensor], Tensor] = torch.zeros_like
        self._reference: Reference | None = None
        self.parts: dict[str, Stateful] = {}
        self._coefficient: Coefficient = FixedCoefficient(
            settings.kl_coefficient, device=agent.device
        )
        if settings.reference is None:
            return
        if settings.kl_target is not None:
            self._coefficient = ProportionalCoefficient(
                settings.kl_coefficient,
                target=settings.kl_target,
                horizon=settings.kl_horizon,
                device=agent.device,
            )
        if settings.kl_place == "loss":
            self.in_loss = ESTIMATORS[settings.kl_estimator]
        else:
            self._in_reward = ESTIMATORS[settings.kl_estimator]
        if from_checkpoint:
            self._reference = Reference(problem, agent.device)
        else:
            self._reference = load_reference(settings.reference, problem, agent.device)
            if settings.kl_coefficient == 0:
                warn("algo.reference keeps the policy near nothing: algo.kl_coefficient is 0")
        self.parts = {"reference": self._reference, "kl_coefficient": self._coefficient}

    def __call__(self, rollout: Rollout) -> Penalised:
        """Compare the policy that collected a rollout with the reference; adapt β for the next.

        Args:
            rollout: whole episodes of the current policy, [T, N].
        """
        coefficient = self._coefficient.value
        if self._reference is None:
            return Penalised(rollout, torch.zeros_like(rollout.logp), coefficient, {})
        reference = self._reference(rollout.raw_obs)
        reference_logp = reference.log_prob(rollout.action)
        penalty = coefficient * self._in_reward(rollout.logp - reference_logp)
        reward = rollout.reward - torch.where(rollout.mask, penalty, 0.0)
        kl = self._agent.policy(rollout.obs).kl(reference)[rollout.mask].mean()
        self._coefficient.update(kl, samples=int(rollout.mask.any(0).sum()))
        metrics = {"policy/reference_kl": kl, "schedule/kl_coefficient": coefficient}
        return Penalised(replace(rollout, reward=reward), reference_logp, coefficient, metrics)
