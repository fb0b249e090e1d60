"""What a trained policy answers to somebody's own prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlrun.errors import UserError
from rlrun.runs.language.responses import LanguageEvaluator
from rlrun.runs.reopen import saved_run


def write_samples(
    directory: Path,
    *,
    episodes: int,
    seed: int,
    checkpoint: str,
    plugins: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Have prompts answered that training never saw, and return some of the responses.

    Args:
        directory: the run's directory.
        episodes: prompts.
        seed: of the first one, and of the draws.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.

    Returns:
        The best, the worst and others as they come (``which``), with what they were paid for, and
        the advantage: that over the mean of the responses that were drawn to the same prompt.

    Raises:
        UserError: the run writes no responses.
    """
    with saved_run(directory, checkpoint, plugins) as (assembly, _):
        evaluator = assembly.evaluator
        if not isinstance(evaluator, LanguageEvaluator):
            raise UserError(f"--samples: {directory} was trained to act, not to write")
        return evaluator.play(episodes, seed=seed).transcripts


def answer_prompts(
    directory: Path, prompts: Sequence[str], checkpoint: str, plugins: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Write the most probable response to each prompt.

    Args:
        directory: the run's directory.
        prompts: as the task has them ("12+7=").
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.

    Returns:
        Prompts and responses.

    Raises:
        UserError: the run writes no responses, or a prompt is none of its task.
    """
    with saved_run(directory, checkpoint, plugins) as (assembly, _):
        evaluator = assembly.evaluator
        if not isinstance(evaluator, LanguageEvaluator):
            raise UserError(f"--prompt: {directory} was trained to act, not to write")
        env = evaluator.make(len(prompts))
        responses = evaluator.write(env.encoded(list(prompts)))
        return list(zip(prompts, env.written(responses.tokens), strict=True))
