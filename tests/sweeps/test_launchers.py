"""Sweeps with Hydra's own launchers, where they are installed."""

import subprocess
import sys

import pytest
from running import Process, record, small

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_trains_what_is_not_finished(tmp_path, launcher):
    pytest.importorskip(LAUNCHERS[launcher])
    line = ["-m", *small("cartpole", "total_steps=128")]
    process = Process([*line, "seed=0"], tmp_path)
    assert process.wait() == 0, process.output()
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    first = sweep / "ppo_cartpole_s0" / "run.json"
    before = first.read_bytes()

    command = [sys.executable, "-m", "rlrun", *line, "seed=0,1", f"hydra/launcher={launcher}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    there = sorted(path.parent.name for path in (tmp_path / "outputs").rglob("run.json"))
    assert there == ["ppo_cartpole_s0", "ppo_cartpole_s1"]
    assert first.read_bytes() == before
    assert record(sweep / "ppo_cartpole_s1")["status"] == "finished"
