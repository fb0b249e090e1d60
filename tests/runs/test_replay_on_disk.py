"""A replay buffer on disk: what a checkpoint costs, what it brings back, and what is damaged."""

import hashlib
import json
import shutil
import signal
from collections import namedtuple
from pathlib import Path

import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from running import Process, assert_same_run, checkpoints, experiment, metrics, record, small

from rlrun.data.replay.buffer import ReplayBuffer
from rlrun.data.replay.rows import Rows
from rlrun.envs.problem import Problem
from rlrun.errors import CheckpointNotWritten, UserError
from rlrun.hardware import memory
from rlrun.runs import api
from rlrun.runs.files.disk import REPLAY
from rlrun.runs.files.segments import MOST_SEGMENTS, Spill

STEPS = ["total_steps=640", "evaluation.every_steps=256", "env.max_episode_steps=25"]
PROBLEM = Problem(
    env_id="Tiny-v0",
    obs_size=2,
    action_space=spaces.Discrete(3),
    action_units="raw",
    time_limit=None,
)


def buffer(capacity: int = 10) -> ReplayBuffer:
    return ReplayBuffer(
        PROBLEM, capacity=capacity, num_envs=1, total_steps=1000, device=torch.device("cpu")
    )


def write(replay: ReplayBuffer, count: int) -> None:
    number = torch.arange(replay.count, replay.count + count)
    over = torch.zeros(count, dtype=torch.bool)
    obs = torch.stack([number, -number], -1).float()
    replay.write(Rows(obs, number % 3, number.float(), obs + 1, over, over))


def names(checkpoints: Path) -> list[str]:
    return sorted(path.name for path in (checkpoints / REPLAY).iterdir())


def test_a_segment_holds_what_is_new(tmp_path):
    replay = buffer()
    spill = Spill(replay, tmp_path)
    write(replay, 4)
    first = spill.save()
    content = {name: (tmp_path / REPLAY / name).read_bytes() for name in names(tmp_path)}
    assert spill.save() == first
    write(replay, 3)
    second = spill.save()
    assert [one["file"] for one in second] == names(tmp_path)
    assert second[0] == first[0]
    assert {name: (tmp_path / REPLAY / name).read_bytes() for name in content} == content

    again = buffer()
    again.load_state_dict(replay.state_dict())
    Spill(again, tmp_path).restore({REPLAY: second})
    assert torch.equal(again.read(0).reward, replay.read(0).reward)


def test_what_was_cut_stays_so_however_often_a_run_is_resumed(tmp_path):
    """Its row is in a file that is never written again."""
    replay = buffer()
    spill = Spill(replay, tmp_path)
    write(replay, 4)
    listed = spill.save()
    for _ in range(3):
        again = buffer()
        again.load_state_dict(replay.state_dict())
        spill = Spill(again, tmp_path)
        spill.restore({REPLAY: listed})
        assert torch.equal(again.read(0).done, replay.read(0).done)
        again.cut([0])
        write(again, 2)
        listed = spill.save()
        replay = again
    assert replay.read(0).done.nonzero().flatten().tolist() == [3, 5, 7]


DICE = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Dice(gym.Env):
    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(2)
    dice = np.random.default_rng()  # of nobody's seed

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.dice.random(1, np.float32), {}

    def step(self, action):
        return self.dice.random(1, np.float32), 0.0, False, False, {}
"""


def test_a_resumed_run_cuts_the_episodes_that_it_cannot_go_on_with(tmp_path, monkeypatch):
    (tmp_path / "dice.py").write_text(DICE)
    monkeypatch.syspath_prepend(tmp_path)
    run = tmp_path / "run"
    words = ["algo=dqn", "env=gym", "env.id=dice:Dice", "plugins=[dice]", "algo.num_envs=2"]
    words += ["env.max_episode_steps=1000", "total_steps=64", "algo.replay.warmup_steps=32"]
    words += ["algo.replay.batch_size=8", "algo.replay.n_step=3", "logger=none"]
    words += ["evaluation.episodes=1", "evaluation.max_length=5", "hardware.compile=off"]
    api.train(experiment([*words, f"run_dir={run}"]))
    for total, cut in ((96, [62, 63]), (128, [62, 63, 94, 95])):
        api.resume(run, total_steps=total, plugins=["dice"])
        state = torch.load(max(run.glob("checkpoints/step-*")) / "state.pt", weights_only=True)
        assert state["algorithm.replay"]["cut"] == cut


def test_segments_that_nobody_lists_are_removed(tmp_path):
    replay = buffer(6)
    spill = Spill(replay, tmp_path)
    listed = []
    for number in range(4):
        write(replay, 4)
        listed = spill.save()
        checkpoint = tmp_path / f"step-{number}"
        checkpoint.mkdir()
        (checkpoint / "manifest.json").write_text(json.dumps({REPLAY: listed}))
    assert [one["file"][5:17] for one in listed] == ["000000000008", "000000000012"]
    spill.prune([tmp_path / "step-2", tmp_path / "step-3"])
    assert [name[5:17] for name in names(tmp_path)] == [f"{n:012d}" for n in (4, 8, 12)]
    again = buffer(6)
    again.load_state_dict(replay.state_dict())
    Spill(again, tmp_path).restore({REPLAY: listed})
    assert again.read(0).reward.tolist() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda listed: listed[:-1], "rows 6 to 9 are missing"),
        (lambda listed: [listed[0], listed[2]], "rows from 6 on where 3 is next"),
        (lambda listed: listed[1:], "rows from 3 on where 0 is next"),
        (lambda listed: [], "rows 0 to 9 are missing"),
        (lambda listed: "rubbish", "string indices"),
        (lambda listed: [{**listed[0], "file": "../../secret"}, *listed[1:]], "is no segment"),
        (lambda listed: [{**listed[0], "sha256": "0"}, *listed[1:]], "does not match its checksum"),
    ],
)
def test_what_is_damaged_is_named(tmp_path, damage, message):
    replay = buffer()
    spill = Spill(replay, tmp_path)
    for _ in range(3):
        write(replay, 3)
        listed = spill.save()
    again = buffer()
    again.load_state_dict(replay.state_dict())
    with pytest.raises((ValueError, TypeError), match=message):
        Spill(again, tmp_path).restore({REPLAY: damage(listed)})


def rewrite(checkpoints: Path, listed: list[dict], **columns: torch.Tensor) -> list[dict]:
    """Put other columns into the first segment, with the checksum that goes with them."""
    path = checkpoints / REPLAY / listed[0]["file"]
    data = safetensors.torch.save({**safetensors.torch.load(path.read_bytes()), **columns})
    path.write_bytes(data)
    return [{**listed[0], "sha256": hashlib.sha256(data).hexdigest()}, *listed[1:]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"obs": torch.zeros(1, 2)}, "has not as many rows as its name says"),
        ({"obs": torch.zeros(3, 5)}, "obs is"),
        ({"action": torch.tensor([0, 1, 99])}, "an action is none of 3"),
        ({"action": torch.tensor([0, 1, -7])}, "an action is none of 3"),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path, column, message):
    replay = buffer()
    spill = Spill(replay, tmp_path)
    for _ in range(2):
        write(replay, 3)
        listed = spill.save()
    again = buffer()
    again.load_state_dict(replay.state_dict())
    with pytest.raises(ValueError, match=message):
        Spill(again, tmp_path).restore({REPLAY: rewrite(tmp_path, listed, **column)})


def test_of_many_segments_neighbours_become_one(tmp_path):
    replay = buffer(500)
    spill = Spill(replay, tmp_path)
    for _ in range(200):
        write(replay, 3)
        listed = spill.save()
        spill.prune([])
    assert len(listed) == MOST_SEGMENTS == len(names(tmp_path))
    again = buffer(500)
    again.load_state_dict(replay.state_dict())
    Spill(again, tmp_path).restore({REPLAY: listed})
    assert torch.equal(again.read(0).reward, replay.read(0).reward)


def test_segments_that_somebody_deleted_are_written_again(tmp_path):
    replay = buffer()
    spill = Spill(replay, tmp_path)
    write(replay, 3)
    spill.save()
    shutil.rmtree(tmp_path / REPLAY)
    write(replay, 2)
    listed = spill.save()
    assert [one["file"][5:17] for one in listed] == ["000000000000"]
    again = buffer()
    again.load_state_dict(replay.state_dict())
    Spill(again, tmp_path).restore({REPLAY: listed})
    assert again.read(0).reward.tolist() == [0, 1, 2, 3, 4]


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    replay = buffer()
    spill = Spill(replay, tmp_path)
    write(replay, 3)
    (tmp_path / REPLAY).write_text("a file where a directory is needed")
    with pytest.raises(CheckpointNotWritten, match="could not be written"):
        spill.save()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10))
    with pytest.raises(UserError, match=r"checkpoint\.replay=false, after which"):
        Spill(replay, tmp_path / "checkpoints").require_room()


def test_a_disk_that_has_room_for_one_buffer_but_not_for_two_is_told(tmp_path, monkeypatch):
    replay = buffer()
    spill, usage = Spill(replay, tmp_path / "checkpoints"), namedtuple("usage", "total used free")
    for free, remark in (
        (2 * replay.most_bytes, ""),
        (2 * replay.most_bytes - 1, " (only 599 bytes are free there now)"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(1, 1, free))
        assert spill.require_room() == remark


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole") / "run"
    api.train(experiment(small("cartpole", *STEPS, f"run_dir={directory}", algo="dqn")))
    return directory


def test_a_run_that_was_killed_is_the_run_that_was_not(whole, tmp_path):
    directory = tmp_path / "run"
    every = "checkpoint.every_seconds=0"
    process = Process(
        small("cartpole", *STEPS, every, f"run_dir={directory}", algo="dqn"), tmp_path
    )
    process.wait_for_rows(directory, 6)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(checkpoints(directory)) > 0
    api.resume(directory, total_steps=None)
    assert_same_run(directory, whole)
    listed = {
        one["file"]
        for path in checkpoints(directory)
        for one in json.loads((path / "manifest.json").read_text())[REPLAY]
    }
    assert set(names(directory / "checkpoints")) == listed


def test_memory_that_is_not_free_is_told_before_the_first_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2**10)
    words = [*STEPS, "checkpoint.replay=false", f"run_dir={tmp_path / 'run'}"]
    api.train(experiment(small("cartpole", *words, algo="dqn")))
    assert "of memory in this run (only 1.0 kB are free now" in capsys.readouterr().err


def test_a_run_without_its_buffer_fills_a_new_one(tmp_path, capsys):
    directory = tmp_path / "run"
    words = [*STEPS, "checkpoint.replay=false", f"run_dir={directory}"]
    api.train(experiment(small("cartpole", *words, algo="dqn")))
    assert not (directory / "checkpoints" / REPLAY).exists()
    assert "a resumed run fills a new one before it learns on" in capsys.readouterr().err
    updates = metrics(directory)[-1]["update"]
    api.resume(directory, total_steps=1280)
    rows = [row for row in metrics(directory) if row["step"] > 640 and "train/episodes" in row]
    # 128 steps of warm-up, in two iterations.
    assert [row["update"] for row in rows[:3]] == [updates, updates, updates + 4]
    assert record(directory)["status"] == "finished"


def test_a_damaged_buffer_costs_a_checkpoint_or_ends_in_one_line(tmp_path, capsys):
    directory = tmp_path / "run"
    api.train(experiment(small("cartpole", *STEPS, f"run_dir={directory}", algo="dqn")))
    first, *_, last = sorted((directory / "checkpoints" / REPLAY).iterdir())
    newest = checkpoints(directory)[-1]
    last.write_bytes(b"no rows")
    api.resume(directory, total_steps=704)
    assert f"{newest} is passed over: {last} does not match" in capsys.readouterr().err
    assert record(directory)["status"] == "finished"

    first.write_bytes(b"no rows")
    with pytest.raises(UserError, match="no readable checkpoint") as raised:
        api.resume(directory, total_steps=1280)
    assert "\n" not in str(raised.value)
    assert "replay: false under checkpoint: in the run's config.yaml" in str(raised.value)
    target = tmp_path / "elsewhere"
    target.write_text("somebody's")
    first.unlink()
    first.symlink_to(target)
    with pytest.raises(UserError, match="is a link"):
        api.resume(directory, total_steps=1280)
    assert target.read_text() == "somebody's"
