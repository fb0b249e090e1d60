"""Ctrl-C and SIGTERM: real signals, to this process and to runs in processes of their own."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import SERVER, Process, checkpoints, experiment, fragile, metrics, record, small
from wandb_file import run_files

from rlrun.errors import Interrupted
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.run import Run
from rlrun.runs.signals import HANDLED, StopFlag

RLRUN = Path(sys.executable).with_name("rlrun")


@pytest.fixture
def handlers():
    """Sets what a shell starts a command with, whoever started this; puts the handlers back."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HANDLED)
def test_the_first_signal_is_a_wish(handlers, number):
    before = [signal.getsignal(handled) for handled in HANDLED]
    with StopFlag() as stop:
        assert stop.signal is None
        signal.raise_signal(number)
        assert stop.signal == number
    assert [signal.getsignal(handled) for handled in HANDLED] == before


def test_the_handler_that_was_there_is_called_too(handlers):
    calls = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM
    assert calls == [signal.SIGTERM]


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_that_is_ignored_stays_ignored(handlers, number):
    # As SIGINT is in a background job of a shell script (Ctrl-C is for the foreground), and SIGHUP
    # under nohup.
    signal.signal(number, signal.SIG_IGN)
    with StopFlag() as stop:
        signal.raise_signal(number)
    assert stop.signal is None
    assert signal.getsignal(number) is signal.SIG_IGN


def _receive(numbers):
    for number in HANDLED:  # a test run in the background of a script ignores some
        signal.signal(number, signal.SIG_DFL)
    with StopFlag() as stop:
        for number in numbers:
            signal.raise_signal(number)
    os._exit(128 + stop.signal)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        (["SIGHUP", "SIGHUP"], 128 + signal.SIGHUP),  # of the terminal, and of its shell
        (["SIGUSR1", "SIGTERM"], 128 + signal.SIGTERM),  # Slurm's, before the limit and at it
        (["SIGTERM", "SIGHUP", "SIGUSR1"], 128 + signal.SIGTERM),
        (["SIGUSR1", "SIGTERM", "SIGTERM"], -signal.SIGTERM),
        (["SIGINT", "SIGINT"], -signal.SIGINT),
        (["SIGINT", "SIGTERM"], -signal.SIGTERM),
    ],
)
def test_which_second_signal_ends_the_process_at_once(handlers, numbers, code):
    numbers = [signal.Signals[name] for name in numbers]
    process = SERVER.Process(target=_receive, args=(numbers,), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == code


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_closed_session_and_a_schedulers_warning_end_a_run_after_a_checkpoint(tmp_path, number):
    directory = tmp_path / "run"
    words = ["total_steps=10_000_000", "checkpoint.every_seconds=3600", f"run_dir={directory}"]
    process = Process(small("cartpole", *words), tmp_path)
    process.wait_for_rows(directory, 4)
    process.send(number)
    assert process.wait() == 128 + number
    assert record(directory)["status"] == "interrupted"
    assert load(checkpoints(directory)[-1]).info["step"] == metrics(directory)[-1]["step"]


def test_a_terminal_that_is_closed_costs_no_step(tmp_path):
    directory = tmp_path / "run"
    words = ["total_steps=10_000_000", "checkpoint.every_seconds=3600", f"run_dir={directory}"]
    arguments = [str(RLRUN), *small("cartpole", *words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pid, terminal = pty.fork()
    if pid == 0:
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        os.execve(RLRUN, arguments, environment)
    deadline = time.monotonic() + 60
    while not directory.exists() or len(metrics(directory)) < 4:
        assert time.monotonic() < deadline
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 65_536)  # or its process would wait for a reader
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 128 + signal.SIGHUP
    assert record(directory)["status"] == "interrupted"
    assert load(checkpoints(directory)[-1]).info["step"] == metrics(directory)[-1]["step"]


def test_a_second_ctrl_c_ends_the_run_at_once_and_costs_no_checkpoint(tmp_path):
    directory = tmp_path / "run"
    words = ["total_steps=640_000", "checkpoint.every_seconds=0", f"run_dir={directory}"]
    process = Process(fragile(tmp_path, *words), tmp_path)
    process.wait_for_rows(directory, 5)
    (tmp_path / "hang").touch()  # a step of a minute
    rows = -1
    while rows != len(metrics(directory)):
        rows = len(metrics(directory))
        time.sleep(0.5)
    process.send(signal.SIGINT)
    time.sleep(0.5)
    assert process.alive()
    start = time.monotonic()
    process.send(signal.SIGINT)
    assert process.wait() == -signal.SIGINT  # which a shell shows as 130
    assert time.monotonic() - start < 10
    last = load(checkpoints(directory)[-1])
    assert last.info["step"] == metrics(directory)[-1]["step"] == 64 * (rows - 1)  # one at step 0
    assert record(directory)["status"] == "running"
    (tmp_path / "hang").unlink()
    api.resume(directory, total_steps=last.info["step"] + 64, plugins=["fragile"])
    assert record(directory)["status"] == "finished"


def test_a_signal_in_the_last_iteration_leaves_a_finished_run(tmp_path, handlers, monkeypatch):
    calls = []
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    directory = tmp_path / "run"
    evaluate_if_due = Run.evaluate_if_due

    def ordering(run):
        evaluate_if_due(run)
        if run.counters.step == 0:
            (tmp_path / "stop").touch()  # in the only iteration

    monkeypatch.setattr(Run, "evaluate_if_due", ordering)
    with pytest.raises(Interrupted) as raised:
        api.train(experiment(fragile(tmp_path, "total_steps=64", f"run_dir={directory}")))
    assert raised.value.signal == signal.SIGTERM
    assert calls == [signal.SIGTERM]
    assert record(directory)["status"] == "finished"
    assert [row["step"] for row in metrics(directory)] == [0, 64, 64]
    assert "eval/return" in metrics(directory)[-1]


def test_a_signal_in_the_first_evaluation_leaves_a_run_that_can_begin(tmp_path, handlers):
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    directory = tmp_path / "run"
    (tmp_path / "stop").touch()
    with pytest.raises(Interrupted):
        api.train(experiment(fragile(tmp_path, "total_steps=64", f"run_dir={directory}")))
    assert record(directory)["status"] == "interrupted"
    assert [row["step"] for row in metrics(directory)] == [0]
    api.resume(directory, total_steps=None, plugins=["fragile"])
    assert record(directory)["status"] == "finished"
    assert [row["step"] for row in metrics(directory)] == [0, 64, 64]


def _as_a_shell_starts_it():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_for_every_process_leaves_a_complete_wandb_run(tmp_path):
    directory = tmp_path / "run"
    words = small("cartpole", "total_steps=100_000_000", "logger=wandb", f"run_dir={directory}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    process = subprocess.Popen(
        [RLRUN, *words, "logger.wandb.mode=offline"],
        cwd=tmp_path,
        env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
        preexec_fn=_as_a_shell_starts_it,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(metrics(directory)) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert record(directory)["status"] == "interrupted"
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert load(checkpoints(directory)[-1]).info["step"] == rows[-1]["step"]

    (file,) = run_files(directory)
    assert file.logged() == rows
    assert file.exit_codes == [255]  # what W&B calls killed
    assert file.run.display_name == "ppo_cartpole_s0"
