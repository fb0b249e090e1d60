"""The config tree as it is shipped, and the experiments that it composes to."""

import functools
import math
import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from rlrun.cli.help.overview import GROUPS, choices, first_comment
from rlrun.config.experiment import Experiment
from rlrun.config.files import conf_directory
from rlrun.config.load import load, load_run
from rlrun.errors import UserError
from rlrun.runs.files.directory import write_config, write_record

CONF = conf_directory()
FILES = sorted(CONF.rglob("*.yaml"))
CHOICES = [(group, name) for group in GROUPS if group != "tuned" for name in choices(CONF / group)]
TUNED = sorted(choices(CONF / "tuned"))
TUNED_PARTS = sorted(CONF.glob("tuned/*/*.yaml"))
PAIRS = {
    f"{algo}_{env}": (algo, env) for algo in choices(CONF / "algo") for env in choices(CONF / "env")
}

# What has no value of its own; nothing is read where it is built.
MUST_BE_SAID = {
    "gym": ["env.id=CartPole-v1"],
    "pairs": ["collector.path=pairs.jsonl"],
    "prompts": ["env.path=prompts.jsonl"],
    "huggingface": ["model.path=model"],
}

NAMES = {"algo": "ppo", "env": "cartpole", "advantage": "gae", "label": "ppo_cartpole"}


@functools.cache
def composed(*overrides: str) -> DictConfig:
    """What Hydra makes of these words, for reading only."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides))
    OmegaConf.set_readonly(cfg, True)
    return cfg


def loaded(*overrides: str) -> Experiment:
    return load(composed(*overrides), list(overrides), NAMES, parent=Path("outputs"))


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_builds(group, name):
    overrides = ["env=cartpole", f"{group}={name}"]
    overrides += MUST_BE_SAID.get(name, [])
    experiment = loaded(*overrides)
    node = experiment.config.get(group)
    if name == "none":
        assert experiment.loggers == {}
    elif group == "logger":
        assert list(experiment.loggers) == list(node)
    elif group == "advantage":
        assert experiment.advantage.func.__name__ == node["_target_"].rpartition(".")[2]
    else:
        built = vars(experiment)[group]
        assert f"{type(built).__module__}.{type(built).__name__}" == node["_target_"]


def without_defaults(path: Path) -> DictConfig:
    values = OmegaConf.load(path)
    values.pop("defaults", None)
    return values


@pytest.mark.parametrize("name", TUNED)
def test_every_tuned_pair_is_of_a_real_algorithm_and_environment(name):
    assert name in PAIRS  # Hydra would skip a misspelt one in silence
    values = without_defaults(CONF / "tuned" / f"{name}.yaml")
    values.pop("tuned_on", None)
    assert set(values) <= {"algo", "env"}
    algo, env = PAIRS[name]
    tuned = composed(f"algo={algo}", f"env={env}")
    for group, settings in values.items():
        assert OmegaConf.merge(tuned[group], settings) == tuned[group]


@pytest.mark.parametrize("path", TUNED_PARTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_parts_tuned_values_hold_for_that_part_alone(path):
    name, part = path.parent.name, path.stem
    assert name in TUNED  # whose defaults name this directory
    algo, env = PAIRS[name]
    values = without_defaults(path)
    (group,) = values
    assert group in ("advantage", "model")
    assert part in choices(CONF / group)
    for other in (part, next(name for name in choices(CONF / group) if name != part)):
        words = [f"algo={algo}", f"env={env}", f"{group}={other}"]
        common = composed(*words, "~tuned")[group]
        mine = values[group] if other == part else {}
        assert composed(*words)[group] == OmegaConf.merge(common, mine)


def mapping_keys(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        return [key for value in node.value for key in mapping_keys(value)]
    if isinstance(node, yaml.MappingNode):
        return [key for name, value in node.value for key in (name, *mapping_keys(value))]
    return []


def line_above(lines: list[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_has_a_comment_above_it(path):
    text = path.read_text()
    lines = text.splitlines()
    bare = [
        key.value
        for key in mapping_keys(yaml.compose(text) or yaml.ScalarNode("", ""))
        if not line_above(lines[: key.start_mark.line]).startswith("#")
    ]
    assert set(bare) <= {"_target_"}  # which says where the code is, and needs no meaning or unit


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_file_begins_with_its_line_of_help(path):
    assert 10 < len(first_comment(path)) <= 100


def brought_by(algo):
    """The choices that an algorithm's file brings along, also by the file that it is made of."""
    defaults = yaml.safe_load((CONF / "algo" / f"{algo}.yaml").read_text())["defaults"]
    found = {}
    for entry in defaults:
        if entry != "_self_":
            found |= brought_by(entry) if isinstance(entry, str) else entry
    return found


@pytest.mark.parametrize("algo", choices(CONF / "algo"))
def test_an_algorithm_brings_its_parts_and_the_command_line_wins(algo):
    brought = brought_by(algo)
    parts = ("collector", "model", "advantage")
    groups = [group for group in parts if f"/{group}@_global_.{group}" in brought]
    usual = {group: brought[f"/{group}@_global_.{group}"] for group in groups}
    for group in set(parts).difference(groups):
        with pytest.raises(ConfigCompositionException, match=f"Could not override '{group}'"):
            composed("env=cartpole", f"algo={algo}", f"{group}={next(iter(choices(CONF / group)))}")
    others = {
        group: next(name for name in choices(CONF / group) if name != usual[group])
        for group in groups
    }
    for words in (["env=cartpole", f"algo={algo}"], [f"algo={algo}", "env=hopper"]):
        by_itself, chosen, changed = (
            composed(*words, "~tuned", *(f"{group}={name}" for group, name in parts.items()))
            for parts in ({}, usual, others)
        )
        for group in groups:
            assert by_itself[group] == chosen[group]
            assert by_itself[group] != changed[group]


def test_loading_does_not_change_the_config():
    cfg = composed("env=cartpole", "total_steps=1e6")
    before = OmegaConf.to_yaml(cfg)
    experiment = load(cfg, [], NAMES, parent=Path("outputs"))
    assert OmegaConf.to_yaml(cfg) == before
    assert experiment.total_steps == 1_000_000
    assert isinstance(experiment.total_steps, int)
    assert experiment.config == OmegaConf.to_container(cfg, resolve=True)


def test_infinity_may_be_written_as_in_yaml():
    experiment = loaded("env=hopper", "algo.clip=.inf", "env.options.healthy_z_range=[-.inf,2]")
    assert experiment.algo.clip == experiment.config["algo"]["clip"] == math.inf
    assert experiment.config["env"]["options"]["healthy_z_range"] == [-math.inf, 2]
    with pytest.raises(
        UserError, match=r"algo\.optimizer\.learning_rate must be positive, got -inf"
    ):
        loaded("env=cartpole", "algo.optimizer.learning_rate=-.inf")
    with pytest.raises(UserError, match=r"algo\.epochs: expected a whole number, got inf"):
        loaded("env=cartpole", "algo.epochs=.inf")


def test_seed_zero_is_a_seed():
    assert loaded("env=cartpole", "seed=0").seed == 0


def test_the_command_line_chooses_the_estimator_of_the_algorithm():
    assert loaded("env=cartpole").advantage.func.__name__ == "gae"
    assert loaded("env=cartpole", "advantage=td").advantage.func.__name__ == "td"


def test_an_algorithm_without_an_estimator_has_none():
    cfg = composed("env=cartpole")
    without = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "advantage"])
    assert load(without, [], NAMES, parent=Path("outputs")).advantage is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("total_steps=0", "total_steps must be at least 1, got 0"),
        ("log_every_steps=0", "log_every_steps must be at least 1, got 0"),
        ("algo.num_envs=0", "algo.num_envs must be at least 1, got 0"),
        ("algo.num_envs=two", "algo.num_envs: expected a whole number, got 'two'"),
        ("seed=-1", "seed must be at least 0, got -1"),
        ("evaluation.episodes=0", "evaluation.episodes must be at least 1, got 0"),
        ("checkpoint.keep=0", "checkpoint.keep must be at least 1, got 0"),
        ("checkpoint.every_seconds=-1", "checkpoint.every_seconds must be at least 0, got -1.0"),
        ("tags=a", "tags: expected a list, got 'a'"),
        ("+sed=1", "sed: no such setting; did you mean 'seed'?"),
        ("+advantage.gamma=0.5", "advantage.gamma: no such setting"),
        ("env.id=???", "env.id has no value: give it as env.id=…"),
        ("seed=${sed}", "seed: Interpolation key 'sed' not found"),
        ("plugins=[gymnasiumm]", "plugins: no module 'gymnasiumm'; did you mean 'gymnasium'?"),
        ("plugins=[rlrun.config]", "plugins: 'rlrun.config' is no package of your own"),
        ("plugins=['../x']", "plugins: '../x' is no package of your own"),
        ("plugins=null", "plugins: expected a list, got null"),
        ("total_steps=1e30", "total_steps must be at most 9223372036854775807, got 1000000000"),
        ("seed=1e30", "seed must be at most 9223372036854775807, got 1000000000"),
        ("tags=[{_target_: a.b}]", "tags[0]._target_: code can be named only in algo, env, coll"),
        ("+env.options.x={_target_: a.b}", "env.options.x._target_: code can be named only in"),
        ("+logger._target_=a.b", "logger._target_: code can be named only in"),
        ("algo._target_=rlrun.config.schema.call", "'rlrun.config.schema.call' is not part of rlr"),
        ("~hardware", "hardware is missing: give it as hardware=…"),
        ("~env._target_", "env: its file has no _target_"),
        ("~algo._target_", "algo: its file has no _target_"),
        ("~hardware._target_", "hardware: its file has no _target_"),
        ("+logger.mine={path: x}", "logger.mine: its file has no _target_"),
        ("~advantage._target_", "advantage: its file has no _target_"),
    ],
)
def test_mistakes(override, message):
    with pytest.raises(UserError, match=re.escape(message)):
        loaded("env=cartpole", override)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A user's package with an environment spec of its own."""
    (tmp_path / "users_package.py").write_text(
        "from rlrun.envs.gym_env import GymEnv\n\n\nclass UsersEnv(GymEnv):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "users_package"


def test_targets_outside_rlrun_need_a_plugin(plugin):
    override = f"env._target_={plugin}.UsersEnv"
    with pytest.raises(
        UserError, match=r"is not part of rlrun.envs; allow it with plugins=\[users_package\]"
    ):
        loaded("env=cartpole", override)
    env = loaded("env=cartpole", override, f"plugins=[{plugin}]").env
    assert type(env).__name__ == "UsersEnv"


def saved_run(directory: Path, experiment: Experiment) -> Path:
    directory.mkdir()
    write_config(directory, experiment.config, experiment.overrides)
    write_record(directory, {"label": experiment.label, **experiment.identity})
    return directory


def test_a_run_is_read_back_as_it_was(tmp_path):
    experiment = loaded("env=cartpole", "seed=3", "advantage=nstep", "logger=wandb")
    again = load_run(saved_run(tmp_path / "run", experiment))
    assert again.config == experiment.config
    assert vars(again.algo) == vars(experiment.algo)
    assert again.loggers == experiment.loggers
    assert again.advantage.keywords == experiment.advantage.keywords
    assert again.identity == experiment.identity
    assert again.name == experiment.name == "ppo_cartpole_s3"
    assert again.overrides == experiment.overrides


def test_a_run_that_is_read_back_makes_nothing_importable_by_itself(tmp_path, plugin):
    words = ("env=cartpole", f"env._target_={plugin}.UsersEnv", f"plugins=[{plugin}]")
    directory = saved_run(tmp_path / "run", loaded(*words))
    with pytest.raises(UserError, match="allow it with --plugin users_package"):
        load_run(directory)
    assert type(load_run(directory, [plugin]).env).__name__ == "UsersEnv"
