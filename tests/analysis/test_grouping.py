"""What is one method, and what is it called."""

import pytest
from made_runs import made_run

from rlrun.analysis.grouping import group
from rlrun.errors import UserError


def runs(algo="ppo", env="hopper", count=2, **others):
    return [made_run(algo, env, seed=seed, **others) for seed in range(count)]


def shape(grouping):
    """How many runs there are by task and method."""
    return {cell: len(members) for cell, members in grouping.runs.items()}


def test_runs_that_differ_in_their_seed_are_one_method():
    assert shape(group(runs(count=5))) == {("Hopper-v5", "ppo"): 5}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run_dir", "a"),
        ("tags", ["a"]),
        ("group", "a"),
        ("plugins", ["a"]),
        ("logger.wandb.mode", "offline"),
        ("checkpoint.keep", 7),
        ("hardware.threads", 7),
        ("log_every_steps", 7),
        ("total_steps", 7),
        ("evaluation.episodes", 7),
        ("algo._target_", "another.place"),
        ("env.workers", 4),
        ("env.worker_timeout", 4),
        ("env.plugins", ["a"]),
    ],
)
def test_how_a_run_is_done_is_no_method_and_no_task(key, value):
    both = [*runs(), *runs(settings={key: value})]
    assert shape(group(both)) == {("Hopper-v5", "ppo"): 4}


def test_algorithms_are_methods_in_the_order_in_which_they_come():
    both = group([*runs("sac"), *runs("ppo"), *runs("sac", "walker2d")])
    assert both.methods == ["sac", "ppo"]
    assert both.tasks == ["Hopper-v5", "Walker2d-v5"]
    assert both.methods_of("Walker2d-v5") == ["sac"]
    assert both.compared_tasks == ["Hopper-v5"]
    assert both.common_tasks(["sac"]) == ["Hopper-v5", "Walker2d-v5"]
    assert both.common_tasks(["sac", "ppo"]) == ["Hopper-v5"]


def test_of_a_single_method_all_tasks_are_shown():
    assert group([*runs(), *runs(env="walker2d")]).compared_tasks == ["Hopper-v5", "Walker2d-v5"]


def test_another_estimator_is_another_method_and_is_named():
    gae = runs(choices={"advantage": "gae"})
    td = runs(choices={"advantage": "td"})
    grouping = group([*gae, *td, *runs("sac")])
    # SAC has no estimator, and of all of its runs nothing else is to be said either.
    assert grouping.methods == ["ppo advantage=gae", "ppo advantage=td", "sac"]
    # The same on another task: choices are never values for one pair.
    grouping = group([*gae, *runs(env="walker2d", choices={"advantage": "td"})])
    assert grouping.methods == ["ppo advantage=gae", "ppo advantage=td"]


def test_a_part_that_all_runs_of_an_algorithm_have_is_not_named():
    both = [*runs(choices={"advantage": "td"}), *runs("a2c", choices={"advantage": "gae"})]
    assert group(both).methods == ["ppo", "a2c"]


def test_a_setting_that_differs_on_a_task_is_part_of_the_name():
    grouping = group([*runs(settings={"algo.clip": 0.1}), *runs(settings={"algo.clip": 0.2})])
    assert shape(grouping) == {("Hopper-v5", "ppo clip=0.1"): 2, ("Hopper-v5", "ppo clip=0.2"): 2}


def test_values_for_one_pair_are_no_other_method():
    tuned = runs(env="walker2d", settings={"algo.gamma": 0.995})
    grouping = group([*runs(settings={"algo.gamma": 0.99}), *tuned])
    assert shape(grouping) == {("Hopper-v5", "ppo"): 2, ("Walker2d-v5", "ppo"): 2}


def test_what_is_swept_on_one_task_is_named_on_the_others_if_they_agree_on_it():
    swept = [*runs(settings={"algo.clip": 0.1}), *runs(settings={"algo.clip": 0.2})]
    others = [runs(env=env, settings={"algo.clip": 0.2}) for env in ("walker2d", "cartpole")]
    assert shape(group([*swept, *others[0], *others[1]])) == {
        ("Hopper-v5", "ppo clip=0.1"): 2,
        ("Hopper-v5", "ppo clip=0.2"): 2,
        ("Walker2d-v5", "ppo clip=0.2"): 2,
        ("CartPole-v1", "ppo clip=0.2"): 2,
    }


def test_a_variant_on_one_task_does_not_split_a_method_with_values_for_each_pair():
    variant = runs(settings={"algo.num_envs": 16, "algo.horizon": 128})
    tuned = [
        *runs(settings={"algo.num_envs": 64, "algo.horizon": 32}),
        *runs(env="walker2d", settings={"algo.num_envs": 16, "algo.horizon": 1024}),
        *runs(env="cartpole", settings={"algo.num_envs": 4, "algo.horizon": 128}),
    ]
    assert set(group(tuned).methods) == {"ppo"}
    assert shape(group([*variant, *tuned])) == {
        ("Hopper-v5", "ppo num_envs=16 horizon=128"): 2,
        ("Hopper-v5", "ppo num_envs=64 horizon=32"): 2,
        ("Walker2d-v5", "ppo"): 2,
        ("CartPole-v1", "ppo"): 2,
    }


def test_a_sweep_on_all_tasks_is_one_whatever_else_is_tuned_for_each():
    found = group(
        [
            run
            for env, gamma in (("hopper", 0.99), ("walker2d", 0.995), ("cartpole", 0.9))
            for clip in (0.1, 0.2)
            for run in runs(env=env, settings={"algo.clip": clip, "algo.gamma": gamma})
        ]
    )
    assert found.methods == ["ppo clip=0.1", "ppo clip=0.2"]
    assert found.common_tasks(found.methods) == ["Hopper-v5", "Walker2d-v5", "CartPole-v1"]


def test_a_setting_has_one_name_on_all_tasks():
    one = [runs(settings={"algo.policy.rate": x, "algo.critic.rate": 1}) for x in (1, 2)]
    other = {"algo.policy.rate": 3, "algo.critic.rate": 3}
    others = [runs(env="walker2d", settings={**other, "algo.critic.rate": x}) for x in (3, 4)]
    third = runs(env="cartpole", settings={"algo.policy.rate": 5, "algo.critic.rate": 6})
    grouping = group([run for some in (*one, *others, third) for run in some])
    assert grouping.methods_of("Hopper-v5") == ["ppo policy.rate=1", "ppo policy.rate=2"]
    assert grouping.methods_of("Walker2d-v5") == ["ppo critic.rate=3", "ppo critic.rate=4"]
    assert grouping.methods_of("CartPole-v1") == ["ppo"]


def test_names_are_as_short_as_they_can_be():
    low = {"algo.policy.rate": 0.1, "algo.critic.rate": 0.3, "algo.tau": 1e-05}
    high = {"algo.policy.rate": 0.2, "algo.critic.rate": 0.3, "algo.tau": 1e-05}
    both = {**high, "algo.critic.rate": 0.4}
    assert group([*runs(settings=low), *runs(settings=high)]).methods == [
        "ppo rate=0.1",
        "ppo rate=0.2",
    ]
    assert group([*runs(settings=low), *runs(settings=high), *runs(settings=both)]).methods == [
        "ppo policy.rate=0.1 critic.rate=0.3",
        "ppo policy.rate=0.2 critic.rate=0.3",
        "ppo policy.rate=0.2 critic.rate=0.4",
    ]


def test_what_is_interpolated_is_named_once():
    def with_horizon(value):
        return runs(settings={"algo.horizon": value, "collector.horizon": value})

    assert group([*with_horizon(8), *with_horizon(16)]).methods == [
        "ppo horizon=8",
        "ppo horizon=16",
    ]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((None, 0.5), ("x=null", "x=0.5")),
        ((True, False), ("x=true", "x=false")),
        (([64, 64], [256, 256]), ("x=[64,64]", "x=[256,256]")),
        ((1e-05, 0.0003), ("x=1e-05", "x=0.0003")),
        ((float("inf"), 0.5), ("x=inf", "x=0.5")),
        (("tanh", "relu"), ("x=tanh", "x=relu")),
        ((0.1234567, 0.1234568), ("x=0.1234567", "x=0.1234568")),
        (([{"name": "a"}], [{"name": "b"}]), ("x=[{name:a}]", "x=[{name:b}]")),
    ],
)
def test_values_are_written_as_on_the_command_line(values, names):
    found = group([run for value in values for run in runs(settings={"algo.x": value})])
    assert found.methods == [f"ppo {name}" for name in names]


def test_numbers_that_are_equal_are_no_difference():
    both = [*runs(settings={"algo.x": 1}), *runs(settings={"algo.x": 1.0})]
    assert group(both).methods == ["ppo"]


def test_a_penalty_that_is_there_or_not_is_a_difference():
    without = runs(settings={"algo.kl": None})
    with_it = runs(settings={"algo.kl.coefficient": 0.1})
    assert group([*without, *with_it]).methods == ["ppo coefficient=null", "ppo coefficient=0.1"]


def test_a_setting_that_an_earlier_version_did_not_have_is_no_difference():
    assert group([*runs(), *runs(settings={"algo.new": 1})]).methods == ["ppo"]
    later = runs(choices={"collector": "segments"}, settings={"env.wrappers": []})
    assert shape(group([*runs(), *later])) == {("Hopper-v5", "ppo"): 4}


def test_the_earlier_runs_are_a_method_of_their_own_where_the_later_ones_differ():
    later = [*runs(settings={"algo.new": 1}), *runs(settings={"algo.new": 2})]
    assert group([*runs(), *later]).methods == ["ppo", "ppo new=1", "ppo new=2"]


def test_other_settings_of_the_environment_are_another_task():
    noisy = runs(settings={"env.options.reset_noise_scale": 0.1})
    calm = runs(settings={"env.options.reset_noise_scale": 0.0})
    grouping = group([*noisy, *calm])
    assert grouping.methods == ["ppo"]
    assert grouping.tasks == ["Hopper-v5 reset_noise_scale=0.1", "Hopper-v5 reset_noise_scale=0"]


def test_an_argument_that_a_user_added_makes_another_task():
    grouping = group([*runs(), *runs(settings={"env.options.gravity": -3.0})])
    assert grouping.tasks == ["Hopper-v5", "Hopper-v5 gravity=-3"]


def test_versions_of_an_environment_are_tasks():
    assert group([*runs(), *runs(env_id="Hopper-v4")]).tasks == ["Hopper-v5", "Hopper-v4"]


# ---------------------------------------------------------------------- as the user wants it


def test_methods_as_the_user_wants_them():
    found = [
        *runs(choices={"advantage": "gae"}, settings={"algo.clip": 0.1}),
        *runs(choices={"advantage": "gae"}, settings={"algo.clip": 0.2}),
        *runs(choices={"advantage": "td"}, settings={"algo.clip": 0.2}),
        *runs("sac"),
    ]
    grouping = group(found, by=["algo", "advantage"])
    assert grouping.methods == ["ppo advantage=gae", "ppo advantage=td", "sac"]
    assert grouping.pooled == {
        ("Hopper-v5", "ppo advantage=gae"): {"algo.clip": [0.1, 0.2]},
        ("Hopper-v5", "ppo advantage=td"): {},
        ("Hopper-v5", "sac"): {},
    }
    assert group(found, by=["algo.clip"]).methods == ["clip=0.1", "clip=0.2", "other runs"]
    pooled = group(found, by=["algo"]).pooled["Hopper-v5", "ppo"]
    assert pooled == {"advantage": ["gae", "td"], "algo.clip": [0.1, 0.2]}


def test_methods_by_what_is_no_setting():
    both = [*runs(), *runs(commit="fedcba9876", host="other")]
    assert group(both, by=["algo", "commit"]).methods == [
        "ppo commit=abcdef0",
        "ppo commit=fedcba9",
    ]
    assert group(both, by=["host"]).methods == ["host=vm", "host=other"]
    # What is found by itself pools nothing.
    assert group(both).pooled == {}


@pytest.mark.parametrize(
    ("key", "meant"),
    [("advantag", "advantage"), ("algo.gama", "algo.gamma"), ("gamma", "algo.gamma")],
)
def test_an_unknown_key_is_one_line_with_the_nearest(key, meant):
    found = runs(choices={"advantage": "gae"})
    with pytest.raises(UserError, match=f"--by {key}: no such .*; did you mean '{meant}'?"):
        group(found, by=["algo", key])
