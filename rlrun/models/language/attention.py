"""Attention, by whichever way is faster at such lengths."""

import torch
from torch import Tensor
from torch.nn import functional

# Most keys for which two products of whole matrices are as fast or faster on a CPU, as they are for
# one new token with any number of them (`python benchmarks/attention.py`).
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
    short = of_cpu and (newest == 1 or seen <= MOST_KEYS)
    causal = visible is None and newest > 1
    if causal and (short or newest < seen):
        places = torch.ones(newest, seen, dtype=torch.bool, device=queries.device)
        visible, causal = places.tril(seen - newest), False
    if short and not torch.compiler.is_compiling():  # an export is for any machine
        return by_products(queries, keys, values, visible)
    return functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=causal
    )


def by_products(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Return the same by two products, with the scores of all pairs held at once, [N, H, s, S].

    Args:
        queries: of the newest tokens, [N, H, s, d].
        keys: of all tokens, [N, H, S, d].
        values: likewise.
        visible: which token each may look at, [N, 1, s, S] or [s, S]; None: all.
    """
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if visible is not None:
        scores += torch.where(visible, 0.0, -torch.inf)
    return scores.softmax(-1) @ values
