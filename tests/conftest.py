"""What holds for every process of pytest's, of which there is one a core; and what files share."""

import copy
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

# ---------------------------------------------------------------------- processes


def pytest_collection() -> None:
    """One thread of torch in each process, and Ctrl-C as in a terminal.

    The process that deals out the tests needs no torch. A shell's background jobs ignore Ctrl-C,
    which some tests press.
    """
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)


_parse = OmegaConf.load
_parsed = {}


def _parse_once(file):
    """OmegaConf.load; of a text that it has seen, it returns a copy of what it returned then.

    Composing a config reads a dozen files, whose parser is written in Python, and hundreds of tests
    compose one.
    """
    if isinstance(file, str | Path):
        with open(file, encoding="utf-8") as opened:
            return _parse_once(opened)
    start = file.tell()
    text = file.read()
    if text not in _parsed:
        file.seek(start)
        _parsed[text] = _parse(file)  # raises what it raises, with the file's name
    return copy.deepcopy(_parsed[text])


OmegaConf.load = staticmethod(_parse_once)


# ---------------------------------------------------------------------- fixtures


@pytest.fixture
def compiler(pytestconfig, monkeypatch):
    """The compiler for a session that has two dozen programs to compile."""
    from rlrun.hardware import compile as compile_
    from rlrun.hardware import program

    # Compiled code outlives the session, as it outlives a run: only the first one waits for g++.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pytestconfig.cache.mkdir("inductor")))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    # So many pay for compiling torch's headers, which halves the time of each.
    monkeypatch.setitem(program.SETTINGS, "cpp_cache_precompile_headers", True)
    # Another process, which takes seconds to start, would take them from pytest's on that core.
    monkeypatch.setattr(compile_, "available_cores", lambda: 1)


@pytest.fixture(scope="module")
def undrawn():
    """The runs of a file that looks at no picture: to draw one takes longer than to train."""
    from rlrun.runs.files.record import Record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "draw", lambda record: None)
        yield
