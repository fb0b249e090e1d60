"""Attention, by whichever way is faster at such lengths."""

import torch
from torch import Tensor
from torch.nn import functional

# Most keys for which two products of whole matrices are the faster way on a CPU: with 64 they take
# 8 ms forwards and backwards where torch's kernel takes 10, with 32 three and nine, with 128 as
# much (8,192 tokens, 4 heads of 16). One new token is faster with any number of them.
MOST_KEYS = 64


def attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Return softmax(Q Kᵀ / √d) V, of each head (Vaswani et al. 2017, eq. 1), [N, H, s, d].

    Args:
        queries: of the newest tokens, [N, H, s, d].
        keys: of all tokens, [N, H, S, d].
        values: likewise.
        visible: which token each may look at, [N, 1, s, S] or [s, S]; None: itself and those
            before it.
    """
    newest, seen = queries.shape[2], keys.shape[2]
    of_cpu = queries.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    by_products = of_cpu and (newest == 1 or seen <= MOST_KEYS)
    causal = visible is None and newest > 1
    if causal and (by_products or newest < seen):
        places = torch.ones(newest, seen, dtype=torch.bool, device=queries.device)
        visible, causal = places.tril(seen - newest), False
    if by_products and not torch.compiler.is_compiling():  # an export is for any machine
        return _by_products(queries, keys, values, visible)
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=causal
    )


def _by_products(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Hold the scores of all pairs at once, [N, H, s, S]; of all that are there without a mask."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if visible is not None:
        scores += torch.where(visible, 0.0, -torch.inf)
    return scores.softmax(-1) @ values
