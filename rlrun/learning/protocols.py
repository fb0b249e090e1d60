"""What a run asks of its parts, and of what fits a network."""

from typing import Protocol


class Stateful(Protocol):
    """A part of a run that decides its future."""

    def state_dict(self) -> dict:
        """Return it as plain containers and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        ...


class Trainable(Stateful, Protocol):
    """What fits a network: a :class:`~rlrun.learning.learner.Learner`, say."""

    @property
    def is_compiled(self) -> bool:
        """Whether its steps run without Python, once `warm_up` has compiled them."""
        ...

    def warm_up(self) -> None:
        """Compile what is to be compiled; nothing is learned."""
        ...

    def run_eagerly(self) -> None:
        """Do without the compiler, which failed."""
        ...
