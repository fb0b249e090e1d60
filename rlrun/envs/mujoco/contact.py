"""Batched simulations that also have the contact forces which Gymnasium observes.

After every step Gymnasium calls ``mj_rnePostConstraint``, which computes ``cfrc_ext``, the contact
forces that Ant and Humanoid observe and pay for. ``mujoco.batch.Batch`` (4.0) has no call for it:
a step leaves ``cfrc_ext`` as it was. The C library below it does: ``mjb_apply`` (mjbatch.h) runs a
function on every simulation, on the batch's threads. This module calls that library through ctypes,
with the few functions that a vector environment needs. (The public detour, ``Batch.get_data`` and
``mujoco.mj_rnePostConstraint`` one simulation after the other, takes 7 µs for each on the caller's
thread: with two threads that is a tenth of Ant's physics, and with more threads a larger part.)

``mjb_apply`` calls ``function(model, data, simulation, argument)``. ``mj_rnePostConstraint`` takes
the first two of these; in the calling conventions of x86-64 and ARM64, the platforms that MuJoCo is
built for, a function does not see arguments beyond its own.
"""

import ctypes
import functools
import math
import weakref
from ctypes import POINTER, byref, c_bool, c_char_p, c_double, c_int, c_void_p
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import SimulationError
from numpy.typing import NDArray

STATE_FIELDS = {
    "qpos": mujoco.mjtState.mjSTATE_QPOS,
    "qvel": mujoco.mjtState.mjSTATE_QVEL,
    "ctrl": mujoco.mjtState.mjSTATE_CTRL,
}

NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)


class BatchConfig(ctypes.Structure):
    """``mjBatchConfig`` of mjbatch.h."""

    _fields_ = (("nthread", c_int), ("persistent", c_bool))


# Result and argument types, from mjbatch.h; ids are sorted simulation indices, NULL for all.
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "mjb_makeBatch": (c_void_p, [c_void_p, c_int, POINTER(BatchConfig), c_char_p, c_int]),
    "mjb_deleteBatch": (None, [c_void_p]),
    "mjb_nstate": (c_int, [c_void_p]),
    "mjb_state": (c_void_p, [c_void_p]),
    "mjb_stateComponent": (c_void_p, [c_void_p, c_int, POINTER(c_int)]),
    "mjb_output": (c_void_p, [c_void_p, c_char_p, POINTER(c_int), POINTER(c_int)]),
    "mjb_warning": (c_void_p, [c_void_p]),
    "mjb_status": (c_void_p, [c_void_p]),
    "mjb_error": (c_char_p, [c_void_p, c_int]),
    "mjb_step": (c_int, [c_void_p, c_void_p, c_int, c_int, c_int]),
    "mjb_forward": (c_int, [c_void_p, c_void_p, c_int, c_int]),
    "mjb_reset": (c_int, [c_void_p, c_void_p, c_int, c_void_p, c_int]),
    "mjb_apply": (c_int, [c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_int]),
    "mj_rnePostConstraint": (None, [c_void_p, c_void_p]),
}


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the MuJoCo library that the ``mujoco`` package has loaded, its functions declared.

    Raises:
        ImportError: the library or one of the functions is not there.
    """
    folder = Path(mujoco.__file__).parent
    patterns = ("libmujoco.so.*", "libmujoco.*.dylib", "mujoco.dll")
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not paths:
        raise ImportError(f"no MuJoCo library in {folder}; rlrun needs mujoco>=4.0,<5")
    library = ctypes.CDLL(str(paths[0]))
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise ImportError(
                f"{paths[0].name} has no {name}, from which rlrun takes contact forces; "
                "rlrun needs mujoco>=4.0,<5"
            ) from error
        function.restype, function.argtypes = result, arguments
    return library


class ContactForceBatch:
    """What a vector environment uses of ``mujoco.batch.Batch``, with ``cfrc_ext`` after steps.

    The arrays are the batch's own memory: they must not be used after it is gone.

    Attributes:
        state: integration state of each simulation [N, nstate], the storage itself.
        warning: last info and count of every kind of warning [N, mjNWARNING, 2].
    """

    def __init__(self, model: mujoco.MjModel, nsim: int, nthread: int):
        """Make the simulations.

        Args:
            model: the model of all simulations, copied.
            nsim: N, number of simulations.
            nthread: number of threads, the caller's included.

        Raises:
            ImportError: the MuJoCo library lacks what is needed.
            RuntimeError: MuJoCo could not make the batch.
        """
        self._library = library = _library()
        self._add_forces = ctypes.cast(library.mj_rnePostConstraint, c_void_p)
        self._template = mujoco.MjData(model)  # for the shapes of fields
        message = ctypes.create_string_buffer(1000)
        # Persistent: each simulation keeps the contacts of its step until the forces are computed.
        config = BatchConfig(nthread=nthread, persistent=True)
        self._batch = library.mjb_makeBatch(
            model._address, nsim, byref(config), message, len(message)
        )
        if self._batch is None:
            raise RuntimeError(f"MuJoCo could not make a batch: {message.value.decode()}")
        weakref.finalize(self, library.mjb_deleteBatch, self._batch)
        nstate, kinds = library.mjb_nstate(self._batch), int(mujoco.mjtWarning.mjNWARNING)
        self.state = _view(library.mjb_state(self._batch), c_double, (nsim, nstate))
        self.warning = _view(library.mjb_warning(self._batch), c_int, (nsim, kinds, 2))
        self._contact_forces = self.bind("cfrc_ext")
        self._status = _view(library.mjb_status(self._batch), c_int, (nsim,))

    def bind(self, name: str) -> NDArray[np.float64]:
        """Return a field of ``MjData`` for all simulations [N, …], live.

        Args:
            name: qpos, qvel or ctrl, which are views of the state; or a derived field of float64,
                which every call brings up to date.
        """
        shape = getattr(self._template, name).shape
        if name in STATE_FIELDS:
            component = int(STATE_FIELDS[name])
            field = self._library.mjb_stateComponent(self._batch, component, None)
            column = (field - self._library.mjb_state(self._batch)) // ctypes.sizeof(c_double)
            return self.state[:, column : column + shape[0]]
        address = self._library.mjb_output(self._batch, name.encode(), None, None)
        if address is None:
            raise ValueError(f"MuJoCo's batch has no field {name}")
        return _view(address, c_double, (len(self.state), *shape))

    def step(self, ids: NDArray[np.integer] | None, nstep: int) -> None:
        """Advance some simulations, or all, by substeps, then compute their contact forces."""
        library = self._library
        rows = None if ids is None else np.ascontiguousarray(ids, np.int32)
        chosen = (None, 0) if rows is None else (rows.ctypes.data, len(rows))
        self._check(library.mjb_step(self._batch, *chosen, nstep, NO_STAGE))
        self._check(library.mjb_apply(self._batch, *chosen, self._add_forces, None, 0))
        # Computes nothing, but copies out the bound fields, which mjb_apply does not.
        self._check(library.mjb_forward(self._batch, *chosen, NO_STAGE))

    def reset(self, *, stage: int) -> None:
        """Set all simulations to the model's defaults, then compute the stages up to one."""
        self._check(self._library.mjb_reset(self._batch, None, 0, None, int(stage)))

    def forward(self, ids: NDArray[np.integer]) -> None:
        """Compute the derived fields of some simulations; contact forces are 0 before a step."""
        rows = np.ascontiguousarray(ids, np.int32)
        last_stage = int(mujoco.mjtStage.mjSTAGE_ACC)
        self._check(self._library.mjb_forward(self._batch, rows.ctypes.data, len(rows), last_stage))
        self._contact_forces[rows] = 0.0

    def _check(self, failures: int) -> None:
        """Raise a SimulationError if simulations failed in the last call."""
        if failures:
            ids = np.flatnonzero(self._status)
            message = self._library.mjb_error(self._batch, int(ids[0])).decode()
            raise SimulationError(ids, message)


def _view(address: int, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return C memory as an array."""
    return np.ctypeslib.as_array((kind * math.prod(shape)).from_address(address)).reshape(shape)
