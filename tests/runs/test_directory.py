"""A run's directory: its own alone, locked while it runs, readable at every moment."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from running import SERVER, Process, checkpoints, experiment, metrics, record, small

from rlrun.errors import CheckpointNotWritten, DirectoryLost, UserError
from rlrun.runs import api
from rlrun.runs.files import directory
from rlrun.runs.files.directory import find_runs
from rlrun.runs.run import Run

FIRST = {"config": {"seed": 0}, "overrides": ["seed=0"], "record": {"status": "running"}}
FILES = [".lock", "config.yaml", "overrides.yaml", "run.json"]


def make(parent, run_dir=None):
    """Make a directory and let it go."""
    with directory.new_directory(parent, run_dir and str(run_dir), "ppo", **FIRST) as made:
        assert directory.is_locked(made)
    assert not directory.is_locked(made)
    return made


def test_no_two_runs_share_a_directory(tmp_path, monkeypatch):
    class Stopped(directory.datetime):
        """A clock that shows each moment to eight threads."""

        calls = 0

        @classmethod
        def now(cls):
            cls.calls += 1
            return cls(2026, 1, 1, microsecond=cls.calls // 8)

    monkeypatch.setattr(directory, "datetime", Stopped)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(tmp_path / "outputs"), range(64)))
    assert len(set(made)) == 64
    assert Stopped.calls > 64, "no two of them asked for one name"
    assert sorted((tmp_path / "outputs").iterdir()) == sorted(made)
    assert all(sorted(os.listdir(path)) == FILES for path in made)


def test_a_directory_that_exists_is_refused_in_one_line(tmp_path):
    run_dir = tmp_path / "a" / "run"
    assert make(tmp_path, run_dir) == run_dir
    with pytest.raises(UserError, match=f"exists: continue it with `rlrun resume {run_dir}`$"):
        make(tmp_path, run_dir)
    (run_dir / "run.json").unlink()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "empty")
    for name in ("run", "file", "link"):
        taken = tmp_path / "a" / name
        with pytest.raises(UserError, match=f"^run_dir={taken} exists: choose a new name$"):
            make(tmp_path, taken)
    assert sorted(os.listdir(tmp_path / "a")) == ["file", "link", "run"]
    assert make(tmp_path, tmp_path / "empty") == tmp_path / "empty"  # there is nothing to lose


@pytest.mark.parametrize("asked_for", [True, False])
def test_a_directory_that_cannot_be_made_is_a_mistake(tmp_path, asked_for):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "outputs"
    with pytest.raises(UserError, match=r"directory cannot be made: .*Not a directory"):
        make(inside, inside / "run" if asked_for else None)


def _killed_at(moment, parent):
    """Make a directory, and be killed before the moment-th time that a file's name changes."""
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (opened or event in CHANGES) and str(parent) in str(arguments[0]):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    with directory.new_directory(parent, str(parent / "run"), "ppo", **FIRST):
        os._exit(0)


CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate")


def _killed_at_every_moment(parent, outcomes):
    """Report the exit code of each process, and what it left of the directory."""
    code, moment = None, 0
    while code != 0:
        moment += 1
        child = os.fork()
        if child == 0:
            _killed_at(moment, parent)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        made = parent / "run"
        left = sorted(os.listdir(made)) if made.exists() else None
        shutil.rmtree(made, ignore_errors=True)
        outcomes.send((code, left, list(find_runs(parent))))
        shutil.rmtree(make(parent, made))


def test_kill_9_while_a_directory_is_made_leaves_a_run_or_a_free_name(tmp_path):
    receiver, sender = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_killed_at_every_moment, args=(tmp_path, sender), daemon=True)
    process.start()
    sender.close()
    outcomes = []
    with contextlib.suppress(EOFError):
        while True:
            outcomes.append(receiver.recv())
    process.join()
    assert process.exitcode == 0
    codes, left, runs = zip(*outcomes, strict=True)
    assert codes == (*[-signal.SIGKILL] * (len(codes) - 1), 0)
    assert len(codes) > 2 * len(FILES)
    assert left[0] is None
    assert all(files in (None, FILES) for files in left)
    assert not any(runs), "what is left over is no run to anybody"


def _killed_at_its_first_row(words):
    """Train, and be killed when metrics.jsonl is made: the directory is a moment old."""

    def hook(event, arguments):
        if event == "open" and str(arguments[0]).endswith("metrics.jsonl"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    api.train(experiment(words))


def test_a_run_killed_in_its_first_moment_is_resumed(tmp_path):
    run = tmp_path / "run"
    words = small("cartpole", "total_steps=64", f"run_dir={run}")
    process = SERVER.Process(target=_killed_at_its_first_row, args=(words,), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(os.listdir(run)) == FILES
    api.resume(run, total_steps=None)
    assert record(run)["status"] == "finished"


def test_a_disk_without_room_for_the_config_is_one_line(tmp_path):
    run = tmp_path / "run"
    words = experiment(small("cartpole", "total_steps=64", f"run_dir={run}"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match=r"^the run's directory cannot be made: .*too large"):
            api.train(words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """Mounts a disk that takes so many files and directories, its root among them."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(entries):
        command = ["mount", "-t", "tmpfs", "-o", f"size=1m,nr_inodes={entries}", "none", disk]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root can mount a disk")
        return disk

    yield mount
    while os.path.ismount(disk):
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_full_at_the_start_leaves_nothing(tiny_disk, capsys):
    outcomes = []
    while not outcomes or outcomes[-1] is UserError:
        disk = tiny_disk(2 + len(outcomes))
        run = disk / "run"
        with pytest.raises((UserError, CheckpointNotWritten), match="No space left") as raised:
            api.train(experiment(small("cartpole", "total_steps=64", f"run_dir={run}")))
        assert "\n" not in str(raised.value)
        outcomes.append(raised.type)
        if raised.type is UserError:
            assert list(disk.iterdir()) == []
    # The directory's own files; the first checkpoint is too late for the start to have failed.
    assert len(outcomes) > len(FILES)
    assert sorted(os.listdir(run)) == sorted([*FILES, "metrics.jsonl"])


def test_a_run_directory_that_is_deleted_while_it_runs(tmp_path):
    run = tmp_path / "run"
    words = ["total_steps=10_000_000", "checkpoint.every_seconds=3600", f"run_dir={run}"]
    process = Process(small("cartpole", *words), tmp_path)
    process.wait_for_rows(run, 4)
    shutil.rmtree(run)
    assert process.wait() == 1
    assert process.output().splitlines()[-1] == (
        f"rlrun: {run} was deleted or moved while the run was in it; the run has ended and nothing "
        "more of it is saved"
    )
    assert "saved in" not in process.output()
    assert "Traceback" not in process.output()
    assert "warning" not in process.output()
    assert not run.exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_directory_that_is_deleted_in_the_last_moment(
    tmp_path, capsys, monkeypatch, replaced
):
    run = tmp_path / "run"
    words = small("cartpole", "total_steps=64", f"run_dir={run}")

    def delete(self):
        evaluate_if_due(self)
        shutil.rmtree(run)
        if replaced:
            run.mkdir()

    evaluate_if_due = Run.evaluate_if_due
    monkeypatch.setattr(Run, "evaluate_if_due", delete)
    with pytest.raises(DirectoryLost, match="was deleted or moved"):
        api.train(experiment(words))
    assert capsys.readouterr().out == ""
    assert not run.exists() or list(run.iterdir()) == []  # the new one is somebody else's


def test_checkpoints_that_are_deleted_while_a_run_runs_are_written_again(tmp_path):
    run = tmp_path / "run"
    words = ["total_steps=10_000_000", "checkpoint.every_seconds=0", f"run_dir={run}"]
    process = Process(small("cartpole", *words), tmp_path)
    process.wait_for_rows(run, 4)
    (run / "checkpoints").rename(tmp_path / "away")  # at once, unlike rmtree
    process.wait_for_rows(run, len(metrics(run)) + 4)
    process.send(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert (
        f"warning: {run}/checkpoints was deleted: the checkpoints before step" in process.output()
    )
    step = metrics(run)[-1]["step"]
    assert f"Stopped after {step:,} steps, which are saved in {run}." in process.output()
    assert checkpoints(run)[-1].name == f"step-{int(step):012d}"


def test_checkpoints_that_are_deleted_after_the_last_one_are_written_again(
    tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    words = small("cartpole", "total_steps=64", f"run_dir={run}")

    def delete(self):
        evaluate_if_due(self)
        shutil.rmtree(run / "checkpoints")

    evaluate_if_due = Run.evaluate_if_due
    monkeypatch.setattr(Run, "evaluate_if_due", delete)
    api.train(experiment(words))
    assert [path.name for path in checkpoints(run)] == ["step-000000000064"]
    assert f"rlrun eval {run} --checkpoint last" in capsys.readouterr().out


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
    assert [row["step"] for row in metrics(run)][:5] == [0, 64, 64, 128, 128]
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_reason_not_to_train(
    tmp_path, capsys, monkeypatch, number
):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)  # what such a file system does
    with directory.lock(tmp_path):
        assert directory.is_locked(tmp_path)  # for all that anybody knows
        assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])
    warning = capsys.readouterr().err
    assert warning.startswith("warning: the run's directory cannot be locked: ")
    assert warning.count("\n") == 1


def test_whoever_looks_at_the_lock_does_not_keep_a_run_from_starting(tmp_path):
    with directory.lock(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, file.close).start()
        with directory.lock(tmp_path):
            assert directory.is_locked(tmp_path)
    assert not directory.is_locked(tmp_path)
    shutil.rmtree(tmp_path)
    assert not directory.is_locked(tmp_path)
    assert not tmp_path.exists()  # looking makes nothing
