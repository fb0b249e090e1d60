"""Memory that a machine does not have, found out before it is asked for where that is possible."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rlrun.errors import UserError

# What NumPy and torch say of sizes that no machine has, each in a class that means other things
# too, and what torch says when the CPU's memory is full.
NO_MEMORY = re.compile(
    r"can't allocate memory|[Ss]torage size|array is too big|[Mm]aximum allowed dimension"
    r"|out of memory|too large to convert to C"
)


def physical_memory() -> int:
    """Returns this machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_memory(root: Path = Path("/")) -> int:
    """Returns the bytes that processes can still fill, as far as the system says.

    Args:
        root: directory that holds ``proc`` and ``sys``; "/" but in tests.
    """
    free = physical_memory()
    try:
        text = (root / "proc/meminfo").read_text()
        if match := re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE):
            free = int(match[1]) * 1024
        group = root / "sys/fs/cgroup"  # a container's own, in version 2
        limit, used = (group / "memory.max").read_text(), (group / "memory.current").read_text()
        if limit.strip() != "max":
            free = min(free, int(limit) - int(used))
    except (OSError, ValueError):
        pass
    return max(free, 0)


def require_memory(size: int, what: str, device: torch.device | None = None) -> None:
    """Refuses what cannot be in memory, before the machine tries.

    Args:
        size: bytes that it takes at least.
        what: the settings that it comes from ("algo.num_envs=10 x algo.horizon=20").
        device: whose memory it is to be in; None: the CPU's.

    Raises:
        UserError: it is more than this machine has.
    """
    owner, memory = "this machine", physical_memory()
    if device is not None and device.type == "cuda":
        owner, memory = "this GPU", torch.cuda.get_device_properties(device).total_memory
    if size > memory:
        raise UserError(
            f"{what} needs at least {size / 2**30:,.0f} GiB of memory; "
            f"{owner} has {memory / 2**30:,.0f} GiB"
        )


@contextmanager
def memory_suffices(what: str) -> Iterator[None]:
    """Says in one line that the memory did not suffice for the block.

    Args:
        what: what the block makes, with the settings that decide its size.

    Raises:
        UserError: it did not.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError, OverflowError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"not enough memory for {what}{reason and f': {reason}'}") from error
