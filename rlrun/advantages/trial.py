"""Finding out, before the first step, what an estimator needs, and its mistakes."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor

from rlrun.advantages.columns import COLUMNS, Estimator, MissingColumn
from rlrun.data.rollout import Rollout, RolloutShape
from rlrun.data.sequences import Sequences
from rlrun.envs.problem import Problem
from rlrun.errors import UserError


def prepare(
    estimator: Estimator | None,
    *,
    critics: bool,
    gamma: float,
    problem: Problem,
    shape: RolloutShape,
    device: torch.device,
) -> tuple[Callable[[Rollout], tuple[Tensor, Tensor]], AbstractSet[str]]:
    """Call an estimator on a few made-up steps, to find out what it needs, and its mistakes.

    Args:
        estimator: called as ``estimator(rollout, gamma=gamma)``.
        critics: whether the algorithm learns critics, if they are asked for.
        gamma: discount of the return.
        problem: what the actions are.
        shape: of the rollouts.
        device: where the learner is.

    Returns:
        The estimator as a function of the rollout alone, and the names of the columns that it
        asks for.

    Raises:
        UserError: there is no estimator, it asks for what this run cannot have, one of its
            constants is out of range, or what it returns is not two tensors [T, N] of finite
            numbers on the device.
    """
    if estimator is None:
        raise UserError("this algorithm needs an estimator: advantage=…, see rlrun --help")
    rollout = made_up_rollout(problem, shape, device)
    while True:
        try:
            result = estimator(rollout, gamma=gamma)
        except MissingColumn as missing:
            require_possible(missing.name, critics=critics, problem=problem)
            filled = {**rollout.columns, missing.name: rollout.reward}
            rollout = replace(rollout, columns=filled)
        except ValueError as error:
            raise UserError(f"advantage: {error}") from error
        else:
            check_result(result, rollout)
            return partial(estimator, gamma=gamma), rollout.columns.keys()


def require_possible(name: str, *, critics: bool, problem: Problem) -> None:
    """Refuse a column that no network of this run can fill in.

    Raises:
        UserError: it needs a critic, and the algorithm learns none; or a sum over all actions.
    """
    if COLUMNS[name].network != "policy" and not critics:
        raise UserError(
            f"advantage: it needs {COLUMNS[name].source}, which this algorithm has not: "
            "take an algorithm with critics"
        )
    if COLUMNS[name].single and problem.language is not None:
        raise UserError(
            f"advantage: it needs {COLUMNS[name].source}, which takes each state by itself: not "
            "for tokens"
        )
    if COLUMNS[name].discrete and not problem.discrete:
        raise UserError(
            "advantage: the mean of Q over all actions needs discrete ones; "
            "advantage.baseline=value needs none"
        )


def check_result(result: Any, rollout: Rollout) -> None:
    """Refuse what an update would broadcast, convert or spread in silence.

    Args:
        result: what the estimator returned for the rollout.
        rollout: T steps of N environments.

    Raises:
        UserError: it is not two tensors [T, N] of finite floats on the rollout's device.
    """
    if not (isinstance(result, tuple) and len(result) == 2):
        raise UserError(f"advantage: it returns {describe(result)}, not (advantage, target)")
    steps, envs = rollout.reward.shape
    for name, tensor in zip(("advantage", "target"), result, strict=True):
        if not isinstance(tensor, Tensor):
            raise UserError(f"advantage: its {name} is {describe(tensor)}, not a tensor [T, N]")
        if tensor.shape != rollout.reward.shape:
            raise UserError(
                f"advantage: its {name} has the shape {list(tensor.shape)} where T = {steps} and "
                f"N = {envs}, not [T, N]"
            )
        if tensor.dtype != rollout.reward.dtype:
            raise UserError(f"advantage: its {name} is of {tensor.dtype}, not float32")
        if tensor.device != rollout.reward.device:
            raise UserError(
                f"advantage: its {name} is on {tensor.device}, not on {rollout.reward.device}"
            )
        if not tensor[rollout.mask].isfinite().all():
            raise UserError(f"advantage: its {name} is not finite where all rewards are")


def describe(value: Any) -> str:
    """Name the kind of a value in a few words."""
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return f"a value of type {type(value).__name__}"


def made_up_rollout(problem: Problem, shape: RolloutShape, device: torch.device) -> Rollout:
    """Return a short rollout that looks like those of a run, [T, N] with T different from N."""
    steps = 2 if shape.num_envs != 2 else 3
    size = (steps, shape.num_envs)
    reward = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)
    never = torch.zeros(size, dtype=torch.bool, device=device)
    obs: Tensor | Sequences = torch.zeros(*size, problem.obs_size, device=device)
    if shape.sequences:
        tokens = torch.zeros(1 + steps, shape.num_envs, dtype=torch.int64, device=device)
        obs = Sequences(tokens, torch.zeros_like(tokens[0]), prompt_rows=1)
    action = (
        torch.zeros(size, dtype=torch.int64, device=device)
        if isinstance(problem.action_space, spaces.Discrete)
        else torch.zeros(*size, *problem.action_space.shape, device=device)
    )
    ended = never.clone()
    ended[-1] = shape.whole_episodes
    group = None
    if shape.group_size > 1:
        group = (torch.arange(shape.num_envs, device=device) // shape.group_size).expand(size)
    return Rollout(
        obs=obs,
        next_obs=obs,
        raw_obs=obs,
        action=action,
        logp=reward - 1,
        reward=reward,
        raw_reward=reward,
        terminated=ended,
        truncated=never,
        mask=~never,
        whole_episodes=shape.whole_episodes,
        group=group,
    )
