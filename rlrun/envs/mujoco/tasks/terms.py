"""Formulas that several tasks share."""

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State


def uniform_start(
    model: mujoco.MjModel, rng: np.random.Generator, scale: float
) -> tuple[Floats, Floats]:
    """Draw q ~ q₀ + U(−scale, scale), then q̇ ~ U(−scale, scale)."""
    qpos = model.qpos0 + rng.uniform(-scale, scale, size=model.nq)
    qvel = rng.uniform(-scale, scale, size=model.nv)
    return qpos, qvel


def gaussian_velocity_start(
    model: mujoco.MjModel, rng: np.random.Generator, scale: float
) -> tuple[Floats, Floats]:
    """Draw q ~ q₀ + U(−scale, scale), then q̇ ~ N(0, scale²)."""
    qpos = model.qpos0 + rng.uniform(-scale, scale, size=model.nq)
    qvel = scale * rng.standard_normal(model.nv)
    return qpos, qvel


def forward_velocity(before: State, after: State) -> Floats:
    """Mean speed of the first joint coordinate, x, over the step [N], m/s."""
    return (after.qpos[:, 0] - before.qpos[:, 0]) / after.dt


def squared_norm(vectors: Floats) -> Floats:
    """Σ v² over all axes but the first, [N, …] -> [N]."""
    return np.square(vectors).reshape(len(vectors), -1).sum(axis=1)


def clip(values: Floats, bounds: tuple[float, float]) -> Floats:
    """Limit values to bounds; two ufuncs take half the time of ``np.clip`` on a small batch."""
    low, high = bounds
    return np.minimum(np.maximum(values, low), high)


def inside(values: Floats, bounds: tuple[float, float]) -> Bools:
    """Whether low < value < high; NaN is outside."""
    low, high = bounds
    return np.logical_and(low < values, values < high)


def finite(state: State) -> Bools:
    """Whether all joint positions and velocities are finite [N]."""
    return np.isfinite(state.qpos).all(axis=1) & np.isfinite(state.qvel).all(axis=1)


def never(state: State) -> Bools:
    """Termination of a task that does not end by itself [N]."""
    return np.zeros(len(state.qpos), np.bool_)
