"""The ways in which a run ends other than by reaching its last step."""


class UserError(Exception):
    """A mistake in what the user asked for; its message is one line that names the remedy.

    The command line prints it on stderr and exits with code 2, without a traceback.
    """


class EnvironmentFailure(RuntimeError):
    """An environment raised while it was reset or stepped.

    Attributes:
        index: which of the batch's environments raised.
        seed: the seed that this environment was last seeded with, or None.
    """

    def __init__(self, index: int, seed: int | None, cause: BaseException):
        """Name the environment and keep what it raised as ``__cause__``."""
        super().__init__(
            f"environment {index} (seed {seed}) raised {type(cause).__name__}: {cause}"
        )
        self.index = index
        self.seed = seed
        self.__cause__ = cause


class NonFiniteError(RuntimeError):
    """A quantity that the run depends on became NaN or infinite."""
