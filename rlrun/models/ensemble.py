"""Several networks of one shape, computed together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

# A parameter's name may have no dot.
DOT = "/"


class Ensemble(nn.Module):
    """M networks of one shape with weights of their own; inputs -> their outputs, [M, ...].

    Their weights are kept as [M, ...], so that a layer of all of them is one batched product.
    """

    def __init__(self, members: Sequence[nn.Module]):
        """Take the members' weights."""
        super().__init__()
        # Not a submodule: its weights are no others than these.
        self._member = [members[0]]
        self.size = len(members)
        for name, _ in members[0].named_parameters():
            weights = torch.stack([member.get_parameter(name).detach() for member in members])
            self.register_parameter(name.replace(".", DOT), nn.Parameter(weights))

    def forward(self, *inputs: Tensor, first: int | None = None) -> Tensor:
        """Return the output of each member for the same inputs, [M, ...].

        Args:
            inputs: of a member, [B, ...].
            first: compute the first so many members, at most M, and no others; None: all.
        """

        def member(weights: dict[str, Tensor]) -> Any:
            return functional_call(self._member[0], weights, inputs)

        named: dict[str, Tensor] = {
            name.replace(DOT, "."): weights[:first] for name, weights in self.named_parameters()
        }
        return torch.vmap(member)(named)
