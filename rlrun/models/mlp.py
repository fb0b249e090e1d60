"""Multi-layer perceptrons."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def mlp(sizes: Sequence[int], *, output_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Build a tanh network with orthogonal weights and zero biases.

    Hidden layers have gain √2 (Huang et al. 2022, "The 37 implementation details of PPO", core 2).

    Args:
        sizes: widths from input to output, e.g. ``[11, 64, 64, 3]``.
        output_gain: gain of the last layer: 0.01 keeps a new policy near its mean, 1 is for values.
        generator: source of the initial weights.
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        linear = nn.Linear(fan_in, fan_out)
        gain = output_gain if last else math.sqrt(2.0)
        nn.init.orthogonal_(linear.weight, gain, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)
