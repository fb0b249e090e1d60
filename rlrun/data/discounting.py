"""Linear recurrences over time, solved for all steps at once."""

import torch
from torch import Tensor


def discounted_sums(x: Tensor, decay: Tensor) -> Tensor:
    """Solve y_t = x_t + decay_t · y_{t+1} with y_T = 0.

    Doubles the reach of every row log₂ T times instead of walking back T times (Hillis & Steele
    1986): after k rounds, y_t holds the sum over the next 2^k steps and ``decay`` the product of
    the decays over them.

    Args:
        x: [T, N].
        decay: [T, N].

    Returns:
        y, [T, N].
    """
    y, reach = x, 1
    while reach < x.shape[0]:
        y = torch.cat([y[:-reach] + decay[:-reach] * y[reach:], y[-reach:]])
        # Nothing lies beyond the last rows, so that their products multiply zeros.
        decay = torch.cat([decay[:-reach] * decay[reach:], torch.zeros_like(decay[-reach:])])
        reach *= 2
    return y
