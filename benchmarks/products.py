"""Times products of matrices by torch (MKL) and by oneDNN, on one core of this machine.

    python benchmarks/products.py

Where oneDNN is faster on AMD's processors, rlrun uses it (`rlrun/hardware/products.py`).
"""

import json
import time
from collections.abc import Callable
from functools import partial

import torch
from measure import HERE, describe_machine
from torch import Tensor
from torch.nn import functional

from rlrun.hardware.products import FEWEST, NARROWEST, product

# Rows, inner size and columns, as they are in updates: of PPO, of SAC, of a small decoder.
SHAPES = (
    (64, 64, 64),
    (256, 64, 64),
    (256, 14, 256),
    (512, 64, 64),
    (4096, 512, 2),
    (4, 1024, 1024),
    (256, 256, 256),
    (4096, 64, 192),
    (4096, 128, 384),
)
# The same of narrow ones, which are also computed the other way round.
NARROW = (
    (256, 256, 6),
    (256, 256, 14),
    (256, 512, 14),
    (64, 64, 6),
    (256, 256, 16),
    (256, 256, 20),
)
ROUNDS, CALLS = 7, 100


def microseconds(function: Callable[[], Tensor]) -> float:
    """Return the shortest mean time of a call over some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(CALLS):
            function()
        seconds.append((time.perf_counter() - start) / CALLS)
    return 1e6 * min(seconds)


def main() -> None:
    """Time them and write the table."""
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        m, k, n = shape
        one, other = torch.randn(m, k), torch.randn(n, k)
        by_torch = microseconds(partial(functional.linear, one, other))
        by_onednn = microseconds(partial(product, one, other, None))
        rounded = microseconds(partial(product, one.bfloat16(), other.bfloat16(), None))
        rows.append(
            {
                "shape": shape,
                "torch_us": by_torch,
                "onednn_us": by_onednn,
                "onednn_bfloat16_us": rounded,
            }
        )
        taken = "oneDNN" if m * k * n >= FEWEST and min(m, n) >= NARROWEST else "torch"
        print(
            f"{m} x {k} x {n}: torch {by_torch:.0f} µs, oneDNN {by_onednn:.0f}, of bfloat16 "
            f"{rounded:.0f}: {taken}"
        )
    transposed = []
    for m, k, n in NARROW:
        one, other = torch.randn(m, k), torch.randn(k, n)
        as_it_is = microseconds(partial(torch.mm, one, other))
        other_way = microseconds(partial(torch.mm, other.T, one.T))
        transposed.append({"shape": (m, k, n), "torch_us": as_it_is, "transposed_us": other_way})
        print(f"{m} x {k} x {n}: {as_it_is:.0f} µs, transposed {other_way:.0f}")
    result = {"machine": describe_machine(), "torch": torch.__version__, "products": rows}
    result["transposed"] = transposed
    path = HERE / "results" / "products.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
