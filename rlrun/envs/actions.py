"""From what a policy says to what an environment is given."""

from typing import Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlrun.errors import UserError

# What a number of a policy means for a box of actions: see `ActionAdapter`.
ActionUnits = Literal["box", "raw"]


class ActionAdapter:
    """Turns the numbers of a policy into actions inside the environments' space.

    A policy begins with a standard deviation of about 1, and learns by steps of the same size
    whatever the box. So its numbers have to be of the box's size:

    - ``box``: −1…1 stands for low…high, a = (high + low)/2 + (high − low)/2 · u. A dimension
      without bounds has nothing to scale by: there u is the action.
    - ``raw``: u is the action. Gymnasium's own tasks are tuned so, as the published values are;
      their boxes are about −1…1.

    What lies outside the box afterwards is clipped to it. Rollouts hold u, as log μ is that of u.

    Attributes:
        space: of one environment's actions.
        policy_space: what a policy sees: Discrete from 0, or a 1-D float32 Box of u.
        scale: (high − low)/2, 1 where there are no bounds; None: u is the action.
        middle: (high + low)/2, 0 where there are no bounds; None likewise.
    """

    policy_space: spaces.Discrete | spaces.Box

    def __init__(self, space: gym.Space, units: ActionUnits):
        """Look at the space.

        Args:
            space: of one environment's actions.
            units: what a policy's numbers mean.

        Raises:
            UserError: neither Discrete nor a Box of floats.
        """
        self.space = space
        self.scale: NDArray[np.float64] | None = None
        self.middle: NDArray[np.float64] | None = None
        match space:
            case spaces.Discrete():
                self.policy_space = spaces.Discrete(int(space.n))
            case spaces.Box() if np.issubdtype(space.dtype, np.floating):
                low, high = space.low.astype(np.float64), space.high.astype(np.float64)
                if units == "box":
                    # The largest float is another way to say that there is no bound.
                    largest = np.finfo(space.dtype).max
                    bounded = (-largest < low) & (high < largest)
                    with np.errstate(invalid="ignore"):  # ∞ − ∞, which is not taken
                        self.scale = np.where(bounded, (high - low) / 2, 1.0)
                        self.middle = np.where(bounded, (high + low) / 2, 0.0)
                    low, high = np.where(bounded, -1.0, low), np.where(bounded, 1.0, high)
                low, high = low.ravel().astype(np.float32), high.ravel().astype(np.float32)
                self.policy_space = spaces.Box(low, high, dtype=np.float32)
            case _:
                raise UserError(
                    f"action space {space} is not supported: use Discrete or a Box of floats"
                )

    def __call__(self, action: NDArray) -> NDArray:
        """[N] or [N, A] as the policy says it -> a new array [N, ...] inside the space."""
        if isinstance(self.space, spaces.Discrete):
            return action + self.space.start
        assert isinstance(self.space, spaces.Box)
        shaped = action.reshape(len(action), *self.space.shape)
        if self.scale is not None:
            shaped = self.middle + self.scale * shaped
        # Compared in the finer precision of the two: float32(0.1) lies above a float64 bound 0.1.
        # Two ufuncs take half the time of np.clip on arrays of this size.
        return np.minimum(np.maximum(shaped, self.space.low), self.space.high)
