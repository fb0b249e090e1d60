"""Hydra's own launchers, which call rlrun for each job."""

import os
import subprocess
import sys

import pytest
import slurm
from running import record, small

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
}

# Settings of the launcher that a user may name, and what Slurm is told then.
SETTINGS = {"submitit_slurm": ["hydra.launcher.partition=long", "hydra.launcher.timeout_min=90"]}
OPTIONS = ("#SBATCH --partition=long", "#SBATCH --time=90")

# Seeds, and the runs that there are then.
ONCE_AND_AGAIN = {"0": ["ppo_cartpole_s0"], "0,1": ["ppo_cartpole_s0", "ppo_cartpole_s1"]}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_trains_what_is_not_finished(tmp_path, launcher):
    pytest.importorskip(LAUNCHERS[launcher])
    slurm.install(tmp_path / "slurm")
    environment = {**os.environ, "PATH": f"{tmp_path / 'slurm'}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "rlrun", "-m", *small("cartpole", "total_steps=128")]
    command += [f"hydra/launcher={launcher}", *SETTINGS.get(launcher, [])]
    before = {}
    for seeds, names in ONCE_AND_AGAIN.items():
        done = subprocess.run(
            [*command, f"seed={seeds}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=360,
        )
        assert done.returncode == 0, done.stderr
        (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
        there = sorted(path for path in sweep.iterdir() if (path / "run.json").exists())
        assert [path.name for path in there] == names
        assert [record(path)["status"] for path in there] == ["finished"] * len(names)
        contents = {path: (path / "run.json").read_bytes() for path in there}
        assert contents.items() >= before.items()
        before = contents
    scripts = [path.read_text() for path in sweep.glob(".submitit/*/*_submission.sh")]
    by_slurm = launcher == "submitit_slurm"
    assert len(scripts) == len(ONCE_AND_AGAIN) * by_slurm
    assert all(option in script.splitlines() for script in scripts for option in OPTIONS)
    assert sum("#SBATCH --array=0-1%2" in script for script in scripts) == by_slurm  # both seeds
    # The last one may not have left yet: submitit waits for its result alone.
    ends = slurm.states(tmp_path / "slurm")
    assert len(ends) == sum(map(len, ONCE_AND_AGAIN.values())) * by_slurm
    assert "FAILED" not in ends.values()
