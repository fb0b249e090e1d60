"""Poles to be balanced on a cart."""

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State
from rlrun.envs.mujoco.tasks.terms import clip, finite, gaussian_velocity_start, uniform_start

# Beyond this angle the pole of the inverted pendulum has fallen, rad.
LARGEST_ANGLE = 0.2

# Below this height of its tip the double pendulum has fallen, m.
LOWEST_TIP = 1.0

# Observed velocities and constraint forces of the double pendulum are clipped to this.
OBSERVATION_BOUNDS = (-10.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class InvertedPendulum:
    """Gymnasium's ``InvertedPendulum-v5``: balance one pole.

    q = (x of the cart, angle of the pole).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    compares: ClassVar[tuple[str, ...]] = ()

    xml_file: str
    frame_skip: int
    reset_noise_scale: float

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the upright pole."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Positions and velocities."""
        return np.concatenate((state.qpos, state.qvel), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """1 until the pole falls."""
        balanced = finite(after) & (np.abs(after.qpos[:, 1]) <= LARGEST_ANGLE)
        return balanced.astype(np.float64), ~balanced


@dataclass(frozen=True, kw_only=True)
class InvertedDoublePendulum:
    """Gymnasium's ``InvertedDoublePendulum-v5``: balance a pole on a pole.

    q = (x of the cart, angles of the two poles).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "site_xpos", "qfrc_constraint")
    compares: ClassVar[tuple[str, ...]] = ()

    xml_file: str
    frame_skip: int
    healthy_reward: float
    reset_noise_scale: float

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw noise around the upright poles: positions uniform, velocities normal."""
        return gaussian_velocity_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Cart position, sin and cos of the angles, velocities, constraint force on the cart."""
        # NumPy takes half the time for arrays without gaps, which copies and joined parts are.
        angles = state.qpos[:, 1:].copy()
        clipped = np.concatenate((state.qvel, state.qfrc_constraint[:, :1]), axis=1)
        parts = (
            *(state.qpos[:, :1], np.sin(angles), np.cos(angles)),
            clip(clipped, OBSERVATION_BOUNDS),
        )
        return np.concatenate(parts, axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Healthy reward − distance of the tip from its place − velocity penalty."""
        x, height = after.site_xpos[:, 0, 0], after.site_xpos[:, 0, 2]
        fallen = height <= LOWEST_TIP
        distance_penalty = 0.01 * x**2 + (height - 2.0) ** 2
        velocity_penalty = 1e-3 * after.qvel[:, 1] ** 2 + 5e-3 * after.qvel[:, 2] ** 2
        reward = self.healthy_reward * ~fallen - distance_penalty - velocity_penalty
        return reward, fallen
