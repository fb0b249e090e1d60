"""Runs that are read from Weights & Biases: ``wandb:entity/project?group=…``."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from rlrun.analysis.stored_runs import (
    CHOICES,
    Evaluations,
    StoredRun,
    flatten,
    from_values,
)
from rlrun.errors import UserError, did_you_mean

PREFIX = "wandb:"

# How long an answer of W&B's is waited for.
SECONDS = 20

# What runs can be chosen by, in an address; W&B's own names of it.
FILTERS = {"group": "group", "tag": "tags", "name": "display_name", "sweep": "config.sweep"}

# The columns of `Evaluations`, and what the rows of a run call them.
COLUMNS = {
    "steps": "step",
    "seconds": "time_s",
    "returns": "eval/return",
    "spreads": "eval/return_std",
}

# How W&B says that a run ended (rlrun/loggers/wandb.py gives it the exit codes).
STATES = {"finished": "finished", "running": "running", "failed": "failed"}


def read(address: str) -> Iterator[StoredRun]:
    """Yield the runs of a project at W&B, oldest first.

    Args:
        address: ``wandb:entity/project``, with ``?group=…`` (or tag, name, sweep; several with
            ``&``) for a part of it.

    Raises:
        UserError: the address is none, W&B cannot be reached or refuses it, there are no runs, or
            one of them was not logged by rlrun.
    """
    path, filters = parse(address)
    try:
        import wandb
    except ImportError as error:
        raise UserError(f"{address} needs a package: pip install wandb") from error
    try:
        runs = list(wandb.Api(timeout=SECONDS).runs(path, filters=filters, order="+created_at"))
        found = [
            (f"{run.url}", run.state, dict(run.config), dict(run.summary), run.scan_history())
            for run in runs
        ]
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UserError(f"{address}: {' '.join(str(error).split())}") from error
    if not found:
        raise UserError(f"no runs at '{address}'")
    for source, state, config, summary, rows in found:
        yield stored_run(source, state, config, summary, rows)


def parse(address: str) -> tuple[str, dict[str, str]]:
    """Read an address.

    Returns:
        "entity/project", and W&B's filters.

    Raises:
        UserError: it is none.
    """
    path, _, query = address.removeprefix(PREFIX).partition("?")
    if path.count("/") != 1 or not all(path.split("/")):
        raise UserError(f"'{address}': expected {PREFIX}entity/project, or …?group=name behind it")
    filters = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in FILTERS:
            raise UserError(f"'{address}': no filter '{name}'{did_you_mean(name, FILTERS)}")
        filters[FILTERS[name]] = value
    return path, filters


def stored_run(
    source: str,
    state: str,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
) -> StoredRun:
    """Make of what W&B has what rlrun's own files would say.

    Args:
        source: the run's address.
        state: how it is going, in W&B's words.
        config: as rlrun's logger gave it: what the run is, and ``settings``.
        summary: the run's last values, by name.
        rows: what was logged, by name.

    Raises:
        UserError: rlrun's logger did not write this.
    """
    settings = config.get("settings")
    if not isinstance(settings, Mapping):
        raise UserError(f"{source}: there are no settings in its config: not a run of rlrun")
    try:
        evaluated = [
            [float(row.get(name, np.nan)) for name in COLUMNS.values()]
            for row in rows
            if row.get("eval/return") is not None
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: a row of its history: {error}") from error
    columns = np.array(evaluated, np.float64).reshape(-1, len(COLUMNS)).T
    flat = flatten(settings)
    return from_values(
        {
            "source": source,
            "status": STATES.get(state, "killed"),
            "choices": {name: config[name] for name in CHOICES if config.get(name) is not None},
            "env_id": config.get("env_id"),
            "seed": config.get("seed"),
            "total_steps": flat.get("total_steps"),
            "step": summary.get("step", 0),
            "time_s": summary.get("time_s", 0.0),
            "commit": config.get("git_commit"),
            "versions": config.get("versions", {}),
            "overrides": [],
            "tuned_on": config.get("tuned_on", []),
            "settings": flat,
            "evaluations": Evaluations(**dict(zip(COLUMNS, columns, strict=True))),
        },
        source,
    )
