"""`rlrun … | head -1`: the reader of the output is gone before the output ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import record, small

RLRUN = Path(sys.executable).with_name("rlrun")


def without_a_reader(*words: str, directory: Path, **streams) -> subprocess.CompletedProcess[str]:
    """Run a command line whose output goes into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    # Buffered, as for a user: what is printed meets the closed pipe only later.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        command = [RLRUN, *words]
        return subprocess.run(command, cwd=directory, env=env, stdout=writer, text=True, **streams)
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "--cfg job",
        "--info defaults-tree",
        "-sc install=bash",
        "list --help",
        "list .",
    ],
)
def test_a_command_ends_without_a_word(tmp_path, words):
    (tmp_path / "run.json").write_text("{}")  # a row for `list`
    done = without_a_reader(*words.split(), directory=tmp_path, stderr=subprocess.PIPE)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_mistake_is_still_reported(tmp_path):
    done = without_a_reader("algo=ppoo", directory=tmp_path, stderr=subprocess.PIPE)
    assert "did you mean 'ppo'?" in done.stderr
    assert done.returncode == 2


def test_a_run_goes_on_to_its_end(tmp_path):
    words = small("cartpole", "total_steps=128", "run_dir=run")
    done = without_a_reader(*words, directory=tmp_path, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert record(tmp_path / "run")["status"] == "finished"


def test_a_run_whose_errors_nobody_reads_either_goes_on_to_its_end(tmp_path):
    words = small("cartpole", "total_steps=128", "run_dir=run")
    done = without_a_reader(*words, directory=tmp_path, stderr=subprocess.STDOUT)
    assert done.returncode == 0
    assert record(tmp_path / "run")["status"] == "finished"


def test_a_sweep_goes_on_to_its_last_job(tmp_path):
    words = small("cartpole", "total_steps=128", "hydra.sweep.dir=sweep", "seed=0,1")
    done = without_a_reader("-m", *words, directory=tmp_path, stderr=subprocess.STDOUT)
    assert done.returncode == 0
    runs = sorted((tmp_path / "sweep").glob("*/run.json"))
    assert [record(path.parent)["status"] for path in runs] == ["finished"] * 2
