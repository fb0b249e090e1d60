"""Building objects from plain nodes: types, keys, targets, and the line each mistake ends in."""

import dataclasses
import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import yaml

import rlrun
from rlrun.algos.contract import Algorithm
from rlrun.collectors.contract import CollectorSpec
from rlrun.config.files import conf_directory
from rlrun.config.load import ESTIMATOR_ARGUMENTS, ESTIMATORS, LOGGERS, MEMBERS, ROOMS
from rlrun.config.targets import build, named_code
from rlrun.envs.contract import EnvironmentSpec
from rlrun.errors import UserError, did_you_mean, near_path, nearest, report
from rlrun.hardware.spec import Hardware
from rlrun.loggers.interface import LoggerSpec
from rlrun.models.networks import Model


@dataclass(kw_only=True)
class Schedule:
    start: float
    end: float


@dataclass(kw_only=True)
class Learner:
    learning_rate: float
    epochs: int
    verbose: bool
    name: str
    threads: int | None
    compile: Literal["auto", "off", "on"]
    hidden_sizes: list[int]
    betas: tuple[float, ...]
    schedule: Schedule
    options: dict[str, Any]

    def __post_init__(self):
        if not 0 <= self.learning_rate <= 1:
            raise ValueError(f"learning_rate must be in [0, 1], got {self.learning_rate}")


@dataclass
class Positional:
    learning_rate: float


def estimator(
    rollout: list[float], *, gamma: float, lam: float
) -> tuple[list[float], float, float]:
    return rollout, gamma, lam


def learner_node(**changes: Any) -> dict[str, Any]:
    return {
        "_target_": f"{__name__}.Learner",
        "learning_rate": 3e-4,
        "epochs": 10,
        "verbose": False,
        "name": "x",
        "threads": None,
        "compile": "auto",
        "hidden_sizes": [64, 64],
        "betas": [0.9, 0.999],
        "schedule": {"start": 1, "end": 0},
        "options": {"anything": [1, "a"]},
        **changes,
    }


def test_builds_what_the_node_describes():
    assert build(learner_node(), "algo", __name__) == Learner(
        learning_rate=3e-4,
        epochs=10,
        verbose=False,
        name="x",
        threads=None,
        compile="auto",
        hidden_sizes=[64, 64],
        betas=(0.9, 0.999),
        schedule=Schedule(start=1.0, end=0.0),
        options={"anything": [1, "a"]},
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("epochs", 1e6, 1_000_000),
        ("epochs", 3.0, 3),
        ("learning_rate", 1, 1.0),
        ("threads", 4, 4),
        ("threads", 4.0, 4),
        ("compile", False, "off"),  # YAML 1.1's reading of a bare off
        ("compile", True, "on"),
        ("hidden_sizes", [64.0], [64]),
        ("hidden_sizes", [], []),
        ("betas", [1], (1.0,)),
        ("options", {}, {}),
    ],
)
def test_converts_to_the_annotated_type(key, value, expected):
    converted = vars(build(learner_node(**{key: value}), "algo", __name__))[key]
    assert converted == expected
    assert type(converted) is type(expected)


def test_a_mapping_inside_a_node_is_data_and_builds_nothing():
    schedule = {"_target_": f"{__name__}.Schedule", "start": 1.0, "end": 0.0}
    assert build(learner_node(options=schedule), "algo", __name__).options == schedule
    with pytest.raises(UserError, match=r"^algo\.schedule\._target_: no such setting"):
        build(learner_node(schedule=schedule), "algo", __name__)


def test_code_is_found_wherever_it_is_named():
    node = {"a": [1, {"_target_": "x"}], "b": {"_target_": "y", "c": {"_target_": None}}, "d": 1}
    assert list(named_code(node)) == ["a[1]", "b", "b.c"]
    assert list(named_code({"_target_": "x"})) == [""]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("epochs", 1.5, "algo.epochs: expected a whole number, got 1.5"),
        ("epochs", True, "algo.epochs: expected a whole number, got true"),
        ("epochs", "10", "algo.epochs: expected a whole number, got '10'"),
        ("epochs", None, "algo.epochs: expected a whole number, got null"),
        ("epochs", float("inf"), "algo.epochs: expected a whole number, got inf"),
        ("learning_rate", "abc", "algo.learning_rate: expected a number, got 'abc'"),
        ("learning_rate", False, "algo.learning_rate: expected a number, got false"),
        ("learning_rate", 1.5, "algo.learning_rate must be in [0, 1], got 1.5"),
        ("verbose", 1, "algo.verbose: expected true or false, got 1"),
        ("name", 3, "algo.name: expected text, got 3"),
        ("threads", "x", "algo.threads: expected a whole number or null, got 'x'"),
        (
            "compile",
            "of",
            "algo.compile: expected one of auto, off, on, got 'of'; did you mean 'off'?",
        ),
        ("compile", "x", "algo.compile: expected one of auto, off, on, got 'x'"),
        ("hidden_sizes", 64, "algo.hidden_sizes: expected a list, got 64"),
        ("hidden_sizes", [64, "a"], "algo.hidden_sizes[1]: expected a whole number, got 'a'"),
        ("betas", 0.9, "algo.betas: expected a list, got 0.9"),
        ("schedule", 3, "algo.schedule: expected a mapping, got 3"),
        (
            "schedule",
            {"start": 1.0},
            "algo.schedule.end is missing: give it as algo.schedule.end=…",
        ),
        (
            "schedule",
            {"start": 1.0, "end": 0.0, "ends": 1},
            "algo.schedule.ends: no such setting; did you mean 'algo.schedule.end'?",
        ),
        ("options", [1], "algo.options: expected a mapping, got [1]"),
        ("options", {1: 2}, "algo.options: 1 is no name of a setting"),
        (1, 3, "algo.1: no such setting"),
        ("epochs", 10**19, "algo.epochs must be at most 9223372036854775807, got 10000000000"),
        ("epochs", -(10**400), "algo.epochs must be at least -9223372036854775807, got -10000000"),
        ("threads", 1e30, "algo.threads must be at most 9223372036854775807, got 100000000"),
        ("learning_rate", 10**400, "algo.learning_rate must be finite, got 1000000"),
        ("epoch", 3, "algo.epoch: no such setting; did you mean 'algo.epochs'?"),
        ("lr", 3, "algo.lr: no such setting; did you mean 'algo.learning_rate'?"),
        ("_args_", [1], None),  # Hydra's own ways around a signature are no settings either
        (
            "_target_",
            "os.system",
            f"algo._target_: 'os.system' is not part of {__name__}; allow it with plugins=[os]",
        ),
        ("_target_", f"{__name__}.os", f"algo._target_: no 'os' in {__name__}"),
        ("_target_", f"{__name__}.dataclass", f"algo._target_: no 'dataclass' in {__name__}"),
        ("_target_", f"{__name__}.Lerner", "did you mean 'Learner'?"),
        ("_target_", f"{__name__}.nothing.Learner", f"no module '{__name__}.nothing'"),
        ("_target_", f"{__name__}.estimator", "estimator' is not a keyword-only dataclass"),
        ("_target_", f"{__name__}.Positional", "Positional' is not a keyword-only dataclass"),
        ("_target_", f"{__name__}.Learner.build", f"no module '{__name__}.Learner'"),
        ("_target_", f"{__name__}s.Learner", f"is not part of {__name__}"),
        ("_target_", f"{__name__}..Learner", "expected a dotted name"),
        ("_target_", f".{__name__}.Learner", "expected a dotted name"),
        ("_target_", "", "expected a dotted name"),
        ("_target_", ["a.b"], "expected a dotted name"),
        ("_target_", "Learner", "expected a dotted name"),
        ("_target_", 3, "expected a dotted name"),
        ("_partial_", True, "algo._partial_ must be false here"),
    ],
)
def test_a_mistake_ends_in_one_line(key, value, message):
    with pytest.raises(UserError) as caught:
        build({**learner_node(), key: value}, "algo", __name__)
    line = str(caught.value)
    assert message is None or message in line
    assert line.startswith("algo")
    assert "\n" not in line


def test_what_a_module_imports_is_no_target():
    from rlrun.envs import gym_env

    for name in ("dataclass", "SerialVectorEnv", "nearest", "UserError", "gym", "sys"):
        assert name in vars(gym_env)  # it is there, and stays out of reach
    for name in ("dataclass", "nearest", "UserError", "gym", "sys", "warnings"):
        with pytest.raises(UserError, match=f"_target_: no '{name}' in rlrun.envs.gym_env"):
            build({"_target_": f"rlrun.envs.gym_env.{name}"}, "env", "rlrun.envs")


def test_a_misspelt_module_of_rlrun():
    with pytest.raises(UserError, match=r"no module 'rlrun.algos.group'; did you mean 'groups'\?"):
        build({"_target_": "rlrun.algos.group.GRPO"}, "algo", "rlrun.algos")
    with pytest.raises(UserError, match=r"'rlrun.algoss.ppo.PPO' is not part of rlrun.algos$"):
        build({"_target_": "rlrun.algoss.ppo.PPO"}, "algo", "rlrun.algos")


def test_a_module_is_imported_only_after_a_look_at_the_place(tmp_path, monkeypatch):
    (tmp_path / "users_code.py").write_text("imported = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for plugins in ([], ["users_co"], ["users_code.part"], ["other"]):
        with pytest.raises(UserError, match=r"'users_code\.Algorithm' is not part of"):
            build({"_target_": "users_code.Algorithm"}, "algo", "rlrun.algos", plugins)
    with pytest.raises(ZeroDivisionError):
        build({"_target_": "users_code.Algorithm"}, "algo", "rlrun.algos", ["users_code"])


def everything_callable() -> dict[str, Any]:
    """All that can be called in the modules of rlrun, imported things among it, by dotted name."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(rlrun.__path__, "rlrun.")
        if module.name != "rlrun.__main__"
    ]
    return {
        f"{module.__name__}.{name}": value
        for module in modules
        for name, value in vars(module).items()
        if callable(value)
    }


def shipped_targets(place: str) -> set[str]:
    """What rlrun's own files name at a place."""
    group = place.partition(".")[0]
    nodes = [yaml.safe_load(path.read_text()) for path in conf_directory().glob(f"{group}/*.yaml")]
    if group == "logger":
        nodes = [logger for node in nodes if node for logger in node.values()]
    return {node["_target_"] for node in nodes if "_target_" in node}


# What is to stand at each place; for hardware there is but one class.
PROTOCOLS = {
    "algo": Algorithm,
    "env": EnvironmentSpec,
    "collector": CollectorSpec,
    "model": Model,
    "hardware": Hardware,
    "logger": LoggerSpec,
}


def members_of(protocol: type) -> set[str]:
    """The names that a protocol, or a class, asks for; an algorithm's `setup` sets others."""
    names = {name for base in protocol.__mro__[:-1] for name in (*vars(base), *annotated(base))}
    return {name for name in names if name[0] != "_"} - {"agent", "learners", "parts"}


def annotated(base: type) -> dict[str, Any]:
    """The annotations of a class itself."""
    return vars(base).get("__annotations__", {})


@pytest.mark.parametrize("place", MEMBERS)
def test_a_place_asks_for_what_its_protocol_has(place):
    assert set(MEMBERS[place]) <= members_of(PROTOCOLS[place])
    if place != "hardware":
        assert set(MEMBERS[place]) == members_of(PROTOCOLS[place])


def test_a_dataclass_made_for_another_place_is_refused_by_name():
    node = {"_target_": "rlrun.envs.mujoco.tasks.planar.Swimmer"}
    line = (
        r"^env\._target_: '.*\.Swimmer' has no id and no .* and no make, which is needed to stand"
    )
    with pytest.raises(UserError, match=line):
        build(node, "env", "rlrun.envs", members=("id", "time_limit", "make"))


@pytest.mark.parametrize("place", [*ROOMS, "advantage", "logger.mine"])
def test_of_all_of_rlrun_a_place_takes_only_what_is_made_for_it(place):
    room = {"advantage": ESTIMATORS, "logger.mine": LOGGERS, **ROOMS}[place]
    later = ESTIMATOR_ARGUMENTS if place == "advantage" else ()
    names = everything_callable()
    assert {"rlrun.config.schema.call", "rlrun.config.targets.locate"} <= names.keys()
    passed = set()
    for name in names:
        node = {"_target_": name, "_partial_": bool(later), "target": "os.system", "path": "x"}
        with pytest.raises(UserError) as caught:  # no part of rlrun has such settings
            build(node, place, room, later=later, members=MEMBERS.get(place.partition(".")[0], ()))
        if "_target_" not in str(caught.value):
            passed.add(name)
    for name in passed:
        found = names[name]
        assert found.__module__.startswith(f"{room}.")
        if later:
            assert inspect.isfunction(found)
        else:
            assert dataclasses.is_dataclass(found)
            there = {*dir(found), *(field.name for field in dataclasses.fields(found))}
            assert members_of(PROTOCOLS[place.partition(".")[0]]) <= there, name
    assert shipped_targets(place) <= passed


def test_a_partial_gets_its_other_arguments_later():
    node = {"_target_": f"{__name__}.estimator", "_partial_": True, "lam": 1}
    function = build(node, "advantage", __name__, later=("rollout", "gamma"))
    assert function([1.0], gamma=0.9) == ([1.0], 0.9, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 0.9}, "advantage.gamma: no such setting"),  # the algorithm's to give
        ({"rollout": []}, "advantage.rollout: no such setting"),
        ({"lam": "x"}, "advantage.lam: expected a number, got 'x'"),
        ({"_partial_": False}, "advantage._partial_ must be true here"),
        (
            {"_target_": f"{__name__}.learner_node"},
            "learner_node does not take the argument 'rollout'",
        ),
        (
            {"_target_": f"{__name__}.Learner"},
            "Learner' is not a function, which stands here",
        ),
    ],
)
def test_mistakes_in_a_partial(changes, message):
    node = {"_target_": f"{__name__}.estimator", "_partial_": True, "lam": 0.95, **changes}
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        build(node, "advantage", __name__, later=("rollout", "gamma"))


def test_a_partial_names_its_missing_constant():
    node = {"_target_": f"{__name__}.estimator", "_partial_": True}
    with pytest.raises(UserError, match="lam is missing"):
        build(node, "advantage", __name__, later=("rollout", "gamma"))


def test_nodes_are_not_changed():
    node = learner_node()
    build(node, "algo", __name__)
    assert node == learner_node()


@pytest.mark.parametrize("node", [{}, [], ["a"], "a", None, {"epochs": 1}])
def test_a_node_without_a_target(node):
    with pytest.raises(UserError, match=r"^algo: its file has no _target_"):
        build(node, "algo", __name__)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("hardware.compile=on: raised:\nCppCompileError:\n\n  g++ x.cpp"), None),
        (UserError("a  b"), "rlrun: a  b\n"),
        (UserError("first\n" + "word " * 1_000), None),
        (UserError(""), "rlrun: UserError\n"),
    ],
)
def test_a_report_is_one_line(capsys, error, line):
    report(error)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 500
    assert err == (line or err)
    first, *_ = str(error).splitlines() or [""]
    assert err.startswith(f"rlrun: {first}")


def test_a_terminal_obeys_nothing_in_a_report(capsys):
    report(UserError("a\x1b[31m\x07\r\x9b\udc80\u202eé"))
    assert capsys.readouterr().err == "rlrun: a\\x1b[31m\\x07\\r\\x9b\\udc80\\u202eé\n"


def test_a_report_of_a_megabyte_is_cut(capsys):
    report(UserError("x" * 1_000_000))
    err = capsys.readouterr().err
    assert err.endswith("x …\n")
    assert len(err) < 3_000


def test_near_path_is_another_directory(tmp_path):
    (tmp_path / "run.json").touch()
    assert near_path(tmp_path / "run.json") == ""
    assert near_path(tmp_path / "run.jso") == ""
    (tmp_path / "runs").mkdir()
    assert near_path(tmp_path / "run") == f"; did you mean '{tmp_path / 'runs'}'?"


def test_nearest_word():
    settings = ["learning_rate", "lam", "clip", "entropy_coefficient"]
    assert nearest("learning_rat", settings) == "learning_rate"
    assert nearest("lr", settings) == "learning_rate"
    assert nearest("lrr", settings) == "learning_rate"
    assert nearest("ent_coef", settings) == "entropy_coefficient"
    assert nearest("ppoo", ["PPO", "TRPO"]) == "PPO"
    assert nearest("xyz", settings) is None
    assert did_you_mean("xyz", ["b", "a"]) == "; there is a, b"
    assert did_you_mean("xyz", []) == ""
    assert did_you_mean("xyz", [f"a{number}" for number in range(1_000)]) == ""
