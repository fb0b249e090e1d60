"""Evaluation of a trained run: the same numbers as in training, a video, the mistakes."""

import os
import re
import shutil

import pytest
import torch
import yaml
from imageio_ffmpeg import count_frames_and_secs, read_frames
from running import Process, checkpoints, experiment, fragile, metrics, small

from rlrun.data.seeding import Streams, evaluation_seed
from rlrun.errors import Interrupted, UserError
from rlrun.runs import api, session


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


def test_evaluation_leaves_the_run_as_it_is(cartpole):
    def files():
        return {path: path.stat().st_mtime_ns for path in cartpole.rglob("*") if path.is_file()}

    before = files()
    evaluate(cartpole)
    assert files() == before


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


def film(directory, video, plugins=()):
    api.film_run(directory, seed=0, checkpoint="last", video=video, plugins=plugins)


def test_a_video_shows_one_episode(cartpole, tmp_path):
    video = tmp_path / "film.mp4"
    process = Process(
        ["eval", str(cartpole), "--episodes", "1", "--seed", "5", "--video", str(video)], tmp_path
    )
    assert process.wait() == 0, process.output()
    steps = evaluate(cartpole, episodes=1, seed=5)["length"]
    assert re.search(rf"length +{steps:.2f}", process.output())
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
    # Before anything is read, even: there is no run here.
    with pytest.raises(UserError, match=message):
        film(tmp_path / "nothing", tmp_path / name)
    words = ["eval", str(cartpole), "--video", str(tmp_path / name)]
    process = Process(words, tmp_path)
    assert process.wait() == 2
    (line,) = process.output().splitlines()
    assert re.search(message, line)


def test_a_video_that_the_disk_does_not_take_is_one_line(cartpole, tmp_path):
    video = tmp_path / "film.mp4"
    video.mkdir()  # ffmpeg cannot write there
    with pytest.raises(UserError, match=r"^no video: "):
        film(cartpole, video)


def test_an_environment_without_pictures_says_so(tmp_path):
    directory = tmp_path / "run"
    words = fragile(tmp_path, "total_steps=64", "env.id=Blind-v0", f"run_dir={directory}")
    api.train(experiment(words))
    video = tmp_path / "film.mp4"
    with pytest.raises(UserError, match=r"^no video: this environment draws no pictures$"):
        film(directory, video, plugins=["fragile"])
    assert not video.exists()


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
