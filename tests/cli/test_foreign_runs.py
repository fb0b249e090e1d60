"""`rlrun eval`, `resume` and `list` on directories that somebody else may have made."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from running import checkpoints, experiment, small

from rlrun.runs import api

RECORD = {
    "status": "finished",
    "step": 2_048,
    "total_steps": 10_000,
    "return": 12.34,
    "best_return": None,
    "final_return": None,
    "time_s": 1.0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("trained") / "run"
    api.train(experiment(small("cartpole", "total_steps=64", f"run_dir={directory}")))
    return directory


@pytest.fixture
def run(trained, empty_directory) -> Path:
    """A run of one's own, to be changed."""
    return shutil.copytree(trained, empty_directory / "run", symlinks=True)


# ---------------------------------------------------------------------- eval and resume


def command(canary: Path, package: str) -> dict:
    """The mapping that would run a command, if a run's config.yaml could name any function."""
    return {
        "_target_": f"{package}.call",
        "target": {
            "_target_": f"{package}.locate",
            "target": "os.system",
            "path": "x",
            "packages": ["os", "posix"],
        },
        "arguments": {"command": f"touch {canary}"},
        "path": "x",
    }


def imports(canary: Path, package: str) -> dict:
    """The mapping that imported any module that Python finds."""
    (canary.parent / "canary_module.py").write_text(f"open({str(canary)!r}, 'w')\n")
    return {"_target_": f"{package}.import_module", "name": "canary_module", "path": "x"}


PLACES = {
    "tags": lambda config, node: config.update(tags=[node]),
    "group": lambda config, node: config.update(group=node),
    "plugins": lambda config, node: config.update(plugins=[node]),
    "seed": lambda config, node: config.update(seed=node),
    "algo": lambda config, node: config.update(algo=node),
    "algo.gamma": lambda config, node: config["algo"].update(gamma=node),
    "collector": lambda config, node: config.update(collector=node),
    "model": lambda config, node: config.update(model=node),
    "model.hidden_sizes": lambda config, node: config["model"].update(hidden_sizes=[node]),
    "env": lambda config, node: config.update(env=node),
    "env.options": lambda config, node: config["env"].update(options=node),
    "env.wrappers": lambda config, node: config["env"].update(wrappers=[node]),
    "env.plugins": lambda config, node: config["env"].update(plugins=[node]),
    "env.options.inner": lambda config, node: config["env"]["options"].update(inner=[node]),
    "advantage": lambda config, node: config.update(advantage=node),
    "advantage.lam": lambda config, node: config["advantage"].update(lam=node),
    "hardware": lambda config, node: config.update(hardware=node),
    "evaluation": lambda config, node: config.update(evaluation=node),
    "logger": lambda config, node: config.update(logger=node),
    "logger.mine": lambda config, node: config.update(logger={"mine": node}),
    "logger.mine.more": lambda config, node: config.update(logger={"mine": {"more": node}}),
    "elsewhere": lambda config, node: config.update(elsewhere=node),
}


@pytest.mark.parametrize("package", ["rlrun.config.schema", "rlrun.config.targets", "rlrun.schema"])
@pytest.mark.parametrize("make", [command, imports])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_a_run_directory_runs(rlrun, run, tmp_path, monkeypatch, place, make, package):
    monkeypatch.syspath_prepend(tmp_path)
    canary = tmp_path / "canary"
    config = yaml.safe_load((run / "config.yaml").read_text())
    PLACES[place](config, make(canary, package))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for words in (["eval", "run", "--episodes", "1"], ["resume", "run", "total_steps=128"]):
        code, out, err = rlrun(*words)
        assert (code, out) == (2, "")
        assert err.startswith("rlrun: run: ")
        assert err.count("\n") == 1
    assert not canary.exists()
    assert "canary_module" not in sys.modules
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    "settings",
    [
        {"id": "canary_module:Mine"},
        {"plugins": ["canary_module"]},
        {"plugins": ["canary_module"], "workers": 1},
        {"wrappers": ["canary_module.Mine"]},
        {"wrappers": ["canary_module.Mine"], "plugins": ["canary_module"]},
        {"wrappers": [{"name": "RecordVideo", "video_folder": "canary"}]},
    ],
)
def test_an_environment_of_a_run_directory_imports_nothing(
    rlrun, run, tmp_path, monkeypatch, settings
):
    canary = tmp_path / "canary"
    imports(canary, "")
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"].update(settings)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for words in (["eval", "run", "--episodes", "1"], ["resume", "run", "total_steps=128"]):
        code, out, err = rlrun(*words)
        assert (code, out) == (2, "")
        assert err.startswith("rlrun: run: env.")
        assert err.count("\n") == 1
    assert not canary.exists()
    assert "canary_module" not in sys.modules


def test_the_same_run_unchanged_is_evaluated_and_resumed(rlrun, run):
    code, out, err = rlrun("eval", "run", "--episodes", "1")
    assert (code, err) == (0, "")
    assert re.search(r"return +[\d.]+ ± 0\.0+ over 1 episode ", out)
    code, out, _ = rlrun("resume", "run", "total_steps=128")
    assert code == 0
    assert re.match(
        r"Reached a return of [\d.]+ ± [\d.]+ over 2 episodes \(best [\d.]+\) after", out
    )
    assert checkpoints(run)[-1].name == "step-000000000128"


def test_a_secret_of_the_environment_reaches_no_file(rlrun, run, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["tags"], config["group"] = ["${oc.env:SECRET}"], "${oc.env:SECRET}"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "overrides.yaml").write_text("['tags=[${oc.env:SECRET}]']")
    code, out, err = rlrun("resume", "run", "total_steps=128")
    assert code == 0, err
    assert "hunter2" not in out + err
    for path in run.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes()
    config["env"]["id"] = "${oc.env:SECRET}"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    code, out, err = rlrun("eval", "run")
    assert (code, out) == (2, "")
    assert "hunter2" not in err
    assert "'${oc.env:SECRET}'" in err


def test_a_terminal_obeys_nothing_that_a_run_says(rlrun, run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["algo"]["a\x1b]0;title\x07"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    renamed = run.rename(run.with_name("a\x1b[31m\nb"))
    code, out, err = rlrun("eval", renamed.name)
    assert (code, out) == (2, "")
    assert r"algo.a\x1b]0;title\x07: no such setting" in err
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_a_record_of_an_earlier_version_is_no_obstacle(rlrun, run):
    record = json.loads((run / "run.json").read_text())
    for key in ("host", "versions", "git_commit", "command", "status"):
        record.pop(key, None)
    (run / "run.json").write_text(json.dumps(record))
    code, _, err = rlrun("resume", "run", "total_steps=128")
    assert code == 0, err
    (stint,) = json.loads((run / "run.json").read_text())["earlier"]
    assert stint["host"] is None
    (run / "run.json").write_text(json.dumps({**record, "earlier": 3}))
    code, _, err = rlrun("resume", "run", "total_steps=192")
    assert code == 2
    assert err == "rlrun: run.json: earlier: expected a list, got 3\n"


# ---------------------------------------------------------------------- list


def test_list_shows_the_good_runs_beside_the_bad_ones(rlrun, empty_directory):
    bad = {
        "deep": "[" * 100_000,
        "deep_mapping": '{"a":' * 100_000,
        "huge": '{"a": "' + "x" * 2**21 + '"}',
        "list": "[]",
        "empty": "{}",
        "blank": "",
        "no_json": "\x00",
        "no_utf8": b"\xff",
        "number": "1" * 10_000,
        **{
            f"{key}_{number}": json.dumps({**RECORD, key: value})
            for key in RECORD
            for number, value in enumerate(("x", [], {}, True, 10**400, float("nan")))
        },
    }
    for name, text in bad.items():
        (empty_directory / "outputs" / name).mkdir(parents=True)
        content = text if isinstance(text, bytes) else text.encode()
        (empty_directory / "outputs" / name / "run.json").write_bytes(content)
    (empty_directory / "outputs" / "z_good").mkdir()
    (empty_directory / "outputs" / "z_good" / "run.json").write_text(json.dumps(RECORD))
    (empty_directory / "outputs" / "z_far").mkdir()
    (empty_directory / "outputs" / "z_far" / "run.json").write_text(
        json.dumps({**RECORD, "return": 1e99})
    )
    code, out, err = rlrun("list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["z_good"] == ["finished", "2,048/10,000", "12.3", "0:00:01"]
    assert rows["z_far"] == ["finished", "2,048/10,000", "1e+99", "0:00:01"]
    assert {name for name in bad if rows[name] != ["unreadable"]} == set()


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", ".lock", "config.yaml"])
def test_list_waits_for_nobody_and_follows_nothing(rlrun, empty_directory, name, kind):
    for run in ("a", "b"):
        (empty_directory / "outputs" / run).mkdir(parents=True)
        (empty_directory / "outputs" / run / "run.json").write_text(json.dumps(RECORD))
    path = empty_directory / "outputs" / "a" / name
    elsewhere = empty_directory / "elsewhere"
    elsewhere.write_text(json.dumps({**RECORD, "step": 777}))
    path.unlink(missing_ok=True)
    make = {"pipe": os.mkfifo, "link": lambda p: p.symlink_to(elsewhere), "folder": Path.mkdir}
    make[kind](path)
    code, out, err = rlrun("list")
    assert (code, err) == (0, "")
    assert "777" not in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["b"] == ["finished", "2,048/10,000", "12.3", "0:00:01"]
    if name in ("run.json", "metrics.jsonl"):
        assert rows.get("a") in (None, ["unreadable"])
    else:
        assert rows["a"] == rows["b"]


@pytest.mark.parametrize(
    "line",
    ["[" * 10_000, '{"step": "x"}', '{"step": 1e999}', '{"step": -5}', "[]", "3", '{"step":'],
)
def test_list_passes_over_a_bad_line_of_metrics(rlrun, empty_directory, line):
    run = empty_directory / "outputs" / "a"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(RECORD))
    (run / "metrics.jsonl").write_text(f'{{"step": 4096, "time_s": 1.0}}\n{line}')
    assert "4,096/10,000" in rlrun("list")[1]


def test_list_shows_names_that_a_terminal_would_obey(rlrun, empty_directory):
    names = ["a\x1b[2Jb", "c\nd", "e\rf", os.fsdecode(b"g\xffh"), "[red]i"]
    for name in names:
        (empty_directory / "outputs" / name).mkdir(parents=True)
        (empty_directory / "outputs" / name / "run.json").write_text(json.dumps(RECORD))
    code, out, err = rlrun("list")
    assert (code, err) == (0, "")
    shown = [line.split()[0] for line in out.splitlines() if "finished" in line]
    assert sorted(shown) == sorted([r"a\x1b[2Jb", r"c\nd", r"e\rf", r"g\udcffh", "[red]i"])
    assert "\x1b" not in out


# ---------------------------------------------------------------------- beyond the machine


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("algo.num_envs=1e18", "algo.num_envs=1000000000000000000 needs at least"),
        ("algo.num_envs=1e9", "algo.num_envs=1000000000 needs at least"),
        ("algo.horizon=2147483648", "a rollout of 16 environments x 2,147,483,648 steps needs"),
        ("evaluation.episodes=1e12", "evaluation.episodes=1000000000000 needs at least"),
        ("model.hidden_sizes=[1e6,1e6]", "not enough memory for the environments and networks"),
        ("hardware.threads=1e9", "hardware.threads must be at most 1024, got 1000000000"),
        ("hardware.learner_threads=100000", "hardware.learner_threads must be at most 1024, got"),
        ("total_steps=1e30", "total_steps must be at most 9223372036854775807, got 1000000"),
        ("seed=1e30", "seed must be at most 9223372036854775807, got 1000000"),
        ("algo.epochs=1e19", "algo.epochs must be at most 9223372036854775807, got 1000000"),
    ],
)
def test_a_number_beyond_the_machine_is_one_line(rlrun, empty_directory, word, message):
    words = ["env=cartpole", "hardware.compile=off", word]
    for sweep in ([], ["-m", "env=cartpole,acrobot"]):
        code, out, err = rlrun(*sweep, *words[bool(sweep) :])
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert list(empty_directory.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval run --episodes 1e18", "episodes=1000000000000000000 needs at least"),
        ("eval run --episodes 1e30", "expected a positive whole number, got '1e30'"),
        ("eval run --seed -1", "expected a whole number from 0, got '-1'"),
        ("eval run --seed 0.5", "expected a whole number from 0, got '0.5'"),
        ("eval run --seed 1e99999999", "expected a whole number from 0, got '1e99999999'"),
        ("resume run total_steps=1e30", "expected a positive whole number, got '1e30'"),
        ("resume run total_steps=nan", "expected a positive whole number, got 'nan'"),
    ],
)
def test_a_word_beyond_the_machine_is_one_line(rlrun, run, words, message):
    code, out, err = rlrun(*words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
