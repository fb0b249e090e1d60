"""A run's directory as somebody else may have made it: it is read as text, and nothing runs."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from running import experiment, small

from rlrun.config.experiment import Experiment
from rlrun.config.files import DEEPEST, MOST_BYTES, read_json, read_yaml
from rlrun.config.load import load_run
from rlrun.errors import UserError
from rlrun.runs.files.directory import write_config

FILES = ("config.yaml", "overrides.yaml", "run.json")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A run's directory, as far as it is read before the checkpoints."""
    made = experiment(small("cartpole", "logger=tensorboard", "tags=[a]"))
    directory = tmp_path_factory.mktemp("written")
    write_config(directory, made.config, made.overrides)
    record = {**made.choices, "label": made.label}
    (directory / "run.json").write_text(json.dumps(record))
    return directory


@pytest.fixture
def run(written, tmp_path) -> Path:
    """That directory, to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def refused(run: Path) -> str:
    """The one line in which reading a run ends."""
    with pytest.raises(UserError) as caught:
        load_run(run)
    line = str(caught.value)
    assert line.startswith(str(run))
    assert "\n" not in line
    return line.removeprefix(str(run))


def change(run: Path, **parts: object) -> None:
    """Put other nodes into a run's config.yaml; None removes one."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for name, node in parts.items():
        both = isinstance(node, dict) and isinstance(config.get(name), dict)
        config[name] = {**config[name], **node} if both else node
        if node is None:
            del config[name]
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_a_run_is_read(run):
    assert isinstance(load_run(run), Experiment)


# ---------------------------------------------------------------------- what it may name


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"plugins": None}, "lacks plugins"),
        ({"hardware": None}, "lacks hardware"),
        ({"algo": {"unknown": 1}}, "algo.unknown: no such setting"),
        ({"algo": {"_target_": "os.system"}}, "'os.system' is not part of rlrun.algos"),
        ({"env": {"_target_": "rlrun.algos.policy_gradient.ppo.PPO"}}, "not part of rlrun.envs"),
        ({"plugins": ["os"]}, "it uses code of 'os': allow it with --plugin os"),
        ({"plugins": ["rlrun"]}, "plugins: 'rlrun' is no package of your own"),
        ({"plugins": ["x; touch y"]}, "plugins: 'x; touch y' is no package of your own"),
        ({"plugins": "os"}, "plugins: expected a list, got 'os'"),
        ({"plugins": [["os"]]}, "plugins[0]: expected text, got ['os']"),
        ({"logger": {"a": {"_target_": "logging.FileHandler"}}}, "is not part of rlrun.loggers"),
        ({"logger": {"a": "b"}}, "logger.a: its file has no _target_"),
        ({"logger": ["a"]}, "logger: expected a mapping, got ['a']"),
        ({"tags": [{"_target_": "os.getcwd"}]}, "tags[0]._target_: code can be named only in algo"),
        ({"seed": {"_target_": "os.getpid"}}, "seed._target_: code can be named only in"),
        ({"group": {"a": [{"_target_": "os.getpid"}]}}, "group.a[0]._target_: code can be named"),
    ],
)
def test_what_a_run_may_not_name(run, parts, message):
    change(run, **parts)
    if parts == {"plugins": None}:  # a file that has the key, but no value
        assert message in refused(run)
        change(run, plugins=[])
        (run / "config.yaml").write_text(
            (run / "config.yaml").read_text().replace("plugins: []", "plugins: null")
        )
        message = "plugins: expected a list, got null"
    assert message in refused(run)


def test_a_setting_that_this_version_needs_is_named(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["algo"]["gamma"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    line = refused(run)
    assert line == ": its config.yaml lacks algo.gamma, which this version of rlrun needs"


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "${seed}"])
def test_an_interpolation_is_text(run, monkeypatch, text):
    monkeypatch.setenv("SECRET", "hunter2")
    change(run, tags=[text], group=text)
    (run / "overrides.yaml").write_text(yaml.safe_dump([text]))
    read = load_run(run)
    assert read.tags == [text]
    assert read.group == text
    assert read.overrides == [text]
    assert "hunter2" not in str(read)
    change(run, seed=text)
    assert refused(run) == f": seed: expected a whole number, got {text!r}"


def test_text_that_looks_like_a_number_is_read_back_as_text(run):
    words = ["1e6", "1_000", "3e-4", "on", "null", ".inf", "???", "2020-01-01", "0x10", "1:30"]
    change(run, tags=words)
    assert load_run(run).tags == words


# ---------------------------------------------------------------------- what it may be


def laughs(levels: int) -> str:
    """YAML of a few lines that stands for 9^levels words."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{[",
        "3",
        "null",
        "[1]",
        "{}",
        '{"a": ',
        "\x00",
        "[" * 100_000,
        '{"a":' * 100_000,
        "- " * 5_000,
        "x" * (MOST_BYTES + 1),
        laughs(9),
        "a: &a [*a]",
        "a: !!python/object/apply:os.getcwd []",
        "a: !!set {b}",
        "? [a]\n: b",
        "a: 2020-01-01",
        "<<: {a: 1}",
        "a: " + "9" * 10_000,
    ],
    ids=range(20),
)
def test_a_damaged_file_is_one_line(run, name, text):
    if name == "overrides.yaml" and text == "":
        text = "a: b"
    (run / name).write_text(text)
    assert name in refused(run) or "lacks" in refused(run)


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_one_line(run, name):
    path = run / name
    path.rename(run / "elsewhere")
    assert f"No such file or directory: '{path}'" in refused(run)
    path.symlink_to("elsewhere")
    assert f"{name} is a link" in refused(run)
    path.unlink()
    os.mkfifo(path)
    assert f"{name} is not a file" in refused(run)  # and nobody waits for a writer
    path.unlink()
    path.mkdir()
    assert refused(run).startswith(" is not a run that can be read: ")
    path.rmdir()
    path.write_bytes(b"\xff\xfe")
    assert f"{name} is not text in UTF-8" in refused(run)


@pytest.mark.parametrize("names", [{"label": 1}, {"algo": 1}, {"algo": ["x"]}, {"env": 2}])
def test_a_record_with_other_names_is_one_line(run, names):
    good = {"label": "x", "algo": "ppo", "env": "hopper"}
    (run / "run.json").write_text(json.dumps({**good, **names}))
    assert re.search(r"run\.json: (algo|env|label): expected text", refused(run))


def test_a_record_without_a_label_is_an_earlier_versions(run):
    (run / "run.json").write_text("{}")
    assert "run.json: label is missing: an earlier version of rlrun wrote it" in refused(run)


def test_containers_may_be_nested_as_deep_as_is_sensible(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("[" * DEEPEST + "]" * DEEPEST)
    value, depth = read_yaml(path), 0
    while value:
        (value,), depth = value, depth + 1
    assert depth == DEEPEST - 1
    path.write_text("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))
    with pytest.raises(ValueError, match=r"config.yaml: nested too deeply"):
        read_yaml(path)
    path.write_text('{"a": "' + "x" * (MOST_BYTES - 9) + '"}')
    assert len(read_json(path)["a"]) == MOST_BYTES - 9
