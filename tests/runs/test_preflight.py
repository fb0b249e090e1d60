from dataclasses import replace
from types import SimpleNamespace

import pytest
from running import experiment, small

from rlrun import loops
from rlrun.envs.control import ControlEnv
from rlrun.envs.gym_env import GymEnv
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.runs.setup.preflight import (
    BY_LOOP,
    REQUIRED,
    Preflight,
    check_contract,
    set_up,
    without_effect,
)


def test_runs_with_the_same_environment_share_a_single_one(monkeypatch):
    made = []
    make = GymEnv.make
    monkeypatch.setattr(
        GymEnv,
        "make",
        lambda self, *, num_envs, threads: (
            made.append((self.id, num_envs)) or make(self, num_envs=num_envs, threads=threads)
        ),
    )
    preflight = Preflight()
    for env in ("cartpole", "acrobot", "cartpole"):
        for algo in ("ppo", "trpo"):
            preflight.check(experiment(small(env, algo=algo)))
    assert made == [("CartPole-v1", 1), ("Acrobot-v1", 1)]


def test_the_settings_of_the_environment_count():
    preflight = Preflight()
    words = [*small("cartpole", algo="dapo"), "algo.overlong_buffer=100"]
    preflight.check(experiment(words))
    with pytest.raises(UserError, match=r"overlong_buffer"):
        preflight.check(experiment([*words, "env.max_episode_steps=50"]))


def test_the_settings_of_the_collector_count():
    preflight = Preflight()
    words = small("cartpole", algo="grpo")
    preflight.check(experiment(words))
    with pytest.raises(UserError, match=r"from one start: collector.group_size=8"):
        preflight.check(experiment([*words, "collector.group_size=1"]))


def test_a_run_needs_its_device():
    run = experiment(small("cartpole"))
    with pytest.raises(UserError, match=r"hardware\.device=cuda"):
        Preflight().check(replace(run, hardware=replace(run.hardware, device="cuda:99")))


@pytest.mark.parametrize(
    ("env", "words", "lines"),
    [
        ("cartpole", ["algo.horizon=16"], []),
        (
            "cartpole",
            ["collector=episodes", "algo.horizon=16"],
            ["algo.horizon has no effect: the collector plays whole episodes"],
        ),
        (
            "cartpole",
            ["model.log_std=-1", "env.action_units=box"],
            [
                "model.log_std has no effect: an action is a choice",
                "env.action_units has no effect: an action is a choice",
            ],
        ),
        ("pendulum", ["model.log_std=-1", "env.action_units=box"], []),
    ],
)
def test_a_setting_that_nothing_reads_is_named(env, words, lines):
    run = experiment(["algo=ppo", f"env={env}", *words])
    made = ControlEnv.make(run.env, num_envs=1, threads=1)
    assert without_effect(run, Problem.of(run.env, made)) == lines


# ---------------------------------------------------------------------- the contract


# All that is asked here of the context.
NEW, RESUMED = SimpleNamespace(resumed=False), SimpleNamespace(resumed=True)


class Whole:
    """An algorithm that keeps to the contract, and does nothing."""

    loop = staticmethod(loops.on_policy)
    num_envs = 1

    def setup(self, context):
        self.agent = self.learners = self.parts = None

    def update(self, transitions, *, progress):
        return {}


class Slotted(Whole):
    """Its attributes are slots and a property, which `vars` does not show."""

    __slots__ = ("agent", "learners")

    @property
    def parts(self):
        return self.agent

    def setup(self, context):
        self.agent = self.learners = {}


class Forgetful(Slotted):
    """Leaves a slot empty."""

    def setup(self, context):
        self.learners = {}


@pytest.mark.parametrize("algorithm", [Whole, Slotted])
def test_what_keeps_to_the_contract_passes(algorithm):
    set_up(algorithm(), NEW)


@pytest.mark.parametrize("name", ["agent", "learners", "parts"])
def test_what_setup_does_not_set_is_named(name):
    def setup(self, context):
        vars(self).update({key: None for key in ("agent", "learners", "parts") if key != name})

    algorithm = type("Mine", (Whole,), {"setup": setup})()
    with pytest.raises(UserError, match=rf"^algo: Mine\.setup does not set {name} \("):
        set_up(algorithm, NEW)


LEARNING = {
    loops.supervised: lambda self, transitions, *, progress: {},
    loops.planning: lambda self: {},
    loops.off_policy: lambda self, progress: {},
    loops.online: lambda self, obs, action, step, *, progress: {},
}


@pytest.mark.parametrize(
    ("loop", "name"),
    [
        (loops.supervised, "author"),
        (loops.planning, "plan"),
        (loops.off_policy, "buffer"),
        (loops.off_policy, "explore"),
        (loops.online, "act"),
        (loops.online, "forget_episode"),
    ],
)
def test_what_a_loop_asks_for_besides_is_named(loop, name):
    def setup(self, context):
        self.agent = self.learners = self.parts = self.buffer = self.author = self.plan = None
        self.act = self.explore = self.forget_episode = print
        delattr(self, name)

    methods = {"setup": setup, BY_LOOP[loop][0]: LEARNING[loop]}
    algorithm = type("Mine", (), {"loop": staticmethod(loop), "num_envs": 1, **methods})()
    with pytest.raises(UserError, match=rf"^algo: Mine\.setup does not set {name} \("):
        set_up(algorithm, NEW)


def test_an_empty_slot_is_named():
    with pytest.raises(UserError, match=r"^algo: Forgetful\.setup does not set agent \("):
        set_up(Forgetful(), NEW)


@pytest.mark.parametrize("name", [*REQUIRED, "update"])
def test_what_an_algorithm_lacks_is_named(name):
    needed = {*REQUIRED, "update"} - {name}
    members = {key: value for key, value in vars(Whole).items() if key in needed}
    with pytest.raises(UserError, match=rf"^algo: Mine has no {name}: .* \(rlrun/algos/contract"):
        check_contract(type("Mine", (), members)())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"setup": 5}, "is no method"),
        ({"update": None}, "is no method"),
        ({"setup": lambda self: None}, r"takes \(\), not \(context\)"),
        ({"setup": lambda self, run: None}, r"takes \(run\), not \(context\)"),
        (
            {"update": lambda self, transitions: {}},
            r"takes \(transitions\), not \(transitions, progress\)",
        ),
        (
            {"update": lambda self, progress, transitions: {}},
            r"takes \(progress, transitions\), not \(transitions, progress\)",
        ),
    ],
)
def test_a_method_with_other_arguments_is_named(members, message):
    (name,) = members
    with pytest.raises(UserError, match=rf"^algo: Mine\.{name} {message} \("):
        check_contract(type("Mine", (Whole,), members)())


def test_an_author_who_is_read_later_is_none_that_is_missing():
    def author(self):
        return self.policy  # of a reference that a checkpoint brings

    def setup(self, context):
        self.agent = self.learners = self.parts = None

    methods = {"setup": setup, "update": LEARNING[loops.supervised], "author": property(author)}
    loop = staticmethod(loops.supervised)
    algorithm = type("Mine", (), {"loop": loop, "num_envs": 1, **methods})()
    set_up(algorithm, RESUMED)
    with pytest.raises(UserError, match="does not set policy"):
        set_up(algorithm, NEW)
