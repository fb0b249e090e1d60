"""A run's model of language as a directory that the package transformers loads."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlrun.errors import UserError
from rlrun.models.actor import Actor
from rlrun.models.huggingface.directory import is_model
from rlrun.models.huggingface.model import HuggingFace
from rlrun.models.language.networks import TokenPolicy
from rlrun.runs.files.disk import remove
from rlrun.runs.reopen import saved_run


def export_model(
    directory: Path,
    *,
    output: Path | None = None,
    force: bool = False,
    checkpoint: str = "last",
    plugins: Sequence[str] = (),
) -> Path:
    """Write the model of a run, its adapters merged, with its tokeniser.

    Args:
        directory: the run's directory.
        output: the model's; None: ``model`` in the run's directory.
        force: whether a model's directory of this name may be replaced.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.

    Returns:
        The model's directory.

    Raises:
        UserError: the run has no such model, or the directory is there or cannot be written.
    """
    target = output or directory / "model"
    if target.exists() and not (force and is_model(target)):
        remedy = "another name, or --force" if is_model(target) else "another name"
        raise UserError(f"{target} exists: --output with {remedy}")
    if not target.absolute().parent.is_dir():
        raise UserError(f"--output: no directory '{target.parent}'")
    with saved_run(directory, checkpoint, plugins) as (assembly, _):
        model, actor = assembly.experiment.model, assembly.algorithm.agent.actor
        if not isinstance(model, HuggingFace):
            raise UserError(
                f"--to huggingface is for model=huggingface, and {directory} has "
                f"model={assembly.experiment.choices.get('model', 'none')}"
            )
        assert isinstance(actor, Actor)
        assert isinstance(actor.policy, TokenPolicy)
        try:
            # Whole, or not at all.
            with tempfile.TemporaryDirectory(dir=target.absolute().parent) as beside:
                made = Path(beside) / "model"
                made.mkdir()
                model.save(actor.policy, made)
                if target.exists():
                    remove(target)
                made.rename(target)
        except OSError as error:
            raise UserError(f"{target} cannot be written: {error.strerror}") from error
    return target
