"""A run: its parts, its whole state, and the verbs of its loop."""

import math
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from rlrun.algos.contract import OnPolicyAlgorithm
from rlrun.collectors.episodes import EpisodeCollector
from rlrun.collectors.segments import SegmentCollector
from rlrun.config.experiment import Experiment
from rlrun.data.normalize import ObservationNormalizer, RewardNormalizer
from rlrun.data.seeding import Streams, evaluation_seed
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.errors import CheckpointNotWritten, NonFiniteError, warn
from rlrun.learning.metrics import Ledger
from rlrun.learning.protocols import Stateful
from rlrun.runs.counters import Counters, Stopwatch
from rlrun.runs.evaluate import Episodes, play_episodes
from rlrun.runs.files.checkpoint import Checkpoint, CheckpointStore
from rlrun.runs.files.record import Record, finite_or_none
from rlrun.runs.signals import StopFlag


class Run:
    """Builds the parts of an experiment, and holds what its loop needs.

    Args:
        experiment: checked configuration with its parts.
        checkpoint: where to go on from, or None for a new run.

    Raises:
        UserError: the parts do not fit together. Nothing has been written by then.
    """

    # Set by `begin`.
    record: Record
    store: CheckpointStore
    stop: StopFlag
    stopwatch: Stopwatch
    _saved: tuple[int, float]
    _logged_s: float

    def __init__(self, experiment: Experiment, checkpoint: Checkpoint | None):
        hardware, algorithm = experiment.hardware, experiment.algo
        hardware.prepare()
        self.experiment = experiment
        self.algorithm: OnPolicyAlgorithm = algorithm
        self.counters = Counters()
        self.ledger = Ledger()
        self.streams = Streams.from_seed(experiment.seed)
        self.env = ControlEnv.make(
            experiment.env, num_envs=algorithm.num_envs, threads=hardware.physics_threads
        )
        # Decided once, so that a resumed run computes with the same code as before.
        updates = algorithm.updates(experiment.total_steps)
        self.compiled = (
            hardware.should_compile(updates) if checkpoint is None else checkpoint.info["compiled"]
        )
        self.problem = Problem.of(experiment.env, self.env)
        algorithm.setup(
            self.problem,
            hardware=hardware,
            streams=self.streams,
            estimator=experiment.advantage,
            compiled=self.compiled,
            from_checkpoint=checkpoint is not None,
        )
        self.observation_normalizer = ObservationNormalizer(
            self.env.obs_size,
            clip=algorithm.normalizer_clip,
            enabled=algorithm.normalize_observation,
        )
        self._checkpoint = checkpoint
        self._parts: dict[str, Stateful] = {}
        if checkpoint is not None:
            algorithm.agent.load_weights(checkpoint.weights)
        self.track("counters", self.counters)
        self.track("ledger", self.ledger)
        self.track("streams", self.streams)
        for name, part in {**algorithm.learners, **algorithm.parts}.items():
            self.track(f"algorithm.{name}", part)
        self.track("observation_normalizer", self.observation_normalizer)
        self._evaluation_env: ControlEnv | None = None

    @property
    def logger_states(self) -> dict[str, dict[str, Any]]:
        """What the loggers were at the checkpoint that the run goes on from."""
        return {} if self._checkpoint is None else self._checkpoint.state["loggers"]

    def make_collector(self) -> SegmentCollector | EpisodeCollector:
        """Make what the on-policy loop gets its rollouts from, at the start of an episode."""
        algorithm = self.algorithm
        horizon = self.problem.rollout_length(algorithm.horizon, algorithm.num_envs)
        reward_normalizer = RewardNormalizer(
            algorithm.num_envs,
            gamma=algorithm.gamma,
            clip=algorithm.normalizer_clip,
            enabled=algorithm.normalize_reward,
        )
        if self.problem.group_size is not None:
            return EpisodeCollector(
                self.env,
                horizon=horizon,
                group_size=self.problem.group_size,
                seed=self.streams.env,
                observation_normalizer=self.observation_normalizer,
                reward_normalizer=reward_normalizer,
                device=algorithm.agent.device,
            )
        collector = SegmentCollector(
            self.env,
            horizon=horizon,
            observation_normalizer=self.observation_normalizer,
            reward_normalizer=reward_normalizer,
            device=algorithm.agent.device,
        )
        collector.reset(self.streams.env)
        return collector

    def begin(self, record: Record, stop: StopFlag) -> None:
        """Start the clock of this process's stint.

        Args:
            record: where the run's numbers go.
            stop: whether a signal has asked the run to stop.
        """
        self.record = record
        self.store = CheckpointStore(
            record.directory / "checkpoints", keep=self.experiment.checkpoint.keep
        )
        self.stop = stop
        self.stopwatch = Stopwatch(self.counters)
        self._saved = (self.counters.step, time.monotonic())
        self._logged_s = self.counters.time_s

    def close(self) -> None:
        """Let the environments go."""
        for env in (self.env, self._evaluation_env):
            if env is not None:
                env.close()

    # ------------------------------------------------------------------ state

    def track(self, name: str, part: Stateful) -> None:
        """Make a part's state part of the run's; on a resumed run, restore it."""
        self._parts[name] = part
        if self._checkpoint is not None:
            part.load_state_dict(self._checkpoint.state[name])

    def state_dict(self) -> dict:
        """Return everything that decides the future, but for the weights."""
        self.stopwatch.tick()
        return {name: part.state_dict() for name, part in self._parts.items()}

    def save(self, state: dict | None = None) -> Path:
        """Write a checkpoint of the present, or of an earlier state under the same weights.

        Raises:
            NonFiniteError: a number of the iterations since the last row is lost.
            CheckpointNotWritten: the disk is full, say.
        """
        self._require_finite_since_last_row()
        path = self.store.save(
            self.counters.step,
            weights=self.algorithm.agent.weights(),
            state={**(state or self.state_dict()), "loggers": self.record.loggers.state_dict()},
            info={
                "update": self.counters.update,
                "eval/return": finite_or_none(self.counters.last_return),
                "compiled": self.compiled,
            },
        )
        self._saved = (self.counters.step, time.monotonic())
        self.record.write("running")
        return path

    def rescue(self, state: dict | None = None) -> None:
        """Write a checkpoint before an error ends the run, without getting in that error's way."""
        try:
            self.save(state)
        except (CheckpointNotWritten, NonFiniteError) as error:
            warn(str(error))

    def save_if_due(self) -> None:
        """Write a checkpoint if the last one is old, or if this iteration is the last one."""
        step, moment = self._saved
        old = time.monotonic() - moment >= self.experiment.checkpoint.every_seconds
        if step < self.counters.step and (old or not self.goes_on):
            self.record.loggers.checkpoint(self.save(), ["last"])

    # ------------------------------------------------------------------ progress

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.counters.step >= self.experiment.total_steps

    @property
    def at_its_best(self) -> bool:
        """Whether the present policy is the one with the best evaluation."""
        return self.counters.best_step == self.counters.step

    @property
    def goes_on(self) -> bool:
        """Whether there are steps left and nobody asked to stop."""
        return not self.finished and self.stop.signal is None

    @property
    def progress(self) -> float:
        """Share of the steps done, in [0, 1]."""
        return min(1.0, self.counters.step / self.experiment.total_steps)

    # ------------------------------------------------------------------ measuring

    def log_iteration(self, metrics: dict[str, Tensor], *, steps: int) -> None:
        """Count an iteration's steps and updates, and log a row of numbers if one is due.

        Args:
            metrics: what the algorithm's update returned; ``updates`` is the number of them.
            steps: environment steps of the iteration.

        Raises:
            NonFiniteError: one of the metrics, or a weight, is NaN or infinite.
        """
        self.counters.step += steps
        self.counters.update += int(metrics.pop("updates"))
        self.ledger.add(metrics, self.env.drain_episodes(), steps)
        if self.ledger.steps >= self.experiment.log_every_steps or self.finished:
            values = self.ledger.values()
            self._require_finite(values)
            values |= self.stopwatch.drain()
            self.stopwatch.tick()
            # By the clock, so that evaluations and checkpoints since the last row count.
            elapsed_s = self.counters.time_s - self._logged_s
            values["speed/steps_per_s"] = self.ledger.steps / elapsed_s
            self._logged_s = self.counters.time_s
            self.ledger.clear()
            self._log(values)

    def _require_finite(self, values: dict[str, float]) -> None:
        """Stop a run whose numbers are lost, before they reach a checkpoint."""
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        lost += [n for n, w in self.algorithm.agent.weights().items() if not w.isfinite().all()]
        if lost:
            raise NonFiniteError(f"{lost[0]} is not finite")

    def _require_finite_since_last_row(self) -> None:
        """Stop a run whose numbers are lost in the middle of a row."""
        if self.ledger.steps:
            self._require_finite(self.ledger.values())

    def _log(self, values: dict[str, float]) -> None:
        self.stopwatch.tick()
        self.record.log(values)

    def evaluate_if_due(self) -> None:
        """Evaluate after every so many steps, and once the last step is done."""
        step, every = self.counters.step, self.experiment.evaluation.every_steps
        if step // every > max(self.counters.evaluated, 0) // every or self.finished:
            self.evaluate()

    def evaluate(self) -> None:
        """Play whole episodes with the greedy policy; keep the best policy's checkpoint."""
        self._require_finite_since_last_row()
        start = time.perf_counter()
        seed = evaluation_seed(self.streams.evaluation, self.counters.step)
        try:
            if self._evaluation_env is None:
                self._evaluation_env = self.make_evaluation_env(self.experiment.evaluation.episodes)
            metrics = self.play(self._evaluation_env, seed=seed).metrics()
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
            self.counters.best_step = self.counters.step
        path = self.save()
        if best:
            self.store.mark_best(path)
        self.record.loggers.checkpoint(path, ["last", "best"] if best else ["last"])
        self.record.draw_if_due()

    def play(self, env: ControlEnv, *, seed: int) -> Episodes:
        """Play one episode of the greedy policy in each environment."""
        max_length = self.experiment.evaluation.max_length
        return play_episodes(self.act_greedily, env, seed=seed, max_length=max_length)

    def make_evaluation_env(self, episodes: int) -> ControlEnv:
        """Make environments that training never touches, one for each episode."""
        threads = self.experiment.hardware.physics_threads
        return ControlEnv.make(self.experiment.env, num_envs=episodes, threads=threads)

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the policy's best actions at raw observations [N, D]."""
        return self.algorithm.agent.act_greedily(self.observation_normalizer(obs))
