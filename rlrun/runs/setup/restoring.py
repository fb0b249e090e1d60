"""Where the parts of a resumed run get their state from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlrun.errors import CheckpointNotWritten, EnvironmentFailure, NonFiniteError, UserError
from rlrun.hardware.memory import memory_suffices
from rlrun.learning.contract import Stateful
from rlrun.runs.files.checkpoint import Checkpoint
from rlrun.runs.setup.preflight import SET_UP


@contextmanager
def must_belong(checkpoint: Path) -> Iterator[None]:
    """Say in one line that what a checkpoint holds does not fit the parts of the run.

    Args:
        checkpoint: what is read in the block.

    Raises:
        UserError: a part could do nothing with its state, or there was no memory for it.
    """
    try:
        with memory_suffices(SET_UP):
            yield
    except (EnvironmentFailure, NonFiniteError, CheckpointNotWritten):
        raise  # RuntimeErrors, too, but not of the checkpoint's making
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, KeyError):
            reason = f"it has no {reason}"
        raise UserError(f"{checkpoint}: does not belong to this config: {reason}") from error


class SavedStates:
    """The states in a checkpoint, each of which is for one part of the run.

    Args:
        checkpoint: where to go on from.

    Raises:
        UserError: it holds no states by name.
    """

    def __init__(self, checkpoint: Checkpoint):
        self._path = checkpoint.path
        with must_belong(checkpoint.path):
            self._states = dict(checkpoint.state)

    def take(self, name: str) -> Any:
        """Hand out a state, and let go of it: together they are as large as the run.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self._states:
            raise UserError(f"{self._path} lacks {name}: it does not belong to this config")
        return self._states.pop(name)

    def load(self, name: str, part: Stateful) -> None:
        """Let a part go on from its state.

        Raises:
            UserError: there is none, or it is that of another part.
        """
        state = self.take(name)
        with must_belong(self._path):
            part.load_state_dict(state)

    def require_all_taken(self) -> None:
        """Refuse to go on without a part that the run had when the checkpoint was written.

        Raises:
            UserError: a state is left that no part has asked for.
        """
        if self._states:
            names = ", ".join(map(str, self._states))
            raise UserError(f"{self._path} has {names}: it does not belong to this config")


class Parts:
    """The parts that decide a run's future, by name; those of a resumed run go on where it was.

    Args:
        checkpoint: where to go on from, or None for a new run.

    Attributes:
        saved: the states that no part has taken yet; None: the run is new.

    Raises:
        UserError: the checkpoint holds no states by name.
    """

    def __init__(self, checkpoint: Checkpoint | None):
        self.saved = None if checkpoint is None else SavedStates(checkpoint)
        self._parts: dict[str, Stateful] = {}

    def add(self, name: str, part: Stateful) -> None:
        """Make a part's state part of the run's; a resumed run goes on with the saved one.

        Raises:
            UserError: there is no such state in the checkpoint, or it is that of another part.
        """
        self._parts[name] = part
        if self.saved is not None:
            self.saved.load(name, part)

    def require_all(self) -> None:
        """Refuse to go on without a part that the run had before, once the loop has its own.

        Raises:
            UserError: a state is left that no part has asked for.
        """
        if self.saved is not None:
            self.saved.require_all_taken()

    def state_dict(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return the states of all parts.

        Args:
            before: states of those that are in the middle of a step, by name: theirs from before.
        """
        return {
            name: before[name] if name in before else part.state_dict()
            for name, part in self._parts.items()
        }
