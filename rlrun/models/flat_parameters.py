"""A module's parameters as one vector."""

import torch
from torch import Tensor, nn


class FlatParameters:
    """One vector θ [P] whose slices are a module's parameters.

    An optimiser step on a network of many small tensors is dominated by the cost of calling
    kernels; on one vector it is a handful of them. Functional methods (gradients of pure
    functions, Fisher-vector products) want a single vector too.

    Attributes:
        vector: θ. The module's parameters are views of it: writing here moves the module.
    """

    def __init__(self, module: nn.Module):
        named = list(module.named_parameters())
        self.names = [name for name, _ in named]
        self.shapes = [parameter.shape for _, parameter in named]
        self.sizes = [parameter.numel() for _, parameter in named]
        self.vector = torch.cat([parameter.detach().flatten() for _, parameter in named])
        for (_, parameter), view in zip(named, self.unflatten(self.vector).values(), strict=True):
            parameter.data = view
            parameter.requires_grad_(False)

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """View a vector [P] as named parameters, for ``torch.func.functional_call``."""
        slices = vector.split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, slices, self.shapes, strict=True)
        }
