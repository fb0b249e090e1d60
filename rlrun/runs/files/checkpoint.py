"""A store of checkpoints that a crash at any moment leaves readable.

A checkpoint is a directory, ``step-000000204800/``, with the weights (safetensors), the rest of
the state (``torch.save``, read without executing pickles) and a manifest with the SHA-256 of
both. It is written under another name beside its place, flushed to the disk and then renamed, so
that a directory of the final name is always whole; a checksum catches what a disk did to it since.
"""

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from rlrun.errors import CheckpointNotWritten, UserError, warn

WEIGHTS, STATE, MANIFEST = "weights.safetensors", "state.pt", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes:
        path: its directory.
        info: facts about it: step, evaluation return, versions.
        weights: named tensors of the networks.
        state: everything else that decides the future.
    """

    path: Path
    info: dict
    weights: dict[str, Tensor]
    state: dict


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        directory: ``<run>/checkpoints``; made when the first checkpoint is written.
        keep: how many of the latest to keep; the best one is kept besides.
    """

    def __init__(self, directory: Path, *, keep: int):
        self.directory = directory
        self.keep = keep

    def save(self, step: int, *, weights: dict[str, Tensor], state: dict, info: dict) -> Path:
        """Publish a checkpoint whole, or not at all.

        Args:
            step: environment steps so far; names the directory.
            weights: named tensors, shareable without the rest.
            state: plain containers and tensors.
            info: plain facts for people and tools, written to the manifest.

        Returns:
            The checkpoint's directory.

        Raises:
            CheckpointNotWritten: the disk is full, say; earlier checkpoints are as before.
        """
        self.repair()
        final = self.directory / f"step-{step:012d}"
        temporary = self.directory / f".writing-{final.name}"
        replaced = self.directory / f".replaced-{final.name}"
        try:
            temporary.mkdir(parents=True)
            contiguous = {
                name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()
            }
            (temporary / WEIGHTS).write_bytes(safetensors.torch.save(contiguous))
            with (temporary / STATE).open("wb") as file:
                torch.save(state, file)
            digests = {name: _sha256(temporary / name) for name in (WEIGHTS, STATE)}
            manifest = {"step": step, **info, "sha256": digests}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            for name in (WEIGHTS, STATE, MANIFEST):
                _fsync(temporary / name)
            _fsync(temporary)
            if final.exists():  # this step was saved before, or is a damaged one's second try
                final.rename(replaced)
            temporary.rename(final)
            _fsync(self.directory)
        except (OSError, RuntimeError) as error:
            # torch.save hides the disk's answer behind an error of its own.
            answer = error if isinstance(error, OSError) else error.__context__
            if not isinstance(answer, OSError):
                raise
            raise CheckpointNotWritten(f"{final} could not be written: {answer}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
        self._rotate()
        return final

    def repair(self) -> None:
        """Clear up after a process that was killed while it wrote here.

        For the run's own process only: it holds the run's lock, so nobody else is writing.
        """
        for replaced in self.directory.glob(".replaced-step-*"):
            original = self.directory / replaced.name.removeprefix(".replaced-")
            if not original.exists():  # killed between the two renames
                replaced.rename(original)
        for leftover in self.directory.glob(".*-step-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def mark_best(self, checkpoint: Path) -> None:
        """Make a checkpoint the one that ``best`` stands for."""
        link = self.directory / "best"
        temporary = self.directory / ".best"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(checkpoint.name)
        temporary.replace(link)
        _fsync(self.directory)
        self._rotate()

    def steps(self) -> list[Path]:
        """Return the directories of all checkpoints, oldest first."""
        return sorted(self.directory.glob("step-*"))

    def load_last(self) -> Checkpoint:
        """Read the newest checkpoint that is whole.

        Raises:
            UserError: there is none.
        """
        for path in reversed(self.steps()):
            try:
                return load(path)
            except ValueError as error:
                warn(f"{path} is passed over: {error}")
        raise UserError(f"no readable checkpoint in {self.directory}")

    def load_best(self) -> Checkpoint:
        """Read the checkpoint with the best evaluation.

        Raises:
            UserError: no evaluation has been made yet, or the checkpoint is damaged.
        """
        link = self.directory / "best"
        if not link.exists():
            raise UserError(f"no best checkpoint yet in {self.directory}; use --checkpoint last")
        try:
            return load(link.resolve())
        except ValueError as error:
            raise UserError(f"{link.resolve()} cannot be read: {error}") from error

    def _rotate(self) -> None:
        """Remove all but the newest ``keep`` and the best; what resists, at a later call."""
        best = (self.directory / "best").resolve()
        for path in self.steps()[: -self.keep]:
            if path.resolve() != best:
                shutil.rmtree(path, ignore_errors=True)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: its directory.

    Raises:
        ValueError: a file is missing, damaged, or holds more than data.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name in (WEIGHTS, STATE):
            if _sha256(path / name) != manifest["sha256"][name]:
                raise ValueError(f"{name} does not match its checksum")
        weights = safetensors.torch.load_file(path / WEIGHTS)
        # weights_only: a checkpoint from elsewhere cannot run code.
        state = torch.load(path / STATE, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{STATE} holds more than data and was not read") from error
    except Exception as error:  # whatever its files' readers make of a file that is not one
        raise ValueError(str(error)) from error
    return Checkpoint(path, manifest, weights, state)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    """Wait until a file's contents, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
