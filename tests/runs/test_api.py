"""Evaluation of a trained run: the same numbers as in training, a video, the mistakes."""

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch
import wandb_file
import yaml
from fragile import Fragile
from imageio_ffmpeg import count_frames_and_secs, read_frames
from running import Process, checkpoints, experiment, fragile, metrics, small

from rlrun.data.seeding import Streams, evaluation_seed
from rlrun.errors import Interrupted, UserError
from rlrun.runs import api, session
from rlrun.runs.files.directory import _git_commit
from rlrun.runs.reports.film import Film

KINDS = {0: "last", 7: "best"}  # a seed and a checkpoint
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def hopper(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hopper") / "run"
    words = ["total_steps=512", "evaluation.every_steps=128", "evaluation.episodes=3"]
    api.train(experiment(small("hopper", *words, f"run_dir={directory}")))
    return directory


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cartpole") / "run"
    api.train(experiment(small("cartpole", "total_steps=128", f"run_dir={directory}")))
    return directory


def evaluate(directory, **changes):
    values = {"episodes": 3, "seed": 0, "checkpoint": "last"}
    return api.evaluate_run(directory, **values | changes)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_a_saved_policy_plays_as_it_did_in_training(hopper, checkpoint):
    rows = {row["step"]: row for row in metrics(hopper) if "eval/return" in row}
    assert sorted(rows) == [0, 128, 256, 384, 512]
    best = max(rows.values(), key=lambda row: row["eval/return"])
    then = rows[512] if checkpoint == "last" else best
    # The same episodes: weights and normaliser have come back if every number is the same.
    seed = evaluation_seed(Streams.from_seed(0).evaluation, int(then["step"]))
    now = evaluate(hopper, seed=seed, checkpoint=checkpoint)
    assert now["step"] == then["step"]
    assert now["return"] == then["eval/return"]
    assert now["return_std"] == then["eval/return_std"]
    assert now["length"] == then["eval/length"]
    assert now["return_min"] <= now["return"] <= now["return_max"]
    assert evaluate(hopper, seed=seed + 1, checkpoint=checkpoint)["return"] != now["return"]


def noted(directory):
    return [json.loads(line) for line in (directory / "evaluations.jsonl").read_text().splitlines()]


def test_an_evaluation_is_noted_in_the_run_which_stays_as_it_is_otherwise(cartpole, tmp_path):
    directory = shutil.copytree(cartpole, tmp_path / "run", symlinks=True)

    def files():
        paths = [path for path in directory.rglob("*") if path.is_file()]
        times = {path.name: path.stat().st_mtime_ns for path in paths}
        return {name: time for name, time in times.items() if name != "evaluations.jsonl"}

    before = files()
    (directory / "evaluations.jsonl").unlink(missing_ok=True)
    figures = [evaluate(directory, seed=seed, checkpoint=kind) for seed, kind in KINDS.items()]
    assert files() == before
    assert [entry.pop("git_commit") for entry in noted(directory)] == [_git_commit()] * 2
    for entry, result, seed in zip(noted(directory), figures, KINDS, strict=True):
        assert abs(datetime.now().astimezone() - datetime.fromisoformat(entry.pop("time"))) < HOUR
        entry.pop("git_commit")
        assert entry == {**result, "checkpoint": Path(result["checkpoint"]).name}
        assert entry["seed"] == seed
        assert entry["episodes"] == 3
        assert entry["return_min"] <= entry["return"] <= entry["return_max"]


def test_a_run_that_cannot_be_written_to_is_evaluated_all_the_same(cartpole, tmp_path, capsys):
    directory = shutil.copytree(cartpole, tmp_path / "run", symlinks=True)
    expected = {**evaluate(directory), "checkpoint": None}
    (directory / "evaluations.jsonl").unlink()
    (directory / "evaluations.jsonl").mkdir()  # root can write into any directory
    assert {**evaluate(directory), "checkpoint": None} == expected
    err = capsys.readouterr().err
    assert err == f"warning: the evaluation is not noted in {directory}: Is a directory\n"


def test_a_run_from_a_machine_with_a_gpu_is_evaluated_without_one(cartpole, tmp_path):
    directory = shutil.copytree(cartpole, tmp_path / "run")
    config = directory / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda:7"))
    assert yaml.safe_load(config.read_text())["hardware"]["device"] == "cuda:7"
    here, there = evaluate(cartpole), evaluate(directory)
    assert there.pop("checkpoint") != here.pop("checkpoint")
    assert there == here


def test_a_plugin_is_imported_only_if_it_is_named_again(tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, "total_steps=64", f"run_dir={directory}")
    api.train(experiment(words))
    with pytest.raises(UserError, match="uses code of 'fragile': allow it with --plugin fragile"):
        evaluate(directory)
    assert evaluate(directory, plugins=["fragile"])["episodes"] == 3


def test_the_next_commands_name_the_plugins(tmp_path, capsys):
    directory = tmp_path / "run"
    api.train(experiment(fragile(tmp_path, "total_steps=64", f"run_dir={directory}")))
    done = f"rlrun resume {directory} total_steps=128 --plugin fragile\n"
    assert done in capsys.readouterr().out
    (tmp_path / "stop").touch()
    with pytest.raises(Interrupted):
        api.resume(directory, total_steps=100_000, plugins=["fragile"])
    assert f"To go on: rlrun resume {directory} --plugin fragile\n" in capsys.readouterr().out
    api.train(experiment(small("cartpole", "total_steps=64", f"run_dir={tmp_path / 'other'}")))
    assert "--plugin" not in capsys.readouterr().out


# ---------------------------------------------------------------------- video


def film(directory, video, plugins=(), episodes=2):
    """Evaluate with a film; the film and the figures."""
    made = Film(video)
    return made, evaluate(directory, episodes=episodes, film=made, plugins=plugins)


def test_a_film_changes_nothing_in_the_figures(cartpole, tmp_path):
    for episodes in (4, 1):
        expected = evaluate(cartpole, episodes=episodes, seed=5)
        made = Film(tmp_path / "film.mp4")
        assert evaluate(cartpole, episodes=episodes, seed=5, film=made) == expected
        assert made.error is None
    assert made.frames == expected["length"]


def test_mujocos_batched_episodes_and_the_filmed_one_are_the_same(hopper, tmp_path):
    words = ["eval", str(hopper), "--episodes", "4", "--seed", "5", "--json"]
    with_film = Process([*words, "--video", str(tmp_path / "film.mp4")], tmp_path)
    assert with_film.wait() in (0, 2), with_film.output()  # 2: it cannot be drawn here
    (line,) = [line for line in with_film.output().splitlines() if line.startswith("{")]
    assert json.loads(line) == evaluate(hopper, episodes=4, seed=5)


def test_the_filmed_episode_is_played_once(tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, "total_steps=64", f"run_dir={directory}")
    api.train(experiment(words))
    before = Fragile.instances
    made, _ = film(directory, tmp_path / "film.mp4", plugins=["fragile"], episodes=5)
    assert made.frames > 5
    of_training = 2  # made to look at
    assert Fragile.instances == before + of_training + 5


def test_a_video_shows_one_episode(cartpole, tmp_path):
    video = tmp_path / "film.mp4"
    process = Process(
        ["eval", str(cartpole), "--episodes", "1", "--seed", "5", "--video", str(video)], tmp_path
    )
    assert process.wait() == 0, process.output()
    steps = evaluate(cartpole, episodes=1, seed=5)["length"]
    output = process.output()
    assert re.search(rf"length +{steps:.2f}", output)
    assert "filming the episode\n" in output
    assert f"{video} shows the first episode, {steps:.0f} frames\n" in output
    # A frame for each state that the policy acts in; the next episode's first is left out.
    assert count_frames_and_secs(video) == (steps, pytest.approx(steps / 50, abs=0.05))
    frames = read_frames(video)
    assert next(frames)["size"] == (600, 400)
    images = [torch.frombuffer(bytearray(frame), dtype=torch.uint8) for frame in frames]
    first, last = images[0].float(), images[-1].float()
    assert first.mean() > 200  # a white background
    assert (first - last).abs().max() > 100  # with a cart that has moved


DISPLAY = ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "PYOPENGL_PLATFORM")


def film_hopper(hopper, tmp_path, monkeypatch, backend):
    for name in DISPLAY:
        monkeypatch.delenv(name, raising=False)
    video = tmp_path / "film.mp4"
    words = ["eval", str(hopper), "--episodes", "1", "--video", str(video)]
    process = Process(words, tmp_path, {**os.environ, **backend})
    return process.wait(), process.output(), video


def test_mujoco_is_filmed_without_a_display(hopper, tmp_path, monkeypatch):
    code, output, video = film_hopper(hopper, tmp_path, monkeypatch, {})
    if "no video: " in output:
        pytest.skip("this machine has no EGL")
    assert code == 0, output
    steps = evaluate(hopper, episodes=1)["length"]
    assert count_frames_and_secs(video)[0] == steps
    frames = read_frames(video)
    assert next(frames)["size"] == (480, 480)
    image = torch.frombuffer(bytearray(next(frames)), dtype=torch.uint8).float()
    assert image.std() > 10, "an empty picture"


def test_without_a_display_the_remedy_is_named(hopper, tmp_path, monkeypatch):
    code, output, video = film_hopper(hopper, tmp_path, monkeypatch, {"MUJOCO_GL": "glfw"})
    assert code == 2
    *table, line = output.splitlines()
    assert any(re.search(r"return +\d", row) for row in table)  # the returns come all the same
    assert line.startswith("rlrun: no video: ")
    assert line.endswith("on a machine without a display set MUJOCO_GL=egl")
    assert not video.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("film.gif", "a video's name ends in .mp4, got '.*film.gif'"),
        ("missing/film.mp4", "no directory '.*missing' for the video"),
    ],
)
def test_a_video_that_cannot_be_written_is_known_before_the_episodes(
    cartpole, tmp_path, name, message
):
    with pytest.raises(UserError, match=message):
        Film(tmp_path / name)
    words = ["eval", str(cartpole), "--video", str(tmp_path / name)]
    process = Process(words, tmp_path)
    assert process.wait() == 2
    (line,) = process.output().splitlines()
    assert re.search(message, line)


def test_a_video_that_the_disk_does_not_take_is_one_line(cartpole, tmp_path):
    video = tmp_path / "film.mp4"
    video.mkdir()  # ffmpeg cannot write there
    made, figures = film(cartpole, video)
    assert str(made.error).startswith("no video: ")
    assert "\n" not in str(made.error)
    assert figures == evaluate(cartpole, episodes=2)


def test_an_environment_without_pictures_says_so(tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, "total_steps=64", "env.id=Blind-v0", f"run_dir={directory}")
    api.train(experiment(words))
    video = tmp_path / "film.mp4"
    made, figures = film(directory, video, plugins=["fragile"])
    assert str(made.error) == "no video: this environment draws no pictures"
    assert not video.exists()
    assert figures == evaluate(directory, episodes=2, plugins=["fragile"])


# ---------------------------------------------------------------------- what is shown


def test_json_is_all_there_is_on_stdout(cartpole, tmp_path):
    words = ["--episodes", "2", "--json", "--video", str(tmp_path / "film.mp4")]
    command = [sys.executable, "-m", "rlrun", "eval", str(cartpole), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == evaluate(cartpole, episodes=2)
    assert done.stdout.count("\n") == 1
    assert "filming the first of 2 episodes" in done.stderr


def test_a_terminal_shows_how_far_it_is(cartpole, tmp_path):
    pid, master = pty.fork()
    if pid == 0:
        words = ["--episodes", "3", "--video", str(tmp_path / "film.mp4")]
        os.execv(sys.executable, [sys.executable, "-m", "rlrun", "eval", str(cartpole), *words])
    output = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while piece := os.read(master, 1024):
            output += piece
    assert os.waitpid(pid, 0)[1] == 0
    os.close(master)
    shown = output.decode()
    assert "0 of 3 episodes" in shown
    assert re.search(r"of 3 episodes · \d+ frames filmed", shown)
    assert re.search(r"return +\d", shown)


def test_an_evaluation_goes_to_wandb_if_that_is_asked_for(cartpole, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    words = ["total_steps=64", "logger=wandb", "logger.wandb.mode=offline", "group=mine"]
    # W&B's service outlives a run, in this process.
    process = Process(small("cartpole", *words, f"run_dir={directory}"), tmp_path)
    assert process.wait() == 0, process.output()
    video = tmp_path / "film.mp4"
    words = ["eval", str(directory), "--episodes", "2", "--wandb", "--video", str(video)]
    process = Process(words, tmp_path)
    assert process.wait() == 0, process.output()
    trained, evaluated = wandb_file.run_files(directory)
    assert (trained.run.job_type, evaluated.run.job_type) == ("train", "eval")
    assert trained.run.run_group == evaluated.run.run_group == "mine"
    assert trained.media().keys() == {"curves"}
    assert evaluated.media().keys() == {"video"}
    assert evaluated.config["train_run"] == trained.run.run_id
    figures = evaluate(directory, episodes=2)
    assert evaluated.logged()[0]["eval/return"] == figures["return"]
    assert evaluated.config["evaluation"]["return_std"] == figures["return_std"]
    assert "upload with: wandb sync" in process.output()

    process = Process(["eval", str(cartpole), "--episodes", "1", "--wandb"], tmp_path)
    assert process.wait() == 2
    message = "rlrun: --wandb: the run was not logged to W&B (logger=wandb)\n"
    assert process.output() == message


# ---------------------------------------------------------------------- mistakes


def test_a_run_without_a_checkpoint_cannot_be_evaluated(cartpole, tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("config.yaml", "overrides.yaml", "run.json"):
        (directory / name).write_text((cartpole / name).read_text())
    for checkpoint in ("last", "best"):
        with pytest.raises(UserError, match=r"no .*checkpoint"):
            evaluate(directory, checkpoint=checkpoint)
    assert checkpoints(directory) == []


def test_ctrl_c_before_the_run_has_begun_leaves_no_directory(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "execute", interrupted)
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        api.train(experiment(small("cartpole", f"run_dir={directory}")))
    assert not directory.exists()


def test_a_logger_that_cannot_work_leaves_no_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    directory = tmp_path / "run"
    words = ["logger=wandb", "logger.wandb.mode=online", f"run_dir={directory}"]
    with pytest.raises(UserError):
        api.train(experiment(small("cartpole", *words)))
    assert not directory.exists()
