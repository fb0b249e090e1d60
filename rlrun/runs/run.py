"""A run under way: the verbs of its loop."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from rich.filesize import decimal
from torch import Tensor

from rlrun.algos.contract import Tabled
from rlrun.collectors.contract import Actor, Collector
from rlrun.data.replay.buffer import ReplayBuffer
from rlrun.data.rollout import Transitions
from rlrun.data.seeding import evaluation_seed
from rlrun.errors import (
    CheckpointNotWritten,
    EnvironmentFailure,
    NonFiniteError,
    warn,
)
from rlrun.hardware.memory import shortage
from rlrun.learning.contract import Metrics
from rlrun.runs.counters import Stopwatch
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS, REPLAY
from rlrun.runs.files.record import Record, finite_or_none
from rlrun.runs.files.segments import Spill
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.setup.restoring import must_belong
from rlrun.runs.signals import StopFlag

A = TypeVar("A")

# No part of a run is in the middle of a step.
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Run:
    """Trains what was assembled, step by step, and keeps what comes of it.

    Args:
        assembly: the parts, at the start or where the checkpoint left them.
        record: where the run's numbers go.
        stop: whether a signal has asked the run to stop.
    """

    def __init__(self, assembly: Assembly, record: Record, stop: StopFlag):
        self.assembly = assembly
        self.experiment = assembly.experiment
        self.algorithm = assembly.algorithm
        self.counters = assembly.counters
        self.record = record
        self.stop = stop
        self.store = CheckpointStore(
            record.directory / CHECKPOINTS, keep=self.experiment.checkpoint.keep
        )
        self.stopwatch = Stopwatch(self.counters)
        self._parts = assembly.parts
        self._env = assembly.env
        self._averager = assembly.averager
        self._spill: Spill | None = None
        self._side_by_side = self.experiment.hardware.side_by_side(learners=1)
        self._begun = self.counters.step
        self._saved = (self.counters.step, time.monotonic())
        self._logged_s = self.counters.time_s

    def open_buffer(self, buffer: ReplayBuffer) -> None:
        """Keep a replay buffer's rows with the checkpoints, and say how much room they take.

        Raises:
            UserError: the disk has not enough of it, or the rows of a resumed run are damaged.
        """
        size = decimal(buffer.most_bytes)
        what = f"a replay buffer of {buffer.capacity:,} steps: {size} of memory in this run"
        if buffer.ring.written.is_cpu:
            what += shortage(buffer.most_bytes)
        if not self.experiment.checkpoint.replay:
            self.record.progress.message(
                f"{what}; checkpoint.replay=false: a resumed run fills a new one before it learns "
                "on, and is not the run that would have gone on"
            )
            return
        self._spill = Spill(buffer, self.store.directory)
        remark = self._spill.require_room()
        self.record.progress.message(
            f"{what}, and as much on the disk; twice that if the best checkpoint is an old one"
            f"{remark}"
        )
        if REPLAY in self.assembly.manifest:
            with must_belong(self.store.directory):
                self._spill.restore(self.assembly.manifest)
            buffer.cut(self._env.restarted)

    def collect(self, collector: Collector, actor: Actor) -> Transitions:
        """Let an actor act; if an environment fails in that, save the state that was before it.

        Not for a loop whose learner goes on beside its environments: nobody has its state before.

        Args:
            collector: that of `open_collector`.
            actor: whose random numbers are put back, too.

        Raises:
            EnvironmentFailure, NonFiniteError, UserError: see :class:`Collector`.
        """
        before, generator = collector.state_dict(), actor.generator.get_state()
        try:
            with self.stopwatch.measure("time/collect_s"):
                return collector.collect(actor)
        except EnvironmentFailure:
            actor.generator.set_state(generator)
            self._rescue({"collector": before})
            raise

    def collect_and_update(
        self, collect: Callable[[], Transitions], update: Callable[[], Metrics]
    ) -> tuple[Transitions, Metrics]:
        """Do two things that do not depend on each other, at the same time where that is faster.

        Args:
            collect: steps the environments.
            update: learns.
        """

        def timed(phase: str, work: Callable[[], A]) -> A:
            with self.stopwatch.measure(phase):
                return work()

        return self._side_by_side(
            partial(timed, "time/collect_s", collect),
            partial(timed, "time/update_s", update),
            compiled=self.assembly.compilation.wanted,
        )

    # ------------------------------------------------------------------ state

    def save(self, before: Mapping[str, Any] = NOTHING) -> Path:
        """Write a checkpoint.

        Args:
            before: states of parts that are in the middle of a step, by name: theirs from before.

        Raises:
            NonFiniteError: a number of the iterations since the last row is lost.
            CheckpointNotWritten: the disk is full, say.
        """
        self._parts.require_all()
        self._require_finite_since_last_row()
        self.store.notice_deletion(self.counters.step)
        rows = {} if self._spill is None else {REPLAY: self._spill.save()}
        self.stopwatch.tick()
        path = self.store.save(
            self.counters.step,
            weights=self.algorithm.agent.weights(),
            state={
                **self._parts.state_dict(before),
                "loggers": self.record.loggers.state_dict(),
            },
            info={
                "update": self.counters.update,
                "eval/return": finite_or_none(self.counters.last_return),
                "compiled": self.assembly.compilation.wanted,
                "operation_threads": self.experiment.hardware.operation_threads,
                "tokens": self.assembly.tokens,
                **rows,
            },
        )
        self._prune()
        self._saved = (self.counters.step, time.monotonic())
        self.record.write("running")
        return path

    def _prune(self) -> None:
        """Remove the rows of a replay buffer that no checkpoint needs any more."""
        if self._spill is not None:
            self._spill.prune(self.store.steps())

    def _rescue(self, before: Mapping[str, Any] = NOTHING) -> None:
        """Write a checkpoint before an error ends the run, without getting in that error's way.

        Only of steps that this process has done, between which its state is whole: a checkpoint
        that a resumed run comes from is whole itself.

        Args:
            before: see `save`.
        """
        step = self.counters.step
        if step == self._begun or self.store.has(step):
            return
        try:
            self.save(before)
        except (CheckpointNotWritten, NonFiniteError) as error:
            warn(str(error))

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old; the end of the loop has its own."""
        step, moment = self._saved
        old = time.monotonic() - moment >= self.experiment.checkpoint.every_seconds
        if step < self.counters.step and old:
            self.record.loggers.checkpoint(self.save(), ["last"])

    # ------------------------------------------------------------------ progress

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or more of them would change nothing."""
        return self.assembly.finished

    @property
    def goes_on(self) -> bool:
        """Whether there are steps left and nobody asked to stop."""
        return not self.finished and self.stop.signal is None

    @property
    def progress(self) -> float:
        """Share of the steps done, in [0, 1]."""
        return min(1.0, self.counters.step / self.experiment.total_steps)

    # ------------------------------------------------------------------ measuring

    def advance(self, *, steps: int, updates: int, converged: bool = False) -> None:
        """Count what an iteration did.

        Args:
            steps: environment steps, or what a step of the loop is.
            updates: optimiser steps.
            converged: whether more steps would change nothing, which ends the run.
        """
        self._parts.require_all()
        self.counters.step += steps
        self.counters.update += updates
        self.counters.converged = converged

    def log(self, metrics: Mapping[str, Tensor]) -> None:
        """Take note of an iteration's numbers, and log a row of them if one is due.

        Args:
            metrics: what the algorithm and the collector said, each [].

        Raises:
            NonFiniteError: one of the metrics, or a weight, is NaN or infinite.
        """
        self._averager.add(metrics, self._env.drain_episodes())
        steps = self.counters.step - self._averager.since
        if steps >= self.experiment.log_every_steps or self.finished:
            values = self._averager.values()
            self._require_finite(values)
            if self.assembly.alarms is not None:
                self.assembly.alarms.look(values, updates=self.counters.update)
            values |= self.stopwatch.drain()
            self.stopwatch.tick()
            # By the clock, so that evaluations and checkpoints since the last row count.
            elapsed_s = self.counters.time_s - self._logged_s
            values["speed/steps_per_s"] = steps / elapsed_s
            self._logged_s = self.counters.time_s
            self._averager.clear(self.counters.step)
            self._log(values)

    def _require_finite(self, values: dict[str, float]) -> None:
        """Stop a run whose numbers are lost, before they reach a checkpoint."""
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        weights = self.algorithm.agent.networks.state_dict()
        lost += [name for name, weight in weights.items() if not weight.isfinite().all()]
        if lost:
            raise NonFiniteError(f"{lost[0]} is not finite")

    def _require_finite_since_last_row(self) -> None:
        """Stop a run whose numbers are lost in the middle of a row."""
        if self._averager.since < self.counters.step:
            self._require_finite(self._averager.values())

    def _log(self, values: dict[str, float]) -> None:
        self.stopwatch.tick()
        self.record.log(values)

    def evaluate_if_due(self) -> None:
        """Evaluate before the first step, after every so many, and once the last one is done."""
        step, last = self.counters.step, self.counters.evaluated
        every = self.experiment.evaluation.interval(self.experiment.total_steps)
        first = last < 0 and self.goes_on
        if first or step // every > max(last, 0) // every or (self.finished and last < step):
            self.evaluate()

    def evaluate(self) -> None:
        """Play whole episodes with the greedy policy; keep the best policy's checkpoint."""
        self._require_finite_since_last_row()
        start = time.perf_counter()
        seed = evaluation_seed(self.assembly.streams.evaluation, self.counters.step)
        try:
            episodes = self.experiment.evaluation.episodes
            played = self.assembly.evaluator.play(episodes, seed=seed)
            metrics = played.metrics()
        except NonFiniteError:
            raise  # perhaps the weights' fault
        except Exception:
            self._rescue()
            raise
        metrics["time/evaluate_s"] = time.perf_counter() - start
        self.counters.evaluated = self.counters.step
        self.counters.last_return = metrics["eval/return"]
        self.counters.last_std = metrics["eval/return_std"]
        self._log(metrics)
        self.record.show(played.transcripts)
        best = self.counters.last_return > self.counters.best_return
        if best:
            self.counters.best_return = self.counters.last_return
            self.counters.best_step = self.counters.step
        path = self.save()
        if best:
            self.store.mark_best(path)
            self._prune()
        self.record.loggers.checkpoint(path, ["last", "best"] if best else ["last"])
        self.record.draw_if_due()

    def draw_table(self, agent: Tabled) -> None:
        """Draw what a method on tables has learned."""
        self.record.draw_table(agent.value.numpy(), agent.action_value.numpy())
