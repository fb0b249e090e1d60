"""The humanoid: a 3-D robot with two legs, two arms and 17 actuated joints."""

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State
from rlrun.envs.mujoco.tasks.terms import clip, flat, inside, never, squared_norm, uniform_start


@dataclass(frozen=True, kw_only=True)
class Humanoid:
    """Gymnasium's ``Humanoid-v5``: walk forward without falling.

    q = (x, y, z, orientation quaternion, 17 joints).
    """

    reads: ClassVar[tuple[str, ...]] = (
        *("qpos", "qvel", "ctrl", "xipos"),
        *("cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
    )
    compares: ClassVar[tuple[str, ...]] = ("xipos",)

    xml_file: str
    frame_skip: int
    forward_reward_weight: float
    ctrl_cost_weight: float
    contact_cost_weight: float
    contact_cost_range: tuple[float, float]
    healthy_reward: float
    terminate_when_unhealthy: bool
    healthy_z_range: tuple[float, float]
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool
    include_cinert_in_observation: bool
    include_cvel_in_observation: bool
    include_qfrc_actuator_in_observation: bool
    include_cfrc_ext_in_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the standing pose."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint state, inertias, velocities and forces of the bodies."""
        return _observe_bodies(self, state)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Forward speed + healthy reward − control cost − contact cost; ends when unhealthy."""
        healthy = inside(after.qpos[:, 2], self.healthy_z_range)
        velocity = (_center_of_mass_x(after) - _center_of_mass_x(before)) / after.dt
        # Of MuJoCo's float64 copy of the action, as in Gymnasium.
        control_cost = self.ctrl_cost_weight * squared_norm(after.ctrl)
        contact_cost = self.contact_cost_weight * squared_norm(flat(after.cfrc_ext))
        contact_cost = clip(contact_cost, self.contact_cost_range)
        gain = self.forward_reward_weight * velocity + healthy * self.healthy_reward
        return gain - (control_cost + contact_cost), ~healthy & self.terminate_when_unhealthy


@dataclass(frozen=True, kw_only=True)
class HumanoidStandup:
    """Gymnasium's ``HumanoidStandup-v5``: get up from lying on the back.

    q = (x, y, z, orientation quaternion, 17 joints).
    """

    reads: ClassVar[tuple[str, ...]] = (
        *("qpos", "qvel", "ctrl"),
        *("cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
    )
    compares: ClassVar[tuple[str, ...]] = ()

    xml_file: str
    frame_skip: int
    uph_cost_weight: float
    ctrl_cost_weight: float
    impact_cost_weight: float
    impact_cost_range: tuple[float, float]
    reset_noise_scale: float
    exclude_current_positions_from_observation: bool
    include_cinert_in_observation: bool
    include_cvel_in_observation: bool
    include_qfrc_actuator_in_observation: bool
    include_cfrc_ext_in_observation: bool

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw uniform noise around the lying pose."""
        return uniform_start(model, rng, self.reset_noise_scale)

    def observe(self, state: State) -> Floats:
        """Joint state, inertias, velocities and forces of the bodies."""
        return _observe_bodies(self, state)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Height over the physics' time step − control cost − impact cost + 1.

        ``uph_cost_weight`` has no effect, as in Gymnasium 1.4.
        """
        height = after.qpos[:, 2] / after.model.opt.timestep
        control_cost = self.ctrl_cost_weight * squared_norm(after.ctrl)
        impact_cost = self.impact_cost_weight * squared_norm(flat(after.cfrc_ext))
        impact_cost = clip(impact_cost, self.impact_cost_range)
        return height - control_cost - impact_cost + 1.0, never(after)


def _observe_bodies(task: Humanoid | HumanoidStandup, state: State) -> Floats:
    """Observation of both tasks [N, D]; the world body and the root's 6 joints are left out."""
    hidden = 2 if task.exclude_current_positions_from_observation else 0
    parts = [state.qpos[:, hidden:], state.qvel]
    if task.include_cinert_in_observation:
        parts.append(flat(state.cinert[:, 1:]))
    if task.include_cvel_in_observation:
        parts.append(flat(state.cvel[:, 1:]))
    if task.include_qfrc_actuator_in_observation:
        parts.append(state.qfrc_actuator[:, 6:])
    if task.include_cfrc_ext_in_observation:
        parts.append(flat(state.cfrc_ext[:, 1:]))
    return np.concatenate(parts, axis=1)


def _center_of_mass_x(state: State) -> Floats:
    """Center of mass of the model along x, Σ m x / Σ m over the bodies [N], m."""
    mass = state.model.body_mass
    return state.xipos[:, :, 0] @ mass / mass.sum()
