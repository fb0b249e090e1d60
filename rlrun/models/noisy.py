"""Networks with noisy weights, which explore by themselves."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rlrun.config.types import Positive


@dataclass(frozen=True, kw_only=True)
class NoisyWeights:
    """Weights that explore.

    Attributes:
        sigma: σ₀, how noisy they are at first.
    """

    sigma: Positive


class Noisy(nn.Module):
    """A network of linear layers with weights w = μ + σ ⊙ ε (Fortunato et al. 2018).

    The noise is factorised (§3, b): a layer of p inputs and q outputs has p + q random numbers, and
    with f(x) = sgn(x) √|x| its weights have ε_ij = f(ε_i) f(ε_j), its biases ε_j = f(ε_j).

    Attributes:
        noise_size: Z, random numbers of all layers together.
    """

    def __init__(self, network: nn.Module, sigma: float):
        """Begin with the network's weights for μ.

        Args:
            network: takes one input.
            sigma: σ₀: each σ is σ₀/√p at first.
        """
        super().__init__()
        self.mean = network
        layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
        self._layers = list(layers)
        self._shapes = [tuple(layer.weight.shape) for layer in layers.values()]
        self.noise_size = sum(inputs + outputs for outputs, inputs in self._shapes)
        for name, layer in layers.items():
            first = sigma / math.sqrt(layer.in_features)
            for kind in ("weight", "bias"):
                values = torch.full_like(layer.get_parameter(kind), first)
                self.register_parameter(sigma_of(name, kind), nn.Parameter(values))

    def forward(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the network's output.

        Args:
            obs: [..., D].
            noise: ε ~ N(0, 1) of all layers, [Z]; None: the mean weights.
        """
        if noise is None:
            return cast(Tensor, self.mean(obs))
        own: dict[str, Tensor] = dict(self.named_parameters())
        weights = {name: own[f"mean.{name}"] for name, _ in self.mean.named_parameters()}
        numbers = noise.sign() * noise.abs().sqrt()  # f(ε)
        for layer, (outputs, inputs) in zip(self._layers, self._shapes, strict=True):
            of_input, of_output, numbers = numbers.tensor_split([inputs, inputs + outputs])
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + own[
                sigma_of(layer, "weight")
            ] * torch.outer(of_output, of_input)
            weights[f"{layer}.bias"] = (
                weights[f"{layer}.bias"] + own[sigma_of(layer, "bias")] * of_output
            )
        return functional_call(self.mean, weights, (obs,))


def sigma_of(layer: str, kind: str) -> str:
    """Return the name of a layer's σ, in which no dot may be."""
    return f"sigma/{layer}/{kind}".replace(".", "/")
