"""Room for what environments do, until it is one batch."""

from typing import Protocol, Self

import torch
from torch import Tensor

from rlrun.data.normalize import RunningMoments
from rlrun.data.rollout import Transitions
from rlrun.envs.control import EnvStep


class Behaviour(Protocol):
    """The distributions μ(·|s) that actions were drawn from (``models/distributions.py``).

    Those of one policy differ in nothing but their parameters.
    """

    @property
    def parameters(self) -> Tensor:
        """All that they are made of, [..., P]."""
        ...

    def with_parameters(self, parameters: Tensor) -> Self:
        """Return distributions of this kind with other parameters."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log μ(a|s), [...]."""
        ...


class RolloutBuffer:
    """The steps of N environments, one row each, on the environments' device.

    An environment returns new tensors at every step, so that a row is kept by holding on to them;
    they are copied once, into time-major columns that nothing else writes to. Of μ the parameters
    are kept, and log μ(a|s) is computed of all rows at once: at each step, it would take as long
    as the policy's forward pass.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: list[tuple[Tensor, ...]] = []
        self._kind: Behaviour

    def append(self, obs: Tensor, action: Tensor, behaviour: Behaviour, step: EnvStep) -> None:
        """Keep one step.

        Args:
            obs: what the actor saw, [N, D].
            action: what it did, [N] or [N, A].
            behaviour: the distributions that this was drawn from, [N].
            step: what the environments made of it.
        """
        self._kind = behaviour
        drawn = (obs, action, behaviour.parameters)
        self._rows.append((*drawn, step.next_obs, step.reward, step.terminated, step.truncated))

    def transitions(
        self,
        *,
        mask: Tensor,
        group: Tensor | None,
        whole_episodes: bool,
        policy_version: int,
        steps: int,
    ) -> Transitions:
        """Make one batch of all rows, and forget them.

        Args:
            mask: rows that count, [T, N].
            group: number of each row's group, [T, N], or None.
            whole_episodes: whether each column is one whole episode.
            policy_version: of the policy that acted.
            steps: environment steps that it took.
        """
        # Outside of inference mode these are ordinary tensors, which autograd takes.
        columns = [torch.stack(column) for column in zip(*self._rows, strict=True)]
        self._rows = []
        obs, action, parameters, next_obs, reward, terminated, truncated = columns
        return Transitions(
            obs=obs,
            next_obs=next_obs,
            action=action,
            logp=self._kind.with_parameters(parameters).log_prob(action),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            mask=mask,
            whole_episodes=whole_episodes,
            group=group,
            policy_version=torch.full(mask.shape, policy_version, device=mask.device),
            obs_moments=RunningMoments.of(obs[mask]),
            steps=steps,
        )
