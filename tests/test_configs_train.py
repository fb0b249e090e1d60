"""Every YAML file that is shipped trains: found by globbing, so that a new one is covered too."""

import math

import pytest
from omegaconf import OmegaConf
from running import experiment, metrics, record

from rlrun.api import train
from rlrun.config import conf_directory

CONF = conf_directory()

# Two iterations of 16 steps; one of these is a setting of most algorithms and environments.
TINY = {
    "algo": {"num_envs": 2, "horizon": 8, "minibatch_size": 8, "epochs": 2, "hidden_sizes": "[8]"},
    "env": {"max_episode_steps": 20},
}
PLAIN = (
    "total_steps=32",
    "evaluation.episodes=1",
    "evaluation.every_steps=1000000",
    "hardware.compile=off",
    "hardware.threads=1",
)


def names(group: str) -> list[str]:
    """The choices of a group, by their files."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def pair(tuned: str) -> tuple[str, str]:
    """The algorithm and environment that a tuned file is for; both names may have underscores."""
    pairs = {f"{algo}_{env}": (algo, env) for algo in names("algo") for env in names("env")}
    return pairs[tuned]


def tiny(algo: str, env: str) -> list[str]:
    """A command line for a short run, with those of the small values that there are keys for."""
    words = [f"algo={algo}", f"env={env}", *PLAIN]
    for group, name in (("algo", algo), ("env", env)):
        settings = OmegaConf.load(CONF / group / f"{name}.yaml")
        words += [f"{group}.{key}={x}" for key, x in TINY[group].items() if key in settings]
    if OmegaConf.is_missing(settings, "id"):  # env=gym wants to be told
        words.append("env.id=CartPole-v1")
    return words


CASES = {
    **{f"algo={name}": tiny(name, "cartpole") for name in names("algo")},
    **{
        f"advantage={name}": [*tiny("ppo", "cartpole"), f"advantage={name}"]
        for name in names("advantage")
    },
    **{f"env={name}": tiny("ppo", name) for name in names("env")},
    **{f"tuned={name}": tiny(*pair(name)) for name in names("tuned")},
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_it_trains(words, tmp_path):
    directory = tmp_path / "run"
    final_return = train(experiment([*words, f"run_dir={directory}"]))

    assert math.isfinite(final_return)
    assert record(directory)["status"] == "finished"
    rows = metrics(directory)
    iterations = [row for row in rows if "train/episodes" in row]
    assert [row["step"] for row in iterations] == [16, 32]
    assert iterations[0]["update"] < iterations[1]["update"]
    evaluations = [row for row in rows if "eval/return" in row]
    assert [row["eval/return"] for row in evaluations] == [final_return]


def test_there_is_something_to_try():
    assert {"ppo"} <= set(names("algo"))
    assert {"td", "nstep", "gae", "baseline_value"} <= set(names("advantage"))
    assert {"hopper", "cartpole", "gym"} <= set(names("env"))
