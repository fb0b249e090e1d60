"""Times attention of short texts by two products and by torch's kernel, on this machine.

    python benchmarks/attention.py

Where the products are faster, rlrun uses them (`rlrun/models/language/attention.py`).
"""

import json
import time
from collections.abc import Callable

import torch
from measure import HERE, describe_machine
from torch import Tensor
from torch.nn import functional

from rlrun.models.language.attention import MOST_KEYS, by_products

# Tokens of an update, heads, and numbers of a head: as of a decoder with 0.1 million parameters.
TOKENS, HEADS, SIZE = 8192, 4, 16
KEYS = (16, 32, 64, 128, 256)
ROUNDS = 20


def milliseconds(function: Callable[[], object]) -> float:
    """Return the shortest time of a call, after a first one."""
    seconds = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds[1:])


def by_kernel(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Return what torch's own kernel returns."""
    return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)


def timed(seen: int, newest: int, visible: Tensor | None) -> dict[str, float]:
    """Time both ways, forwards and, where there is more than one new token, backwards.

    Args:
        seen: keys.
        newest: queries.
        visible: which key each query may look at, [newest, seen].
    """
    rows = TOKENS // seen
    queries = torch.randn(rows, HEADS, newest, SIZE)
    keys, values = torch.randn(2, rows, HEADS, seen, SIZE)
    learned, wanted = newest > 1, torch.randn(rows, HEADS, newest, SIZE)
    tensors = [each.requires_grad_(learned) for each in (queries, keys, values)]

    def one_of(way: Callable[..., Tensor]) -> Callable[[], object]:
        def call() -> None:
            with torch.set_grad_enabled(learned):
                found = way(*tensors, visible)
                if learned:
                    torch.autograd.grad(found, tensors, wanted)

        return call

    return {
        "products_ms": milliseconds(one_of(by_products)),
        "kernel_ms": milliseconds(one_of(by_kernel)),
    }


def main() -> None:
    """Time them and write the table."""
    rows = []
    for seen in KEYS:
        causal = torch.ones(seen, seen, dtype=torch.bool).tril()
        for newest, visible in ((seen, causal), (1, None)):
            row = {"keys": seen, "new_tokens": newest, **timed(seen, newest, visible)}
            rows.append(row)
            taken = "products" if newest == 1 or seen <= MOST_KEYS else "kernel"
            print(
                f"{seen} keys, {newest} new: products {row['products_ms']:.2f} ms, "
                f"kernel {row['kernel_ms']:.2f}: {taken}"
            )
    result = {"machine": describe_machine(), "attention": rows}
    (HERE / "results" / "attention.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
