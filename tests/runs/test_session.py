import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import checkpoints, experiment, metrics, record, small

from rlrun.errors import Interrupted
from rlrun.hardware.compile import Compilation, find_compiler
from rlrun.hardware.cpu import available_cores
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.run import Run

needs_compiler = pytest.mark.skipif(
    find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)"
)
WHOLE_EPISODES = ["collector=episodes"]


@pytest.mark.parametrize(
    ("algo", "words", "compiles"),
    [
        ("ppo", [], True),
        ("a2c", [], True),
        ("trpo", [], True),
        ("a2c", WHOLE_EPISODES, False),
        ("trpo", WHOLE_EPISODES, False),
        ("actor_critic_q", WHOLE_EPISODES, False),
        ("reinforce", [], False),
        ("grpo", [], True),
    ],
)
def test_compiling_is_announced_where_something_is_compiled(
    pytestconfig, monkeypatch, tmp_path, capfd, algo, words, compiles
):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pytestconfig.cache.mkdir("inductor")))
    # What it does to a function is tested elsewhere, and takes a minute.
    monkeypatch.setattr(Compilation, "_compile", lambda self, parts, stopped: None)
    words = ["hardware.compile=on", "total_steps=16", f"run_dir={tmp_path}/run", *words]
    api.train(experiment(small("cartpole", *words, algo=algo)))
    err = capfd.readouterr().err
    assert ("compiled, as asked for" in err) is compiles
    assert ("nothing of this algorithm can be compiled" in err) is not compiles
    assert ("compiling the update" in err) is compiles
    assert ("compile_s" in record(tmp_path / "run")) is compiles


EAGER = """
import sys, rlrun
for words in sys.argv[1:]:
    rlrun.train(words.split())
assert not {"sympy", "torch._dynamo", "torch._inductor"} & set(sys.modules), "seconds for nothing"
"""


def test_what_is_not_compiled_does_without_the_compiler(tmp_path):
    short = ("total_steps=160", "evaluation.episodes=1")
    words = [" ".join(small("hopper", *short, algo=algo)) for algo in ("ppo", "trpo", "sac")]
    subprocess.run([sys.executable, "-c", EAGER, *words], cwd=tmp_path, check=True)


def test_a_signal_after_the_last_look_at_it_costs_no_step(monkeypatch, tmp_path, capsys):
    save_if_due = Run.save_if_due

    def stopped(run):
        save_if_due(run)
        if run.counters.step >= 128:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "save_if_due", stopped)
    directory = tmp_path / "run"
    words = ["total_steps=640", "checkpoint.every_seconds=3600", "evaluation.every_steps=640"]
    with pytest.raises(Interrupted):
        api.train(experiment(small("cartpole", *words, f"run_dir={directory}")))
    assert metrics(directory)[-1]["step"] == record(directory)["step"] == 128
    assert load(checkpoints(directory)[-1]).info["step"] == 128
    assert "Stopped after 128 steps, which are saved in" in capsys.readouterr().out


def children(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return own + [grandchild for child in own for grandchild in children(child)]


def working(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def group(pid: int) -> int | None:
    """The process group of a process, if that is there."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def is_compiling(pid: int) -> bool:
    """Whether a process is a C++ compiler's that is at a program, and not only at its kernels."""
    try:
        return b".main.cpp" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_compiler
def test_ctrl_c_while_compiling_leaves_nothing_behind(tmp_path):
    words = ["hardware.compile=on", "model.hidden_sizes=[4]", "total_steps=1e6"]
    run = subprocess.Popen(
        [sys.executable, "-m", "rlrun", *small("cartpole", *words, algo="a2c"), "run_dir=run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        start_new_session=True,
        # As in a terminal's foreground: a script's background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = []
    for line in run.stdout:
        said.append(line)
        if "compiling the update" in line:
            break
    # The compiler of the run's own share, which Ctrl-C reaches; and, with more than one core, a
    # process with another share, which it does not.
    deadline = time.monotonic() + 120
    while True:
        groups = {pid: group(pid) for pid in children(run.pid)}
        reached = [pid for pid, leader in groups.items() if leader == run.pid]
        apart = len(reached) < len(groups) or available_cores() == 1
        if apart and any(map(is_compiling, reached)):
            break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    rest, _ = run.communicate(timeout=120)
    output = "".join(said) + rest
    assert run.returncode == 128 + signal.SIGINT, output
    assert "Stopped before the first step" in output
    assert "Traceback" not in output
    assert not any(map(working, groups))
