"""The parts of an experiment, fitted together: what is trained, evaluated and filmed."""

from functools import partial
from typing import Any

from torch import Tensor

from rlrun.algos.contract import Algorithm
from rlrun.collectors.contract import Collector
from rlrun.config.experiment import Experiment
from rlrun.data.seeding import Streams
from rlrun.envs.control import ControlEnv
from rlrun.errors import UserError
from rlrun.hardware.compile import Compilation
from rlrun.hardware.memory import memory_suffices
from rlrun.learning.metrics import MetricAverager
from rlrun.loggers.jsonl import require_offset
from rlrun.models.actor import Actor
from rlrun.runs.counters import Counters
from rlrun.runs.evaluate import Evaluator
from rlrun.runs.files.checkpoint import Checkpoint
from rlrun.runs.language.alarms import Alarms
from rlrun.runs.language.responses import LanguageEvaluator
from rlrun.runs.setup.opening import measure, open_envs, task_of
from rlrun.runs.setup.policies import load_policy, unread_policy
from rlrun.runs.setup.preflight import SET_UP, make_context, require_room_for, set_up
from rlrun.runs.setup.restoring import Parts, must_belong


class Assembly:
    """Builds the parts of an experiment to each other's measures; those of a resumed run go on.

    Nothing is written: what fails, fails before there is a run.

    Args:
        experiment: checked configuration with its parts.
        checkpoint: where to go on from, or None for a new run.

    Attributes:
        algorithm: the experiment's, set up.
        env: the environments of the training.
        problem: what they look like.
        streams: the run's random numbers.
        counters: how far the run is.
        averager: the numbers since the last row of metrics.
        alarms: look at the rows of a task of language; None: it is none.
        parts: all that has a state which decides the run's future.
        logger_states: what the loggers were at the checkpoint; empty for a new run.
        manifest: what the checkpoint says of itself; empty for a new run.
        compilation: what there is to compile, and whether it is worth it.
        evaluator: plays the policy in environments of its own.

    Raises:
        UserError: the parts do not fit together, or the checkpoint does not fit them.
    """

    @memory_suffices(SET_UP)
    def __init__(self, experiment: Experiment, checkpoint: Checkpoint | None):
        require_room_for(experiment)
        self.experiment = experiment
        self.algorithm: Algorithm = experiment.algo
        self.counters = Counters()
        self.averager = MetricAverager()
        self.alarms: Alarms | None = None
        self.streams = Streams.from_seed(experiment.seed)
        self.parts = Parts(checkpoint)
        self.logger_states: dict[str, dict[str, Any]] = {}
        self.manifest = {} if checkpoint is None else checkpoint.info
        task = task_of(experiment)
        self.evaluator: Evaluator | LanguageEvaluator = (
            Evaluator(experiment, self._act_greedily)
            if task is None
            else LanguageEvaluator(task, self._writer)
        )
        self.env = open_envs(
            experiment, self.algorithm.num_envs, experiment.hardware.physics_threads
        )
        try:
            self._set_up(checkpoint)
        except BaseException:
            self.close()
            raise

    def _set_up(self, checkpoint: Checkpoint | None) -> None:
        """Build the parts that are made to the environments' measures; restore their states."""
        experiment, algorithm = self.experiment, self.algorithm
        self.problem = measure(experiment, self.env)
        read = load_policy if checkpoint is None else unread_policy
        if checkpoint is not None:
            self._require_same_tokens(checkpoint)
        context = make_context(
            experiment,
            self.problem,
            self.streams,
            load_policy=partial(read, problem=self.problem),
            resumed=checkpoint is not None,
        )
        self._context = context
        set_up(algorithm, context)
        compiled = None
        if checkpoint is not None:
            with must_belong(checkpoint.path):
                # Decided once, so that a resumed run computes with the same code as before.
                compiled = checkpoint.info["compiled"]
                algorithm.agent.load_weights(checkpoint.weights)
        self.compilation = Compilation(
            [function for each in algorithm.learners.values() for function in each.functions],
            experiment.hardware,
            total_steps=experiment.total_steps,
            decided=compiled,
        )
        if checkpoint is not None and self.parts.saved is not None:
            self.logger_states = self.parts.saved.take("loggers")
            with must_belong(checkpoint.path):
                require_offset(self.logger_states)
        self.parts.add("counters", self.counters)
        self.parts.add("averager", self.averager)
        if self.problem.language is not None:
            self.alarms = Alarms()
            self.parts.add("alarms", self.alarms)
        self.parts.add("streams", self.streams)
        for name, part in {**algorithm.learners, **algorithm.parts}.items():
            self.parts.add(f"algorithm.{name}", part)

    @property
    def tokens(self) -> str | None:
        """A digest of what the tokens of a task of language stand for; None: there are none."""
        return None if self.problem.language is None else self.problem.language.digest

    def _require_same_tokens(self, checkpoint: Checkpoint) -> None:
        """Refuse a task whose tokens have changed since: weights are of numbers of tokens.

        Raises:
            UserError: they have.
        """
        saved = checkpoint.info.get("tokens")  # of commits before 2026-11-23 there is none
        if saved not in (None, self.tokens):
            raise UserError(
                f"{checkpoint.path}: {self.problem.env_id} has other tokens than when this was "
                "saved: its prompts (env.path) or its tokeniser have changed"
            )

    def open_collector(self) -> Collector:
        """Open what an on-policy loop gets its data from, or go on with it."""
        collector = self.experiment.collector.open(
            self.env, self._context.shape, seed=self.streams.env
        )
        self.parts.add("collector", collector)
        return collector

    def open_env(self) -> ControlEnv:
        """Begin an episode in every environment, or go on in the middle of one."""
        assert isinstance(self.env, ControlEnv)  # without a collector
        if self.parts.saved is None:
            self.env.reset(self.streams.env)
        self.parts.add("env", self.env)
        return self.env

    def as_steps(self) -> ControlEnv:
        """Return environments to look at that take single steps, as a policy does by itself."""
        if isinstance(self.env, ControlEnv):
            return self.env
        return ControlEnv.make(self.env.task, num_envs=1, threads=1)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or more of them would change nothing."""
        return self.counters.converged or self.counters.step >= self.experiment.total_steps

    @property
    def at_its_best(self) -> bool:
        """Whether the present policy is the one with the best evaluation."""
        return self.counters.best_step == self.counters.step

    def close(self) -> None:
        """Let the environments go."""
        self.env.close()
        self.evaluator.close()

    def _act_greedily(self, obs: Tensor) -> Tensor:
        """Return the policy's best actions at raw observations [N, D]."""
        return self.algorithm.agent.actor.act_greedily(obs)

    def _writer(self) -> Actor:
        """Return who writes responses."""
        actor = self.algorithm.agent.actor
        if not isinstance(actor, Actor):
            raise UserError("collector=generation: this algorithm's actor does not write")
        return actor
