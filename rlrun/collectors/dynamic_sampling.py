"""Dynamic sampling: groups that teach nothing are dropped, and more are played in their place.

Yu et al. 2025, "DAPO" (arXiv:2503.14476), §3.2: the advantages of a group whose returns are all
equal are zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlrun.collectors.contract import Actor, Collector
from rlrun.collectors.episodes import Episodes
from rlrun.config.types import Count, NonNegative, NonNegativeInt
from rlrun.data.groups import join, return_spreads, take_episodes
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import UserError, warn

# Calls in a row that return no episode, after which a run says so.
MANY_EMPTY = 10


@dataclass(frozen=True, kw_only=True)
class DynamicSampling:
    """Settings; ``conf/collector/dynamic_sampling.yaml`` explains them."""

    group_size: Count
    max_refills: NonNegativeInt
    spread_tolerance: NonNegative

    def shape(self, problem: Problem, num_envs: int) -> RolloutShape:
        """N episodes in groups, or fewer (see :class:`~.contract.CollectorSpec`).

        Raises:
            UserError: there are no groups, or they do not fit.
        """
        if self.group_size < 2:
            raise UserError(
                "collector=dynamic_sampling drops groups without a spread: "
                "collector.group_size=8, say"
            )
        shape = Episodes(group_size=self.group_size).shape(problem, num_envs)
        return replace(shape, may_be_empty=True)

    def open(
        self, env: ControlEnv, shape: RolloutShape, *, seed: int
    ) -> "DynamicSamplingCollector":
        """Wrap a collector of groups (see :class:`~.contract.CollectorSpec`)."""
        groups = Episodes(group_size=self.group_size).open(env, shape, seed=seed)
        return DynamicSamplingCollector(
            groups, shape, max_refills=self.max_refills, spread_tolerance=self.spread_tolerance
        )


class DynamicSamplingCollector:
    """Collects until N episodes are in groups with a spread, or for as often as it may."""

    def __init__(
        self,
        groups: Collector,
        shape: RolloutShape,
        *,
        max_refills: int,
        spread_tolerance: float,
    ):
        """Wrap a collector.

        Args:
            groups: plays N episodes a call, the members of a group side by side.
            shape: of its rollouts.
            max_refills: calls of it beside the first.
            spread_tolerance: largest difference of a group's raw returns that counts as none.
        """
        self._groups = groups
        self._shape = shape
        self._max_refills = max_refills
        self._spread_tolerance = spread_tolerance
        self._empty = 0

    def collect(self, actor: Actor) -> Transitions:
        """Return N episodes of groups with a spread, or as many as there are.

        All steps count as the run's, also those of dropped groups.
        """
        kept: list[Transitions] = []
        said: list[Mapping[str, Tensor]] = []
        missing, dropped = self._shape.num_envs, 0
        while missing > 0 and len(kept) <= self._max_refills:
            played = self._groups.collect(actor)
            outcome = played.reward if played.outcome is None else played.outcome
            spreads = return_spreads(outcome, played.mask, self._shape.group_size)
            has_spread = spreads > self._spread_tolerance
            members = has_spread.repeat_interleave(self._shape.group_size).nonzero().squeeze(-1)
            kept.append(take_episodes(played, members[:missing]))
            said.append(played.metrics)
            missing -= len(members)
            dropped += int((~has_spread).sum())
        metrics = {
            **means(said),
            "groups/dropped": torch.tensor(dropped),
            "groups/refills": torch.tensor(len(kept) - 1),
        }
        self._say_if_there_is_nothing(dropped, of=len(kept))
        return replace(join(kept), metrics=metrics)

    def _say_if_there_is_nothing(self, dropped: int, *, of: int) -> None:
        """Warn once, when call after call has returned no episode, which skips the update."""
        groups = of * self._shape.num_envs // self._shape.group_size
        self._empty = self._empty + 1 if dropped == groups else 0
        if self._empty == MANY_EMPTY:
            warn(
                f"nothing was learned in {MANY_EMPTY} iterations in a row: the returns of each "
                "group are equal, the task being solved or out of reach"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the collector that it wraps."""
        return self._groups.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._groups.load_state_dict(state)


def means(said: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean over the collections of each number that they say, []."""
    return {name: torch.stack([each[name] for each in said]).mean() for name in said[0]}
