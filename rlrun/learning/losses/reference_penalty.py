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
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rlrun.config.types import Count, NonNegative, Positive
from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError, warn
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, Stateful
from rlrun.learning.losses.kl import (
    FixedKLController,
    KLController,
    ProportionalKLController,
    k1,
    k2,
    k3,
)
from rlrun.models.networks import Policy
from rlrun.models.reference import Reference

KLEstimator = Literal["k1", "k2", "k3"]
KLPlace = Literal["reward", "loss"]

ESTIMATORS: dict[KLEstimator, Callable[[Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}


@dataclass(frozen=True, kw_only=True)
class ReferenceKL:
    """Settings of the penalty.

    Attributes:
        reference: a run's directory or a checkpoint's; None: there is no penalty.
        estimator: k1, k2 or k3.
        place: where it stands: in the reward or in the loss.
        coefficient: β, or the first one, if it is adapted.
        target: mean KL of a step that β is adapted to; None: it stays as it is.
        horizon: episodes in which β changes by at most a fifth.
        refresh_every: iterations after which the policy becomes the reference; None: it never does.
    """

    reference: str | None
    estimator: KLEstimator
    place: KLPlace
    coefficient: NonNegative
    target: Positive | None
    horizon: Count
    refresh_every: Count | None

    def __post_init__(self):
        """Refuse what does not fit together."""
        if self.refresh_every is not None and self.reference is None:
            raise ValueError("refresh_every must be null without a reference to begin with")
        if self.target is not None and self.coefficient == 0:
            raise ValueError("target multiplies coefficient, which must not be 0 then")
        if self.coefficient > 0:
            if self.reference is None:
                raise ValueError(
                    "coefficient must be 0 without a policy to stay near, which "
                    f"reference=<run or checkpoint> gives, got {self.coefficient}"
                )
            if (self.estimator, self.place) == ("k1", "loss"):
                raise ValueError(
                    "estimator must be k2 or k3 with place=loss, where the expected gradient of "
                    "k1 is 0"
                )

    def require_in_reward(self) -> None:
        """Check, for a loss that has no such penalty, that it belongs into the reward.

        Raises:
            ValueError: it belongs into the loss.
        """
        if self.place != "reward":
            raise ValueError("kl.place must be reward: this algorithm's loss has no such penalty")

    def in_reward(self, log_ratio: Tensor) -> Tensor:
        """Return the penalty of the reward per unit of β, [...], from log π − log π_ref."""
        return self._estimate(log_ratio, "reward")

    def in_loss(self, log_ratio: Tensor) -> Tensor:
        """Return the penalty of the loss per unit of β, [...], from log π − log π_ref."""
        return self._estimate(log_ratio, "loss")

    def _estimate(self, log_ratio: Tensor, place: KLPlace) -> Tensor:
        """Return k1, k2 or k3 where the penalty stands, and 0 elsewhere, [...]."""
        if self.reference is None or place != self.place:
            return torch.zeros_like(log_ratio)
        return ESTIMATORS[self.estimator](log_ratio)

    def controller(self, device: torch.device) -> KLController:
        """Make what β is taken from."""
        if self.target is None:
            return FixedKLController(self.coefficient, device=device)
        return ProportionalKLController(
            self.coefficient, target=self.target, horizon=self.horizon, device=device
        )


# For an algorithm that has no such penalty, and for runs from before it had one.
NO_PENALTY = ReferenceKL(
    reference=None,
    estimator="k1",
    place="reward",
    coefficient=0.0,
    target=None,
    horizon=1,
    refresh_every=None,
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


@dataclass
class Age:
    """How old a reference is.

    Attributes:
        iterations: that have ended since it became what it is.
    """

    iterations: int = 0

    def state_dict(self) -> dict:
        """Return the number."""
        return {"iterations": self.iterations}

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        self.iterations = state["iterations"]


class ReferencePenalty:
    """β KL(π ‖ π_ref), in the reward or in the loss; nothing at all without a reference.

    Attributes:
        parts: what decides its future, by name.
    """

    def __init__(
        self,
        settings: ReferenceKL,
        policy: Policy,
        normalizer: ObservationNormalizer,
        load_policy: Callable[[str, torch.device], Reference],
        device: torch.device,
    ):
        """Read the reference policy, if there is one.

        Args:
            settings: of the penalty.
            policy: the one that is to stay near.
            normalizer: of its observations.
            load_policy: path of a run or checkpoint, device -> its policy, frozen.
            device: where the learner is.

        Raises:
            UserError: there is no such policy, or it is one for something else.
        """
        self._settings = settings
        self._policy, self._normalizer = policy, normalizer
        self._controller = settings.controller(device)
        self._reference: Reference | None = None
        self.parts: dict[str, Stateful] = {}
        if settings.reference is None:
            return
        self._reference = load_policy(settings.reference, device)
        self.parts = {"reference": self._reference, "kl_coefficient": self._controller}
        if settings.refresh_every is not None:
            self._age = Age()
            self.parts["reference_age"] = self._age

    def require_refreshable(self) -> None:
        """Check, in a new run, that the policy can take the reference's place if it is to.

        Raises:
            UserError: they are networks of different sizes.
        """
        if self._settings.refresh_every is None or self._reference is None:
            return
        if not self._reference.is_like(self._policy):
            raise UserError(
                f"algo.kl.refresh_every: {self._settings.reference} is a network of other sizes "
                "than model=…, which cannot take its place"
            )

    def grow_older(self) -> None:
        """Count an iteration that has ended; let the policy become the reference if that is due."""
        if self._settings.refresh_every is None or self._reference is None:
            return
        self._age.iterations += 1
        if self._age.iterations == self._settings.refresh_every:
            self._reference.become(self._policy, self._normalizer)
            self._age.iterations = 0

    @torch.no_grad()
    def __call__(self, rollout: Rollout) -> Penalised:
        """Compare the policy that collected a rollout with the reference; adapt β for the next.

        Args:
            rollout: of the current policy, [T, N].
        """
        coefficient = self._controller.value
        if self._reference is None:
            return Penalised(rollout, torch.zeros_like(rollout.logp), coefficient, {})
        reference = self._reference(rollout.raw_obs)
        reference_logp = reference.log_prob(rollout.action)
        penalty = coefficient * self._settings.in_reward(rollout.logp - reference_logp)
        reward = rollout.reward - torch.where(rollout.mask, penalty, 0.0)
        kl = self._policy(rollout.obs).kl(reference)[rollout.mask].mean()
        self._controller.update(kl, samples=int(rollout.mask.any(0).sum()))
        metrics = {"policy/reference_kl": kl, "schedule/kl_coefficient": coefficient}
        return Penalised(replace(rollout, reward=reward), reference_logp, coefficient, metrics)


def penalty_of(settings: ReferenceKL, agent: Agent, context: Context) -> ReferencePenalty:
    """Return the penalty of an algorithm, and say what it will not do.

    Args:
        settings: of the penalty.
        agent: whose policy is to stay near the reference.
        context: the other parts of the run.

    Raises:
        UserError: there is no such reference, or the policy cannot take its place if it is to.
    """
    penalty = ReferencePenalty(
        settings,
        agent.networks.policy,
        agent.observation_normalizer,
        context.load_policy,
        agent.device,
    )
    if not context.resumed:
        penalty.require_refreshable()
        made_up = agent.made_up_rollout()
        warn_of_the_penalty(settings, agent.estimate, made_up, context.shape.group_size)
    return penalty


def warn_of_the_penalty(
    settings: ReferenceKL,
    estimate: Callable[[Rollout], tuple[Tensor, Tensor]],
    like: Rollout,
    group_size: int,
) -> None:
    """Say that a reference has no weight, or that the penalty is divided by a group's spread.

    The estimator divides it if a group whose returns differ by a hundredth of another's has
    advantages of a size with it.

    Args:
        settings: of the penalty.
        estimate: the estimator.
        like: whole episodes in groups, as the run's, [T, N].
        group_size: members of a group.
    """
    if settings.reference is not None and settings.coefficient == 0:
        warn("algo.kl.reference keeps the policy near nothing: algo.kl.coefficient is 0")
    if settings.coefficient == 0 or settings.place != "reward" or group_size < 2:
        return
    episodes = torch.arange(like.reward.shape[1], device=like.reward.device)
    nearly_tied = episodes // group_size == episodes[-1] // group_size
    returns = (episodes % group_size) / group_size * torch.where(nearly_tied, 1e-2, 1.0)
    reward = torch.zeros_like(like.reward)
    reward[-1] = returns
    advantage = estimate(replace(like, reward=reward, raw_reward=reward))[0][-1]
    if advantage[nearly_tied].abs().max() > 0.5:
        warn(
            "algo.kl.place=reward: this advantage estimator divides the penalty by the spread of "
            "the group, too, which undoes algo.kl.coefficient where returns tie; advantage=rloo "
            "does not"
        )
