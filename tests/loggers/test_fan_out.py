"""Loggers: what one logger does wrong must not reach the run or the other loggers."""

import subprocess
import sys

import pytest

from rlrun.errors import UserError
from rlrun.loggers.interface import Loggers


class Recorder:
    """A logger that remembers its calls."""

    def __init__(self):
        self.calls = []

    def log(self, metrics, step):
        self.calls.append(("log", metrics, step))

    def checkpoint(self, path, aliases):
        self.calls.append(("checkpoint", path, aliases))

    def picture(self, name, path):
        self.calls.append(("picture", name, path))

    def samples(self, rows, step):
        self.calls.append(("samples", rows, step))

    def close(self, status, figures):
        self.calls.append(("close", status, figures))

    def state_dict(self):
        return {"calls": len(self.calls)}


class Raising(Recorder):
    """A logger whose named method raises."""

    def __init__(self, method, error):
        super().__init__()

        def fail(*_):
            raise error

        setattr(self, method, fail)


class Spec:
    """Opens to the given logger, or raises the given error."""

    def __init__(self, result):
        self.result = result

    def open(self, info, state):
        self.state = state
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_every_logger_gets_every_call(tmp_path):
    first, second = Recorder(), Recorder()
    loggers = Loggers({"first": first, "second": second}, {})
    loggers.log({"train/return": 1.0}, 10)
    loggers.checkpoint(tmp_path, ["last"])
    loggers.picture("curves", tmp_path / "curves.png")
    loggers.close("finished", {"best_return": 1.0})
    assert first.calls == second.calls
    assert first.calls == [
        ("log", {"train/return": 1.0}, 10),
        ("checkpoint", tmp_path, ["last"]),
        ("picture", "curves", tmp_path / "curves.png"),
        ("close", "finished", {"best_return": 1.0}),
    ]


def test_a_logger_that_raises_is_switched_off_with_one_warning(capsys):
    working = Recorder()
    broken = Raising("log", OSError("disk full"))
    loggers = Loggers({"broken": broken, "working": working}, {})
    for step in range(3):
        loggers.log({}, step)
    loggers.close("finished", {})
    assert working.calls == [
        ("log", {}, 0),
        ("log", {}, 1),
        ("log", {}, 2),
        ("close", "finished", {}),
    ]
    assert broken.calls == []
    warnings = capsys.readouterr().err.splitlines()
    assert warnings == ["warning: logger 'broken' is switched off: OSError: disk full"]


def test_close_reaches_every_logger_once(capsys):
    working = Recorder()
    loggers = Loggers({"broken": Raising("close", OSError("gone")), "working": working}, {})
    loggers.close("failed", {})
    loggers.close("failed", {})
    assert working.calls == [("close", "failed", {})]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_comes_from_outside_passes_through():
    loggers = Loggers({"slow": Raising("log", KeyboardInterrupt())}, {})
    with pytest.raises(KeyboardInterrupt):
        loggers.log({}, 0)


def test_states_outlive_a_logger_that_is_switched_off():
    states = {"broken": {"id": "abc"}, "absent": {"id": "def"}}
    loggers = Loggers({"working": Recorder(), "broken": Raising("state_dict", OSError())}, states)
    loggers.log({}, 0)
    assert loggers.state_dict() == {**states, "working": {"calls": 1}}
    assert states == {"broken": {"id": "abc"}, "absent": {"id": "def"}}


def test_open_hands_over_the_saved_state(info):
    new, resumed = Spec(Recorder()), Spec(Recorder())
    loggers = Loggers({}, {"resumed": {"id": "abc"}})
    loggers.open({"new": new, "resumed": resumed}, info)
    loggers.log({}, 0)
    assert (new.state, resumed.state) == (None, {"id": "abc"})
    assert new.result.calls == resumed.result.calls == [("log", {}, 0)]


def test_a_logger_that_cannot_be_opened_does_not_stop_the_run(info, capsys):
    working = Recorder()
    loggers = Loggers({}, {})
    loggers.open({"broken": Spec(OSError("no route")), "working": Spec(working)}, info)
    loggers.log({}, 0)
    assert working.calls == [("log", {}, 0)]
    assert "'broken' is switched off: OSError: no route" in capsys.readouterr().err


def test_a_users_mistake_stops_the_run_before_it_starts(info):
    opened = Recorder()
    loggers = Loggers({}, {})
    with pytest.raises(UserError, match="no key"):
        loggers.open({"opened": Spec(opened), "mistaken": Spec(UserError("no key"))}, info)
    assert opened.calls == [("close", "failed", {})]


def test_a_loggers_package_is_imported_when_it_is_opened():
    program = (
        "import sys, rlrun.runs.reports.curves, rlrun.loggers.wandb, rlrun.loggers.tensorboard\n"
        "assert not {'wandb', 'tensorboard', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
