"""Real offline W&B runs, read back from the .wandb file that they leave."""

import http.server
import json
import os
import pty
import signal
import sys
import threading
import time
from dataclasses import replace

import pytest
import wandb
import wandb_file
from matplotlib.figure import Figure
from running import Process, small

from rlrun.errors import UserError
from rlrun.loggers.jsonl import JsonlLogger
from rlrun.loggers.wandb import WandbLogger
from rlrun.loggers.wandb_file import last_row
from rlrun.runs import api

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
    logger.close("finished", {"best_return": 9.5, "final_return": 7.0})

    (file,) = run_files(info)
    assert file.logged() == [*rows[:-1], {**rows[-1], "eval/return": 7.5}]
    assert file.summary["best_return"] == 9.5
    assert file.summary["final_return"] == 7.0
    assert [row["_step"] for row in file.rows] == [row["step"] for row in rows]
    assert file.exit_codes == [0]

    assert file.run.project == "rlrun-test"
    assert file.run.entity == "a-team"
    assert file.run.run_group == "ppo-hopper"
    assert file.run.job_type == "train"
    assert file.run.display_name == "ppo-hopper-s3"
    assert file.run.notes == "a note"
    assert list(file.run.tags) == ["paper", "v1"]
    assert {name: file.config[name] for name in info.facts} == info.facts
    assert file.config["settings"] == info.config

    assert file.config["sweep"] is None

    # Everything is drawn against the environment steps; the axes have no charts of their own.
    axes = [metric for metric in file.metrics if metric.name]
    assert [metric.name for metric in axes] == ["step", "update", "time_s"]
    assert all(metric.options.hidden for metric in axes)
    globs = [metric for metric in file.metrics if metric.glob_name]
    assert [(metric.glob_name, metric.step_metric) for metric in globs] == [("*", "step")]

    (line,) = capsys.readouterr().err.splitlines()
    assert "no API key" in line
    assert f"wandb sync {info.directory}" in line


def test_pictures_are_media_at_the_last_step(info, tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.savefig(tmp_path / "curves.png")
    logger = spec().open(replace(info, sweep="2026-01-02/ppo"), None)
    log(logger, ROWS)
    logger.picture("curves", tmp_path / "curves.png")
    logger.close("finished", {})
    (file,) = run_files(info)
    assert file.logged() == ROWS
    assert file.config["sweep"] == "2026-01-02/ppo"
    ((name, (step, picture)),) = file.media().items()
    assert (name, step, picture["_type"]) == ("curves", 60, "image-file")
    (copy,) = info.directory.glob(f"wandb/offline-run-*/files/{picture['path']}")
    assert copy.read_bytes() == (tmp_path / "curves.png").read_bytes()


SAMPLES = [
    {"which": "best", "prompt": "1+1=", "response": "2", "reward": 1.0, "complete": True},
    {"which": "worst", "prompt": "1+2=", "response": "", "reward": 0.0, "complete": False},
]


def test_what_was_written_is_a_table_once_a_step(info):
    logger = spec().open(info, None)
    log(logger, ROWS[:2])
    logger.samples(SAMPLES, 20)
    state = logger.state_dict()
    logger.close("interrupted", {})
    wandb.teardown()
    record = JsonlLogger(info.directory / "metrics.jsonl", None)
    log(record, ROWS[:1])
    record.close("interrupted", {})
    resumed = spec().open(info, state)  # from before that evaluation
    log(resumed, ROWS[1:2])
    resumed.samples(SAMPLES, 20)
    log(resumed, ROWS[2:3])
    resumed.samples(SAMPLES[:1], 30)
    resumed.close("finished", {})
    files = run_files(info)
    assert [row for file in files for row in file.logged()] == ROWS[:3]
    tables = [file.media()["eval/samples"] for file in files]
    assert [step for step, _ in tables] == [20, 30]
    (path,) = info.directory.glob(f"wandb/offline-run-*/files/{tables[0][1]['path']}")
    content = json.loads(path.read_text())
    assert content["columns"] == list(SAMPLES[0])
    assert content["data"] == [list(row.values()) for row in SAMPLES]


FIGURES = {
    "checkpoint": "step-000000002048",
    "step": 2048,
    "seed": 0,
    "episodes": 100,
    "return": 7.5,
    "return_std": 1.5,
    "return_min": 5.0,
    "return_max": 9.0,
    "length": 20.0,
}


def test_an_evaluation_is_a_run_of_its_own_beside_the_trained_one(info, tmp_path, capsys):
    (tmp_path / "film.mp4").write_bytes(b"film")
    logger = spec()
    logger.log_evaluation(info, FIGURES, tmp_path / "film.mp4", train_id="abc")
    logger.log_evaluation(info, FIGURES, None, train_id=None)
    first, second = run_files(info)
    assert first.run.job_type == second.run.job_type == "eval"
    assert first.run.run_group == "ppo-hopper"
    assert first.run.display_name == "ppo-hopper-s3_eval"
    assert first.run.run_id != second.run.run_id
    assert list(first.run.tags) == ["paper", "v1"]
    assert first.config["evaluation"] == FIGURES
    assert (first.config["train_run"], second.config["train_run"]) == ("abc", None)
    assert {name: first.config[name] for name in info.facts} == info.facts
    expected = {
        "step": 2048,
        "eval/return": 7.5,
        "eval/return_std": 1.5,
        "eval/return_min": 5.0,
        "eval/return_max": 9.0,
        "eval/length": 20.0,
    }
    assert first.logged() == second.logged() == [expected]
    ((name, (step, film)),) = first.media().items()
    assert (name, step, film["_type"]) == ("video", 2048, "video-file")
    assert second.media() == {}
    assert capsys.readouterr().err.count("upload with: wandb sync") == 2


@pytest.mark.parametrize(("status", "code"), [("interrupted", 255), ("failed", 1)])
def test_how_the_run_ended_is_its_exit_code(info, status, code):
    logger = spec(mode="offline").open(info, None)
    logger.log({"train/return": 1.0}, 1)
    logger.close(status, {})
    (file,) = run_files(info)
    assert file.exit_codes == [code]
    assert file.logged() == [{"step": 1, "train/return": 1.0}]


def test_a_resumed_run_has_the_same_id(info):
    logger = spec().open(info, None)
    logger.log({"x": 1.0}, 1)
    (info.directory / "metrics.jsonl").write_text('{"step": 1, "x": 1.0}\n')
    state = logger.state_dict()
    logger.close("interrupted", {})
    wandb.teardown()  # as the end of a process; else the file may not be complete yet
    resumed = spec().open(info, state)
    assert resumed.state_dict() == state
    resumed.log({"x": 2.0}, 2)
    resumed.close("finished", {})
    first, second = run_files(info)
    assert first.run.run_id == second.run.run_id == state["id"]
    assert [row["_step"] for row in first.rows + second.rows] == [1, 2]


ROWS = [{"step": 10 * n, "update": n, "x": float(n)} for n in range(1, 7)]


def log(logger, rows):
    for row in rows:
        logger.log({name: value for name, value in row.items() if name != "step"}, row["step"])


@pytest.mark.parametrize(
    ("had", "checkpoint"),
    [
        (2, 4),  # killed: W&B has less than metrics.jsonl has at the checkpoint
        (5, 3),  # W&B has what is logged again from the checkpoint on
        (4, 4),
        (0, 4),  # nothing but the file's header
    ],
)
def test_a_resumed_run_sends_what_wandb_has_not_and_nothing_twice(info, had, checkpoint):
    logger = spec().open(info, None)
    log(logger, ROWS[:had])
    state = logger.state_dict()
    logger.close("interrupted", {})
    wandb.teardown()
    record = JsonlLogger(info.directory / "metrics.jsonl", None)
    log(record, ROWS[:checkpoint])
    record.close("interrupted", {})

    resumed = spec().open(info, state)
    log(resumed, ROWS[checkpoint:])
    resumed.log({"update": 6, "eval/return": 7.5}, 60)
    resumed.close("finished", {})
    files = run_files(info)
    assert {file.run.run_id for file in files} == {state["id"]}
    assert [row for file in files for row in file.logged()] == [
        *ROWS[:-1],
        {**ROWS[-1], "eval/return": 7.5},
    ]


def test_an_evaluation_at_the_step_where_wandb_ends_is_added(info):
    logger = spec().open(info, None)
    log(logger, ROWS[:2])
    state = logger.state_dict()
    logger.close("interrupted", {})
    wandb.teardown()
    (info.directory / "metrics.jsonl").write_text('{"step": 20, "update": 2, "x": 2.0}\n')
    resumed = spec().open(info, state)
    resumed.log({"update": 2, "eval/return": 7.5}, 20)
    resumed.close("finished", {})
    first, second = run_files(info)
    assert first.logged() == ROWS[:2]
    assert second.logged() == [{"step": 20, "eval/return": 7.5}]
    assert second.rows[0]["_step"] == 20


def test_a_file_that_was_cut_anywhere_is_read_as_far_as_it_goes(info):
    logger = spec().open(info, None)
    for step in range(1, 2001):  # several blocks of the file
        logger.log({"train/return": 1.0 / step, "name": 7.0}, step)
    run_id = logger.state_dict()["id"]
    logger.close("finished", {})
    wandb.teardown()
    (path,) = info.directory.glob("wandb/offline-run-*/run-*.wandb")
    content, (file,) = path.read_bytes(), wandb_file.run_files(info.directory)
    assert len(content) > 3 * wandb_file.BLOCK
    assert last_row(info.directory, run_id) == file.rows[-1]
    assert last_row(info.directory, "another") == {}
    for end in (0, 3, 7, 20, 32_768, 32_770, 40_000, 98_304, len(content) - 1):
        path.write_bytes(content[:end])
        (file,) = wandb_file.run_files(info.directory) if end >= 7 else [None]
        expected = file.rows[-1] if file and file.rows else {}
        assert last_row(info.directory, run_id) == expected
        assert end < 32_768 or expected["_step"] > 1


def test_kill_9_loses_no_row_of_a_run_that_is_resumed(tmp_path):
    directory = tmp_path / "run"
    words = [
        "logger=wandb",
        "logger.wandb.mode=offline",
        "total_steps=3840",
        f"run_dir={directory}",
    ]
    words += ["checkpoint.every_seconds=0", "evaluation.every_steps=960"]
    process = Process(small("cartpole", *words), tmp_path)
    process.wait_for_rows(directory, 20)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = len((directory / "metrics.jsonl").read_text().splitlines())
    time.sleep(1)  # W&B's own process ends after this one
    (killed,) = wandb_file.run_files(directory)
    assert len(killed.rows) < there - 1, "W&B has lost nothing: this test tests nothing"

    api.resume(directory, total_steps=None)
    wandb.teardown()
    files = wandb_file.run_files(directory)
    assert len({path.stem for path in directory.glob("wandb/offline-run-*/run-*.wandb")}) == 1
    rows = {}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    logged = [row for file in files for row in file.logged()]
    assert [row["step"] for row in logged] == list(rows)
    assert logged == [pytest.approx(row, nan_ok=True) for row in rows.values()]

    resumed = files[-1]
    assert resumed.media().keys() == {"curves"}
    assert resumed.run.display_name == "ppo_cartpole_s0"
    assert resumed.run.run_group == "ppo_cartpole"
    now = json.loads((directory / "run.json").read_text())
    names = ("algo", "env", "env_id", "advantage", "seed", "git_commit", "versions")
    assert {name: resumed.config[name] for name in names} == {name: now[name] for name in names}
    assert resumed.config["settings"]["algo"]["gamma"] == 0.99
    assert resumed.summary["best_return"] == now["best_return"]
    assert resumed.summary["final_return"] == now["final_return"]


def test_a_run_that_was_left_open_is_not_taken_for_the_next_one(info):
    left_open = spec().open(info, None)
    logger = spec(project="another").open(info, None)
    logger.log({"x": 1.0}, 1)
    logger.close("finished", {})
    left_open.close("failed", {})
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
    logger.close("finished", {})

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


UNUSABLE = {
    "no key": ({"mode": "online"}, {}, r"mode=online needs an API key.*wandb login"),
    "short key": ({}, {"WANDB_API_KEY": "short"}, r"WANDB_API_KEY invalid"),
    "project": ({"project": "a/b"}, {}, r"Invalid project name"),
    "mode": ({}, {"WANDB_MODE": "offlin"}, r"Input should be 'online', 'offline'"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_work_is_known_before_anything_is_written(info, monkeypatch, case):
    changes, environment, message = UNUSABLE[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for use in (lambda: spec(**changes).check(), lambda: spec(**changes).open(info, None)):
        with pytest.raises(UserError, match=message) as raised:
            use()
        assert "\n" not in str(raised.value)
    assert list(info.directory.iterdir()) == []


def test_a_missing_package_is_named_with_its_remedy(info, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="logger=wandb needs a package: pip install wandb"):
        spec().check()


def test_what_can_work_passes_the_check(info, monkeypatch):
    spec().check()
    spec(mode="offline", notes="a note", entity="a-team").check()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    spec(mode="online").check()
    assert list(info.directory.iterdir()) == []


def test_the_environment_variable_keeps_wandb_off_the_network(info, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    spec(mode="online").open(info, None).close("finished", {})
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
    logger.close("finished", {})
    spec().log_evaluation(info, FIGURES, None, train_id=None)
    server.shutdown()
    server.server_close()

    trained, evaluated = sorted(run_files(info), key=lambda file: file.run.job_type, reverse=True)
    assert trained.logged() == [{"step": 1, "train/return": 1.0}]
    assert evaluated.config["evaluation"] == FIGURES
    assert capsys.readouterr().err.count("logging offline, no connection") == 2


PROGRAM = """
import signal, sys
from pathlib import Path
from rlrun.loggers.interface import RunInfo
from rlrun.loggers.wandb import WandbLogger

stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
info = RunInfo(directory=Path(sys.argv[1]), name="n", facts={}, config={},
               group="g", tags=[])
logger = WandbLogger(project="p", entity=None, mode="auto", notes=None, upload_checkpoints=False,
                     finish_seconds=60).open(info, None)
step = 0
print("ready", flush=True)
while not stopped:
    step += 1
    logger.log({"x": 1.0}, step)
    signal.sigtimedwait([], 0.001)
logger.log({"x": 2.0}, step + 1)
logger.close("interrupted", {})
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
