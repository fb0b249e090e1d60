"""What Python can call: rlrun.train, resume, load and runs; and what they leave of the process."""

import asyncio
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fragile  # noqa: F401  # whose environments are then registered by no call of rlrun's
import gymnasium
import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.version import getbase
from omegaconf.basecontainer import BaseContainer
from running import Process, record, small

import rlrun
from rlrun.config.files import conf_directory
from rlrun.runs.signals import HANDLED

# Made here, since it composes with Hydra as a test does.
SHORT = small("cartpole", "total_steps=128", "evaluation.every_steps=64")
FRAGILE = small("gym", "env.id=Fragile-v0", "plugins=[fragile]", "total_steps=128")


def process() -> dict:
    """All that a call could leave changed in this process."""
    gc.collect()
    return {
        "threads of operations": torch.get_num_threads(),
        "products": torch.get_float32_matmul_precision(),
        "type of numbers": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's numbers": torch.get_rng_state().tolist(),
        "numpy's numbers": np.random.get_state()[1].tolist(),
        "python's numbers": random.getstate(),
        "signals": {number: signal.getsignal(number) for number in HANDLED},
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "directory": Path.cwd(),
        "arguments": list(sys.argv),
        "path": list(sys.path),
        "finders": list(sys.meta_path),
        "hydra": GlobalHydra.instance().hydra,
        "hydra's version": getbase(),
        "resolvers": dict(BaseContainer._resolvers),
        "threads": {thread.name for thread in threading.enumerate()},
        "environments": set(gymnasium.registry),
    }


@pytest.fixture
def unchanged(monkeypatch):
    """Checks that a test leaves the process as it was, with settings that are not rlrun's own."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "3")
    torch.set_float32_matmul_precision("high")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    before = process()
    try:
        yield
        after = process()
        assert [name for name in before if after[name] != before[name]] == []
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)


def test_training_and_what_follows_leave_the_process_as_it_was(unchanged):
    run = rlrun.train(SHORT)
    assert run.status == "finished"
    assert run.step == 128
    assert run.evaluations["step"].tolist() == [0, 64, 128]
    assert run.last_return == run.evaluations["return"][-1] == record(run.directory)["return"]
    assert run.final_return == run.evaluations["return"][-1]
    policy = run.load("best")
    assert policy.act(np.zeros(4)) in (0, 1)
    longer = rlrun.resume(run.directory, total_steps=256)
    assert (longer.directory, longer.step) == (run.directory, 256)
    assert rlrun.train([*SHORT, "seed=1"]).directory != run.directory  # and once more
    assert [found.directory for found in rlrun.runs()] == sorted(Path("outputs").glob("*/*"))


def test_the_readmes_example_runs():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0]
    own = {"observation": np.zeros(4)}
    exec(code.replace('"total_steps=100_000"', ", ".join(map(repr, SHORT[2:]))), own)
    assert own["run"].status == "finished"
    assert own["action"] in (0, 1)


MISTAKES = {
    "algo": (["algo=ppoo"], r"algo=ppoo: no such algo; did you mean 'ppo'\?"),
    "setting": (["algo.lr=1"], r"did you mean 'algo\.optimizer\.learning_rate'\?"),
    "several": (["seed=1,2"], "several values for one run"),
    "logger": (["logger=wandbb"], r"did you mean 'wandb'\?"),
    "list of algorithms": (["algo=[ppo,a2c]"], "a run has one algo"),
    "option": (["-m", "seed=1"], "-m is an option of the command line"),
    "one text": ("algo=ppo env=cartpole", r"expected a list of settings, \['algo=ppo', …\]"),
    "number": (["seed=1", 3], "expected a list of settings"),
    "parts": (["advantage=rloo"], "compares episodes from one start"),
    "taken": ([*SHORT, "run_dir=taken"], "run_dir=taken exists: choose a new name"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, unchanged, empty_directory):
    (empty_directory / "taken").mkdir()
    (empty_directory / "taken" / "file").touch()
    settings, message = MISTAKES[name]
    with pytest.raises(rlrun.UserError, match=message) as raised:
        rlrun.train(settings)
    assert "\n" not in str(raised.value)
    assert [path.name for path in empty_directory.iterdir()] == ["taken"]


def test_a_run_that_is_not_there_is_one_line(empty_directory):
    for call in (rlrun.load, rlrun.resume):
        with pytest.raises(rlrun.UserError, match="no run at 'nowhere'"):
            call("nowhere")
    with pytest.raises(rlrun.UserError, match="no directory 'outputs' of runs"):
        rlrun.runs()
    (empty_directory / "outputs").mkdir()
    assert rlrun.runs() == []
    with pytest.raises(rlrun.UserError, match="no directory 'conff'"):
        rlrun.train([], config_dir="conff")


def test_an_environment_that_fails_says_so_and_the_process_is_as_before(tmp_path, unchanged):
    from rlrun.errors import EnvironmentFailure

    (tmp_path / "raise").touch()
    with pytest.raises(EnvironmentFailure, match="the simulator broke"):
        rlrun.train([*FRAGILE, f"+env.options.directory={tmp_path}"])


def test_ctrl_c_interrupts_python_after_a_checkpoint(tmp_path, unchanged):
    words = [*SHORT, "total_steps=1e7", f"run_dir={tmp_path / 'run'}"]

    def press():
        rows = tmp_path / "run" / "metrics.jsonl"
        while not rows.exists() or rows.read_bytes().count(b"\n") < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rlrun.train(words)
    thread.join()
    (run,) = rlrun.runs(tmp_path)
    assert run.status == "interrupted"
    assert run.step > 0


def test_in_another_thread_and_beside_a_running_event_loop(unchanged):
    async def notebook():
        here = rlrun.train(SHORT)
        there = await asyncio.to_thread(rlrun.train, SHORT)
        return here.status, there.status

    assert asyncio.run(notebook()) == ("finished", "finished")


def test_inside_another_application_of_hydras(tmp_path):
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        mine = GlobalHydra.instance().hydra
        rlrun.train([*SHORT, "run_dir=${now:run}"])
        assert GlobalHydra.instance().hydra is mine
        assert str(getbase()) == "1.2"
    hydra.version.setbase("1.3")
    assert Path("run").is_dir()


def test_own_groups_and_packages(tmp_path, unchanged):
    (tmp_path / "it's mine" / "algo").mkdir(parents=True)
    text = "defaults: [ppo, _self_]\ngamma: 0.5\n"
    (tmp_path / "it's mine" / "algo" / "own.yaml").write_text(text)
    words = [word for word in SHORT if not word.startswith("algo=")]
    run = rlrun.train(["algo=own", *words], config_dir=tmp_path / "it's mine")
    assert run.config["algo"]["gamma"] == 0.5
    assert run.record["algo"] == "own"


def test_a_plugin_that_was_named_once_is_allowed(tmp_path):
    run = rlrun.train([*FRAGILE, f"+env.options.directory={tmp_path}"])
    assert run.load().act(np.zeros(4)) in (0, 1)
    with pytest.raises(rlrun.UserError, match="uses code of 'fragile'"):
        rlrun.load(run.directory)
    assert rlrun.load(run.directory, plugins=["fragile"]).action_space.n == 2


def test_the_same_run_as_from_the_command_line():
    run = rlrun.train([*SHORT, "run_dir=called"])
    assert Process([*SHORT, "run_dir=typed"], Path.cwd()).wait() == 0
    typed = rlrun.runs(".")[-1]
    assert (run.name, typed.name) == ("called", "typed")
    clocks = ("time", "speed")
    for name, values in run.metrics.items():
        if not name.startswith(clocks):
            np.testing.assert_array_equal(values, typed.metrics[name], err_msg=name)
    assert {**run.config, "run_dir": None} == {**typed.config, "run_dir": None}


IMPORT = """
import sys, time
start = time.perf_counter()
import rlrun
rlrun.runs, rlrun.train, rlrun.UserError, rlrun.__version__
print(time.perf_counter() - start)
print({"torch", "hydra", "numpy", "gymnasium", "rich"} & set(sys.modules))
rlrun.runs(sys.argv[1])[0].metrics
print({"torch", "hydra", "gymnasium"} & set(sys.modules))
"""


def test_importing_is_cheap_and_looking_at_runs_needs_no_torch(empty_directory):
    run = rlrun.train(SHORT)
    words = [sys.executable, "-c", IMPORT, str(run.directory.parent)]
    seconds, at_once, looked = subprocess.check_output(words, text=True).splitlines()
    assert at_once == looked == "set()"
    assert float(seconds) < 5


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'tain'"):
        _ = rlrun.tain
    assert conf_directory().is_dir()
