"""Stored runs as tests want them, in memory and as the files that a run leaves."""

import math

import numpy as np

from rlrun.analysis.stored_runs import Evaluations, StoredRun
from rlrun.loggers.jsonl import JsonlLogger
from rlrun.runs.files.directory import write_config, write_record

ENV_IDS = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "cartpole": "CartPole-v1"}


def made_run(algo="ppo", env="hopper", *, seed=0, returns=(0.0, 50.0, 100.0), **others):
    """A finished run of 1,000 steps whose evaluations are spread evenly over them, 10 s apart.

    Args:
        algo: choice.
        env: choice.
        seed: of the run.
        returns: of the evaluations.
        others: fields of `StoredRun`; choices and settings are added to the usual ones.
    """
    total_steps = others.pop("total_steps", 1000)
    count = len(returns)
    env_id = others.pop("env_id", ENV_IDS.get(env, env))
    usual = {
        "seed": seed,
        "total_steps": total_steps,
        "evaluation.every_steps": None,
        "evaluation.episodes": 10,
        "evaluation.max_length": 10_000,
        "hardware.device": "cpu",
        "hardware.threads": 1,
        "model._target_": "rlrun.models.mlp.MLP",
        "algo._target_": "rlrun.algos.policy_gradient.ppo.PPO",
        "algo.gamma": 0.99,
        "env.id": env_id,
        "env.action_units": "raw",
    }
    evaluations = Evaluations(
        steps=np.linspace(0, total_steps, count),
        seconds=np.arange(count) * 10.0,
        returns=np.array(returns, dtype=float),
        spreads=np.full(count, 5.0),
    )
    fields = {
        "source": f"outputs/{algo}_{env}_s{seed}",
        "status": "finished",
        "env_id": env_id,
        "seed": seed,
        "total_steps": total_steps,
        "step": total_steps,
        "time_s": 10.0 * count,
        "started": "2026-11-22T00:00:00+00:00",
        "host": "vm",
        "commit": "abcdef0123",
        "versions": {"rlrun": "0.1.0", "torch": "2.13.0"},
        "overrides": [f"algo={algo}", f"env={env}", f"seed={seed}"],
        "tuned_on": [],
        "evaluations": evaluations,
        **others,
        "choices": {"algo": algo, "env": env, "model": "mlp", **others.get("choices", {})},
        "settings": {**usual, **others.get("settings", {})},
    }
    return StoredRun(**fields)


def seeds(algo, finals, env="hopper", **others):
    """Runs that rise from 0 to these returns: one a seed, from 0 on."""
    return [
        made_run(algo, env, seed=seed, returns=(0.0, final / 2, final), **others)
        for seed, final in enumerate(finals)
    ]


def write_run(run, directory):
    """Leave the files of a run, written by what writes a run's own."""
    directory.mkdir(parents=True)
    config = {}
    for key, value in run.settings.items():
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    write_config(directory, config, run.overrides)
    names = ("status", "error", "env_id", "seed", "total_steps", "step", "time_s")
    curve = run.evaluations
    record = {
        **{name: getattr(run, name) for name in (*names, "started", "host", "versions")},
        **run.choices,
        "git_commit": run.commit,
        "return": float(curve.returns[-1]),
        "return_std": float(curve.spreads[-1]),
        "best_return": float(curve.returns.max()),
        "final_return": run.final_return if math.isfinite(run.final_return) else None,
    }
    write_record(directory, record)
    logger = JsonlLogger(directory / "metrics.jsonl", None)
    columns = (curve.steps, curve.seconds, curve.returns, curve.spreads)
    for step, seconds, mean, spread in zip(*(column.tolist() for column in columns), strict=True):
        logger.log({"time_s": seconds, "train/return": mean - 1}, int(step))
        row = {"time_s": seconds, "eval/return": mean, "eval/return_std": spread}
        logger.log(row, int(step))
    logger.close("finished", {})
    return directory
