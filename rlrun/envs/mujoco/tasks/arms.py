"""Arms that bring their tip, or an object, to a goal."""

from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np

from rlrun.envs.mujoco.tasks.task import Bools, Floats, State
from rlrun.envs.mujoco.tasks.terms import distance, never, squared_norm


@dataclass(frozen=True, kw_only=True)
class Reacher:
    """Gymnasium's ``Reacher-v5``: a planar arm moves its fingertip to a target.

    q = (2 arm joints, x and y of the target).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "xpos")
    compares: ClassVar[tuple[str, ...]] = ()

    xml_file: str
    frame_skip: int
    reward_dist_weight: float
    reward_control_weight: float

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw the arm around its rest, and a target in the disc of radius 0.2 m."""
        qpos = model.qpos0 + rng.uniform(-0.1, 0.1, size=model.nq)
        target = rng.uniform(-0.2, 0.2, size=2)
        while np.linalg.norm(target) >= 0.2:
            target = rng.uniform(-0.2, 0.2, size=2)
        qpos[-2:] = target
        qvel = rng.uniform(-0.005, 0.005, size=model.nv)
        qvel[-2:] = 0.0
        return qpos, qvel

    def observe(self, state: State) -> Floats:
        """Return cos and sin of the joints, target, joint velocities, and tip − target."""
        angles = state.qpos[:, :2]
        return np.concatenate(
            (
                np.cos(angles),
                np.sin(angles),
                state.qpos[:, 2:],
                state.qvel[:, :2],
                (_place(state, "fingertip") - _place(state, "target"))[:, :2],
            ),
            axis=1,
        )

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """− distance of the tip to the target − control cost."""
        miss = distance(_place(after, "fingertip"), _place(after, "target"))
        cost = self.reward_control_weight * squared_norm(action)
        return -self.reward_dist_weight * miss - cost, never(after)


@dataclass(frozen=True, kw_only=True)
class Pusher:
    """Gymnasium's ``Pusher-v5``: an arm with 7 joints pushes a cylinder to a goal.

    q = (7 arm joints, x and y of the cylinder, x and y of the goal).
    """

    reads: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "xpos")
    compares: ClassVar[tuple[str, ...]] = ()

    xml_file: str
    frame_skip: int
    reward_near_weight: float
    reward_dist_weight: float
    reward_control_weight: float

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw the cylinder's place, more than 0.17 m from the goal, and the arm's velocity."""
        qpos = model.qpos0.copy()
        cylinder = _draw_cylinder(rng)
        while np.linalg.norm(cylinder) <= 0.17:
            cylinder = _draw_cylinder(rng)
        qpos[-4:-2] = cylinder
        qpos[-2:] = 0.0
        qvel = rng.uniform(-0.005, 0.005, size=model.nv)
        qvel[-4:] = 0.0
        return qpos, qvel

    def observe(self, state: State) -> Floats:
        """Positions and velocities of the arm's joints; places of its tip, cylinder and goal."""
        places = [_place(state, name) for name in ("tips_arm", "object", "goal")]
        return np.concatenate((state.qpos[:, :7], state.qvel[:, :7], *places), axis=1)

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """− distance cylinder to goal − distance tip to cylinder − control cost."""
        tip, cylinder = _place(after, "tips_arm"), _place(after, "object")
        far = self.reward_dist_weight * distance(cylinder, _place(after, "goal"))
        near = self.reward_near_weight * distance(cylinder, tip)
        cost = self.reward_control_weight * squared_norm(action)
        return -far - cost - near, never(after)


def _draw_cylinder(rng: np.random.Generator) -> Floats:
    """Place of the cylinder relative to the goal (x, y), m."""
    return np.array([rng.uniform(-0.3, 0.0), rng.uniform(-0.2, 0.2)])


def _place(state: State, body: str) -> Floats:
    """Position of a body [N, 3], m."""
    return state.xpos[:, state.body_ids[body]]
