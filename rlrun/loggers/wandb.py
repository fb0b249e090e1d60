"""Weights & Biases (docs.wandb.ai)."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rlrun.config.types import NonNegative
from rlrun.errors import UserError, say
from rlrun.loggers.interface import RunInfo
from rlrun.loggers.jsonl import read_metrics
from rlrun.loggers.wandb_file import last_row

if TYPE_CHECKING:
    import wandb

# What charts can be drawn against; they get none of their own.
AXES = ("step", "update", "time_s")

# W&B shows a run that ended with 255 as killed, with any other code but 0 as failed
# (wandb/sdk/lib/exit_hooks.py gives Ctrl-C this code).
EXIT_CODES = {"finished": 0, "interrupted": 255, "failed": 1}

# What an evaluation after training is called on its page, as those of training are.
EVALUATION = {
    "eval/return": "return",
    "eval/return_std": "return_std",
    "eval/return_min": "return_min",
    "eval/return_max": "return_max",
    "eval/length": "length",
}

# What was written in the latest evaluation.
SAMPLES = "eval/samples"

NOTHING: Mapping[str, Any] = MappingProxyType({})


@contextmanager
def mistakes_are_the_users() -> Iterator[None]:
    """Turn what W&B refuses (a key, a setting) into a UserError of one line."""
    try:
        import wandb
    except ImportError as error:
        raise UserError("logger=wandb needs a package: pip install wandb") from error
    try:
        yield
    except (wandb.errors.AuthenticationError, wandb.errors.UsageError, ValueError) as error:
        raise UserError(f"logger.wandb: {' '.join(str(error).split())}") from error


@dataclass(kw_only=True)
class WandbLogger:
    """Settings of a W&B run; conf/logger/wandb.yaml explains them."""

    project: str
    entity: str | None
    mode: Literal["auto", "online", "offline"]
    notes: str | None
    upload_checkpoints: bool
    finish_seconds: NonNegative

    def check(self) -> None:
        """Find out whether W&B accepts the settings and the key, without the network.

        Raises:
            UserError: the package is missing, online was asked for without an API key, or W&B
                refuses the key or a setting.
        """
        with mistakes_are_the_users():
            import wandb

            wandb.setup(wandb.Settings(show_info=False))
            self._why_offline()
            wandb.Settings(project=self.project, entity=self.entity, run_notes=self.notes)

    def open(self, info: RunInfo, state: dict[str, Any] | None) -> "WandbRun":
        """Start a W&B run under ``info.directory / "wandb"``, or continue that of ``state``.

        Nothing is asked on the terminal. Where the server cannot be reached the run is logged
        offline, with a line on stderr that says so. A continued run is first given the rows of
        metrics.jsonl that W&B has not: a process that was killed took them with it.

        Raises:
            UserError: as `check` says, or W&B refuses the run's tags.
        """
        with mistakes_are_the_users():
            known = last_row(info.directory, state["id"]) if state else {}
            how = {"id": state["id"], "resume": "allow"} if state else {}
            run, why_offline = self._start(info, **how)
        say(where(run, why_offline), sys.stderr)
        if why_offline is None:
            known = {"_step": run.starting_step - 1}  # the server knows what it has
        logger = WandbRun(run, info.name, self.upload_checkpoints, known)
        if state:
            for row in read_metrics(info.directory / "metrics.jsonl"):
                logger.log(row, int(row["step"]))
        return logger

    def _why_offline(self) -> str | None:
        """The reason not to use the network; None to go online."""
        import wandb

        if self.mode == "offline":
            return "as configured"
        if wandb.setup().settings.mode != "online":
            return "as WANDB_MODE says"
        if wandb.login(prompt=False, verify=False):
            return None
        if self.mode == "online":
            raise UserError(
                "logger.wandb.mode=online needs an API key: run `wandb login` or set WANDB_API_KEY "
                "(mode=offline needs none)"
            )
        return "no API key found (`wandb login` stores one)"

    def log_evaluation(
        self, info: RunInfo, figures: dict[str, Any], video: Path | None, train_id: str | None
    ) -> None:
        """Make a W&B run of an evaluation after training: job type ``eval``, in the run's group.

        Args:
            info: the run that was trained.
            figures: of the evaluation, by the names of ``evaluations.jsonl``.
            video: of its first episode; None: there is none.
            train_id: W&B's id of the run that was trained; None: W&B has not seen it.

        Raises:
            UserError: as `check` says.
        """
        with mistakes_are_the_users():
            import wandb

            run, why_offline = self._start(
                info,
                name=f"{info.name}_eval",
                job_type="eval",
                config={"evaluation": figures, "train_run": train_id},
            )
        measures = {name: figures[key] for name, key in EVALUATION.items()}
        media = {} if video is None else {"video": wandb.Video(str(video), format="mp4")}
        run.log({"step": figures["step"], **measures, **media}, step=figures["step"])
        run.finish(exit_code=EXIT_CODES["finished"])
        say(where(run, why_offline), sys.stderr)

    def _start(self, info: RunInfo, **how: Any) -> tuple["wandb.Run", str | None]:
        """Start a W&B run, offline where the server is not to be used or cannot be reached.

        Args:
            info: the run of rlrun.
            how: see `_init`.

        Returns:
            The run, and why it is offline; None: it is not.
        """
        import wandb

        wandb.setup(wandb.Settings(show_info=False))
        why_offline = self._why_offline()
        try:
            run = self._init(info, "offline" if why_offline else "online", **how)
        except wandb.errors.CommError as error:
            why_offline = f"no connection ({str(error).splitlines()[0]})"
            # Ends the failed attempt, which keeps the run's id in use.
            wandb.teardown()
            wandb.setup(wandb.Settings(show_info=False))
            run = self._init(info, "offline", **how)
        define_axes(run)
        return run, why_offline

    def _init(
        self,
        info: RunInfo,
        mode: Literal["online", "offline"],
        *,
        name: str | None = None,
        job_type: str = "train",
        config: Mapping[str, Any] = NOTHING,
        **how: Any,
    ) -> "wandb.Run":
        """Start a W&B run.

        Args:
            info: the run of rlrun.
            mode: whether to use the network.
            name: None: that of the run.
            job_type: "train" or "eval".
            config: beside what the run is.
            how: of W&B: ``id`` and ``resume``.
        """
        import wandb

        return wandb.init(
            mode=mode,
            project=self.project,
            entity=self.entity,
            group=info.group,
            job_type=job_type,
            tags=info.tags,
            name=name or info.name,
            notes=self.notes,
            config={**info.facts, "sweep": info.sweep, "settings": info.config, **config},
            dir=info.directory,
            # The default gives back a run that was not finished, with its old configuration: the
            # jobs of a Hydra sweep share a process.
            reinit="create_new",
            # The console is a progress bar: nothing to record.
            settings=wandb.Settings(console="off", finish_timeout=self.finish_seconds),
            **how,
        )


def define_axes(run: "wandb.Run") -> None:
    """Have charts drawn against environment steps; W&B's menu has the other axes, too."""
    for axis in AXES:
        run.define_metric(axis, hidden=True)
    run.define_metric("*", step_metric="step")


def where(run: "wandb.Run", why_offline: str | None) -> str:
    """Say where a W&B run is."""
    if why_offline is None:
        return f"W&B: {run.url}"
    upload = f"wandb sync {run.settings.sync_dir}"
    return f"W&B: logging offline, {why_offline}; upload with: {upload}"


class WandbRun:
    """A W&B run that is being logged to.

    W&B writes through a service process. It has a session of its own, so Ctrl-C in the terminal
    does not reach it and an interrupted run ends complete. A signal sent to every process of a job
    (Slurm's scancel) stops it; what it had not written yet is sent again when the run is resumed.
    """

    def __init__(
        self, run: "wandb.Run", name: str, upload_checkpoints: bool, known: dict[str, Any]
    ):
        """Wrap an open run.

        Args:
            run: W&B's run.
            name: what its artifacts are called after.
            upload_checkpoints: whether checkpoints become artifacts.
            known: the last row that W&B has of a continued run, with ``_step``; else empty.
        """
        self._run = run
        self._name = name
        self._upload_checkpoints = upload_checkpoints
        self._known = known
        self._step = max(0, known.get("_step", 0))

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Add a row. Calls with one ``step`` become one row.

        W&B's own step is the environment step. What W&B has already, since a resumed run logs the
        rows after its checkpoint a second time, is left out.
        """
        last = self._known.get("_step", -1)
        if step == last:  # an evaluation, say, that the process before this one did not come to
            metrics = {name: value for name, value in metrics.items() if name not in self._known}
        if step >= last and metrics:
            self._run.log({"step": step, **metrics}, step=step)
            self._step = step

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Upload the checkpoint as a version of the run's model artifact, if that was asked for."""
        if not self._upload_checkpoints:
            return
        import wandb

        artifact = wandb.Artifact(f"{self._name}-{self._run.id}", type="model")
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact, aliases=aliases)

    def picture(self, name: str, path: Path) -> None:
        """Show a picture on the run's page."""
        import wandb

        self._run.log({name: wandb.Image(str(path))}, step=self._step)

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Show what was written in an evaluation as a table, unless W&B has it already."""
        import wandb

        last = self._known.get("_step", -1)
        if step < last or (step == last and any(SAMPLES in name for name in self._known)):
            return
        data = [list(row.values()) for row in rows]
        table = wandb.Table(columns=list(rows[0]), data=data, allow_mixed_types=True)
        self._run.log({"step": step, SAMPLES: table}, step=step)

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Summarise and finish the run.

        Online, this waits ``finish_seconds`` at most for the upload.
        The service writes the last rows milliseconds later; a process that exits in the ordinary
        way waits for it.
        """
        self._run.summary.update(figures)
        self._run.finish(exit_code=EXIT_CODES[status])

    def state_dict(self) -> dict[str, Any]:
        """The run's id at W&B."""
        return {"id": self._run.id}
