"""A run: its parts, its directory, its clock, its stop flag and its whole state."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rlrun import directory as run_directory
from rlrun.checkpoint import Checkpoint, CheckpointStore
from rlrun.config import Experiment
from rlrun.curves import draw_curves
from rlrun.envs.control import ControlEnv
from rlrun.errors import CheckpointNotWritten, Interrupted, NonFiniteError, UserError, warn
from rlrun.evaluate import evaluate
from rlrun.loggers.interface import Loggers, RunInfo
from rlrun.loggers.jsonl import JsonlLogger, read_metrics
from rlrun.loggers.progress import Progress, StandardError
from rlrun.normalize import ObservationNormalizer
from rlrun.seeding import Streams, evaluation_seed
from rlrun.signals import StopFlag

# Largest share of a run's time that goes into curves.png.
DRAWING_SHARE = 0.02


class Stateful(Protocol):
    """A part of a run that decides its future."""

    def state_dict(self) -> dict:
        """Return it as plain containers and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        ...


@dataclass
class Counters:
    """How far a run is.

    Attributes:
        step: environment steps, over all environments.
        update: optimiser steps.
        time_s: seconds spent so far, in this process and in those before it, without compiling.
        evaluated: environment step of the last evaluation, or -1.
        last_return: return of the last evaluation.
        best_return: the best of them.
    """

    step: int = 0
    update: int = 0
    time_s: float = 0.0
    evaluated: int = -1
    last_return: float = math.nan
    best_return: float = -math.inf

    def state_dict(self) -> dict:
        """Return the numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        """Continue counting."""
        for name, value in state.items():
            setattr(self, name, value)


class Run:
    """Builds the parts of an experiment, and holds what its loop needs.

    Args:
        experiment: checked configuration with its parts.
        checkpoint: where to go on from, or None for a new run.

    Raises:
        UserError: the parts do not fit together. Nothing has been written by then.
    """

    # What belongs to the directory, from the moment that `execute` is called.
    directory: Path
    record: dict[str, Any]
    store: CheckpointStore
    loggers: Loggers
    stop: StopFlag
    # Seconds of the current iteration by name; moments on the clocks of `perf_counter` and
    # `monotonic`.
    _seconds: dict[str, float]
    _ticked: float
    _drawn: float
    _drawing_s: float
    _saved: tuple[int, float]

    def __init__(self, experiment: Experiment, checkpoint: Checkpoint | None):
        hardware, algorithm = experiment.hardware, experiment.algo
        hardware.prepare()
        self.experiment = experiment
        self.algorithm = algorithm
        self.counters = Counters()
        self.streams = Streams.from_seed(experiment.seed)
        self.env = ControlEnv(
            experiment.env.make(num_envs=algorithm.num_envs, threads=hardware.physics_threads)
        )
        # Decided once, so that a resumed run computes with the same code as before.
        updates = algorithm.updates(experiment.total_steps)
        self.compiled = (
            hardware.should_compile(updates) if checkpoint is None else checkpoint.info["compiled"]
        )
        algorithm.setup(
            self.env.obs_size,
            self.env.action_space,
            hardware=hardware,
            streams=self.streams,
            estimator=experiment.advantage,
            compiled=self.compiled,
        )
        self.observation_normalizer = ObservationNormalizer(
            self.env.obs_size,
            clip=algorithm.normalizer_clip,
            enabled=algorithm.normalize_observation,
        )
        self._checkpoint = checkpoint
        self._parts: dict[str, Stateful] = {}
        if checkpoint is not None:
            algorithm.load_weights(checkpoint.weights)
        self.track("counters", self.counters)
        self.track("streams", self.streams)
        self.track("algorithm", algorithm)
        self.track("observation_normalizer", self.observation_normalizer)
        self._evaluation_env: ControlEnv | None = None

    # ------------------------------------------------------------------ state

    def track(self, name: str, part: Stateful) -> None:
        """Make a part's state part of the run's; on a resumed run, restore it."""
        self._parts[name] = part
        if self._checkpoint is not None:
            part.load_state_dict(self._checkpoint.state[name])

    def state_dict(self) -> dict:
        """Return everything that decides the future, but for the weights."""
        self._tick()
        return {name: part.state_dict() for name, part in self._parts.items()}

    def save(self, state: dict | None = None) -> Path:
        """Write a checkpoint of the present, or of an earlier state under the same weights."""
        path = self.store.save(
            self.counters.step,
            weights=self.algorithm.weights(),
            state={**(state or self.state_dict()), "loggers": self.loggers.state_dict()},
            info={
                "update": self.counters.update,
                "eval/return": _finite_or_none(self.counters.last_return),
                "compiled": self.compiled,
            },
        )
        self._saved = (self.counters.step, time.monotonic())
        return path

    def rescue(self, state: dict | None = None) -> None:
        """Write a checkpoint before an error ends the run, without getting in that error's way."""
        try:
            self.save(state)
        except CheckpointNotWritten as error:
            warn(str(error))

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old, or if this iteration is the last one."""
        step, moment = self._saved
        old = time.monotonic() - moment >= self.experiment.checkpoint.every_seconds
        if step < self.counters.step and (old or not self.goes_on):
            self.loggers.checkpoint(self.save(), ["last"])

    # ------------------------------------------------------------------ progress

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.counters.step >= self.experiment.total_steps

    @property
    def at_its_best(self) -> bool:
        """Whether no evaluated policy was better than the present one."""
        counters = self.counters
        evaluated = counters.evaluated == counters.step
        return evaluated and counters.last_return == counters.best_return

    @property
    def goes_on(self) -> bool:
        """Whether there are steps left and nobody asked to stop."""
        return not self.finished and self.stop.signal is None

    @property
    def progress(self) -> float:
        """Share of the steps done, in [0, 1]."""
        return min(1.0, self.counters.step / self.experiment.total_steps)

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to the iteration's metric ``name``."""
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def _tick(self) -> None:
        """Bring the run's clock up to date."""
        now = time.perf_counter()
        self.counters.time_s += now - self._ticked
        self._ticked = now

    # ------------------------------------------------------------------ measuring

    def log_iteration(self, metrics: dict[str, Tensor], *, steps: int) -> None:
        """Count an iteration's steps and updates and log its numbers.

        Args:
            metrics: what the algorithm's update returned; ``updates`` is the number of them.
            steps: environment steps of the iteration.

        Raises:
            NonFiniteError: one of the metrics, or a weight, is NaN or infinite.
        """
        numbers = torch.stack([value.float() for value in metrics.values()]).tolist()
        values = dict(zip(metrics, numbers, strict=True))
        self.counters.step += steps
        self.counters.update += int(values.pop("updates"))
        self._require_finite(values)
        episodes = self.env.drain_episodes()
        if episodes:
            returns, lengths = zip(*episodes, strict=True)
            values["train/return"] = sum(returns) / len(returns)
            values["train/length"] = sum(lengths) / len(lengths)
        values["train/episodes"] = len(episodes)
        values["speed/steps_per_s"] = steps / sum(self._seconds.values())
        values |= self._seconds
        self._seconds.clear()
        self._log(values)

    def _require_finite(self, values: dict[str, float]) -> None:
        """Stop a run whose numbers are lost, before they reach a checkpoint."""
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        lost += [n for n, w in self.algorithm.weights().items() if not w.isfinite().all()]
        if lost:
            raise NonFiniteError(f"{lost[0]} is not finite")

    def _log(self, values: dict[str, float]) -> None:
        self._tick()
        axes = {"update": self.counters.update, "time_s": self.counters.time_s}
        self.loggers.log({**axes, **values}, self.counters.step)

    def evaluate_if_due(self) -> None:
        """Evaluate after every so many steps, and once the last step is done."""
        step, every = self.counters.step, self.experiment.evaluation.every_steps
        if step // every > max(self.counters.evaluated, 0) // every or self.finished:
            self.evaluate()

    def evaluate(self) -> None:
        """Play whole episodes with the greedy policy; keep the best policy's checkpoint."""
        start = time.perf_counter()
        seed = evaluation_seed(self.streams.evaluation, self.counters.step)
        try:
            if self._evaluation_env is None:
                self._evaluation_env = self.make_evaluation_env(self.experiment.evaluation.episodes)
            metrics = evaluate(self.act_greedily, self._evaluation_env, seed=seed).metrics()
        except NonFiniteError:
            raise  # perhaps the weights' fault
        except Exception:
            self.rescue()
            raise
        metrics["time/evaluate_s"] = time.perf_counter() - start
        self.counters.evaluated = self.counters.step
        self.counters.last_return = metrics["eval/return"]
        self._log(metrics)
        best = self.counters.last_return > self.counters.best_return
        if best:
            self.counters.best_return = self.counters.last_return
        path = self.save()
        if best:
            self.store.mark_best(path)
        self.loggers.checkpoint(path, ["last", "best"] if best else ["last"])
        self.write_record("running")
        self.draw_if_due()

    def make_evaluation_env(self, episodes: int) -> ControlEnv:
        """Make environments that training never touches, one for each episode."""
        threads = self.experiment.hardware.physics_threads
        return ControlEnv(self.experiment.env.make(num_envs=episodes, threads=threads))

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the policy's best actions at raw observations [N, D]."""
        return self.algorithm.act_greedily(self.observation_normalizer(obs))

    def draw_if_due(self) -> None:
        """Draw the learning curves, unless drawing would take more than its share of the time."""
        start = time.perf_counter()
        if start - self._drawn > self._drawing_s / DRAWING_SHARE:
            self.draw()
            self._drawn = time.perf_counter()
            self._drawing_s = self._drawn - start

    def draw(self) -> None:
        """Draw the learning curves so far; a picture that fails does not stop the run."""
        try:
            rows = read_metrics(self.directory / "metrics.jsonl")
            if rows:
                draw_curves(rows, self.directory / "curves.png", title=self.name)
        except Exception as error:
            warn(f"curves.png was not drawn: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ running

    @property
    def name(self) -> str:
        """The run in a word, for people."""
        experiment = self.experiment
        return f"{experiment.algo_name}_{experiment.env_name}_s{experiment.seed}"

    def execute(self, directory: Path, record: dict[str, Any]) -> float:
        """Train to the end.

        Args:
            directory: the run's directory, locked by this process.
            record: what ``run.json`` says besides the run's state.

        Returns:
            The mean return of the last evaluation.

        Raises:
            Interrupted: a signal asked the run to stop, and it did, after a checkpoint.
            EnvironmentFailure: an environment raised; the state before that is saved.
            NonFiniteError: a number is lost; the last checkpoint is the one before that.
            CheckpointNotWritten: the disk is full, say; the earlier checkpoints are there.
        """
        self.directory = directory
        self.record = record
        self.store = CheckpointStore(
            directory / "checkpoints", keep=self.experiment.checkpoint.keep
        )
        self._seconds = {}
        self._drawn, self._drawing_s = -math.inf, 0.0
        states = self._checkpoint.state["loggers"] if self._checkpoint else {}
        offset = states["jsonl"]["offset"] if self._checkpoint else None
        progress = Progress(self.experiment.total_steps, self.counters.step, StandardError())
        self.loggers = Loggers(
            {"jsonl": JsonlLogger(directory / "metrics.jsonl", offset), "progress": progress},
            states,
        )
        status, error = "failed", None
        with StopFlag() as self.stop:
            try:
                # First of all, so that a run can be resumed from its first moment.
                self.write_record("running")
                self.loggers.open(self.experiment.loggers, self._info())
                self._compile(progress)
                self._ticked = time.perf_counter()
                self._saved = (self.counters.step, time.monotonic())
                self.algorithm.loop(self)
                if self.finished and self.counters.evaluated < self.counters.step:
                    self.evaluate()  # which an earlier process had begun when it ended
                status = "finished" if self.finished else "interrupted"
            except NonFiniteError as raised:
                kept = self.store.steps()
                error = (
                    f"{raised} after update {self.counters.update} (step {self.counters.step}); "
                    f"the last good checkpoint is {kept[-1] if kept else 'none'}"
                )
                raise NonFiniteError(error) from raised
            except BaseException as raised:
                error = f"{type(raised).__name__}: {raised}"
                raise
            finally:
                self._end(status, error)
        if self.stop.signal is not None:
            raise Interrupted(self.stop.signal)
        return self.counters.last_return

    def _end(self, status: str, error: str | None) -> None:
        """Leave a true record; what fails on the way must not hide how the run ended."""
        try:
            self.write_record(status, error)
        except OSError as full:
            warn(f"run.json does not say '{status}': {full}")
        self.draw()
        self.loggers.close(status)
        for env in (self.env, self._evaluation_env):
            if env is not None:
                env.close()

    def _compile(self, progress: Progress) -> None:
        """Compile the update before the clock starts, and say so while it lasts."""
        if not self.compiled:
            return
        start = time.perf_counter()
        try:
            with progress.status("compiling the update (half a minute once, then cached)"):
                self.algorithm.warm_up()
        except Exception as error:
            if self.stop.signal is not None:
                return  # Ctrl-C in a terminal reaches the compiler, too
            if self.experiment.hardware.compile == "on":
                raise UserError(f"hardware.compile=on: {error}") from error
            progress.message(f"not compiled, since the compiler failed: {error}")
            self.compiled = False
            self.algorithm.run_eagerly()
        self.record["compile_s"] = round(time.perf_counter() - start, 2)

    def _info(self) -> RunInfo:
        experiment = self.experiment
        return RunInfo(
            directory=self.directory,
            name=self.name,
            algo=experiment.algo_name,
            env=experiment.env_name,
            seed=experiment.seed,
            total_steps=experiment.total_steps,
            config=experiment.config,
            group=experiment.group or f"{experiment.algo_name}_{experiment.env_name}",
            tags=experiment.tags,
        )

    def write_record(self, status: str, error: str | None = None) -> None:
        """Write what `rlrun list` shows."""
        experiment, counters = self.experiment, self.counters
        run_directory.write_record(
            self.directory,
            {
                "status": status,
                "algo": experiment.algo_name,
                "env": experiment.env_name,
                "env_id": experiment.env.id,
                "seed": experiment.seed,
                "total_steps": experiment.total_steps,
                "step": counters.step,
                "return": _finite_or_none(counters.last_return),
                "best_return": _finite_or_none(counters.best_return),
                "time_s": round(counters.time_s, 2),
                "error": error,
                **self.record,
            },
        )


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
