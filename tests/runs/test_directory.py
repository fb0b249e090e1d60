"""A run's directory: its own alone, locked while it runs, readable at every moment."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from running import Process, experiment, metrics, record, small

from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.files import directory


def test_no_two_runs_share_a_directory(tmp_path):
    barrier = threading.Barrier(8)

    def make(_):
        barrier.wait()
        return [directory.make_directory(tmp_path / "outputs", None, "ppo") for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        made = [path for paths in pool.map(make, range(8)) for path in paths]
    assert len(set(made)) == 800
    assert all(path.is_dir() for path in made)


def test_a_directory_that_exists_is_refused_in_one_line(tmp_path):
    run_dir = tmp_path / "a" / "run"
    assert directory.make_directory(tmp_path, str(run_dir), "ppo") == run_dir
    with pytest.raises(UserError, match=f"^run_dir={run_dir} exists: choose a new name$"):
        directory.make_directory(tmp_path, str(run_dir), "ppo")
    (run_dir / "run.json").write_text("{}")
    with pytest.raises(UserError, match=f"exists: continue it with `rlrun resume {run_dir}`$"):
        directory.make_directory(tmp_path, str(run_dir), "ppo")


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_directory_that_cannot_be_made_is_a_mistake(tmp_path, asked_for):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "outputs"
    with pytest.raises(UserError, match=r"directory cannot be made: .*Not a directory"):
        directory.make_directory(inside, str(inside / "run") if asked_for else None, "ppo")


def test_a_config_comes_back_as_it_was(tmp_path):
    config = {
        "name": "Ægir, 雪",
        "algo": {"learning_rate": 1e-5, "sizes": [64, 64], "clip": None, "on": True},
        "text": "1e-5",
    }
    overrides = ["algo.learning_rate=1e-5", "tags=[a, b]"]
    directory.write_config(tmp_path, config, overrides)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8")) == config
    assert yaml.safe_load((tmp_path / "overrides.yaml").read_text()) == overrides
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "overrides.yaml"]


def test_a_reader_never_sees_half_a_record(tmp_path):
    records = [{"status": "running", "text": letter * 100_000} for letter in "ab"]
    directory.write_record(tmp_path, records[0])
    ended = threading.Event()

    def write():
        for number in range(100):
            directory.write_record(tmp_path, records[number % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        assert json.loads((tmp_path / "run.json").read_text()) in records
        reads += 1
    writer.join()
    assert reads > 10
    assert os.listdir(tmp_path) == ["run.json"]


def test_two_runs_started_together(tmp_path):
    words = small("cartpole", "total_steps=64")
    processes = [Process(words, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    runs = [path.parent for path in tmp_path.glob("outputs/*/*/run.json")]
    assert len(runs) == 2
    assert [record(run)["status"] for run in runs] == ["finished", "finished"]
    assert metrics(runs[0]) == metrics(runs[1])

    processes = [Process([*words, "run_dir=mine"], tmp_path) for _ in range(2)]
    assert sorted(process.wait() for process in processes) == [0, 2]
    (refused,) = (p.output() for p in processes if p.wait() == 2)
    assert refused.startswith("rlrun: run_dir=mine exists: ")
    assert refused.count("\n") == 1
    assert record(tmp_path / "mine")["status"] == "finished"


def test_a_run_that_is_running_is_not_resumed(tmp_path):
    run = tmp_path / "run"
    words = ["total_steps=10_000_000", "evaluation.every_steps=64", f"run_dir={run}"]
    process = Process(small("cartpole", *words), tmp_path)
    process.wait_for_rows(run, 4)
    second = Process(["resume", str(run)], tmp_path)
    assert second.wait() == 2
    assert second.output() == f"rlrun: {run} is in use by a process that is still running\n"
    # What reads does not mind.
    result = api.evaluate_run(run, episodes=1, seed=0, checkpoint="best")
    assert result["episodes"] == 1

    before = len(metrics(run))
    process.wait_for_rows(run, before + 2)  # it goes on, and its file was not cut
    assert [row["step"] for row in metrics(run)][:4] == [64, 64, 128, 128]
    process.send(signal.SIGKILL)
    process.wait()
    # The lock went with the process.
    step = record(run)["step"]
    api.resume(run, total_steps=step + 128)
    assert record(run)["status"] == "finished"


def test_a_failed_start_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = experiment(small("cartpole", "hardware.device=cuda:99"))
    with pytest.raises(UserError, match="GPU"):
        api.train(parts)
    assert list(Path().iterdir()) == []
