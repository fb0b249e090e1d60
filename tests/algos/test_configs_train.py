"""Every YAML file that is shipped trains: found by globbing, so that a new one is covered too."""

import importlib.util
import math
from pathlib import Path

import pytest
import yaml
from running import compose, experiment, metrics, record, sizes
from tiny import algorithms

from rlrun import loops
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.segments import Segments
from rlrun.config.files import conf_directory
from rlrun.runs.api import train

CONF = conf_directory()

# Two iterations of 16 steps, where an algorithm has these settings.
TINY = {
    "num_envs": 2,
    "horizon": 8,
    "epochs": 2,
    "minibatch_size": 8,
    "episodes_per_minibatch": 2,
    # Of methods with a replay buffer: two updates in the second iteration.
    "batch_size": 8,
    "warmup_steps": 16,
    "updates_per_step": 0.125,
}
PLAIN = (
    "total_steps=32",
    "log_every_steps=1",
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


def tiny(algo: str, env: str, *words: str) -> list[str]:
    """A command line for a short run with short episodes."""
    choice = [f"algo={algo}", f"env={env}"]
    settings = yaml.safe_load((CONF / "env" / f"{env}.yaml").read_text())
    limit = ["env.max_episode_steps=20"] if "max_episode_steps" in settings else []
    if settings.get("id") == "???":  # env=gym wants to be told
        limit.append("env.id=CartPole-v1")
    if settings.get("path") == "???":
        limit.append(f"env.path={PROMPTS}")
    parts = [word for word in words if word.startswith(("collector=", "model="))]
    cfg, _ = compose([*choice, *parts, *limit])
    narrow = {"hidden_sizes": "[8]", "width": 8, "layers": 1, "heads": 2}
    model = [f"model.{name}={size}" for name, size in narrow.items() if name in cfg.model]
    return [*choice, *PLAIN, *limit, *model, *sizes([*choice, *parts], TINY), *words]


# Tasks of language, and what only reads or writes language.
LANGUAGE = [
    name
    for name in names("env")
    if "rlrun.envs.tokens" in (CONF / "env" / f"{name}.yaml").read_text()
]
OF_LANGUAGE = {
    "collector=generation",
    *(f"model={m}" for m in names("model") if "transformer" in m),
}
PROMPTS = Path(__file__).parents[1] / "prompts.jsonl"


def env_for(part: str, otherwise: str) -> str:
    """An environment that a part can be tried on."""
    return "copy" if part in OF_LANGUAGE else otherwise


# What needs a Q(s, a), or looks at each state by itself.
NOT_OF_TOKENS = ("actor_critic_q", "trpo")

# Of tables, which have neither networks nor a collector.
TABLES = {*algorithms(loops.online), *algorithms(loops.planning)}
CASES = {
    **{f"algo={name}": (name, "cartpole") for name in algorithms(loops.on_policy)},
    **{f"algo={name} env=hopper": (name, "hopper") for name in algorithms(loops.on_policy)},
    **{f"algo={name}": (name, "pendulum") for name in algorithms(loops.off_policy)},
    "algo=dqn": ("dqn", "cartpole"),
    "algo=sac of choices": ("sac", "cartpole"),
    # Groups of whole episodes have all that an estimator can ask for.
    **{
        f"advantage={name}": ("ppo", "cartpole", "collector=groups", f"advantage={name}")
        for name in names("advantage")
    },
    # PPO learns from whatever is collected, GRPO also from nothing.
    **{
        f"collector={name}": (
            "grpo" if name == "dynamic_sampling" else "ppo",
            env_for(f"collector={name}", "cartpole"),
            f"collector={name}",
        )
        for name in names("collector")
        if name != "pairs"  # of a file: tests/collectors/test_pairs.py
    },
    **{
        f"model={name}": ("ppo", env_for(f"model={name}", "hopper"), f"model={name}")
        for name in names("model")
        if name != "huggingface"  # which wants a model: tests/models/test_huggingface.py
    },
    **{
        # Without training, copies are wrong alike, which dynamic sampling drops.
        f"algo={name} of tokens": (name, "parity" if name == "dapo" else "copy")
        for name in algorithms(loops.on_policy)
        if name not in NOT_OF_TOKENS
    },
    # By themselves; the others begin as another run's policy (tests/cli/test_language_words.py).
    "algo=sft": ("sft", "add"),
    "algo=rft": ("rft", "parity", "algo.num_envs=16"),
    # Single steps of a task of language, by a network that reads tokens or one that does not.
    "tokens step by step": ("ppo", "add", "collector=segments"),
    "tokens in groups of episodes": ("grpo", "add", "collector=groups"),
    "tokens as numbers": ("ppo", "add", "collector=episodes", "model=mlp"),
    "tokens in micro-batches": ("ppo", "add", "model.micro_batch=1"),
    "tokens in bfloat16": ("grpo", "add", "model.precision=bfloat16"),
    **{
        f"env={name}": ("ppo", name)
        for name in names("env")
        if name != "reasoning_gym" or importlib.util.find_spec("reasoning_gym") is not None
    },
    **{f"tuned={name}": pair(name) for name in names("tuned") if pair(name)[0] not in TABLES},
    "Dr. GRPO": (
        "grpo",
        "cartpole",
        "advantage=dr_grpo",
        "algo.aggregation=episode_mean_step_norm",
    ),
    "dynamic sampling of another": ("grpo", "cartpole", "collector=dynamic_sampling"),
    "dapo without dynamic sampling": ("dapo", "cartpole", "collector=groups"),
    "dapo without dynamic sampling on tokens": ("dapo", "add", "collector=groups"),
    "ppo compares the members of groups": (
        "ppo",
        "cartpole",
        "advantage=rloo",
        "collector=episodes",
        "collector.group_size=8",
        "algo.num_envs=8",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_trains(case, tmp_path):
    directory = tmp_path / "run"
    described = experiment([*tiny(*case), f"run_dir={directory}"])
    final_return = train(described)

    assert math.isfinite(final_return)
    assert record(directory)["status"] == "finished"
    rows = metrics(directory)
    iterations = [row for row in rows if "train/episodes" in row]
    steps = [row["step"] for row in iterations]
    if isinstance(described.collector, Segments):
        assert steps == [16, 32]
    else:  # as many as the episodes have
        assert 0 < steps[0] < steps[-1] + 1
        assert steps[-1] >= 32
        assert all(row["train/episodes"] >= 2 for row in iterations)
    updates = [row["update"] for row in iterations]
    assert updates == sorted(set(updates))
    # A replay buffer fills in the first iteration.
    at_once = described.algo.loop in (loops.on_policy, loops.supervised)
    assert (updates[0] > 0) is at_once
    assert updates[-1] > 0
    evaluations = [row for row in rows if "eval/return" in row]
    assert evaluations[-1]["eval/return"] == final_return


@pytest.mark.parametrize("name", [name for name in names("tuned") if pair(name)[0] in TABLES])
def test_a_pair_of_a_table_trains(name, tmp_path):
    algo, env = pair(name)
    few = ["total_steps=64", "evaluation.episodes=2", "logger=none", f"run_dir={tmp_path / 'run'}"]
    assert math.isfinite(train(experiment([f"algo={algo}", f"env={env}", *few])))
    assert record(tmp_path / "run")["status"] == "finished"


def test_there_is_something_to_try():
    assert {"ppo"} <= set(names("algo"))
    assert {"td", "nstep", "gae", "baseline_value"} <= set(names("advantage"))
    assert {"segments", "episodes", "groups", "dynamic_sampling"} <= set(names("collector"))
    assert {"mlp"} <= set(names("model"))
    assert {"hopper", "cartpole", "gym"} <= set(names("env"))


def test_dapo_refills_where_whole_responses_are_written():
    assert experiment(["algo=dapo", "env=add"]).collector.refill.max_refills == 3
    groups = experiment(["algo=dapo", "env=add", "collector=groups"])
    assert isinstance(groups.collector, Episodes)
