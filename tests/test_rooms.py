"""Each room imports only from the rooms before it: the contract stands in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


ERRORS_USE_CLI = "rlrun.errors is not allowed to import rlrun.cli"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Check the package of a directory; what import-linter says of it."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=directory,
        env={"PYTHONPATH": str(directory), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


def test_rooms_import_only_from_the_rooms_before_them():
    checked = lint(ROOT)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def add(directory: Path, file: str, lines: str) -> Path:
    """A copy of the package with some more lines in a file."""
    package = directory / "rlrun"
    shutil.copytree(ROOT / "rlrun", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / file).parent.mkdir(exist_ok=True)
    with (package / file).open("a") as opened:
        opened.write(f"\n{lines}\n")
    return directory


@pytest.mark.parametrize(
    ("file", "lines", "says"),
    [
        ("errors.py", "import rlrun.cli.parser", ERRORS_USE_CLI),
        # An import inside a function is one, too.
        ("errors.py", "def late():\n    from rlrun.cli import parser", ERRORS_USE_CLI),
        # A new room has to be given its place.
        ("cellar/__init__.py", "", "cellar"),
    ],
)
def test_a_violation_is_found(tmp_path, file, lines, says):
    checked = lint(add(tmp_path, file, lines))
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert says in checked.stdout


def test_an_import_for_types_alone_is_none(tmp_path):
    lines = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import rlrun.cli.parser"
    checked = lint(add(tmp_path, "errors.py", lines))
    assert "Analyzed" in checked.stdout
    assert ERRORS_USE_CLI not in checked.stdout
