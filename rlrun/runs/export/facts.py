"""What a policy is: the facts that go with it wherever it is used."""

from pathlib import Path
from typing import Any

from rlrun import __version__
from rlrun.config.files import read_json
from rlrun.runs.files.record import finite_or_none
from rlrun.runs.setup.assembly import Assembly


def facts_of(assembly: Assembly, checkpoint: Path) -> dict[str, Any]:
    """Return what a run's policy is, as plain values.

    Args:
        assembly: of the run, from a checkpoint.
        checkpoint: its directory, in that of the run.
    """
    experiment, counters, env = assembly.experiment, assembly.counters, assembly.as_steps()
    identity = dict(experiment.identity)
    # An evaluation between two checkpoints was one of another policy.
    evaluated = counters.evaluated == counters.step
    record = read_json(checkpoint.parents[1] / "run.json")
    return {
        "algorithm": identity.pop("algo"),
        **identity,
        "observation_space": " ".join(str(env.observation_space).split()),
        "action_space": " ".join(str(env.to_env.space).split()),
        "action_units": experiment.env.action_units,
        # Of the environment, whose observations and actions these are.
        "wrappers": experiment.config["env"].get("wrappers", []),
        "checkpoint": checkpoint.name,
        "step": counters.step,
        "return": finite_or_none(counters.last_return) if evaluated else None,
        "git_commit": str(record.get("git_commit") or ""),
        "rlrun": __version__,
    }
