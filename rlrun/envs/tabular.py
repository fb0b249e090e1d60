"""The model of an environment whose states can be counted: P, r, and where it begins and ends."""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from torch import Tensor

from rlrun.envs.contract import EnvironmentSpec
from rlrun.envs.flatten import category_sizes
from rlrun.envs.gym_env import FreshEachEpisode
from rlrun.errors import UserError

# What the probabilities of an action's outcomes may differ from 1 by.
ROUNDING = 1e-6

# Wrappers that do not change what a step leads to.
HARMLESS = (FreshEachEpisode, OrderEnforcing, PassiveEnvChecker, TimeLimit)


@dataclass(frozen=True)
class TabularModel:
    """A finite Markov decision process of S states and A actions, all float64.

    Attributes:
        transition: P(s'|s, a) of the outcomes after which the episode goes on, [S, A, S]. What is
            missing to 1 is the probability that it ends: after that there is no value.
        reward: r(s, a) = E[r|s, a], [S, A].
    """

    transition: Tensor
    reward: Tensor


@dataclass(frozen=True)
class Grid:
    """How states are arranged that are numbered from 0.

    Attributes:
        sizes: how many values each part of a state has, of which the last one counts fastest: its
            row and its column; or what a hand of Blackjack is made of.
        moves: an arrow for each action; none where actions are no moves.
    """

    sizes: tuple[int, ...]
    moves: str = ""


def read_table(spec: EnvironmentSpec) -> TabularModel:
    """Read the model of an environment, as Gymnasium's toy_text has it in ``P``.

    Args:
        spec: makes the environment.

    Raises:
        UserError: the environment has none, or it is not a model of its spaces.
    """
    env = spec.make_single(render_mode=None)
    try:
        states, actions = env.observation_space, env.action_space
        if category_sizes(states) is None or not isinstance(actions, spaces.Discrete):
            raise UserError(f"{spec.id} is no table: its states and actions cannot be counted")
        try:
            table = env.get_wrapper_attr("P")
        except AttributeError as error:
            raise UserError(
                f"{spec.id} does not say its transitions (P), which planning and exact values "
                "need: algo=q_learning learns without them"
            ) from error
        if not isinstance(states, spaces.Discrete):
            raise UserError(f"{spec.id}: its P is of numbered states, which it does not show")
        _require_bare(spec.id, env)
        return TabularModel(*_tensors(spec.id, table, int(states.n), int(actions.n)))
    finally:
        env.close()


def _require_bare(env_id: str, env: gym.Env) -> None:
    """Refuse an environment that is not what its table says, as it is wrapped."""
    while isinstance(env, gym.Wrapper):
        if type(env) not in HARMLESS:
            raise UserError(f"{env_id}: its P does not know of the wrapper {type(env).__name__}")
        env = env.env


def _tensors(env_id: str, table: Any, states: int, actions: int) -> tuple[Tensor, Tensor]:
    """Sum up a table's outcomes, ``table[s][a] = [(probability, s', r, terminated), …]``."""
    transition = torch.zeros(states, actions, states, dtype=torch.float64)
    reward = torch.zeros(states, actions, dtype=torch.float64)
    for s in range(states):
        for a in range(actions):
            try:
                outcomes = [(float(p), int(t), float(r), bool(end)) for p, t, r, end in table[s][a]]
            except (LookupError, TypeError, ValueError) as error:
                raise UserError(
                    f"{env_id}: P[{s}][{a}] is no list of (probability, next state, reward, "
                    f"terminated): {error}"
                ) from error
            total = sum(p for p, *_ in outcomes)
            if abs(total - 1) > ROUNDING:
                raise UserError(f"{env_id}: the probabilities of P[{s}][{a}] sum to {total:g}")
            for probability, successor, outcome, terminated in outcomes:
                if not 0 <= successor < states:
                    raise UserError(f"{env_id}: P[{s}][{a}] leads to state {successor}")
                reward[s, a] += probability * outcome
                if not terminated:
                    transition[s, a, successor] += probability
    if not reward.isfinite().all():
        raise UserError(f"{env_id}: a reward of P is not finite")
    return transition, reward


def read_grid(spec: EnvironmentSpec, states: int) -> Grid:
    """Return how the states of an environment are arranged, as far as it says so.

    Args:
        spec: makes the environment.
        states: S, as they are counted; an environment may be wrapped so that there are others.
    """
    env = spec.make_single(render_mode=None)
    try:
        match env.unwrapped:
            case FrozenLakeEnv(nrow=rows, ncol=columns):
                grid = Grid((rows, columns), moves="←↓→↑")
            case CliffWalkingEnv(shape=(rows, columns)):
                grid = Grid((rows, columns), moves="↑→↓←")
            case _:
                grid = Grid(category_sizes(env.observation_space) or ())
    finally:
        env.close()
    return grid if math.prod(grid.sizes) == states else Grid((states,))
