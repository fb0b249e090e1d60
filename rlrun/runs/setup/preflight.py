"""Whether the parts of a run fit each other, found out without making the run's environments."""

import inspect
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any

from rlrun import loops
from rlrun.collectors.pairs import Pairs
from rlrun.config.experiment import Experiment
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.envs.tabular import read_table
from rlrun.envs.tokens.task import TokenTask
from rlrun.errors import UserError
from rlrun.hardware.memory import memory_suffices, require_memory
from rlrun.learning.contract import Context
from rlrun.models.huggingface.model import HuggingFace
from rlrun.models.language.answer_key import AnswerKey
from rlrun.models.language.model import Transformer
from rlrun.models.reference import Reference
from rlrun.runs.setup.opening import measure, open_envs, require_engine
from rlrun.runs.setup.policies import load_policy

# Where a reader finds what an algorithm needs.
CONTRACT = "(rlrun/algos/contract.py)"

SETUP, UPDATE = ["context"], ["transitions", "progress"]
LEARN, REPLAY = ["obs", "action", "step", "progress"], ["progress"]

REQUIRED = {
    "loop": "a class attribute, loop = staticmethod(loops.on_policy)",
    "num_envs": "a field, the environments stepped side by side",
    "setup": "a method that builds networks and learners",
}
# What a loop needs besides: a method, its arguments, and what it is for.
BY_LOOP = {
    loops.on_policy: ("update", UPDATE, "a method that learns from what was collected"),
    loops.supervised: ("update", UPDATE, "a method that learns from what was collected"),
    loops.planning: ("sweep", [], "a method that goes over all states once"),
    loops.off_policy: ("update", REPLAY, "a method that learns from the replay buffer"),
    loops.online: ("learn", LEARN, "a method that learns from one step"),
}
# Single precision, in `obs` and `next_obs`.
BYTES_PER_OBSERVED_NUMBER = 8

# An object of Python's is hardly smaller.
BYTES_PER_ENVIRONMENT = 1_000

# Steps of a pretrained model that are larger than the usual ones by this are said to be too large.
MOST_USUAL_STEPS = 10

# What takes memory before the first step.
SET_UP = "the environments and networks of this run"

# What there must be after `setup`, and what a loop asks for besides.
SET_BY_SETUP = ("agent", "learners", "parts")
SET_FOR_LOOP = {
    loops.supervised: ("author",),
    loops.planning: ("plan",),
    loops.off_policy: ("buffer", "explore"),
    loops.online: ("act", "forget_episode"),
}


def make_context(
    experiment: Experiment,
    problem: Problem,
    streams: Streams,
    *,
    load_policy: Callable[..., Reference],
    resumed: bool = False,
) -> Context:
    """Put together what an algorithm is set up with.

    Args:
        experiment: checked configuration with its parts.
        problem: the environment's measures.
        streams: of random numbers.
        load_policy: path, device, setting -> a frozen policy.
        resumed: whether a checkpoint is loaded after this.

    Raises:
        UserError: the collector cannot collect from this environment, or not into this memory.
    """
    shape, model, task = None, experiment.model, experiment.env
    if experiment.collector is not None:
        shape = experiment.collector.shape(problem, experiment.algo.num_envs)
        require_memory(
            shape.rows * problem.obs_size * BYTES_PER_OBSERVED_NUMBER,
            f"a rollout of {shape.num_envs:,} environments x {shape.longest:,} steps",
        )
    return Context(
        problem=problem,
        total_steps=experiment.total_steps,
        collected=shape,
        networks=experiment.model,
        estimator=experiment.advantage,
        hardware=experiment.hardware,
        streams=streams,
        read_table=partial(read_table, experiment.env),
        load_policy=partial(load_policy, learner=model),
        resumed=resumed,
        initial=model.init if isinstance(model, Transformer | HuggingFace) else None,
        author=partial(AnswerKey, task)
        if isinstance(task, TokenTask) and task.has_answers
        else None,
    )


def require_room_for(experiment: Experiment) -> None:
    """Refuse a run with more environments than this machine's memory can hold, or than workers.

    Raises:
        UserError: there are too many, or too few for the processes that are to step them.
    """
    workers, num_envs = experiment.config["env"].get("workers", 0), experiment.algo.num_envs
    if workers > num_envs:
        raise UserError(
            f"env.workers={workers}, but there are algo.num_envs={num_envs} to step: a worker has "
            "one at least"
        )
    require_room(experiment.algo.num_envs, "algo.num_envs")
    require_room(experiment.evaluation.episodes, "evaluation.episodes")


def require_room(num_envs: int, setting: str) -> None:
    """Refuse more environments than this machine's memory can hold.

    Args:
        num_envs: environments made at once.
        setting: where the number comes from ("algo.num_envs"), for the message.

    Raises:
        UserError: there are too many, even if they take next to nothing each.
    """
    require_memory(num_envs * BYTES_PER_ENVIRONMENT, f"{setting}={num_envs}")


def set_up(algorithm: Any, context: Context) -> None:
    """Have an algorithm build its networks and learners.

    Args:
        algorithm: perhaps of a user's package.
        context: the other parts of the run.

    Raises:
        UserError: it lacks a part of its contract, or cannot work with one of the other parts.
    """
    check_contract(algorithm)
    algorithm.setup(context)
    # The author may be a frozen policy, that is read after this where a run goes on.
    later = {"author"} if context.resumed else set()
    required = {*SET_BY_SETUP, *SET_FOR_LOOP.get(algorithm.loop, ())} - later
    try:
        # Attributes, properties and slots alike.
        attrgetter(*sorted(required))(algorithm)
    except AttributeError as error:
        algo = type(algorithm).__name__
        raise UserError(f"algo: {algo}.setup does not set {error.name} {CONTRACT}") from error


def check_contract(algorithm: Any) -> None:
    """Refuse an algorithm that lacks a part of its contract.

    Raises:
        UserError: names what it lacks.
    """
    name, there = type(algorithm).__name__, dir(algorithm)
    methods, required = {"setup": SETUP}, dict(REQUIRED)
    if "loop" in there and algorithm.loop in BY_LOOP:
        method, arguments, meaning = BY_LOOP[algorithm.loop]
        methods[method], required[method] = arguments, meaning
    for attribute, meaning in required.items():
        if attribute not in there:
            raise UserError(f"algo: {name} has no {attribute}: {meaning} {CONTRACT}")
    for attribute, wanted in methods.items():
        method = attrgetter(attribute)(algorithm)
        if not callable(method):
            raise UserError(f"algo: {name}.{attribute} is no method {CONTRACT}")
        given = list(inspect.signature(method).parameters)
        if given != wanted:
            raise UserError(
                f"algo: {name}.{attribute} takes ({', '.join(given)}), not "
                f"({', '.join(wanted)}) {CONTRACT}"
            )


def without_effect(experiment: Experiment, problem: Problem) -> list[str]:
    """Return a line for each setting of the command line that nothing of this run reads.

    Args:
        experiment: of the run.
        problem: the environment's measures.
    """
    reasons = {}
    if "horizon" not in experiment.config.get("collector", {}):
        reasons["algo.horizon"] = "the collector plays whole episodes"
    if problem.discrete:
        reasons["model.log_std"] = "an action is a choice"
        reasons["env.action_units"] = "an action is a choice"
    given = {word.lstrip("+").partition("=")[0] for word in experiment.overrides}
    return [
        f"{setting} has no effect: {reason}"
        for setting, reason in reasons.items()
        if setting in given
    ]


def too_large_steps(experiment: Experiment) -> list[str]:
    """Return a line if the optimiser's steps would undo what a pretrained model has learned.

    Args:
        experiment: of the run.
    """
    model, settings = experiment.model, experiment.config["algo"].get("optimizer", {})
    if not isinstance(model, HuggingFace) or "learning_rate" not in settings:
        return []
    rate, usual = settings["learning_rate"], 1e-5 if model.lora is None else 1e-4
    if rate <= MOST_USUAL_STEPS * usual:
        return []
    what = "pretrained models" if model.lora is None else "adapters"
    return [
        f"algo.optimizer.learning_rate={rate:g} is for networks from scratch, and forgets what "
        f"model.path has learned: {what} usually take steps of {usual:g}, or a tenth of that"
    ]


class Preflight:
    """Sets up the algorithms of several runs, as each will when it starts, and drops them.

    That takes milliseconds a run. Environments can take seconds, so a single one is made, whose
    measures serve all runs with the same settings of it.
    """

    def __init__(self) -> None:
        """Begin without an environment."""
        self._problems: list[tuple[dict[str, Any], Problem]] = []

    @memory_suffices(SET_UP)
    def check(self, experiment: Experiment) -> None:
        """Set up a run's algorithm.

        Args:
            experiment: of the run; its algorithm is spent afterwards.

        Raises:
            UserError: the parts do not fit together, the environment cannot be made, or this
                machine lacks the device.
        """
        require_room_for(experiment)
        require_engine(experiment)
        problem = self._problem(experiment)
        context = make_context(
            experiment,
            problem,
            Streams.from_seed(experiment.seed),
            load_policy=partial(load_policy, problem=problem),
        )
        set_up(experiment.algo, context)

    def _problem(self, experiment: Experiment) -> Problem:
        # The environment's form is that of the collector; a file of pairs is read with it.
        collector: Any = type(experiment.collector)
        if isinstance(experiment.collector, Pairs):
            collector = experiment.config["collector"]
        settings = {**experiment.config["env"], "collector": collector}
        for known, problem in self._problems:
            if known == settings:
                return problem
        env = open_envs(experiment, num_envs=1, threads=1)
        problem = measure(experiment, env)
        env.close()
        self._problems.append((settings, problem))
        return problem
