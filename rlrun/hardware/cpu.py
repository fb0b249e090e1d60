"""What this process has of a CPU: how many cores, often fewer than there are, and its products."""

import math
import os
import platform
import re
import sys
import time
from functools import cache
from pathlib import Path

from rlrun.hardware.control_groups import ControlGroup, control_groups


def available_cores() -> int:
    """Count the cores that the process's affinity and its control groups leave to it."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    return max(1, math.floor(min(cores, cgroup_quota(Path("/")))))


def free_cores(root: Path = Path("/"), seconds: float = 0.3) -> float:
    """Measure how many cores of the process's affinity nobody uses; inf if Linux does not say.

    Args:
        root: directory that holds ``proc``; "/" but in tests.
        seconds: how long to look, in which this process does nothing.
    """
    before = _idle_times(root)
    time.sleep(seconds)
    pairs = zip(before, _idle_times(root), strict=False)
    shares = [
        (idle - idle_before) / (ticks - ticks_before)
        for (idle_before, ticks_before), (idle, ticks) in pairs
        if ticks > ticks_before
    ]
    return sum(shares) if shares else math.inf


def processor(root: Path = Path("/")) -> str:
    """Return the name of this machine's processor, as Linux lists it.

    Args:
        root: directory that holds ``proc``; "/" but in tests.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def has_bfloat16_products(root: Path = Path("/")) -> bool:
    """Say whether the processor multiplies bfloat16 numbers by itself, as Linux lists it.

    Args:
        root: directory that holds ``proc``; "/" but in tests.
    """
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_listed(root, "flags", "Features"))


@cache
def has_bfloat16_without_tiles(root: Path = Path("/")) -> bool:
    """Say whether the processor has vectors of bfloat16 (AVX512-BF16), and no tiles (AMX).

    Args:
        root: directory that holds ``proc``; "/" but in tests.
    """
    flags = _listed(root, "flags")
    return "avx512_bf16" in flags and "amx_bf16" not in flags


@cache
def is_amd_with_avx512(root: Path = Path("/")) -> bool:
    """Say whether the processor is AMD's and has vectors of 512 bits, as Linux lists it.

    Args:
        root: directory that holds ``proc``; "/" but in tests.
    """
    return "AuthenticAMD" in _listed(root, "vendor_id") and "avx512f" in _listed(root, "flags")


def _idle_times(root: Path) -> list[tuple[int, int]]:
    """Return for each core of the process's affinity the time that it was idle, and all time."""
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return []
    cores = os.sched_getaffinity(0)
    # "cpu0 user nice system idle iowait irq softirq steal guest guest_nice", where the time of
    # guests is part of the user's.
    times = [
        [int(ticks) for ticks in line.split()[1:]]
        for line in lines
        if (match := re.match(r"cpu(\d+) ", line)) and int(match[1]) in cores
    ]
    return [(of_core[3] + of_core[4], sum(of_core[:8])) for of_core in times]


def _listed(root: Path, *keys: str) -> list[str]:
    """Return the words that Linux lists for a core under one of these keys; none elsewhere."""
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    line = next((line for line in lines if line.startswith(keys)), "")
    return line.partition(":")[2].split()


def cgroup_quota(root: Path) -> float:
    """Return the cores of the tightest control group that this process is in; inf for no limit.

    Args:
        root: directory that holds ``proc`` and ``sys``; "/" but in tests.
    """
    return min(map(_quota, control_groups("cpu", root)), default=math.inf)


def _quota(group: ControlGroup) -> float:
    """Return the cores of one control group."""
    if group.version_2:
        try:
            quota, period = map(int, (group.directory / "cpu.max").read_text().split())
        except (OSError, ValueError):  # there is none, or it is "max"
            return math.inf
        return quota / period
    limit, length = group.read("cpu.cfs_quota_us"), group.read("cpu.cfs_period_us")
    # -1 is none.
    return limit / length if limit and length and limit > 0 else math.inf
