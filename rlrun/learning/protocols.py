"""What a run asks of its parts, and of what fits a network."""

from collections.abc import Sequence
from typing import Protocol

from rlrun.hardware.compilable import Compilable


class Stateful(Protocol):
    """A part of a run that decides its future."""

    def state_dict(self) -> dict:
        """Return it as plain containers and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        ...


class Trainable(Stateful, Protocol):
    """What fits a network: a :class:`~rlrun.learning.learner.Learner`, say.

    Attributes:
        functions: what can be compiled of it, and says what it expects to be called with.
    """

    @property
    def functions(self) -> Sequence[Compilable]: ...  # noqa: D102
