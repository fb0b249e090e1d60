"""Runs for the tests: in this process, or in one of their own that signals can be sent to."""

import functools
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from rlrun.cli import hydra_bridge
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.runs.files.checkpoint import load
from rlrun.runs.signals import HANDLED
from rlrun.sweeps.worker import SERVER

# An iteration of about 10 ms, where an algorithm has these settings.
SMALL = {
    "num_envs": 2,
    "horizon": 32,
    "epochs": 2,
    "minibatch_size": 32,
    "episodes_per_minibatch": 2,
    # Of methods with a replay buffer: four updates after each iteration.
    "batch_size": 16,
    "warmup_steps": 128,
    "updates_per_step": 1 / 16,
}
PLAIN = (
    "hardware.compile=off",
    "hardware.threads=1",
    "evaluation.episodes=2",
    "evaluation.every_steps=50_000",  # the beginning and the end, where a test says nothing else
    "log_every_steps=1",  # every iteration is a row
)

# A process that has imported what a run needs forks a child for each that is asked for.
SERVER.set_forkserver_preload(
    [
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "rlrun.runs.api",
        "rlrun.cli.commands",
        "rlrun.envs.gym_env",
        "rlrun.envs.mujoco.env",
        "rlrun.cli.train",
    ]
)


def fragile(directory: Path, *words: str) -> list[str]:
    """Words for a run of tests/fragile.py, which a file in this directory breaks."""
    package = ["env.id=Fragile-v0", "plugins=[fragile]", f"+env.options.directory={directory}"]
    return small("gym", *package, *words)


def small(env: str, *words: str, algo: str = "ppo") -> list[str]:
    """Words of a command line for a run with short iterations."""
    choice = [f"algo={algo}", f"env={env}"]
    return [*choice, *PLAIN, *sizes(choice, SMALL), *words]


def sizes(choice: list[str], values: dict[str, Any]) -> list[str]:
    """Words that give an algorithm these sizes, as far as it has them, and two episodes a group.

    Args:
        choice: the algorithm and the environment, as words.
        values: sizes by their names; one that the algorithm leaves open (null) stays open.
    """
    cfg = chosen(*choice)
    nodes = {
        "algo": cfg.algo,
        "algo.critic": cfg.algo.get("critic", {}),
        "algo.replay": cfg.algo.get("replay", {}),
    }
    known = {
        f"{path}.{name}": value
        for path, node in nodes.items()
        for name, value in values.items()
        if node.get(name) is not None
    }
    collected = cfg.get("collector", {})
    groups = ["collector.group_size=2"] if collected.get("group_size", 1) > 1 else []
    return [*(f"{name}={value}" for name, value in known.items()), *groups]


@functools.cache
def chosen(*words: str) -> DictConfig:
    """rlrun's part of what Hydra makes of these words, for reading only."""
    cfg, _ = compose(list(words))
    OmegaConf.set_readonly(cfg, True)
    return cfg


def compose(words: list[str]) -> tuple[DictConfig, DictConfig]:
    """What Hydra makes of these words: rlrun's part, and Hydra's own."""
    with hydra.initialize_config_dir(str(conf_directory()), version_base="1.3"):
        composed = hydra.compose("config", words, return_hydra_config=True)
    own = [str(key) for key in composed if key != "hydra"]
    return OmegaConf.masked_copy(composed, own), composed.hydra


def experiment(words: list[str]) -> Experiment:
    """What the command line makes of these words."""
    return hydra_bridge.compose(words, Path("outputs"))


class Process:
    """`rlrun` with some words in a process (and process group) of its own."""

    def __init__(
        self, words: list[str], directory: Path, environment: dict[str, str] | None = None
    ):
        """Start it in a directory, where its output goes to a file."""
        self.output_file = directory / f"output-{time.monotonic_ns()}.txt"
        arguments = (words, directory, self.output_file, environment or dict(os.environ))
        self._process = SERVER.Process(target=_main, args=arguments, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def wait_for_rows(self, directory: Path, count: int) -> None:
        """Wait until a run has logged this often."""
        deadline = time.monotonic() + 60
        while len(_lines(directory / "metrics.jsonl")) < count:
            assert self._process.is_alive(), self.output()
            assert time.monotonic() < deadline
            time.sleep(0.005)  # half an iteration

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def alive(self) -> bool:
        return self._process.is_alive()

    def wait(self, seconds: float = 60) -> int:
        """Wait for the end; return the exit code, or minus the signal that killed it."""
        self._process.join(seconds)
        ended = self._process.exitcode is not None
        self._process.kill()
        assert ended, self.output()
        return self._process.exitcode

    def output(self) -> str:
        """What it has written on stdout and stderr."""
        return self.output_file.read_text()


def _main(words: list[str], directory: Path, output: Path, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    os.setpgid(0, 0)
    multiprocessing.current_process()._config["daemon"] = False  # it may have workers
    # A sweep's have no server of their own, which takes seconds to start.
    forkserver._forkserver.ensure_running = lambda: None
    for number in HANDLED:  # as a shell starts a command
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(file, stream.fileno())
    sys.argv = ["rlrun", *words]

    from rlrun.cli import main as cli

    cli.main()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def record(directory: Path) -> dict[str, Any]:
    """A run's run.json."""
    return json.loads((directory / "run.json").read_text())


def metrics(directory: Path) -> list[dict[str, float]]:
    """A run's metrics without those that a clock measured."""
    rows = [json.loads(line) for line in _lines(directory / "metrics.jsonl")]
    clocks = ("time", "speed")
    return [{k: v for k, v in row.items() if not k.startswith(clocks)} for row in rows]


def checkpoints(directory: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    return sorted((directory / "checkpoints").glob("step-*"))


def assert_same_run(directory: Path, reference: Path) -> None:
    """Check that a run that was resumed once equals one that was never interrupted."""
    assert metrics(directory) == metrics(reference)
    last, expected = (checkpoints(path)[-1] for path in (directory, reference))
    assert last.name == expected.name
    assert differences(content(last), content(expected)) == []
    best, expected = ((path / "checkpoints" / "best").resolve() for path in (directory, reference))
    assert best.name == expected.name
    assert differences(content(best), content(expected)) == []
    now, then = record(directory), record(reference)
    for name in ("status", "step", "total_steps", "return", "best_return", "error"):
        assert now[name] == then[name], name
    assert len(now["earlier"]) == 1


def content(path: Path) -> dict[str, Any]:
    """A checkpoint's weights and state, without what a clock measured and the files' lengths."""
    checkpoint = load(path)
    state = dict(checkpoint.state)
    del state["loggers"]
    state["counters"] = {**state["counters"], "time_s": None}
    return {"weights": checkpoint.weights, **state}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two nests of containers are not the same, bit for bit."""
    if type(one) is not type(other):
        return [path]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [path]
        return [d for key in one for d in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [path]
        return [d for i in range(len(one)) for d in differences(one[i], other[i], f"{path}[{i}]")]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and one.numpy().tobytes() == other.numpy().tobytes()
    elif isinstance(one, float):
        same = one == other or (math.isnan(one) and math.isnan(other))
    else:
        same = one == other
    return [] if same else [path]
