"""A user's package in the working directory, as the console script sees it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RLRUN = [Path(sys.executable).with_name("rlrun")]

ENVIRONMENT = """\
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Mine(CartPoleEnv):
    pass
"""
REGISTER = "import gymnasium\n\ngymnasium.register('Mine-v0', 'my_package.environments:Mine')\n"
WORDS = [
    "env=gym",
    "env.id=Mine-v0",
    "total_steps=64",
    "algo.num_envs=2",
    "algo.horizon=32",
    "algo.epochs=1",
    "evaluation.episodes=1",
    "evaluation.max_length=10",
    "hardware.compile=off",
    "hardware.threads=1",
    "run_dir=run",
]


def write(directory, files):
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def rlrun(directory, *words, command=RLRUN):
    done = subprocess.run([*command, *words], cwd=directory, capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.fixture
def package(tmp_path):
    write(
        tmp_path,
        {"my_package/__init__.py": REGISTER, "my_package/environments.py": ENVIRONMENT},
    )
    return tmp_path


@pytest.mark.parametrize("command", [RLRUN, [sys.executable, "-m", "rlrun"]])
def test_a_package_in_the_working_directory_is_a_plugin(package, command):
    if command == RLRUN:
        # Nothing else: where the directory is on the path, `import torch` runs this file.
        write(package, {"torch.py": "raise SystemExit('shadowed')\n", "yaml.py": "1 / 0\n"})
    code, err = rlrun(package, *WORDS, "plugins=[my_package]", command=command)
    assert code == 0, err
    if command == RLRUN:
        code, err = rlrun(package, "eval", "run", "--episodes", "1", "--plugin", "my_package")
        assert code == 0, err


def test_what_is_beside_a_package_is_no_part_of_it(package):
    write(package, {"yaml.py": "1 / 0\n"})
    write(package, {"my_package/__init__.py": "import helpers\n", "helpers.py": "import gone\n"})
    code, err = rlrun(package, *WORDS, "plugins=[my_package]")
    assert code == 2
    assert "my_package needs 'helpers', which is beside it: plugins=[helpers,my_package]" in err
    code, err = rlrun(package, *WORDS, "plugins=[helpers,my_package]")
    assert code == 2
    assert "helpers needs 'gone', which is not installed" in err
    assert err.count("\n") == 1


def test_what_is_installed_comes_first(package):
    write(package, {"gymnasium.py": "raise SystemExit('shadowed')\n"})
    code, err = rlrun(package, *WORDS, "plugins=[gymnasium,my_package]")
    assert code == 0, err


def test_a_plugin_that_is_nowhere_is_one_line(tmp_path):
    code, err = rlrun(tmp_path, *WORDS, "plugins=[no_such_package]")
    assert (code, err) == (2, "rlrun: plugins: no module 'no_such_package'\n")
    assert os.listdir(tmp_path) == []
