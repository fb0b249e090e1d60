"""Hydra's own launchers, which call rlrun for each job."""

import subprocess
import sys

import pytest
from running import record, small

LAUNCHERS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}

# Seeds, and the runs that there are then.
ONCE_AND_AGAIN = {"0": ["ppo_cartpole_s0"], "0,1": ["ppo_cartpole_s0", "ppo_cartpole_s1"]}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_trains_what_is_not_finished(tmp_path, launcher):
    pytest.importorskip(LAUNCHERS[launcher])
    command = [sys.executable, "-m", "rlrun", "-m", *small("cartpole", "total_steps=128")]
    command += [f"hydra/launcher={launcher}"]
    before = {}
    for seeds, names in ONCE_AND_AGAIN.items():
        words = [*command, f"seed={seeds}"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
        there = sorted(path for path in sweep.iterdir() if (path / "run.json").exists())
        assert [path.name for path in there] == names
        assert [record(path)["status"] for path in there] == ["finished"] * len(names)
        contents = {path: (path / "run.json").read_bytes() for path in there}
        assert contents.items() >= before.items()
        before = contents
