"""What a logger is, and the fan-out that keeps a broken one from stopping a run.

A logger *specification* is what a ``conf/logger/*.yaml`` names as its ``_target_``: a keyword-only
dataclass of settings. ``open`` turns it into a `Logger` when the run starts or is resumed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlrun.errors import UserError, warn


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a logger may want to know of the run that it records.

    Attributes:
        directory: the run directory; a logger writes nowhere else.
        name: for people, for instance ``ppo_hopper_s0``.
        facts: what tells runs apart, as flat keys: ``algo``, ``env``, ``env_id``, ``advantage``,
            ``seed`` and so on, by name, and the code that ran: ``git_commit``, ``versions``.
        config: the whole resolved configuration, as plain containers.
        group: runs that belong together, such as the seeds of one setting.
        tags: the user's labels.
        sweep: what the run's sweep is called; None: it is part of none.
    """

    directory: Path
    name: str
    facts: dict[str, Any]
    config: dict[str, Any]
    group: str
    tags: list[str]
    sweep: str | None = None


class Logger(Protocol):
    """Records what a run measures."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record values measured after ``step`` environment steps.

        Args:
            metrics: name to value: ``update`` and ``time_s`` (the two other axes) and names such as
                ``train/return``. Python numbers; NaN where there is nothing to report.
            step: environment steps so far; it never decreases. Two calls may share a step, one for
                the iteration and one for the evaluation after it.
        """

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Take note of a checkpoint, a file or a directory that may be deleted after the call.

        Args:
            path: the checkpoint.
            aliases: what it is known by: ``last``, ``best``.
        """

    def picture(self, name: str, path: Path) -> None:
        """Take note of a picture of the whole run, before it is closed.

        Args:
            name: what it shows: ``curves``.
            path: a PNG file.
        """

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Take note of what a policy wrote in an evaluation: of tasks of language alone.

        Args:
            rows: of texts and numbers, with the same names: ``which``, ``prompt``, ``response`` …
            step: as `log` was told of the evaluation.
        """

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Write what is pending and let go of every resource.

        Args:
            status: how the run ended: ``finished``, ``interrupted`` or ``failed``.
            figures: what the whole run comes to: ``best_return``, ``final_return`` (the mean of the
                evaluations in the last tenth of its steps), as far as there are any; ``time_s``,
                and ``compile_s`` beside it where something was compiled.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs in order to continue this record."""


class LoggerSpec(Protocol):
    """Settings from which a logger is opened."""

    def check(self) -> None:
        """Find out whether a logger can be opened here; nothing of the run is written.

        Raises:
            UserError: it cannot: a package or a key is missing, say.
        """

    def open(self, info: RunInfo, state: dict[str, Any] | None) -> Logger:
        """Open the record of a new run (``state`` None) or continue that of a resumed one.

        Args:
            info: the run. Its ``metrics.jsonl`` has the rows up to that checkpoint.
            state: what ``state_dict`` gave at the checkpoint that the run resumes from.

        Raises:
            UserError: what was asked for cannot work here, as `check` says it.
        """


def check_loggers(specs: dict[str, LoggerSpec]) -> None:
    """Find out whether every logger can be opened, before one of them or the run leaves a trace.

    Args:
        specs: the loggers that the user asked for, by name.

    Raises:
        UserError: one of them cannot work as it was asked for.
    """
    for spec in specs.values():
        spec.check()


class Loggers:
    """Several loggers as one. One that raises is switched off with one warning on stderr.

    A record that cannot be written (disk full, service gone) is worth less than the training that
    it records. What is raised from outside, such as KeyboardInterrupt, passes through.
    """

    def __init__(self, loggers: dict[str, Logger], states: dict[str, dict[str, Any]]):
        """Fan out to ``loggers``.

        Args:
            loggers: name to open logger. `state_dict` uses the names.
            states: what `state_dict` gave at the checkpoint that the run resumes from; empty for a
                new run.
        """
        self._loggers = dict(loggers)
        self._states = dict(states)

    def open(self, specs: dict[str, LoggerSpec], info: RunInfo) -> None:
        """Open the loggers that the user asked for, each with the state saved under its name.

        Raises:
            UserError: a logger cannot work as it was asked for; nothing is left open.
        """
        for name, spec in specs.items():
            try:
                self._loggers[name] = spec.open(info, self._states.get(name))
            except UserError:
                self.close("failed", {})
                raise
            except Exception as error:
                self._warn(name, error)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Give ``metrics``, measured after ``step`` environment steps, to every logger."""
        self._each(lambda logger: logger.log(metrics, step))

    def checkpoint(self, path: Path, aliases: list[str]) -> None:
        """Tell every logger of the checkpoint at ``path``."""
        self._each(lambda logger: logger.checkpoint(path, aliases))

    def picture(self, name: str, path: Path) -> None:
        """Tell every logger of the picture at ``path``."""
        self._each(lambda logger: logger.picture(name, path))

    def samples(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Tell every logger what was written in an evaluation, if anything was."""
        if rows:
            self._each(lambda logger: logger.samples(rows, step))

    def close(self, status: str, figures: dict[str, float]) -> None:
        """Close every logger, whatever the others do. A second call does nothing."""
        self._each(lambda logger: logger.close(status, figures))
        self._loggers.clear()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """The state of every logger by name; for one that is switched off, the last one known.

        So a W&B run keeps its id over an interruption in which W&B was out of reach.
        """
        for name, logger in list(self._loggers.items()):
            try:
                self._states[name] = logger.state_dict()
            except Exception as error:
                self._switch_off(name, error)
        return dict(self._states)

    def _each(self, action: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                action(logger)
            except Exception as error:
                self._switch_off(name, error)

    def _switch_off(self, name: str, error: Exception) -> None:
        del self._loggers[name]
        self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        warn(f"logger {name!r} is switched off: {type(error).__name__}: {error}")
