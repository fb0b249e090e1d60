"""Sweeps by the command, whose workers are processes of their own."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import (
    Process,
    assert_same_run,
    compose,
    experiment,
    fragile,
    metrics,
    record,
    small,
)

from rlrun.cli.sweep import run_job
from rlrun.runs import api
from rlrun.runs.files.directory import is_locked
from rlrun.sweeps.plan import Job, add_run, write_plan
from rlrun.sweeps.pool import Worker

LONG = "total_steps=100_000_000"


def words(*own: str) -> list[str]:
    """A sweep of small runs on CartPole in the directory `sweep`, two at a time."""
    return ["-m", *small("cartpole", *own), "hardware.jobs=2", "hydra.sweep.dir=sweep"]


def run(directory: Path, *line: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return exit code and output."""
    process = Process(list(line), directory, environment)
    return process.wait(180), process.output()


def runs(directory: Path) -> dict[str, Path]:
    """The runs of the sweep by name."""
    return {path.parent.name: path.parent for path in (directory / "sweep").glob("*/run.json")}


def wait_until(condition) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def logged_step(directory: Path) -> int:
    """The step of the last row that a run has written to its end; 0 before the first one."""
    path = directory / "metrics.jsonl"
    *lines, _ = path.read_text().split("\n") if path.exists() else [""]
    return json.loads(lines[-1])["step"] if lines else 0


def test_a_sweep_trains_what_is_missing_and_nothing_twice(tmp_path):
    # As from a shell; elsewhere, workers are forked from the server of the tests.
    command = [sys.executable, "-m", "rlrun", *words("total_steps=256", "seed=0,1,0")]  # two runs
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "2 of 2 runs finished in sweep" in output
    first = runs(tmp_path)
    assert set(first) == {"ppo_cartpole_s0", "ppo_cartpole_s1"}
    assert [record(path)["status"] for path in first.values()] == ["finished"] * 2
    # A line for each run, and what there is to do next; no display of a single run.
    for name in first:
        assert len(re.findall(rf"^{name}: finished, return .* after 256 steps", output, re.M)) == 1
    assert "2 of 2 runs finished in sweep\n" in output
    assert "evaluation 2" not in output
    # The comparison, and what its reader has to know.
    assert re.search(r"^ +CartPole-v1 +ppo +2 ", output, re.M)
    assert "no interval under 3 seeds: ppo on CartPole-v1 (2)" in output
    assert "  rlrun compare sweep --output report\n" in output
    assert "not compiled" not in output
    before = {path: (path / "run.json").read_bytes() for path in first.values()}

    code, output = run(tmp_path, *words("total_steps=256", "seed=0,1,2"))
    assert code == 0, output
    assert "3 of 3 runs finished in sweep, 2 of them earlier\n" in output
    assert set(runs(tmp_path)) == {*first, "ppo_cartpole_s2"}
    assert {path: (path / "run.json").read_bytes() for path in first.values()} == before
    plan = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert plan["jobs"] == {f"ppo_cartpole_s{seed}": f"seed={seed}" for seed in range(3)}

    # What a run of a sweep computes is what it computes alone.
    alone = [word for word in words("total_steps=256", "seed=1")[1:] if "hydra" not in word]
    assert run(tmp_path, *alone, "run_dir=alone")[0] == 0
    assert metrics(tmp_path / "alone") == metrics(first["ppo_cartpole_s1"])

    code, output = run(tmp_path, "resume", "sweep")
    assert code == 0
    assert "3 of 3 runs finished in sweep, 3 of them earlier\n" in output

    # A run without its record is named, and nothing of it is written over.
    lost = first["ppo_cartpole_s1"]
    (lost / "run.json").unlink()
    code, output = run(tmp_path, "resume", "sweep")
    assert code == 0
    assert "warning: sweep: ppo_cartpole_s1 of its plan has no run.json" in output
    assert "2 of 2 runs finished in sweep, 2 of them earlier\n" in output
    code, output = run(tmp_path, *words("total_steps=256", "seed=0,1,2"))
    assert code == 2
    assert "sweep/ppo_cartpole_s1 has lost its run.json" in output
    shutil.rmtree(lost)
    code, output = run(tmp_path, *words("total_steps=256", "seed=0,1,2"))
    assert code == 0, output
    assert "3 of 3 runs finished in sweep, 2 of them earlier\n" in output


def test_a_sweep_stops_and_goes_on(tmp_path):
    process = Process(words(LONG, "seed=0,1,2"), tmp_path)
    wait_until(lambda: sum(rows(path) > 3 for path in runs(tmp_path).values()) == 2)
    process.send(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    output = process.output()
    there = runs(tmp_path)
    assert [record(there[f"ppo_cartpole_s{seed}"])["status"] for seed in range(3)] == [
        "interrupted",
        "interrupted",
        "planned",
    ]
    assert len(re.findall(r"^ppo_cartpole_s[01]: interrupted, .* after", output, re.M)) == 2
    assert "0 of 3 runs finished in sweep\nNext:\n  rlrun resume sweep\n" in output
    saved = {path: record(path)["step"] for path in there.values()}

    process = Process(["resume", "sweep"], tmp_path)
    wait_until(lambda: sum(logged_step(path) > step for path, step in saved.items()) == 2)
    process.send(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert sum(record(path)["step"] > step for path, step in saved.items()) == 2


def stints(directory: Path) -> list[dict]:
    """The earlier processes of a run, once a later one has begun."""
    return record(directory).get("earlier", [])


def test_a_sweep_that_is_killed_altogether_is_finished_by_the_same_words(tmp_path):
    line = words("total_steps=3_200", "checkpoint.every_seconds=0.2", "seed=0,1")
    process = Process(line, tmp_path)
    wait_until(lambda: any(rows(path) > 12 for path in runs(tmp_path).values()))
    killed = {path: record(path)["pid"] for path in runs(tmp_path).values()}
    process.send(signal.SIGKILL)
    for pid in killed.values():
        if pid != process.pid:  # not begun yet: planned by the process itself
            os.kill(pid, signal.SIGKILL)
    process.wait()
    code, output = run(tmp_path, *line)
    assert code == 0, output
    assert "2 of 2 runs finished in sweep\n" in output
    assert run(tmp_path, *line[:-1], "hydra.sweep.dir=whole")[0] == 0
    for name, directory in runs(tmp_path).items():
        whole = tmp_path / "whole" / name
        if stints(directory):
            assert_same_run(directory, whole)
        else:
            assert metrics(directory) == metrics(whole)


def test_workers_save_their_runs_when_their_pool_is_gone(tmp_path):
    process = Process(words(LONG, "seed=0,1"), tmp_path)
    wait_until(lambda: sum(rows(path) > 3 for path in runs(tmp_path).values()) == 2)
    process.send(signal.SIGKILL)
    process.wait()
    wait_until(
        lambda: all(record(path)["status"] == "interrupted" for path in runs(tmp_path).values())
    )


def test_the_same_sweep_started_twice_shares_the_work(tmp_path):
    line = words("total_steps=32_000", "seed=0,1,2")  # long enough to meet
    line[line.index("hardware.jobs=2")] = "hardware.jobs=1"
    processes = [Process(line, tmp_path) for _ in range(2)]
    # One of each: the directory of a run that has begun is locked.
    wait_until(lambda: sum(is_locked(path) for path in runs(tmp_path).values()) == 2)
    assert [process.wait(180) for process in processes] == [0, 0]
    for process in processes:
        assert "3 of 3 runs finished in sweep" in process.output()
    assert len(runs(tmp_path)) == 3
    for path in runs(tmp_path).values():
        assert record(path)["status"] == "finished"
        assert "earlier" not in record(path)


@pytest.fixture
def finished(tmp_path) -> Job:
    """A job of a sweep, which another process has finished."""
    settings = experiment(small("cartpole", "total_steps=64"))
    job = add_run(tmp_path / "sweep", settings, [])
    api.resume(job.directory, total_steps=None)
    return job


def test_a_run_that_another_process_finished_since_the_last_look_is_no_failure(finished):
    worker = Worker(finished, None)
    wait_until(lambda: worker.exit_code() is not None)
    assert worker.exit_code() == 0, worker.last_words()
    worker.close()


def test_so_it_is_for_hydras_launchers(finished, monkeypatch, capsys):
    overrides = small("cartpole", "total_steps=64")
    own = [f"hydra.sweep.dir={finished.directory.parent}", "hydra.job.num=0"]
    cfg, settings = compose([*overrides, *own])
    settings.overrides.task = overrides
    write_plan(finished.directory.parent, overrides, [], [finished])
    assert run_job(cfg, settings) == record(finished.directory)["return"]
    monkeypatch.setattr("rlrun.sweeps.pool.stand", lambda job: None)  # before it began
    assert math.isnan(run_job(cfg, settings))
    assert "has done its 64 steps" in capsys.readouterr().out


def test_a_run_that_fails_is_tried_again_and_harms_no_other(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "raise").touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = ["-m", *fragile(tmp_path, "total_steps=256")]
    line[line.index(f"+env.options.directory={tmp_path}")] += f",{broken}"
    line += ["hardware.jobs=2", "hydra.sweep.dir=sweep"]
    code, output = run(tmp_path, *line, environment=environment)
    assert code == 1
    there = runs(tmp_path)
    statuses = {name: record(path)["status"] for name, path in there.items()}
    assert sorted(statuses.values()) == ["failed", "finished"]
    (failed,) = (name for name, status in statuses.items() if status == "failed")
    reason = r"environment \d \(seed \d+\) raised ArithmeticError: the simulator broke"
    assert re.search(rf"^{failed}: failed: {reason}; it is tried again at the end$", output, re.M)
    assert re.search(rf"^{failed}: failed: {reason}$", output, re.M)
    assert re.search(rf"^  {failed} failed: {reason} \(see sweep/{failed}/log.txt\)$", output, re.M)
    assert "1 of 2 runs finished in sweep\n" in output
    assert "rlrun: not every run of sweep finished\n" in output
    log = (there[failed] / "log.txt").read_text()
    assert log.count("raise ArithmeticError") == 2
    assert "  rlrun resume sweep --plugin fragile\n" in output

    (broken / "raise").unlink()
    code, output = run(tmp_path, "resume", "sweep", environment=environment)
    assert code == 2
    assert "allow it with --plugin fragile" in output
    code, output = run(tmp_path, "resume", "sweep", "--plugin", "fragile", environment=environment)
    assert code == 0, output
    assert record(there[failed])["status"] == "finished"


def test_a_worker_that_is_killed_is_named(tmp_path):
    process = Process(words(LONG, "seed=0"), tmp_path)
    pids = []
    for _ in range(2):
        wait_until(lambda: rows_since(tmp_path, pids))
        (directory,) = runs(tmp_path).values()
        pids.append(record(directory)["pid"])
        os.kill(pids[-1], signal.SIGKILL)
    assert process.wait() == 1
    output = process.output()
    assert "ppo_cartpole_s0: failed: its process ended with signal SIGKILL; it is tried" in output
    assert "  ppo_cartpole_s0 failed: its process ended with signal SIGKILL (see" in output


def test_a_worker_that_ends_without_a_word_is_named(tmp_path):
    (tmp_path / "exit").touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = ["-m", *fragile(tmp_path, "total_steps=256"), "seed=0", "hydra.sweep.dir=sweep"]
    code, output = run(tmp_path, *line, environment=environment)
    assert code == 1
    assert re.search(r"failed: its process ended with exit code 3 \(see sweep/", output), output


def rows_since(tmp_path: Path, pids: list[int]) -> bool:
    """Whether the run has a new process, which has logged."""
    for directory in runs(tmp_path).values():
        said = record(directory)
        if said["status"] == "running" and said["pid"] not in pids and rows(directory) > 3:
            return True
    return False


def test_a_directory_that_has_a_run_or_a_study_has_no_sweep(tmp_path):
    for kind in ("run", "study"):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / f"{kind}.json").write_text("{}")
        before = sorted((tmp_path / "sweep").iterdir())
        code, output = run(tmp_path, *words("total_steps=256", "seed=0,1"))
        assert code == 2
        assert f"sweep is the directory of a {kind}: a sweep needs another one\n" in output
        assert sorted((tmp_path / "sweep").iterdir()) == before
        shutil.rmtree(tmp_path / "sweep")


@pytest.mark.parametrize("word", ["hardware.jobs=0", "hardware.jobs=some"])
def test_a_number_of_jobs_that_is_none_is_one_line(tmp_path, word):
    code, output = run(tmp_path, "-m", *small("cartpole", "seed=0,1"), word)
    assert code == 2
    assert output.count("\n") == 1
    assert "hardware.jobs" in output
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
