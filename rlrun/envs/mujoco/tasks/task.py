"""What a MuJoCo task is: a model, a draw of starts, and functions of a batch of states.

A task knows nothing of what computes the physics: it reads a ``State``, whoever filled it.
"""

from typing import ClassVar, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


class State:
    """N simulations of one model: fields of ``MjData`` with a leading axis N.

    Only the fields that the task ``reads`` are there. ``qpos``, ``qvel`` and ``ctrl`` are current.
    The derived fields describe the state before the last substep, which is how ``mj_step`` leaves
    them and how Gymnasium reads them; after a reset they are current.

    Attributes:
        qpos: joint positions [N, nq].
        qvel: joint velocities [N, nv].
        ctrl: controls [N, nu].
        xpos: positions of the body frames [N, nbody, 3], m.
        xipos: centers of mass of the bodies [N, nbody, 3], m.
        site_xpos: positions of the sites [N, nsite, 3], m.
        cinert: inertias of the bodies about the subtree's center of mass [N, nbody, 10].
        cvel: velocities of the bodies about it, rotation first [N, nbody, 6].
        cfrc_ext: contact forces on the bodies about it, torque first [N, nbody, 6].
        qfrc_actuator: actuator forces [N, nv].
        qfrc_constraint: constraint forces [N, nv].
        model: the simulations' model.
        dt: duration of one environment step, s.
        body_ids: row of a body in the fields [N, nbody, …], by its name.
    """

    qpos: Floats
    qvel: Floats
    ctrl: Floats
    xpos: Floats
    xipos: Floats
    site_xpos: Floats
    cinert: Floats
    cvel: Floats
    cfrc_ext: Floats
    qfrc_actuator: Floats
    qfrc_constraint: Floats

    def __init__(self, model: mujoco.MjModel, frame_skip: int, fields: dict[str, Floats]):
        """Hold the arrays themselves, not copies: they show what the physics writes into them."""
        self.model = model
        self.dt = model.opt.timestep * frame_skip
        self.body_ids = {model.body(i).name: i for i in range(model.nbody)}
        vars(self).update(fields)


class Task(Protocol):
    """One task; its dataclass fields are the options of Gymnasium's class, by the same names.

    Attributes:
        reads: names of the ``State`` fields that the task's functions use.
        compares: those of them of which ``outcome`` also needs the values before the step.
        xml_file: the model: a file of Gymnasium's assets, or a path.
        frame_skip: physics substeps in one environment step.
    """

    reads: ClassVar[tuple[str, ...]]
    compares: ClassVar[tuple[str, ...]]

    @property
    def xml_file(self) -> str: ...  # noqa: D102
    @property
    def frame_skip(self) -> int: ...  # noqa: D102

    def draw_start(self, model: mujoco.MjModel, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw the start of one episode, the numbers in Gymnasium's order.

        Returns:
            qpos [nq] and qvel [nv].
        """

    def observe(self, state: State) -> Floats:
        """Return the observations [N, D], a new array."""

    def outcome(self, before: State, action: Floats, after: State) -> tuple[Floats, Bools]:
        """Return the reward r(s, a, s') [N] and whether s' ended the episode [N].

        Args:
            before: s, of which only the fields in ``compares`` are there.
            action: a [N, A], as it was given. Its float type is kept: Gymnasium, too, sums the
                control cost of a float32 action in float32.
            after: s'.
        """
