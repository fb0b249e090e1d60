"""Cores of a process: its affinity and its control groups, of both versions."""

import math
import os
import platform
import subprocess
import sys

import pytest

from rlrun.hardware.cpu import cgroup_quota, free_cores, processor


def test_only_the_cores_of_the_affinity_are_counted():
    code = (
        "import os; from rlrun.hardware.cpu import available_cores;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(available_cores())"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout == "1\n", finished.stderr


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        # Version 2: quota and period in microseconds.
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        # The tightest of a group and those around it.
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "100000 100000"}, 1),
        ("0::/other/containers/path\n", {"cpu.max": "300000 100000"}, 3),
        # Version 1.
        (
            "5:memory:/job\n4:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "150000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
            1.5,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {}, math.inf),
    ],
)
def test_a_control_groups_quota_is_found(tmp_path, membership, files, cores):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert cgroup_quota(tmp_path) == cores


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cgroup_quota(tmp_path) == math.inf


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (
            "processor : 0\nmodel name\t: An X(R) 7 CPU @ 2 GHz\nmodel name : B\n",
            "An X(R) 7 CPU @ 2 GHz",
        ),
        ("processor : 0\n", platform.machine()),
        (None, platform.processor()),
    ],
)
def test_the_processor_has_a_name(tmp_path, content, name):
    if content is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(content)
    assert processor(tmp_path) == name


def test_cores_that_others_use_are_not_free(tmp_path, monkeypatch):
    first, second = 0, 7
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {first, second})
    (tmp_path / "proc").mkdir()

    def write(of_first, of_second):
        # user, nice, system, idle, iowait, irq, softirq, steal; guest, which is part of user
        lines = ["cpu 9 9", f"cpu0 {of_first} 0 0 9", "cpu1 90 0", f"cpu7 {of_second} 0 0 9"]
        (tmp_path / "proc/stat").write_text("\n".join([*lines, "intr 1 2 3\n"]))

    write("100 0 0 100 0 0", "100 0 0 100 0 0")
    text = (tmp_path / "proc/stat").read_text()
    (tmp_path / "proc/stat").write_text(text.replace(" 0 0 9", " 0 0 1"))
    monkeypatch.setattr("time.sleep", lambda seconds: write("104 3 0 102 1 0", "100 0 0 108 0 2"))
    # 3 of 10 ticks, and 8 of 10.
    assert free_cores(tmp_path) == pytest.approx(0.3 + 0.8)


def test_a_core_with_a_busy_process_is_not_free():
    """Looked at from a process that has this core alone, whatever else the machine does."""
    code = (
        "import os, subprocess, sys, time; from rlrun.hardware.cpu import free_cores;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "busy = subprocess.Popen([sys.executable, '-c', 'while True: pass']);"
        "time.sleep(0.5); print(free_cores()); busy.kill()"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(finished.stdout) < 0.3, finished.stderr


def test_where_the_system_does_not_say_all_cores_are_free(tmp_path):
    assert free_cores(tmp_path, seconds=0) == math.inf
