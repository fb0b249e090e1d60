"""The environments of a run, in the form that its collector takes them in."""

from rlrun.collectors import engines
from rlrun.collectors.generation import Generation
from rlrun.collectors.pairs import Pairs
from rlrun.collectors.vllm_engine import require_vllm
from rlrun.config.experiment import Experiment
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.envs.tokens.task import TokenTask
from rlrun.errors import UserError
from rlrun.models.huggingface.model import HuggingFace


def task_of(experiment: Experiment) -> TokenTask | None:
    """Return the task to whose prompts whole responses are written; None: single steps are taken.

    Raises:
        UserError: responses are to be written, and there are no prompts.
    """
    if not isinstance(experiment.collector, Generation | Pairs):
        return None
    if not isinstance(experiment.env, TokenTask):
        name = experiment.choices["collector"]
        raise UserError(
            f"collector={name} is of responses, for which {experiment.env.id} has no prompts: "
            "env=mod_add, say"
        )
    return experiment.env


def open_envs(experiment: Experiment, num_envs: int, threads: int) -> ControlEnv | TokenEnv:
    """Make environments.

    Args:
        experiment: of the run.
        num_envs: N.
        threads: that step them, as far as they can use any.

    Raises:
        UserError: they cannot be made.
    """
    task = task_of(experiment)
    if task is not None:
        env = TokenEnv(task, num_envs=num_envs)
        if isinstance(experiment.collector, Pairs):
            experiment.collector.read(env)  # what is wrong with the file is said before a run
        return env
    return ControlEnv.make(experiment.env, num_envs=num_envs, threads=threads)


def require_engine(experiment: Experiment) -> None:
    """Refuse to train with an engine that is not there; without it, one may look at a run.

    Raises:
        UserError: vLLM is not installed, or not for this model.
    """
    collector = experiment.collector
    if isinstance(collector, Generation) and collector.engine is engines.vllm:
        if not isinstance(experiment.model, HuggingFace):
            raise UserError("collector.engine=vllm is for model=huggingface")
        require_vllm()


def measure(experiment: Experiment, env: ControlEnv | TokenEnv) -> Problem:
    """Take the measures of a run's environments."""
    if isinstance(env, TokenEnv):
        return Problem.of_prompts(env.task)
    return Problem.of(experiment.env, env)
