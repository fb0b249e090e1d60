"""Puts a comparison on a project's page at Weights & Biases: a table, and the report."""

import sys
from collections.abc import Iterable
from pathlib import Path

from rlrun.analysis.results import Result
from rlrun.analysis.stored_runs import StoredRun
from rlrun.errors import UserError, say


def project_of(runs: Iterable[StoredRun]) -> tuple[str | None, str]:
    """Return the entity and project that runs were logged in.

    Raises:
        UserError: it is none, or more than one.
    """
    settings = [run.settings for run in runs if "logger.wandb.project" in run.settings]
    projects = {
        (each.get("logger.wandb.entity"), str(each["logger.wandb.project"])) for each in settings
    }
    if len(projects) != 1:
        found = ", ".join(sorted(project for _, project in projects)) or "none"
        raise UserError(f"--to wandb:PROJECT has to say which; projects of these runs: {found}")
    (found_one,) = projects
    return found_one


def publish(
    result: Result, page: str, *, entity: str | None, project: str, directory: Path
) -> None:
    """Log a comparison as a run of its own, of job type ``compare``.

    Without an API key, or as WANDB_MODE says, it is logged offline, to be uploaded later.

    Args:
        result: what is logged as a W&B table, a row for each task and method.
        page: the report, which becomes a panel and an artifact.
        entity: user or team that owns the project; None: the account's own.
        project: W&B's.
        directory: where W&B keeps its files.

    Raises:
        UserError: W&B is not installed, or refuses it.
    """
    try:
        import wandb
    except ImportError as error:
        raise UserError("--to wandb needs a package: pip install wandb") from error
    figures = [row.numbers() for row in result.comparison.figures.values()]
    table = wandb.Table(columns=list(figures[0]), data=[list(row.values()) for row in figures])
    artifact = wandb.Artifact("comparison", type="report")
    with artifact.new_file("report.html", encoding="utf-8") as file:
        file.write(page)
    try:
        settings = wandb.setup(wandb.Settings(show_info=False)).settings
        online = settings.mode == "online" and wandb.login(prompt=False, verify=False)
        run = wandb.init(
            mode="online" if online else "offline",
            entity=entity,
            project=project,
            job_type="compare",
            name=f"compare {', '.join(result.comparison.grouping.methods)}"[:128],
            config={"command": result.command, "cautions": result.cautions},
            dir=directory,
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )
        run.log({"comparison": table, "report": wandb.Html(page, inject=False)})
        run.log_artifact(artifact)
        run.finish()
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UserError(f"--to wandb: {' '.join(str(error).split())}") from error
    if online:
        say(f"W&B: {run.url}", sys.stderr)
    else:
        say(f"W&B: logged offline; upload with: wandb sync {run.settings.sync_dir}", sys.stderr)
