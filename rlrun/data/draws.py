"""Draws from distributions over tokens."""

from torch import Tensor


def draw(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw tokens by the inverse of their distribution function, [...] (int64).

    The first token whose probability, with that of those before it, exceeds the number.

    Args:
        log_probs: normalised; −∞ where a token cannot be drawn, [..., V].
        uniform: numbers in [0, 1), [...].
    """
    probability = log_probs.exp().double()
    cumulative = probability.cumsum(-1)
    # Of the sum as it is, which rounding leaves short of 1: a token of probability 0 is not drawn.
    point = uniform.double().unsqueeze(-1) * cumulative[..., -1:]
    return (cumulative <= point).sum(-1)
