"""Fitting the critics of an agent to the targets of its estimator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlrun.config.types import Count
from rlrun.data.minibatches import Minibatches, cut, take
from rlrun.data.rollout import Rollout
from rlrun.hardware.compilable import Compilable
from rlrun.learning.autograd import AnyLearner, AutogradLearner
from rlrun.learning.learner import GradientLearner
from rlrun.learning.losses.surrogates import clipped_value_error, squared_value_error
from rlrun.learning.metrics import summarize
from rlrun.learning.optimizers import Adam, Optimizer
from rlrun.models.networks import Networks


class CriticBatch(NamedTuple):
    """B rows of a rollout: [B, D], [B] or [B, A], and [B] each."""

    obs: Tensor
    action: Tensor
    value: Tensor
    target: Tensor


@dataclass(frozen=True, kw_only=True)
class CriticFit:
    """How critics are fitted in passes of their own.

    Attributes:
        epochs: passes over the rows of an iteration.
        minibatch_size: rows of one gradient step.
        optimizer: takes the steps.
    """

    epochs: Count
    minibatch_size: Count
    optimizer: Adam


class Critics:
    """V(s), Q(s, a), both or neither: whatever the estimator asked the agent to have."""

    def __init__(
        self,
        networks: Networks,
        *,
        optimizer: Optimizer,
        value_clip: float | None = None,
        learner: AnyLearner = GradientLearner,
    ):
        """Make a learner for each.

        Args:
            networks: has the critics.
            optimizer: takes the steps.
            value_clip: the largest rewarded change of a V(s); None: unlimited.
            learner: what descends a loss.
        """
        self.learners: dict[str, GradientLearner | AutogradLearner] = {}
        self.value_clip = value_clip
        if networks.critic is not None:
            self.learners["value"] = learner(networks.critic, self.value_loss, optimizer)
        if networks.action_critic is not None:
            self.learners["action_value"] = learner(
                networks.action_critic, self.action_value_loss, optimizer
            )

    @property
    def functions(self) -> Sequence[Compilable]:
        """What there is to compile."""
        return [function for learner in self.learners.values() for function in learner.functions]

    def expect(self, batch: CriticBatch, *, rate: float, minibatches: int) -> None:
        """Say what they will be fitted to (see :meth:`Learner.expect`)."""
        for learner in self.learners.values():
            learner.expect(batch, rate=rate, minibatches=minibatches)

    def fit(self, batches: CriticBatch, progress: float) -> dict[str, Tensor]:
        """Take one step of each critic on each of M minibatches.

        Args:
            batches: [M, B, …].
            progress: share of the run's steps done, for the step sizes.

        Returns:
            What the losses log, each [M].
        """
        metrics: dict[str, Tensor] = {}
        for learner in self.learners.values():
            metrics |= learner.fit(batches, learner.rate(progress))
        return metrics

    def fit_epochs(
        self,
        rollout: Rollout,
        target: Tensor,
        *,
        settings: CriticFit,
        progress: float,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Fit the critics, if there are any, in several passes over a rollout.

        Args:
            rollout: as it was judged at collection, [T, N].
            target: value target, [T, N].
            settings: passes, and rows a minibatch.
            progress: share of the run's steps done, for the step size.
            generator: source of the shuffles (CPU).

        Returns:
            Means over the minibatches, each [], and ``updates``, their number.
        """
        history = []
        for _ in range(settings.epochs if self.learners else 0):
            rows = cut(rollout, size=settings.minibatch_size, generator=generator)
            history.append(self.fit(critic_batches(rollout, target, rows), progress))
        return summarize(history)

    def value_loss(
        self, critic: Callable[..., Tensor], batch: CriticBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(φ) = ½ E[(V(s) − target)²]."""
        value = critic(batch.obs)
        if self.value_clip is None:
            error = squared_value_error(value, batch.target)
        else:
            error = clipped_value_error(value, batch.value, batch.target, self.value_clip)
        return error.mean(), {"loss/value": error.mean()}

    def action_value_loss(
        self, critic: Callable[..., Tensor], batch: CriticBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L(φ) = ½ E[(Q(s, a) − target)²]."""
        error = squared_value_error(critic(batch.obs, batch.action), batch.target).mean()
        return error, {"loss/action_value": error}

    def state_dict(self) -> dict[str, Any]:
        """Return the optimisers' states; the weights are the agent's."""
        return {name: learner.state_dict() for name, learner in self.learners.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state[name])


def critic_batches(rollout: Rollout, target: Tensor, rows: Minibatches) -> CriticBatch:
    """Cut what the critics learn from into minibatches.

    Args:
        rollout: as it was judged at collection, with the values that clipped ones stay near.
        target: value target, [T, N].
        rows: row numbers into the flattened rollout, [M, B].
    """
    value = rollout.columns.get("value", torch.zeros_like(target))
    return CriticBatch(*take(rows, rollout.obs, rollout.action, value, target))
