"""Frozen policies for a new run, read from the directories of others."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from rlrun.config.files import read_json, read_yaml
from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.problem import Problem
from rlrun.errors import UserError, near_path
from rlrun.models.huggingface.directory import is_model
from rlrun.models.huggingface.model import HuggingFace
from rlrun.models.networks import Model
from rlrun.models.reference import ADAPTED, SHARED, Reference
from rlrun.runs.files.checkpoint import Checkpoint, CheckpointStore, load
from rlrun.runs.files.disk import CHECKPOINTS, MANIFEST

# What the names of a policy's weights begin with in a checkpoint (``models/networks.py``).
PREFIX = "policy."


# The normalisation of tokens.
TOKENS = {"clip": 10.0, "observation": False}

# The setting that names a policy, unless another one does.
REFERENCE = "algo.kl.reference"


def unread_policy(
    path: str,
    device: torch.device,
    setting: str = REFERENCE,
    *,
    problem: Problem,
    learner: Model | None = None,
) -> Reference:
    """Stand in for a policy that was read once and is in the run's own state since.

    Args:
        path: where it was read from; nothing is read there now.
        device: where the learner is.
        setting: that names it.
        problem: what it is a policy for.
        learner: what has built the policy in training.
    """
    return Reference(problem, device, learner)


def load_policy(
    path: str,
    device: torch.device,
    setting: str = REFERENCE,
    *,
    problem: Problem,
    learner: Model | None = None,
) -> Reference:
    """Read a policy; nothing of its run is imported or executed.

    Args:
        path: a run's directory, whose newest checkpoint is taken, or a checkpoint's; the directory
            of a run's checkpoints means the run. Or that of a pretrained model.
        device: where the learner is.
        setting: that names it, for messages.
        problem: what it must be a policy for.
        learner: what has built the policy in training.

    Raises:
        UserError: it is neither, or it is a policy for something else.
    """
    place = f"{setting}={path}"
    _require_directory(path, place, setting)
    directory = Path(path).resolve()
    if is_model(directory):
        return pretrained(directory, device, setting, problem=problem, learner=learner)
    is_checkpoint = (directory / MANIFEST).exists()
    if is_checkpoint:
        run = directory.parent.parent
    else:
        run = directory.parent if directory.name == CHECKPOINTS else directory
    for name in ("config.yaml", "run.json"):
        if not (run / name).is_file():
            raise UserError(f"{place} is no run, nor a checkpoint in one: no {name} in {run}")
    try:
        config = read_yaml(run / "config.yaml")
        record = read_json(run / "run.json")
        env_id, tokens = record["env_id"], record.get("tokens")
        action_units = "raw" if problem.discrete else config["env"]["action_units"]
        # Tokens are not normalised, and not all that learns from them has such settings.
        scales = TOKENS if tokens is not None else config["algo"]["normalization"]
        settings = {
            "model": config["model"],
            "clip": scales["clip"],
            "normalized": scales["observation"],
        }
        if settings["model"] in (SHARED, ADAPTED):
            raise ValueError("its config names no model")
        if isinstance(learner, HuggingFace) and learner.differs_by_adapters(settings["model"]):
            settings["model"] = ADAPTED
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} is no run with a policy, nor a checkpoint of one: {reason}"
        ) from error
    if problem.language is not None:
        if tokens != problem.language.digest:
            raise UserError(f"{place} has other tokens than {problem.env_id}: it is of {env_id}")
    elif env_id != problem.env_id:
        raise UserError(f"{place} is a policy for {env_id}, not for {problem.env_id}")
    if action_units != problem.action_units and not problem.discrete:
        raise UserError(
            f"{place} is a policy with env.action_units={action_units}, not {problem.action_units}"
        )
    checkpoint = _read(directory, place) if is_checkpoint else _newest(run)
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(PREFIX)
    }
    reference = Reference(problem, device, learner)
    try:
        normalizer = checkpoint.state["algorithm.observation_normalizer"]
        reference.load_state_dict(
            {**settings, "weights": weights, "observation_normalizer": normalizer}
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place}: the state in {checkpoint.path} is not that of a policy: {reason}"
        ) from error
    except RuntimeError as error:  # names or shapes of weights differ
        raise UserError(
            f"{place} is a policy for other observations or actions than these of "
            f"{problem.env_id}: {problem.obs_size} numbers, {problem.action_space}"
        ) from error
    return reference


def pretrained(
    directory: Path, device: torch.device, setting: str, *, problem: Problem, learner: Model | None
) -> Reference:
    """Read a pretrained model as a frozen policy; the learner's own, if it has that, is shared.

    Args:
        directory: of the model.
        device: where the learner is.
        setting: that names it, for messages.
        problem: what it must be a policy for.
        learner: what has built the policy in training.

    Raises:
        UserError: it is no such model, or has other tokens.
    """
    if not isinstance(learner, HuggingFace):
        raise UserError(f"{setting}={directory} is a pretrained model: model=huggingface")
    reference = Reference(problem, device, learner)
    unchanged = ObservationNormalizer(problem.obs_size, clip=TOKENS["clip"], enabled=False)
    if learner.shares_with(directory):
        reference.hold(learner.before_training(), unchanged, SHARED)
        return reference
    node = {**asdict(learner), "path": str(directory), "lora": None, "init": None}
    del node["built"]
    model = replace(learner, path=str(directory), lora=None, init=None)
    try:
        policy = model.policy(problem, torch.Generator())
    except UserError as error:
        reason = str(error).replace(model.place, f"{setting}={directory}", 1)
        raise UserError(reason) from error
    target = f"{HuggingFace.__module__}.{HuggingFace.__name__}"
    reference.hold(policy, unchanged, {"_target_": target, **node})
    return reference


def _require_directory(path: str, place: str, setting: str) -> None:
    """Refuse what names no directory, the current one by an empty name among them."""
    if not path:
        raise UserError(f"{setting} is empty: give a run's directory, a checkpoint's, or null")
    if Path(path).is_file():
        raise UserError(f"{place} is a file, not a directory")
    if not Path(path).is_dir():
        raise UserError(f"{place}: no such directory{near_path(Path(path))}")


def _newest(run: Path) -> Checkpoint:
    """Read the newest checkpoint of a run."""
    return CheckpointStore(run / CHECKPOINTS, keep=1).load_last()


def _read(checkpoint: Path, place: str) -> Checkpoint:
    """Read one checkpoint."""
    try:
        return load(checkpoint)
    except ValueError as error:
        raise UserError(f"{place} cannot be read: {error}") from error
