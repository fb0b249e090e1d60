"""The ant: four legs, paid for its speed along x."""

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State
from rlrun.envs.mujoco.tasks.terms import clip, finite, flat, gaussian_velocity_start, squared_norm


@dataclass(frozen=True, kw_only=True)
class Ant:
    """Gymnasium's ``Ant-v5``: a four-legged robot runs forward without jumping or lying down.

    q = (x, y, z, orientation quaternion, 8 leg joints).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "xpos", "cfrc_ext")
    compares: ClassVar[tuple[str, ...]] = ("xpos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    contact_cost_weight: float
    healthy_reward: float
    main_body: int | str
    terminate_when_unhealthy: bool
    healthy_z_range: tuple[float, float]
    contact_force_range: tuple[float, float]
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool
    include_cfrc_ext_in_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw noise around the standing pose: positions uniform, velocities normal."""
        return gaussian_velocity_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint positions without x and y, velocities, and clipped contact forces."""
        hidden = 2 if self.exclude_current_positions_from_observation else 0
        parts = [state.qpos[:, hidden:], state.qvel]
        if self.include_cfrc_ext_in_observation:
            forces = clip(state.cfrc_ext[:, 1:], self.contact_force_range)  # without the world
            parts.append(flat(forces))
        return np.concatenate(parts, axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed + healthy reward − control cost − contact cost; ends when unhealthy."""
        low, high = self.healthy_z_range
        height = after.qpos[:, 2]
        healthy = finite(after) & (low <= height) & (height <= high)
        body = after.model.body(self.main_body).id
        velocity = (after.xpos[:, body, 0] - before.xpos[:, body, 0]) / after.dt
        forces = clip(after.cfrc_ext, self.contact_force_range)
        control_cost = self.ctrl_cost_weight * squared_norm(action)
        contact_cost = self.contact_cost_weight * squared_norm(flat(forces))
        gain = velocity * self.forward_reward_weight + healthy * self.healthy_reward
        return gain - (control_cost + contact_cost), ~healthy & self.terminate_when_unhealthy
