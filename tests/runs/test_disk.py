"""Somebody else's run: no verb follows a link out of its directory, or waits at a pipe."""

import os
import re
import shutil
from pathlib import Path

import pytest
from running import Process, experiment, metrics, record, small

from rlrun.errors import UserError
from rlrun.loggers.jsonl import JsonlLogger
from rlrun.runs import api
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.directory import write_record
from rlrun.runs.files.disk import remove, replacing


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    run = tmp_path_factory.mktemp("theirs") / "run"
    words = small("cartpole", "total_steps=128", "checkpoint.every_seconds=0", f"run_dir={run}")
    api.train(experiment(words))
    return run


@pytest.fixture
def run(theirs, tmp_path):
    """A copy of their run, beside a directory with the reader's own files."""
    (tmp_path / "mine").mkdir()
    return shutil.copytree(theirs, tmp_path / "run", symlinks=True)


VERBS = {
    "resume": lambda run: api.resume(run, total_steps=256),
    "eval": lambda run: api.evaluate_run(run, episodes=1, seed=0, checkpoint="last"),
    "eval best": lambda run: api.evaluate_run(run, episodes=1, seed=0, checkpoint="best"),
}
STEP = "checkpoints/step-000000000128"
NAMES = [
    ".lock",
    "config.yaml",
    "overrides.yaml",
    "run.json",
    "metrics.jsonl",
    "checkpoints",
    "wandb",
    STEP,
    *(f"{STEP}/{name}" for name in ("weights.safetensors", "state.pt", "manifest.json")),
]


def contents(directory):
    return {
        path.relative_to(directory): (
            path.lstat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in directory.rglob("*")
    }


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_place_of_a_file_is_one_line(run, tmp_path, name, verb):
    path, mine = run / name, tmp_path / "mine" / "treasure"
    if path.exists():
        path.rename(mine)  # what is there is right, but for the place
    path.symlink_to(mine)
    before = contents(tmp_path)
    with pytest.raises(UserError) as raised:
        VERBS[verb](run)
    assert str(raised.value) == f"{path} is a link, and could lead out of the run's directory"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [name for name in NAMES if name != "wandb"])
def test_a_pipe_in_place_of_a_file_is_one_line(run, name):
    path = run / name
    remove(path)
    os.mkfifo(path)
    for verb in VERBS.values():
        with pytest.raises(UserError, match=rf"^{path} is neither a file nor a directory$"):
            verb(run)


@pytest.mark.parametrize("target", ["../..", "../../mine", "/", ".", "step-", "step-1/../step-1"])
def test_best_leads_to_a_checkpoint_beside_it_only(run, target):
    best = run / "checkpoints" / "best"
    best.unlink()
    best.symlink_to(target)
    for verb in VERBS.values():
        with pytest.raises(
            UserError, match=rf"^{best} leads to '{target}', which is no checkpoint"
        ):
            verb(run)


KINDS = ["link to a file", "link to a directory", "link to nothing", "pipe"]
REFUSED = [
    ".run.json",
    ".config.yaml",
    ".overrides.yaml",
    ".curves.png",
    "curves.png",
    "checkpoints/step-000000000192",
]
REMOVED = [
    "checkpoints/.best",
    "checkpoints/.writing-step-000000000192",
    "checkpoints/.replaced-step-000000000032",
    "checkpoints/.replaced-step-000000000128",
]


def place(path, kind, mine):
    """Put a link to the reader's own files, or a pipe, where rlrun writes something."""
    remove(path)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(mine / kind.split()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_that_is_written_leads_to_the_readers_files(run, tmp_path, kind):
    mine = tmp_path / "mine"
    (mine / "directory").mkdir()
    (mine / "directory" / "thesis").write_text("years")
    (mine / "file").write_text("years")
    before = contents(mine)
    for name in REMOVED:
        place(run / name, kind, mine)
    for name in REFUSED:
        place(run / name, kind, mine)
        with pytest.raises(UserError, match=rf"^{run / name} is (a link|neither a file)"):
            api.resume(run, total_steps=256)
        remove(run / name)
    api.resume(run, total_steps=256)
    assert record(run)["step"] == metrics(run)[-1]["step"] == 256
    assert not any(os.path.lexists(run / name) for name in REMOVED)
    links = [path.name for path in (run / "checkpoints").iterdir() if path.is_symlink()]
    assert links == ["best"]
    assert contents(mine) == before


def test_a_copy_whose_best_became_a_directory_is_evaluated_and_resumed(run):
    best = run / "checkpoints" / "best"
    target = best.resolve()
    best.unlink()
    shutil.copytree(target, best)  # as `scp -r` does
    assert VERBS["eval best"](run)["checkpoint"] == str(best)
    CheckpointStore(run / "checkpoints", keep=1).mark_best(target)
    assert os.readlink(best) == target.name
    assert VERBS["eval best"](run)["checkpoint"] == str(target)
    VERBS["resume"](run)


def test_list_waits_at_no_pipe_and_follows_no_link(theirs, tmp_path):
    for name in ("run.json", "metrics.jsonl", ".lock"):
        for kind in ("pipe", "link"):
            path = shutil.copytree(theirs, tmp_path / f"{kind} {name}", symlinks=True) / name
            path.unlink()
            os.mkfifo(path) if kind == "pipe" else path.symlink_to(theirs / name)
    shutil.copytree(theirs, tmp_path / "whole", symlinks=True)
    process = Process(["list", "."], tmp_path)
    assert process.wait() == 0
    rows = [re.split(r"  +", line.strip())[:2] for line in process.output().splitlines()]
    assert sorted(row for row in rows if row[0] != "run" and len(row) == 2) == [
        ["link .lock", "finished"],
        ["link metrics.jsonl", "unreadable"],
        ["link run.json", "unreadable"],
        ["pipe .lock", "finished"],
        ["pipe metrics.jsonl", "unreadable"],
        ["pipe run.json", "unreadable"],
        ["whole", "finished"],
    ]


def test_a_writer_follows_no_link_that_appears_later(run, tmp_path):
    mine = tmp_path / "mine" / "file"
    mine.write_text("years")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(mine)
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        JsonlLogger(run / "metrics.jsonl", None)
    (run / "run.json").unlink()
    (run / "run.json").symlink_to(mine)
    (run / ".run.json").symlink_to(mine)
    write_record(run, {"status": "running"})
    assert not (run / "run.json").is_symlink()
    (run / "checkpoints").rename(tmp_path / "mine" / "checkpoints")
    (run / "checkpoints").symlink_to(tmp_path / "mine" / "checkpoints")
    (run / "checkpoints" / ".writing-step-1").mkdir()
    store = CheckpointStore(run / "checkpoints", keep=1)
    for use in (store.repair, store.steps, store.load_last, store.load_best):
        with pytest.raises(UserError, match=r"checkpoints is a link, and could lead out"):
            use()
    assert (tmp_path / "mine" / "checkpoints" / ".writing-step-1").exists()
    assert mine.read_text() == "years"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    (tmp_path / ".file").write_text("what a killed process left")
    with replacing(path) as file:
        file.write(b"one")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"two", None])
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_replaced_has_the_rights_that_other_files_get(tmp_path):
    with replacing(tmp_path / "replaced") as file:
        file.write(b"")
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (Path(tmp_path / n) for n in ("replaced", "plain"))}
    assert len(modes) == 1
