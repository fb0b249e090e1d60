"""A run of which there are checkpoints, opened again to look at its policy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rlrun.config.load import load_run
from rlrun.errors import UserError
from rlrun.runs import session
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS, require_own_files
from rlrun.runs.setup.assembly import Assembly

# Which checkpoint of a run.
KINDS = ("last", "best")


@contextmanager
def saved_run(
    directory: Path, checkpoint: str, plugins: Sequence[str]
) -> Iterator[tuple[Assembly, Path]]:
    """Load a run to look at its policy.

    Args:
        directory: the run's directory.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.

    Yields:
        Its parts, and the checkpoint that they were loaded from.

    Raises:
        UserError: there is no such checkpoint, or it does not belong to the run's config.
    """
    if checkpoint not in KINDS:
        raise UserError(f"checkpoint {checkpoint!r}: there is {' and '.join(KINDS)}")
    require_own_files(directory)
    experiment = load_run(directory, plugins)
    # A policy acts on the CPU and uncompiled, so a run from a GPU's machine can be looked at here.
    experiment = replace(experiment, hardware=replace(experiment.hardware, device="cpu"))
    store = CheckpointStore(directory / CHECKPOINTS, keep=experiment.checkpoint.keep)
    if not store.steps():
        raise UserError(f"{directory} has no checkpoint yet: `rlrun resume {directory}`")
    loaded = store.load_last() if checkpoint == "last" else store.load_best()
    uncompiled = replace(loaded, info={**loaded.info, "compiled": False})
    with session.assemble(experiment, uncompiled) as assembly:
        yield assembly, loaded.path
