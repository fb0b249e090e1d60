"""Evaluation: whole episodes of the greedy policy, apart from training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rlrun.config.experiment import Experiment
from rlrun.envs.control import ControlEnv, EnvStep
from rlrun.envs.tokens.task import TokenTask
from rlrun.hardware.memory import memory_suffices


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns and lengths of the episodes, in the order of the environments.

    Attributes:
        transcripts: some of them for people to read, if there is anything to read.
    """

    returns: list[float]
    lengths: list[int]
    transcripts: Sequence[dict[str, Any]] = ()

    def metrics(self) -> dict[str, float]:
        """Summarise for the logs."""
        return {
            "eval/return": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/length": float(np.mean(self.lengths)),
        }


def which_limit(env_id: str, time_limit: int | None, max_length: int) -> str | None:
    """Say which limit ends an episode of an evaluation, where it is not that of training.

    Args:
        env_id: the environment's name.
        time_limit: steps after which it truncates an episode; None: it has no limit.
        max_length: steps after which an episode of an evaluation counts as over.

    Returns:
        One line; None if the environment's own limit comes first, as in training.
    """
    if time_limit is None:
        return (
            f"{env_id} has no time limit: an episode of an evaluation counts as over after "
            f"evaluation.max_length={max_length} steps, one of training when it ends by itself"
        )
    if max_length < time_limit:
        return (
            f"an episode of an evaluation counts as over after evaluation.max_length={max_length} "
            f"steps, before {env_id}'s time limit of {time_limit}"
        )
    return None


class Playable(Protocol):
    """What episodes are played in: a `ControlEnv`, or what looks like one."""

    device: torch.device
    num_envs: int

    def reset(self, seed: int) -> Tensor:
        """Begin an episode in every environment; return the observations, [N, D]."""

    def step(self, action: Tensor, rows: Tensor | None = None) -> EnvStep:
        """Advance all environments, or some rows of them."""

    def drain_episodes(self) -> list[tuple[float, int]]:
        """Forget the episodes that have ended."""


def unwatched(over: int) -> None:
    """Pass over how many episodes have ended."""


@torch.inference_mode()
def play_episodes(
    policy: Callable[[Tensor], Tensor],
    env: Playable,
    *,
    seed: int,
    max_length: int,
    watch: Callable[[int], None] = unwatched,
) -> Episodes:
    """Play one episode in each environment; who has ended waits for the others.

    Counting the first episode of each environment, rather than the first episodes to end, keeps
    short episodes from being counted more often than long ones.

    Args:
        policy: raw observations [N, D] -> actions, [N] or [N, A].
        env: N environments that nothing else uses.
        seed: environment i starts from ``seed + i``.
        max_length: steps after which an episode counts as over; without it, a policy that never
            ends an episode would never be done where the environment has no limit either.
        watch: is told at each step how many episodes have ended.
    """
    obs = env.reset(seed)
    returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    lengths = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    while running.any() and lengths.max() < max_length:
        rows = None if running.all() else running.nonzero()[:, 0]
        step = env.step(policy(obs), rows)
        returns += step.reward
        lengths += running
        running &= ~(step.terminated | step.truncated)
        obs = step.obs
        watch(env.num_envs - int(running.sum()))
    env.drain_episodes()  # or they would pile up
    return Episodes(returns.tolist(), lengths.tolist())


class Evaluator:
    """Plays a run's policy in environments that training never touches."""

    def __init__(self, experiment: Experiment, policy: Callable[[Tensor], Tensor]):
        """Make nothing yet.

        Args:
            experiment: gives the environment, and the length of an episode.
            policy: raw observations [N, D] -> actions, [N] or [N, A].
        """
        self._experiment = experiment
        self._policy = policy
        self._env: ControlEnv | None = None

    def play(
        self, episodes: int, *, seed: int, watch: Callable[[int], None] = unwatched
    ) -> Episodes:
        """Play episodes side by side (see :func:`play_episodes`).

        Args:
            episodes: how many, each in an environment of its own; these are kept for the next time.
            seed: of the first one.
            watch: is told at each step how many episodes have ended.

        Raises:
            UserError: there is no memory for so many environments.
        """
        if self._env is None or self._env.num_envs != episodes:
            self.close()
            self._env = self.make(episodes)
        return self.play_in(self._env, seed=seed, watch=watch)

    def play_in(
        self, env: Playable, *, seed: int, watch: Callable[[int], None] = unwatched
    ) -> Episodes:
        """Play an episode in each of some environments, as `play` does in its own."""
        max_length = self._experiment.evaluation.max_length
        return play_episodes(self._policy, env, seed=seed, max_length=max_length, watch=watch)

    @memory_suffices("the environments of an evaluation")
    def make(self, episodes: int) -> ControlEnv:
        """Make environments for so many episodes; they are the caller's.

        Raises:
            UserError: there is no memory for so many.
        """
        spec = self._experiment.env
        if isinstance(spec, TokenTask):
            held_out = spec.make_held_out(num_envs=episodes)
            return ControlEnv(held_out, action_units=spec.action_units)
        threads = self._experiment.hardware.physics_threads
        return ControlEnv.make(spec, num_envs=episodes, threads=threads)

    def close(self) -> None:
        """Let the environments go."""
        if self._env is not None:
            self._env.close()
            self._env = None
