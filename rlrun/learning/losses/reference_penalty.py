"""The penalty of a run: a frozen reference, β, and what they make of a rollout.

What the estimators of the KL divergence do in the reward and in the loss is said in
``reference_kl.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError, warn
from rlrun.learning.agent import Agent
from rlrun.learning.contract import Context, Stateful
from rlrun.learning.losses.reference_kl import ReferenceKL
from rlrun.models.networks import Policy
from rlrun.models.reference import Reference


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
