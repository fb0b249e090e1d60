import json
import sys
from functools import partial
from pathlib import Path

import gpu
import pytest
import torch
from running import Process, experiment, small

from rlrun.runs import api


def forked(directory: Path, *words: str) -> None:
    """Run rlrun in a process that need not import it."""
    process = Process(list(words), directory)
    assert process.wait() == 0, process.output()


def test_a_run_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"rlrun algo=ppoo: .*did you mean 'ppo'\?"):
        gpu.rlrun("algo=ppoo")


def test_an_algorithm_is_checked_on_the_device_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "CHECKED_STEPS", 128)  # two iterations
    monkeypatch.setattr(gpu, "FEW_UPDATES", {"num_envs": 2, "horizon": 32, "epochs": 1})
    monkeypatch.setattr(gpu, "rlrun", partial(forked, tmp_path))
    words = ["--device", "cpu", "--algos", "ppo", "--steps", "0", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0, capsys.readouterr()
    (path,) = tmp_path.glob("gpu_*.json")
    result = json.loads(path.read_text())["algorithms"]["ppo"]["compile=off"]
    assert result["passed"]
    assert result["first_update"] == {"logged": 0.0, "weights": 0.0}
    assert result["resume"] == {"weights": 0.0, "bit_for_bit": True}


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_without_a_device_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    directories = [tmp_path_factory.mktemp("runs") / f"seed{seed}" for seed in range(2)]
    for seed, directory in enumerate(directories):
        words = ["total_steps=128", f"seed={seed}", f"run_dir={directory}", *gpu.CHECKS]
        api.train(experiment(small("cartpole", *words)))
    return directories


def test_updates_that_differ_are_apart(two_runs):
    one, other = two_runs
    assert gpu.first_updates_apart(one, one) == {"logged": 0.0, "weights": 0.0}
    apart = gpu.first_updates_apart(one, other)
    assert min(apart.values()) > gpu.TOLERANCE


def test_a_run_that_goes_on_elsewhere_is_apart(two_runs, monkeypatch):
    one, _ = two_runs

    def resume_for_longer(_, directory):
        api.resume(Path(directory), total_steps=192)

    monkeypatch.setattr(gpu, "rlrun", resume_for_longer)
    assert gpu.resume_from_the_middle(one)["weights"] > 0


def test_a_failing_algorithm_does_not_stop_the_others(monkeypatch, capsys):
    def check(algo, **_):
        if algo == "ppo":
            raise RuntimeError("no such luck")
        return {"passed": True}

    monkeypatch.setattr(gpu, "check", check)
    results = gpu.measure(["ppo", "a2c"], device="cpu", compile_="off", steps=0, parallel=1)
    assert results == {"ppo": {"passed": False, "error": "no such luck"}, "a2c": {"passed": True}}
