"""Memory of a process: the machine's, and what its control groups leave of it."""

import os

import pytest

from rlrun.errors import UserError
from rlrun.hardware import memory
from rlrun.hardware.memory import available_memory, physical_memory

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_free_memory_is_what_the_system_says(tmp_path):
    assert 0 < available_memory() <= physical_memory() <= MACHINE
    assert available_memory(tmp_path) == physical_memory(tmp_path) == MACHINE
    write(tmp_path / "proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    assert available_memory(tmp_path) == 1_024_000
    assert physical_memory(tmp_path) == MACHINE


@pytest.mark.parametrize(
    ("membership", "files", "total", "free"),
    [
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, MACHINE, 1_024_000),
        ("0::/\n", {"memory.max": "1100\n", "memory.current": "100\n"}, 1_100, 1_000),
        ("0::/\n", {"memory.max": "99\n", "memory.current": "100\n"}, 99, 0),
        # The tightest of a group and those around it, each with what it has used.
        (
            "0::/a/b\n",
            {
                "a/memory.max": "1000",
                "a/memory.current": "900",
                "a/b/memory.max": "800",
                "a/b/memory.current": "10",
            },
            800,
            100,
        ),
        # Version 1, of which the other controllers have their own groups.
        (
            "5:cpu:/other\n4:memory:/job\n",
            {"memory/job/memory.limit_in_bytes": "700", "memory/job/memory.usage_in_bytes": "300"},
            700,
            400,
        ),
        # Copies of files, which the system drops where memory is short, are free.
        (
            "0::/\n",
            {
                "memory.max": "1000",
                "memory.current": "900",
                "memory.stat": "anon 100\nfile 800\ninactive_file 650\n",
            },
            1_000,
            750,
        ),
        (
            "4:memory:/\n",
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "900",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
            },
            1_000,
            300,
        ),
    ],
)
def test_a_containers_memory_is_what_its_groups_leave(tmp_path, membership, files, total, free):
    write(tmp_path / "proc/meminfo", "MemAvailable:   1000 kB\n")
    write(tmp_path / "proc/self/cgroup", membership)
    for name, content in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, content)
    assert physical_memory(tmp_path) == total
    assert available_memory(tmp_path) == free


def test_what_a_container_has_not_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**30)
    memory.require_memory(2**30, "this")
    message = r"this needs at least 2\.1 GB of memory; this machine has 1\.1 GB"
    with pytest.raises(UserError, match=message):
        memory.require_memory(2**31, "this")


def test_what_is_not_free_now_is_told(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 2**20)
    assert memory.shortage(3 * 2**20) == ""
    assert memory.shortage(3 * 2**20 + 1) == (
        " (only 3.1 MB are free now: the system may end the run)"
    )
