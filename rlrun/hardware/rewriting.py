"""Graphs with faster products: what is replaced before a graph is compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from rlrun.hardware.products import is_large

# Columns below which MKL is slow, unless the narrow matrix stands first: 54 µs for 256 x 256 x 14,
# and 25 for 14 x 256 x 256 (with 16 both take 25; more are rare here). One column is a vector,
# and a small product is not worth the trouble.
WIDE_ENOUGH = 16
FEWEST_TO_TRANSPOSE = 2**18

# Matrices of a batch that are multiplied one after the other; a larger batch is left to MKL.
MOST_MATRICES = 8

# What a transposition of the matrices of a batch names.
LAST_TWO = ((1, 2), (2, 1), (-2, -1), (-1, -2))


class ProductRewriting:
    """Replaces products of a graph by faster ones.

    Large ones go to oneDNN. Narrow ones stay with torch; where MKL computes them, (BᵀAᵀ)ᵀ for AB.
    """

    def __init__(self, graph: Graph, dtype: torch.dtype):
        """Take a graph.

        Args:
            graph: traced with its tensors' shapes.
            dtype: of the numbers that oneDNN multiplies: float32, or bfloat16, to which factors
                and products are rounded; sums are of float32 numbers in any case.
        """
        self._graph, self._dtype = graph, dtype

    def run(self) -> None:
        """Replace them."""
        replacements: dict[object, Callable[[Node], Node | None]] = {
            torch.ops.aten.mm.default: self._mm,
            torch.ops.aten.addmm.default: self._addmm,
            torch.ops.aten.bmm.default: self._bmm,
        }
        for node in list(self._graph.nodes):
            replace = replacements.get(node.target)
            if replace is not None and _is_plain(node):
                with self._graph.inserting_before(node):
                    product = replace(node)
                if product is not None:
                    # With what is known of its value, which the next product asks for.
                    node.replace_all_uses_with(product, propagate_meta=True)
                    self._graph.erase_node(node)

    def _mm(self, node: Node) -> Node | None:
        (rows, inner), (_, columns) = (value.shape for value in _values(node))
        one, other = node.args
        if is_large(rows, inner, columns):
            return self._product(one, self._transposed(other))
        narrow = self._dtype == torch.float32 and 1 < columns < WIDE_ENOUGH <= rows
        if narrow and rows * inner * columns >= FEWEST_TO_TRANSPOSE:
            product = self._call(
                torch.ops.aten.mm.default, self._transposed(other), self._transposed(one)
            )
            return self._in_rows(self._transposed(product))
        return None

    def _addmm(self, node: Node) -> Node | None:
        bias, one, other = node.args
        _, (rows, inner), (_, columns) = (value.shape for value in _values(node))
        if not is_large(rows, inner, columns):
            return None
        return self._product(one, self._transposed(other), bias)

    def _bmm(self, node: Node) -> Node | None:
        (matrices, rows, inner), (_, _, columns) = (value.shape for value in _values(node))
        if not 1 <= matrices <= MOST_MATRICES or not is_large(rows, inner, columns):
            return None
        pairs = [[self._matrix(batch, k) for batch in node.args] for k in range(matrices)]
        if not _is_only_transposed(node):
            return self._stack([self._product(a, self._transposed(b)) for a, b in pairs])
        # The gradient of an ensemble's weights: the compiler would transpose it number by number.
        transposed = self._stack([self._product(self._transposed(b), a) for a, b in pairs])
        return self._in_rows(self._call(torch.ops.aten.transpose.int, transposed, 1, 2))

    def _product(self, rows: Any, weights: Any, bias: Any = None) -> Node:
        """Multiply: rows · weightsᵀ + bias."""
        if self._dtype == torch.float32:
            return self._call(torch.ops.rlrun.product.default, rows, weights, bias)
        rounded = (self._cast(factor, self._dtype) for factor in (rows, weights))
        product = self._call(torch.ops.rlrun.product.default, *rounded, None)
        widened = self._cast(product, torch.float32)
        return widened if bias is None else self._call(torch.ops.aten.add.Tensor, widened, bias)

    def _in_rows(self, value: Node) -> Node:
        """Lay a value out as a later view of it expects; the compiler copies nothing for it."""
        return self._call(
            torch.ops.aten.clone.default, value, memory_format=torch.contiguous_format
        )

    def _cast(self, value: Any, dtype: torch.dtype) -> Node:
        return self._call(torch.ops.aten._to_copy.default, value, dtype=dtype)

    def _transposed(self, matrix: Any) -> Node:
        return self._call(torch.ops.aten.t.default, matrix)

    def _matrix(self, batch: Any, number: int) -> Node:
        return self._call(torch.ops.aten.select.int, batch, 0, number)

    def _stack(self, matrices: list[Node]) -> Node:
        return self._call(torch.ops.aten.stack.default, matrices)

    def _call(self, operation: Any, *args: Any, **options: Any) -> Node:
        return self._graph.call_function(operation, args, options)


def _is_plain(node: Node) -> bool:
    """Say whether a product is one of float32 numbers with at most a bias for each column."""
    *bias, one, other = _values(node)
    if node.kwargs or any(tensor.dtype != torch.float32 for tensor in (*bias, one, other)):
        return False
    return all(tensor.shape == other.shape[-1:] for tensor in bias)


def _is_only_transposed(node: Node) -> bool:
    """Say whether a batch of matrices is used for nothing but the transposed ones."""
    shape = node.meta["val"].shape
    return all(
        (user.target == torch.ops.aten.transpose.int and user.args[1:] in LAST_TWO)
        or (
            user.target == torch.ops.aten.view.default
            and user.meta["val"].shape == shape
            and _is_only_transposed(user)
        )
        for user in node.users
    )


def _values(node: Node) -> list[Tensor]:
    return [arg.meta["val"] for arg in node.args if isinstance(arg, Node)]
