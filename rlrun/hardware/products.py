"""Products of float32 matrices by oneDNN, where MKL leaves half of the processor unused.

Torch leaves them to MKL, which asks who made the processor: on AMD's it takes vectors of 256 bits,
also where there are 512. Torch has oneDNN, too, which takes what there is: 256 x 256 x 256 numbers
in 168 µs instead of 332, and in 84 where they are rounded to bfloat16 (one core of an EPYC;
``benchmarks/products.py``). What a call of it costs more is lost on small ones.

What is compiled is rewritten to `product` (``rewriting.py``); `linear` is for models that Python
runs.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rlrun.hardware.cpu import has_bfloat16_without_tiles, is_amd_with_avx512

# Multiplications from which oneDNN is faster: 2²⁰ take it 29 µs and MKL 22 to 26, 2²¹ 39 and 47.
FEWEST = 2**21

# Rows and columns below which it gains little or loses, whatever the number of multiplications:
# 411 µs against 302 for 4096 x 512 x 2.
NARROWEST = 8


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


def type_of_products() -> torch.dtype | None:
    """Return the numbers of which oneDNN is to multiply large matrices on this machine.

    Returns:
        float32 where oneDNN is the faster library; bfloat16 where these are wanted
        (`hardware.products=medium`) and torch does not take them by itself, as it does where the
        processor has tiles of them (AMX); None: products are left to torch.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return None
    if torch.get_float32_matmul_precision() == "medium":
        return torch.bfloat16 if has_bfloat16_without_tiles() else None
    return torch.float32 if is_amd_with_avx512() else None


def is_large(rows: int, inner: int, columns: int) -> bool:
    """Say whether a product is one of those that oneDNN is faster at."""
    return min(rows, columns) >= NARROWEST and rows * inner * columns >= FEWEST


def linear(x: Tensor, weights: Tensor) -> Tensor:
    """Return x · weightsᵀ by whichever is faster: [..., K], [N, K] -> [..., N]."""
    if torch.compiler.is_compiling():  # an export, of any number of rows and for any machine
        return functional.linear(x, weights)
    of_cpu = x.device.type == "cpu" and x.dtype == weights.dtype == torch.float32
    if x.dim() < 2 or not of_cpu or torch.is_autocast_enabled("cpu"):
        return functional.linear(x, weights)
    rows = x.numel() // x.shape[-1]
    if not is_large(rows, x.shape[-1], len(weights)) or type_of_products() != torch.float32:
        return functional.linear(x, weights)
    multiply = ByOneDNN.apply if torch.is_grad_enabled() else _multiply
    return multiply(x.flatten(0, -2), weights).unflatten(0, x.shape[:-1])


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
