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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rlrun.config.files import open_regular, read_json
from rlrun.errors import CheckpointNotWritten, UserError, warn
from rlrun.runs.files.disk import BEST, MANIFEST, STEPS, best_of, remove, sync
from rlrun.runs.files.segments import require_rows

WEIGHTS, STATE = "weights.safetensors", "state.pt"
FILES = (WEIGHTS, STATE, MANIFEST)


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
        self._whole: dict[Path, list[tuple[int, int, int]]] = {}

    def save(self, step: int, *, weights: dict[str, Tensor], state: dict, info: dict) -> Path:
        """Publish a checkpoint whole, or not at all.

        Those of later steps are removed: the run did not go on from them, since they are damaged.

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
        final = self._path(step)
        temporary = self.directory / f".writing-{final.name}"
        for tried_before in (False, True):
            self.repair()
            self.notice_deletion(step)
            try:
                self._publish(final, temporary, step, weights, state, info)
                break
            except (OSError, RuntimeError) as error:
                # torch.save hides the disk's answer behind an error of its own.
                answer = error if isinstance(error, OSError) else error.__context__
                if not isinstance(answer, OSError):
                    raise
                # Somebody may delete or move the directory while this is being written to it.
                deleted = isinstance(answer, FileNotFoundError) and not temporary.exists()
                if tried_before or not deleted:
                    raise CheckpointNotWritten(f"{final} could not be written: {answer}") from error
            finally:
                remove(temporary)
        self._rotate(final)
        return final

    def _publish(
        self,
        final: Path,
        temporary: Path,
        step: int,
        weights: dict[str, Tensor],
        state: dict,
        info: dict,
    ) -> None:
        """Write a checkpoint beside its place, and bring it there when it is on the disk."""
        replaced = self.directory / f".replaced-{final.name}"
        # The run's own directory is not made again: somebody has deleted it.
        self.directory.mkdir(exist_ok=True)
        temporary.mkdir()
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        (temporary / WEIGHTS).write_bytes(safetensors.torch.save(contiguous))
        with (temporary / STATE).open("wb") as file:
            torch.save(state, file)
        digests = {name: _sha256(temporary / name) for name in (WEIGHTS, STATE)}
        manifest = {"step": step, **info, "sha256": digests}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for name in FILES:
            sync(temporary / name)
        sync(temporary)
        if os.path.lexists(final):  # this step was saved before, or is a damaged one's second try
            final.rename(replaced)
        temporary.rename(final)
        sync(self.directory)
        remove(replaced)

    def notice_deletion(self, step: int) -> None:
        """Say that somebody has deleted all checkpoints, if that is so.

        Args:
            step: environment steps so far.
        """
        if self._whole and not self.directory.exists():
            warn(f"{self.directory} was deleted: the checkpoints before step {step} are gone")
            self._whole.clear()

    def repair(self) -> None:
        """Clear up after a process that was killed while it wrote here.

        For the run's own process only: it holds the run's lock, so nobody else is writing.

        Raises:
            UserError: the directory is a link.
        """
        self._require_own()
        for replaced in self._found(f".replaced-{STEPS}"):
            original = self.directory / replaced.name.removeprefix(".replaced-")
            if not os.path.lexists(original) and not replaced.is_symlink():
                replaced.rename(original)  # killed between the two renames
        for leftover in self._found(f".*-{STEPS}"):
            remove(leftover)

    def _found(self, pattern: str) -> list[Path]:
        """Return what matches in the directory, which somebody may be deleting at this moment."""
        try:
            return list(self.directory.glob(pattern))
        except FileNotFoundError:
            return []

    def mark_best(self, checkpoint: Path) -> None:
        """Make a checkpoint the one that ``best`` stands for.

        Raises:
            CheckpointNotWritten: the disk is full, say; the best one is that of before.
        """
        link = self.directory / BEST
        temporary = self.directory / f".{BEST}"
        try:
            remove(temporary)
            temporary.symlink_to(checkpoint.name)
            if not link.is_symlink():  # what `scp -r` makes of a link
                remove(link)
            temporary.replace(link)
            sync(self.directory)
        except OSError as error:
            if not checkpoint.exists():
                return  # somebody has deleted it since, which the next save says
            raise CheckpointNotWritten(f"{link} could not be written: {error}") from error
        self._rotate(checkpoint)

    def steps(self) -> list[Path]:
        """Return the directories of all checkpoints, oldest first."""
        self._require_own()
        return sorted(path for path in self._found(STEPS) if not path.is_symlink())

    def has(self, step: int) -> bool:
        """Tell whether there is a whole checkpoint of this step."""
        return self._is_whole(self._path(step))

    def load_last(self, *, rows: bool = False) -> Checkpoint:
        """Read the newest checkpoint that is whole.

        Args:
            rows: whether the rows of its replay buffer have to be whole, too.

        Raises:
            UserError: there is none.
        """
        for path in reversed(self.steps()):
            try:
                checkpoint = load(path)
                if rows:
                    require_rows(self.directory, checkpoint.info)
                return checkpoint
            except ValueError as error:
                warn(f"{path} is passed over: {error}")
        remedy = (
            "; if the replay buffer is what is damaged, replay: false under checkpoint: in the "
            "run's config.yaml makes it fill a new one"
        )
        raise UserError(f"no readable checkpoint in {self.directory}{remedy if rows else ''}")

    def load_best(self) -> Checkpoint:
        """Read the checkpoint with the best evaluation.

        Raises:
            UserError: no evaluation has been made yet, or the checkpoint is damaged.
        """
        self._require_own()
        path = best_of(self.directory)
        if path is None:
            raise UserError(f"no best checkpoint yet in {self.directory}; use --checkpoint last")
        try:
            return load(path)
        except ValueError as error:
            raise UserError(f"{path} cannot be read: {error}") from error

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:012d}"

    def _require_own(self) -> None:
        """Refuse to work where a link leads; deleting there would be the worst of it."""
        if self.directory.is_symlink():
            raise UserError(
                f"{self.directory} is a link, and could lead out of the run's directory"
            )

    def _rotate(self, present: Path) -> None:
        """Remove all but the newest ``keep`` that are whole, and the best.

        Args:
            present: the checkpoint of where the run is. It is the newest one: the run passed over
                those of later steps when it went on from an earlier one.
        """
        best = best_of(self.directory)
        kept = 0
        for path in reversed(self.steps()):
            if path.name <= present.name and kept < self.keep and self._is_whole(path):
                kept += 1
            elif path != best:
                remove(path)  # what resists, at a later call
                self._whole.pop(path, None)

    def _is_whole(self, path: Path) -> bool:
        """Tell whether a checkpoint's files match its manifest; read once, until they change."""
        try:
            stats = [(path / name).stat() for name in FILES]
            stamps = [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats]
            if self._whole.get(path) != stamps:
                _read_manifest(path)
                self._whole[path] = stamps
        except (OSError, ValueError):
            return False
        return True


def load(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: its directory.

    Raises:
        ValueError: a file is missing, damaged, or holds more than data.
    """
    manifest = _read_manifest(path)
    try:
        weights = safetensors.torch.load_file(path / WEIGHTS)
        # weights_only: a checkpoint from elsewhere cannot run code.
        state = torch.load(path / STATE, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ValueError(f"{STATE} holds more than data and was not read") from error
    except Exception as error:  # whatever its files' readers make of a file that is not one
        raise ValueError(str(error)) from error
    return Checkpoint(path, manifest, weights, state)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read a checkpoint's manifest, after comparing the files with their checksums in it.

    Raises:
        ValueError: a file is missing or damaged.
    """
    try:
        manifest = read_json(path / MANIFEST)
        for name in (WEIGHTS, STATE):
            if _sha256(path / name) != manifest["sha256"][name]:
                raise ValueError(f"{name} does not match its checksum")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    return manifest


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
