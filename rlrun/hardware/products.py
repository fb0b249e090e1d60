"""Products of float32 matrices by oneDNN, where MKL leaves half of the processor unused.

Torch leaves them to MKL, which asks who made the processor: on AMD's it takes vectors of 256 bits,
also where there are 512. Torch has oneDNN, too, which takes what there is: 256 x 256 x 256 numbers
in 175 µs instead of 346 (one core of an EPYC; ``benchmarks/products.py``). What a call of it costs
more is lost on small ones.

`by_onednn` is for what is compiled, where it also finds the faster order for narrow products, which
stay with MKL, and for gradients of stacked weights; `linear` is for models that Python runs.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node
from torch.nn import functional

from rlrun.hardware.cpu import is_amd_with_avx512

# Multiplications from which oneDNN is faster: 2²⁰ take it 29 µs and MKL 22 to 26, 2²¹ 39 and 47.
FEWEST = 2**21

# Rows and columns below which it gains little or loses, whatever the number of multiplications:
# 411 µs against 302 for 4096 x 512 x 2.
NARROWEST = 8

# Columns below which MKL is slow, unless the narrow matrix stands first: 54 µs for 256 x 256 x 14,
# and 25 for 14 x 256 x 256 (with 16 both take 25; more are rare here). One column is a vector,
# and a small product is not worth the trouble.
WIDE_ENOUGH = 16
FEWEST_TO_TRANSPOSE = 2**18

# Matrices of a batch that are multiplied one after the other; a larger batch is left to MKL.
MOST_MATRICES = 8

# What a transposition of the matrices of a batch names.
LAST_TWO = ((1, 2), (2, 1), (-2, -1), (-1, -2))


@torch.library.custom_op("rlrun::product", mutates_args=())
def product(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows · weightsᵀ + bias by oneDNN: [M, K], [N, K], [N] -> [M, N]."""
    return _multiply(rows, weights, bias)


@product.register_fake
def _(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    return rows.new_empty(rows.shape[0], weights.shape[0])


@cache
def teach_the_compiler() -> None:
    """Have torch's compiler call oneDNN for `product` from its C++ code, without Python.

    It does so by itself for weights that never change only.
    """
    from torch._inductor.ir import TensorBox
    from torch._inductor.lowering import register_lowering
    from torch._inductor.mkldnn_ir import LinearUnary

    @register_lowering(torch.ops.rlrun.product.default, type_promotion_kind=None)
    def lower(rows: Any, weights: Any, bias: Any) -> Any:
        return TensorBox.create(LinearUnary.create(rows, weights, bias, "none", [], ""))


def onednn_is_faster() -> bool:
    """Say whether this machine and its settings are of that kind."""
    exact = torch.get_float32_matmul_precision() == "highest"  # else it takes bfloat16 by itself
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return exact and both and is_amd_with_avx512()


def linear(x: Tensor, weights: Tensor) -> Tensor:
    """Return x · weightsᵀ by whichever is faster: [..., K], [N, K] -> [..., N]."""
    if torch.compiler.is_compiling():  # an export, of any number of rows and for any machine
        return functional.linear(x, weights)
    of_cpu = x.device.type == "cpu" and x.dtype == weights.dtype == torch.float32
    if x.dim() < 2 or not of_cpu or torch.is_autocast_enabled("cpu"):
        return functional.linear(x, weights)
    rows = x.numel() // x.shape[-1]
    if not _is_large(rows, x.shape[-1], len(weights)) or not onednn_is_faster():
        return functional.linear(x, weights)
    return ByOneDNN.apply(x.flatten(0, -2), weights).unflatten(0, x.shape[:-1])


class ByOneDNN(torch.autograd.Function):
    """x · weightsᵀ and its gradients, by oneDNN: [M, K], [N, K] -> [M, N]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(x, weights)
        return _multiply(x, weights)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradient of x, gradient · weights, and that of weights, gradientᵀ · x."""
        x, weights = ctx.saved_tensors
        of_x, of_weights = ctx.needs_input_grad
        to_x = ByOneDNN.apply(gradient, weights.T) if of_x else None
        if not of_weights:
            return to_x, None
        # What stands first is copied where it is transposed: let it be the smaller one.
        if x.shape[1] <= gradient.shape[1]:
            return to_x, ByOneDNN.apply(x.T, gradient.T).T
        return to_x, ByOneDNN.apply(gradient.T, x.T)


def _multiply(rows: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows · weightsᵀ + bias: [M, K], [N, K], [N] -> [M, N]."""
    if bias is not None:
        bias = bias.contiguous()  # of one that is expanded, oneDNN reads what lies behind it
    return torch.ops.mkldnn._linear_pointwise(rows, weights, bias, "none", [], "")


def by_onednn(graph: Graph) -> None:
    """Replace the large products of a graph, which has been traced with its tensors' shapes.

    Narrow ones stay with MKL, and (BᵀAᵀ)ᵀ is computed for AB where that is how it is faster.
    """
    for node in list(graph.nodes):
        replace = REPLACEMENTS.get(node.target)
        if replace is not None and _is_plain(node):
            with graph.inserting_before(node):
                product = replace(graph, node)
            if product is not None:
                # With what is known of its value, which the next product asks for.
                node.replace_all_uses_with(product, propagate_meta=True)
                graph.erase_node(node)


def _is_plain(node: Node) -> bool:
    """Say whether a product is one of float32 numbers with at most a bias for each column."""
    *bias, one, other = _values(node)
    if node.kwargs or any(tensor.dtype != torch.float32 for tensor in (*bias, one, other)):
        return False
    return all(tensor.shape == other.shape[-1:] for tensor in bias)


def _values(node: Node) -> list[Tensor]:
    return [arg.meta["val"] for arg in node.args if isinstance(arg, Node)]


def _is_large(rows: int, inner: int, columns: int) -> bool:
    """Say whether a product is one of those that oneDNN is faster at."""
    return min(rows, columns) >= NARROWEST and rows * inner * columns >= FEWEST


def _mm(graph: Graph, node: Node) -> Node | None:
    (rows, inner), (_, columns) = (value.shape for value in _values(node))
    one, other = node.args
    if _is_large(rows, inner, columns):
        return _product(graph, one, _transposed(graph, other))
    narrow = 1 < columns < WIDE_ENOUGH <= rows
    if narrow and rows * inner * columns >= FEWEST_TO_TRANSPOSE:
        factors = (_transposed(graph, other), _transposed(graph, one))
        product = graph.call_function(torch.ops.aten.mm.default, factors)
        return _as_before(graph, _transposed(graph, product))
    return None


def _addmm(graph: Graph, node: Node) -> Node | None:
    bias, one, other = node.args
    _, (rows, inner), (_, columns) = (value.shape for value in _values(node))
    if not _is_large(rows, inner, columns):
        return None
    return _product(graph, one, _transposed(graph, other), bias)


def _bmm(graph: Graph, node: Node) -> Node | None:
    (matrices, rows, inner), (_, _, columns) = (value.shape for value in _values(node))
    if matrices > MOST_MATRICES or not _is_large(rows, inner, columns):
        return None

    def stack(multiply: Callable[[Any, Any], Node]) -> Node:
        pairs = [
            [_matrix(graph, batch, number) for batch in node.args] for number in range(matrices)
        ]
        products = [multiply(one, other) for one, other in pairs]
        return graph.call_function(torch.ops.aten.stack.default, (products,))

    if not _is_only_transposed(node):
        return stack(lambda one, other: _product(graph, one, _transposed(graph, other)))
    # The gradient of an ensemble's weights: the compiler would transpose it number by number.
    products = stack(lambda one, other: _product(graph, _transposed(graph, other), one))
    transposed = graph.call_function(torch.ops.aten.transpose.int, (products, 1, 2))
    return _as_before(graph, transposed)


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


def _as_before(graph: Graph, transposed: Node) -> Node:
    """Return a value in rows, as a later view of it expects; the compiler copies nothing for it."""
    in_rows: dict[str, Any] = {"memory_format": torch.contiguous_format}
    return graph.call_function(torch.ops.aten.clone.default, (transposed,), in_rows)


def _product(graph: Graph, rows: Any, weights: Any, bias: Any = None) -> Node:
    return graph.call_function(torch.ops.rlrun.product.default, (rows, weights, bias))


def _transposed(graph: Graph, matrix: Any) -> Node:
    return graph.call_function(torch.ops.aten.t.default, (matrix,))


def _matrix(graph: Graph, batch: Any, number: int) -> Node:
    return graph.call_function(torch.ops.aten.select.int, (batch, 0, number))


REPLACEMENTS: dict[object, Callable[[Graph, Node], Node | None]] = {
    torch.ops.aten.mm.default: _mm,
    torch.ops.aten.addmm.default: _addmm,
    torch.ops.aten.bmm.default: _bmm,
}
