"""Robots that move in a plane and are paid for their speed along x."""

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State
from rlrun.envs.mujoco.tasks.terms import (
    clip,
    every,
    forward_velocity,
    gaussian_velocity_start,
    inside,
    never,
    squared_norm,
    uniform_start,
)

# Observed joint velocities of the hopper and the walker are clipped to this, m/s and rad/s.
VELOCITY_BOUNDS = (-10.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Hopper:
    """Gymnasium's ``Hopper-v5``: a one-legged robot hops forward without falling.

    q = (x, z, torso angle, 3 leg joints).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    compares: ClassVar[tuple[str, ...]] = ("qpos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    healthy_reward: float
    terminate_when_unhealthy: bool
    healthy_state_range: tuple[float, float]
    healthy_z_range: tuple[float, float]
    healthy_angle_range: tuple[float, float]
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the standing pose."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint positions without x, and clipped velocities."""
        hidden = 1 if self.exclude_current_positions_from_observation else 0
        return np.concatenate((state.qpos[:, hidden:], clip(state.qvel, VELOCITY_BOUNDS)), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed + healthy reward − control cost; ends when unhealthy."""
        healthy = (
            inside(after.qpos[:, 1], self.healthy_z_range)
            & inside(after.qpos[:, 2], self.healthy_angle_range)
            & every(inside(after.qpos[:, 2:], self.healthy_state_range))
            & every(inside(after.qvel, self.healthy_state_range))
        )
        gain = self.forward_reward_weight * forward_velocity(before, after)
        cost = self.ctrl_cost_weight * squared_norm(action)
        reward = gain + healthy * self.healthy_reward - cost
        return reward, ~healthy & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class Walker2d:
    """Gymnasium's ``Walker2d-v5``: a two-legged robot walks forward without falling.

    q = (x, z, torso angle, 3 + 3 leg joints).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    compares: ClassVar[tuple[str, ...]] = ("qpos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    healthy_reward: float
    terminate_when_unhealthy: bool
    healthy_z_range: tuple[float, float]
    healthy_angle_range: tuple[float, float]
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the standing pose."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint positions without x, and clipped velocities."""
        hidden = 1 if self.exclude_current_positions_from_observation else 0
        return np.concatenate((state.qpos[:, hidden:], clip(state.qvel, VELOCITY_BOUNDS)), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed + healthy reward − control cost; ends when unhealthy."""
        healthy = inside(after.qpos[:, 1], self.healthy_z_range) & inside(
            after.qpos[:, 2], self.healthy_angle_range
        )
        gain = self.forward_reward_weight * forward_velocity(before, after)
        cost = self.ctrl_cost_weight * squared_norm(action)
        reward = gain + healthy * self.healthy_reward - cost
        return reward, ~healthy & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class HalfCheetah:
    """Gymnasium's ``HalfCheetah-v5``: a two-legged cat runs forward; it cannot fall.

    q = (x, z, torso angle, 3 + 3 leg joints).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    compares: ClassVar[tuple[str, ...]] = ("qpos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw noise around the standing pose: positions uniform, velocities normal."""
        return gaussian_velocity_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint positions without x, and velocities."""
        hidden = 1 if self.exclude_current_positions_from_observation else 0
        return np.concatenate((state.qpos[:, hidden:], state.qvel), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed − control cost."""
        gain = self.forward_reward_weight * forward_velocity(before, after)
        return gain - self.ctrl_cost_weight * squared_norm(action), never(after)


@dataclass(frozen=True, kw_only=True)
class Swimmer:
    """Gymnasium's ``Swimmer-v5``: a chain of three links swims forward in a viscous plane.

    q = (x, y, angle of the first link, 2 joints).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    compares: ClassVar[tuple[str, ...]] = ("qpos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the stretched pose."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint positions without x and y, and velocities."""
        hidden = 2 if self.exclude_current_positions_from_observation else 0
        return np.concatenate((state.qpos[:, hidden:], state.qvel), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed − control cost."""
        gain = self.forward_reward_weight * forward_velocity(before, after)
        return gain - self.ctrl_cost_weight * squared_norm(action), never(after)
