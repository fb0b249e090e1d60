import json
from dataclasses import replace
from pathlib import Path

import pytest
from running import experiment, record, small

from rlrun.config.load import load_run
from rlrun.errors import UserError
from rlrun.runs.files.directory import is_sweep, provenance
from rlrun.runs.files.record import run_info
from rlrun.sweeps.plan import add_run, own_words, read_plan, run_name, sweep_name, write_plan

WORDS = ["algo=ppo,a2c", "env=cartpole", "total_steps=1e6", "seed=0,1"]


def test_the_same_words_name_the_same_sweep_whatever_their_order_and_seeds():
    name = sweep_name(WORDS)
    assert name.startswith("a2c-ppo_cartpole_")
    assert sweep_name([*WORDS[::-1][1:], "seed=0,1,2,3"]) == name
    assert sweep_name([*WORDS, "hardware.jobs=2", "hydra/launcher=joblib"]) == name
    assert sweep_name(["algo=a2c,ppo", *WORDS[1:]]) == name
    assert sweep_name([*WORDS, "logger=wandb", "tags=[a]", "checkpoint.every_seconds=5"]) == name
    others = [[*WORDS, "algo.gamma=0.9"], ["algo=ppo", *WORDS[1:]], [*WORDS[:2], *WORDS[3:]]]
    assert len({name, *map(sweep_name, others)}) == 4
    assert sweep_name(["seed=0,1"]).startswith("sweep_")
    assert len(sweep_name([f"env.id={'x' * 500}"])) < 255
    assert "/" not in sweep_name(["env=gym", "algo=a/b"])


def test_a_run_is_named_after_its_label_its_own_settings_and_its_seed():
    job = experiment([*small("cartpole"), "seed=3", "advantage=td"])
    assert run_name(job, []) == "ppo_cartpole_td_s3"
    own = ["algo.gamma=0.9", "model.hidden_sizes=[8,8]", "advantage=td", "seed=3"]
    assert run_name(job, own) == "ppo_cartpole_td_gamma=0.9_hidden_sizes=-8,8-_s3"
    assert run_name(job, ["algo.x=1e+30"]) == "ppo_cartpole_td_x=1e+30_s3"
    assert len(run_name(job, [f"algo.x={'9' * 300}"])) < 255


def test_a_job_has_one_run_however_often_it_is_planned(tmp_path):
    job = experiment(small("cartpole", "seed=3"))
    first = add_run(tmp_path, job, ["seed=3"])
    assert first.directory == tmp_path / "ppo_cartpole_s3"
    assert first.point == "seed=3"
    before = record(first.directory)
    assert before["status"] == "planned"
    assert before["sweep"] == tmp_path.name
    # Where it runs, and who is told of it, makes no other run of it.
    elsewhere = experiment(small("cartpole", "seed=3", "hardware.threads=1", "tags=[x]"))
    assert add_run(tmp_path, elsewhere, ["seed=3"]) == first
    assert record(first.directory) == before
    assert [path.name for path in tmp_path.iterdir()] == ["ppo_cartpole_s3"]


def test_a_job_with_another_config_is_another_run(tmp_path):
    one = add_run(tmp_path, experiment(small("cartpole")), [])
    words = small("cartpole", "algo.gamma=0.9")
    other = add_run(tmp_path, experiment(words), [])
    assert one.directory != other.directory
    assert other.directory.name.startswith("ppo_cartpole_s0_")
    assert add_run(tmp_path, experiment(words), []) == other


def test_a_run_without_a_setting_that_came_later_is_the_same_job(tmp_path):
    job = experiment(small("cartpole", "seed=3"))
    first = add_run(tmp_path, job, ["seed=3"])
    lines = (first.directory / "config.yaml").read_text().splitlines(keepends=True)
    earlier = [line for line in lines if "stop_kl" not in line]
    assert len(earlier) == len(lines) - 1
    (first.directory / "config.yaml").write_text("".join(earlier))
    assert add_run(tmp_path, job, ["seed=3"]) == first


def test_a_run_of_the_users_own_directory_is_found_again_and_no_other_is_taken(tmp_path):
    words = small("cartpole", f"run_dir={tmp_path / 'mine'}")
    job = add_run(tmp_path / "sweep", experiment(words), [])
    assert job.directory == tmp_path / "mine"
    assert add_run(tmp_path / "sweep", experiment(words), []) == job
    with pytest.raises(UserError, match="mine holds a run with another config"):
        add_run(tmp_path / "sweep", experiment([*words, "algo.gamma=0.9"]), [])


def test_loggers_are_told_what_is_swept(tmp_path):
    """A group at W&B is one method, as `rlrun compare` has them."""
    groups = []
    for clip in (0.1, 0.2):
        for seed in (0, 1):
            own = [f"algo.clip={clip}", f"seed={seed}"]
            job = add_run(tmp_path, experiment(small("cartpole", *own)), own)
            info = run_info(load_run(job.directory), job.directory, provenance())
            assert info.name == f"{info.group}_s{seed}" == job.name
            groups.append(info.group)
    assert groups == ["ppo_cartpole_clip=0.1"] * 2 + ["ppo_cartpole_clip=0.2"] * 2
    own = ["group=mine"]
    job = add_run(tmp_path, experiment(small("cartpole", *own)), own)
    assert run_info(load_run(job.directory), job.directory, provenance()).group == "mine"


def test_a_plan_keeps_its_order_and_what_was_asked_for_before(tmp_path):
    jobs = [
        add_run(tmp_path, experiment(small("cartpole", f"seed={seed}")), [f"seed={seed}"])
        for seed in (2, 1, 3)
    ]
    assert not is_sweep(tmp_path)
    write_plan(tmp_path, WORDS, ["seed"], jobs[:2])
    assert is_sweep(tmp_path)
    assert read_plan(tmp_path) == [*jobs[:2], replace(jobs[2], point="")]  # not planned, but there
    write_plan(tmp_path, [*WORDS, "seed=3"], ["algo", "seed"], jobs[2:])
    assert read_plan(tmp_path) == jobs
    assert read_plan(tmp_path, ["mine"])[0].plugins == ("mine",)
    assert own_words(tmp_path, ["env=cartpole", "seed=1"]) == ["seed=1"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"jobs": ["a"], "words": []}', '{"jobs": {"a": 1}, "words": []}', "{" * 9999],
)
def test_a_damaged_plan_is_one_line(tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match="is no sweep that can be read: ") as raised:
        read_plan(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_plan_leads_to_no_run_outside_of_its_sweep(tmp_path):
    outside = add_run(tmp_path, experiment(small("cartpole")), []).directory
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    names = ["../ppo_cartpole_s0", str(outside), "..", ".", "", "none"]
    plan = {"words": [], "jobs": dict.fromkeys(names, "")}
    (sweep / "sweep.json").write_text(json.dumps(plan))
    assert Path(outside, "run.json").exists()
    assert read_plan(sweep) == []
