import sys

import pytest

from rlrun.cli import main as cli


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    """Where a test is: nothing is in it but what its commands leave."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return directory


@pytest.fixture
def rlrun(monkeypatch, capfd):
    """Runs a command line in this process; returns exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlrun", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        return (code, *capfd.readouterr())

    return run
