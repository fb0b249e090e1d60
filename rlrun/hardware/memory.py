"""Memory that a machine does not have, found out before it is asked for where that is possible."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.filesize import decimal

from rlrun.errors import UserError
from rlrun.hardware.control_groups import control_groups

# What NumPy and torch say of sizes that no machine has, each in a class that means other things
# too, and what torch says when the CPU's memory is full.
NO_MEMORY = re.compile(
    r"can't allocate memory|[Ss]torage size|array is too big|[Mm]aximum allowed dimension"
    r"|out of memory|too large to convert to C"
)

# Names in a control group: of the files that hold its limit and what is used, and of the part of
# that, in memory.stat, which is old copies of files: the system drops them before memory is short.
# Without a limit, version 1 has a number that no machine has.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def physical_memory(root: Path = Path("/")) -> int:
    """Returns the bytes that this machine has, or leaves to the process's container or job.

    Args:
        root: directory that holds ``proc`` and ``sys``; "/" but in tests.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(limit for limit, _ in _limits(root))])


def available_memory(root: Path = Path("/")) -> int:
    """Returns the bytes that processes can still fill, as far as the system says.

    Args:
        root: directory that holds ``proc`` and ``sys``; "/" but in tests.
    """
    free = physical_memory(root)
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        text = ""
    if match := re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE):
        free = min(free, int(match[1]) * 1024)
    return max(0, min([free, *(limit - used for limit, used in _limits(root))]))


def _limits(root: Path) -> list[tuple[int, int]]:
    """Returns the bytes that the process's control groups may fill, and have filled."""
    found = []
    for group in control_groups("memory", root):
        limit_file, used_file, dropped = VERSION_2 if group.version_2 else VERSION_1
        limit, used = group.read(limit_file), group.read(used_file)
        if limit is not None and used is not None:
            found.append((limit, used - (group.read_entry("memory.stat", dropped) or 0)))
    return found


def shortage(size: int) -> str:
    """Returns what to add to a line that says how much memory is to be filled; mostly nothing.

    Args:
        size: bytes that will be filled.
    """
    free = available_memory()
    if size <= free:
        return ""
    return f" (only {decimal(free)} are free now: the system may end the run)"


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
            f"{what} needs at least {decimal(size)} of memory; {owner} has {decimal(memory)}"
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
