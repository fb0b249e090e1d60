"""Sweeps with Hydra's own launchers, where they are installed."""

import os
import subprocess
import sys

import pytest
import slurm
from running import Process, record, small

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}

# Settings of the launcher that a user may name, and what Slurm is told then.
SETTINGS = {"submitit_slurm": ["hydra.launcher.partition=long", "hydra.launcher.timeout_min=90"]}
OPTIONS = ("#SBATCH --partition=long", "#SBATCH --time=90")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_trains_what_is_not_finished(tmp_path, launcher):
    pytest.importorskip(LAUNCHERS[launcher])
    line = ["-m", *small("cartpole", "total_steps=128")]
    process = Process([*line, "seed=0"], tmp_path)
    assert process.wait() == 0, process.output()
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    first = sweep / "ppo_cartpole_s0" / "run.json"
    before = first.read_bytes()

    slurm.install(tmp_path / "slurm")
    environment = {**os.environ, "PATH": f"{tmp_path / 'slurm'}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "rlrun", *line, "seed=0,1", f"hydra/launcher={launcher}"]
    done = subprocess.run(
        [*command, *SETTINGS.get(launcher, [])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    there = sorted(path.parent.name for path in (tmp_path / "outputs").rglob("run.json"))
    assert there == ["ppo_cartpole_s0", "ppo_cartpole_s1"]
    assert first.read_bytes() == before
    assert record(sweep / "ppo_cartpole_s1")["status"] == "finished"

    scripts = [path.read_text() for path in sweep.glob(".submitit/*/*_submission.sh")]
    by_slurm = launcher == "submitit_slurm"
    assert len(scripts) == by_slurm
    for script in scripts:
        assert {*OPTIONS, "#SBATCH --array=0-1%2"} <= {*script.splitlines()}
    # The last one may not have left yet: submitit waits for its result alone.
    ends = slurm.states(tmp_path / "slurm")
    assert len(ends) == 2 * by_slurm
    assert "FAILED" not in ends.values()
