"""Numbers that compiled code computes once, and not again for every vector that they are used with.

Torch's compiler writes what makes a number into the loop that uses it. Adam's 1 - βᵗ is two powers
then for each 16 parameters: a third of its time.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph

# What takes as long as many multiplications, of Adam and of SAC's temperature.
SLOW = (torch.ops.aten.pow.Scalar, torch.ops.aten.exp.default)


@torch.library.custom_op("rlrun::once", mutates_args=())
def once(number: Tensor) -> Tensor:
    """Return a number, [] or [1, ...], that the compiler is to keep."""
    return number.clone()


@once.register_fake
def _(number: Tensor) -> Tensor:
    return torch.empty_like(number)


@cache
def teach_the_compiler() -> None:
    """Have torch's compiler write the number to memory."""
    from torch._inductor.lowering import register_lowering

    @register_lowering(torch.ops.rlrun.once.default, type_promotion_kind=None)
    def lower(number: Any) -> Any:
        number.realize()
        return number


def numbers_once(graph: Graph) -> None:
    """Mark the numbers of a graph that take long to compute; it was traced with tensors' shapes."""
    for node in list(graph.nodes):
        if node.target in SLOW and node.meta["val"].numel() == 1:
            with graph.inserting_after(node):
                kept = graph.call_function(torch.ops.rlrun.once.default, (node,))
            kept.meta = dict(node.meta)
            node.replace_all_uses_with(
                kept, delete_user_cb=lambda user, kept=kept: user is not kept
            )
