"""Real offline W&B runs, read back from the .wandb file that they leave."""

import http.server
import os
import pty
import sys
import threading
import time

import pytest
import wandb
import wandb_file

from rlrun.errors import UserError
from rlrun.loggers.wandb import WandbLogger

KEY = "0123456789" * 4


def run_files(info):
    # finish returns some milliseconds before the file is complete; the end of the service does not.
    wandb.teardown()
    return wandb_file.run_files(info.directory)


def spec(**changes):
    values = {
        "project": "rlrun-test",
        "entity": None,
        "mode": "auto",
        "notes": None,
        "upload_checkpoints": False,
        "finish_seconds": 60,
    }
    return WandbLogger(**(values | changes))


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path_factory):
    """No key to be found, and none of the settings of whoever runs the tests."""
    home = str(tmp_path_factory.mktemp("home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("NETRC", f"{home}/netrc")
    wandb.teardown()
    yield
    wandb.teardown()


def test_an_offline_run_holds_everything_that_was_logged(info, capsys):
    logger = spec(notes="a note", entity="a-team").open(info, None)
    rows = [
        {"step": 2048 * n, "update": 320 * n, "time_s": 0.1 * n, "train/return": float(n)}
        for n in range(1, 301)
    ]
    for row in rows:
        values = {name: value for name, value in row.items() if name != "step"}
        logger.log(values, row["step"])
    # An evaluation at the step of the last iteration joins its row.
    logger.log({"eval/return": 7.5}, rows[-1]["step"])
    logger.close("finished")

    (file,) = run_files(info)
    assert file.logged() == [*rows[:-1], {**rows[-1], "eval/return": 7.5}]
    assert [row["_step"] for row in file.rows] == [row["step"] for row in rows]
    assert file.exit_codes == [0]

    assert file.run.project == "rlrun-test"
    assert file.run.entity == "a-team"
    assert file.run.run_group == "ppo-hopper"
    assert file.run.job_type == "train"
    assert file.run.display_name == "ppo-hopper-s3"
    assert file.run.notes == "a note"
    assert list(file.run.tags) == ["paper", "v1"]
    assert {name: file.config[name] for name in info.config} == info.config

    # Everything is drawn against the environment steps.
    assert [metric.name for metric in file.metrics if metric.name] == ["step"]
    globs = [metric for metric in file.metrics if metric.glob_name]
    assert [(metric.glob_name, metric.step_metric) for metric in globs] == [("*", "step")]

    (line,) = capsys.readouterr().err.splitlines()
    assert "no API key" in line
    assert f"wandb sync {info.directory}" in line


@pytest.mark.parametrize(("status", "code"), [("interrupted", 255), ("failed", 1)])
def test_how_the_run_ended_is_its_exit_code(info, status, code):
    logger = spec(mode="offline").open(info, None)
    logger.log({"train/return": 1.0}, 1)
    logger.close(status)
    (file,) = run_files(info)
    assert file.exit_codes == [code]
    assert file.logged() == [{"step": 1, "train/return": 1.0}]


def test_a_resumed_run_has_the_same_id(info):
    logger = spec().open(info, None)
    logger.log({"x": 1.0}, 1)
    state = logger.state_dict()
    logger.close("interrupted")
    resumed = spec().open(info, state)
    assert resumed.state_dict() == state
    resumed.log({"x": 2.0}, 2)
    resumed.close("finished")
    first, second = run_files(info)
    assert first.run.run_id == second.run.run_id == state["id"]
    assert [row["_step"] for row in first.rows + second.rows] == [1, 2]


def test_a_run_that_was_left_open_is_not_taken_for_the_next_one(info):
    left_open = spec().open(info, None)
    logger = spec(project="another").open(info, None)
    logger.log({"x": 1.0}, 1)
    logger.close("finished")
    left_open.close("failed")
    assert sorted(file.run.project for file in run_files(info)) == ["another", "rlrun-test"]


@pytest.mark.parametrize("upload", [True, False])
def test_checkpoints_are_artifacts_if_asked_for(info, upload):
    checkpoint = info.directory / "step-2048"
    checkpoint.mkdir()
    (checkpoint / "weights.safetensors").write_bytes(b"weights")
    single_file = info.directory / "state.pt"
    single_file.write_bytes(b"state")

    logger = spec(upload_checkpoints=upload).open(info, None)
    logger.checkpoint(checkpoint, ["last", "best"])
    logger.checkpoint(single_file, ["last"])
    (checkpoint / "weights.safetensors").unlink()  # as the store does with all but the newest
    name = f"ppo-hopper-s3-{logger.state_dict()['id']}"
    logger.close("finished")

    (file,) = run_files(info)
    found = [(a.name, a.type, set(a.aliases), a.manifest) for a in file.artifacts]
    if not upload:
        assert found == []
        return
    assert [entry[:3] for entry in found] == [
        (name, "model", {"last", "best", "latest"}),  # W&B adds latest
        (name, "model", {"last", "latest"}),
    ]
    assert [content.path for content in found[0][3].contents] == ["weights.safetensors"]
    assert [content.path for content in found[1][3].contents] == ["state.pt"]
    with open(found[0][3].contents[0].local_path, "rb") as copy:
        assert copy.read() == b"weights"


def test_online_without_a_key_is_a_users_mistake(info):
    with pytest.raises(UserError, match=r"mode=online needs an API key.*wandb login"):
        spec(mode="online").open(info, None)
    assert not (info.directory / "wandb").exists()


def test_a_malformed_key_is_a_users_mistake(info, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match="WANDB_API_KEY invalid"):
        spec().open(info, None)


def test_the_environment_variable_keeps_wandb_off_the_network(info, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    spec(mode="online").open(info, None).close("finished")
    assert len(run_files(info)) == 1
    assert "as WANDB_MODE says" in capsys.readouterr().err


class RefusingHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(403)

    def log_message(self, *_):
        pass


def test_a_server_that_refuses_the_run_leaves_an_offline_one(info, monkeypatch, capsys):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RefusingHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)  # so: online

    logger = spec().open(info, None)
    logger.log({"train/return": 1.0}, 1)
    logger.close("finished")
    server.shutdown()
    server.server_close()

    offline = run_files(info)
    assert [file.logged() for file in offline] == [[{"step": 1, "train/return": 1.0}]]
    assert "logging offline, no connection" in capsys.readouterr().err


PROGRAM = """
import signal, sys
from pathlib import Path
from rlrun.loggers.interface import RunInfo
from rlrun.loggers.wandb import WandbLogger

stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
info = RunInfo(directory=Path(sys.argv[1]), name="n", algo="a", env="e", seed=0, total_steps=1,
               config={}, group="g", tags=[])
logger = WandbLogger(project="p", entity=None, mode="auto", notes=None, upload_checkpoints=False,
                     finish_seconds=60).open(info, None)
step = 0
print("ready", flush=True)
while not stopped:
    step += 1
    logger.log({"x": 1.0}, step)
    signal.sigtimedwait([], 0.001)
logger.log({"x": 2.0}, step + 1)
logger.close("interrupted")
print(f"logged {step + 1} rows", flush=True)
"""


def test_ctrl_c_in_a_terminal_leaves_a_complete_run_and_nothing_is_asked(info):
    # A terminal of its own: its Ctrl-C goes to every process in the foreground, as a user's does.
    pid, master = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(info.directory)])
    output = b""
    while b"ready" not in output:
        output += os.read(master, 1024)
    time.sleep(0.2)
    os.write(master, b"\x03")
    while b" rows" not in output:
        output += os.read(master, 1024)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(master)

    rows = int(output.split(b"logged ")[1].split()[0])
    (file,) = run_files(info)
    assert file.logged() == [
        *({"step": n, "x": 1.0} for n in range(1, rows)),
        {"step": rows, "x": 2.0},
    ]
    assert file.exit_codes == [255]
