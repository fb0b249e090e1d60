"""A store of checkpoints that a crash at any moment leaves readable.

A checkpoint is a directory, ``step-000000204800/``, with the weights (safetensors), the rest of
the state (``torch.save``, read without executing pickles) and a manifest with the SHA-256 of
both. It is written under another name beside its place, flushed to the disk and then renamed, so
that a directory of the final name is always whole; a checksum catches what a disk did to it since.
"""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from rlrun.errors import UserError

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
            OSError: it could not be written (a full disk, say); earlier checkpoints are as before.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self.directory / f"step-{step:012d}"
        temporary = self.directory / f".writing-{final.name}-{os.getpid()}"
        for leftover in self.directory.glob(".*-step-*"):  # of a process that was killed here
            shutil.rmtree(leftover)
        temporary.mkdir()
        try:
            contiguous = {
                name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()
            }
            safetensors.torch.save_file(contiguous, temporary / WEIGHTS)
            torch.save(state, temporary / STATE)
            digests = {name: _sha256(temporary / name) for name in (WEIGHTS, STATE)}
            manifest = {"step": step, **info, "sha256": digests}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            for name in (WEIGHTS, STATE, MANIFEST):
                _fsync(temporary / name)
            _fsync(temporary)
            if final.exists():
                # The same step again (an evaluation, then an interrupt): the newer one replaces it.
                replaced = self.directory / f".replaced-{final.name}-{os.getpid()}"
                final.rename(replaced)
                temporary.rename(final)
                shutil.rmtree(replaced)
            else:
                temporary.rename(final)
            _fsync(self.directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._rotate()
        return final

    def mark_best(self, checkpoint: Path) -> None:
        """Make a checkpoint the one that ``best`` stands for."""
        link = self.directory / "best"
        temporary = self.directory / f".best-{os.getpid()}"
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
            except (OSError, ValueError, RuntimeError) as error:
                print(f"rlrun: skipping {path}: {error}", file=sys.stderr)
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
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{link.resolve()} is damaged: {error}") from error

    def _rotate(self) -> None:
        """Remove all but the newest ``keep`` and the best."""
        best = (self.directory / "best").resolve()
        for path in self.steps()[: -self.keep]:
            if path.resolve() != best:
                shutil.rmtree(path)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: its directory.

    Raises:
        OSError: a file is missing.
        ValueError: a checksum or the manifest does not fit.
    """
    manifest = json.loads((path / MANIFEST).read_text())
    for name, digest in manifest["sha256"].items():
        if _sha256(path / name) != digest:
            raise ValueError(f"{name} does not match its checksum")
    weights = safetensors.torch.load_file(path / WEIGHTS)
    # weights_only: a checkpoint from elsewhere cannot run code.
    state = torch.load(path / STATE, weights_only=True)
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
