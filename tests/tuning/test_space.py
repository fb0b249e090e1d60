import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from running import compose

from rlrun.analysis.stored_runs import flatten
from rlrun.config.files import conf_directory
from rlrun.errors import UserError
from rlrun.tuning.space import (
    as_words,
    distribution,
    distributions,
    merge,
    nearest_point,
    read_space,
    split,
)

SPACES = sorted((conf_directory() / "tune").glob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0.9, 1)", FloatDistribution(0.9, 1.0)),
        ("tag(log, interval(1e-5, 1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("interval(3, 20)", FloatDistribution(3.0, 20.0)),
        ("int(interval(3, 20))", IntDistribution(3, 20)),
        ("tag(log, int(interval(1, 64)))", IntDistribution(1, 64, log=True)),
        ("range(16, 257, 16)", IntDistribution(16, 256, step=16)),
        ("range(16, 250, 16)", IntDistribution(16, 240, step=16)),
        ("0.9,0.99", CategoricalDistribution(["0.9", "0.99"])),
        ("true,null,[1,2]", CategoricalDistribution(["True", "null", "[1,2]"])),
    ],
)
def test_a_range_in_hydras_syntax_is_a_distribution(text, expected):
    assert distribution("algo.x", text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.9", "no range to search"),
        ("interval(2, 1)", "algo.x=interval"),
        ("tag(log, interval(0, 1))", "algo.x=tag"),
        ("range(5, 5)", "algo.x=range"),
        ("interval(", "algo.x=interval"),
    ],
)
def test_what_is_no_range_is_one_line(text, message):
    with pytest.raises(UserError, match=r"^[^\n]*$") as raised:
        distributions({"algo.x": text})
    assert message in str(raised.value)


def test_ranges_are_told_from_settings_and_change_the_known_space():
    words = ["algo=ppo", "algo.gamma=0.9,0.99", "algo.clip=interval(0.1,0.3)", "seed=3"]
    ranges, fixed = split(words)
    assert ranges == {"algo.gamma": "0.9,0.99", "algo.clip": "interval(0.1,0.3)"}
    assert fixed == ["algo=ppo", "seed=3"]
    known = {"algo.gamma": "choice(0.5, 1)", "algo.epochs": "choice(1, 2)", "seed": "range(1, 9)"}
    assert merge(known, ranges, fixed) == {
        "algo.gamma": "0.9,0.99",
        "algo.epochs": "choice(1, 2)",
        "algo.clip": "interval(0.1,0.3)",
    }
    assert as_words({"algo.gamma": "0.9", "algo.clip": 0.1}) == ["algo.gamma=0.9", "algo.clip=0.1"]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_is_of_settings_that_its_algorithm_has(path):
    space = read_space(path)
    cfg, _ = compose([f"algo={path.stem}"])
    assert set(space) <= set(flatten(OmegaConf.to_container(cfg)))
    assert len(distributions(space)) == len(space) > 0


def test_every_algorithm_that_learns_has_a_space():
    algorithms = {path.stem for path in (conf_directory() / "algo").glob("*.yaml")}
    planned = {"value_iteration", "policy_iteration", "mc_prediction", "td_prediction"}
    assert {path.stem for path in SPACES} == algorithms - planned


def test_the_nearest_point_is_in_the_space_as_far_as_there_is_one():
    space = {
        "algo.gamma": "choice(0.9, 0.99)",
        "algo.lam": "choice(0.5, 0.6)",
        "algo.rule": "true,null",
        "algo.rate": "tag(log, interval(1e-8, 1e-2))",
        "algo.clip": "interval(0.1, 0.3)",
        "algo.horizon": "range(16, 257, 16)",
        "+env.options.worth": "interval(0, 9)",
    }
    settings = {
        "algo.gamma": 0.99,
        "algo.lam": 0.95,
        "algo.rule": None,
        "algo.rate": 0,
        "algo.clip": 0.2,
        "algo.horizon": 100,
        "algo.other": 3,
    }
    assert nearest_point(distributions(space), settings) == {
        "algo.gamma": "0.99",
        "algo.rule": "null",
        "algo.rate": 1e-8,
        "algo.clip": 0.2,
        "algo.horizon": 96,
    }


@pytest.mark.parametrize("content", ["- 1\n", "algo.gamma: interval(0.9\n", "algo.gamma: 0.9\n"])
def test_a_file_that_is_no_space_is_named(tmp_path, content):
    path = tmp_path / "ppo.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"^{path} is no search space: [^\n]*$"):
        read_space(path)
