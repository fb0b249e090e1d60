"""A frozen policy, read from another run, that a policy in training is to stay near."""

import json
from pathlib import Path

import torch
import yaml
from torch import Tensor

from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.problem import Problem
from rlrun.errors import UserError, near_path
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.networks import CategoricalPolicy, GaussianPolicy, make_policy
from rlrun.runs.files.checkpoint import MANIFEST, Checkpoint, CheckpointStore, load

# What the names of a policy's weights begin with in a checkpoint (rlrun/models/agent.py).
PREFIX = "policy."

# Where a run has its checkpoints.
CHECKPOINTS = "checkpoints"

# The settings of its algorithm that a policy is rebuilt with.
SETTINGS = ("hidden_sizes", "normalizer_clip", "normalize_observation")


class Reference:
    """A frozen policy that sees raw observations through a normaliser of its own.

    A new run reads it from another run (:func:`load_reference`). From then on it is a part of the
    run's own state, whole, so that the other run may change, move or go.
    """

    # Set by `load_state_dict`.
    _policy: CategoricalPolicy | GaussianPolicy
    _normalizer: ObservationNormalizer
    _hidden_sizes: list[int]

    def __init__(self, problem: Problem, device: torch.device):
        """Leave open which policy it is: a state says that.

        Args:
            problem: what it is a policy for.
            device: where the learner lives.
        """
        self._problem = problem
        self._device = device

    def __call__(self, raw_obs: Tensor) -> Categorical | DiagonalGaussian:
        """Return π_ref(·|s) at observations [T, N, D] as the environment gave them (CPU)."""
        return self._policy(self._normalizer(raw_obs).to(self._device))

    def state_dict(self) -> dict:
        """Return all that the policy is made of."""
        return {
            "hidden_sizes": self._hidden_sizes,
            "normalizer_clip": self._normalizer.clip,
            "normalize_observation": self._normalizer.enabled,
            "weights": dict(self._policy.state_dict()),
            "observation_normalizer": self._normalizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Build the policy that a state describes.

        Raises:
            RuntimeError: its weights are those of a policy for another problem.
        """
        self._hidden_sizes = state["hidden_sizes"]
        policy = make_policy(
            self._problem,
            hidden_sizes=self._hidden_sizes,
            log_std=0.0,
            generator=torch.Generator(),
        )
        policy.load_state_dict(state["weights"])
        self._policy = policy.requires_grad_(False).to(self._device)
        self._normalizer = ObservationNormalizer(
            self._problem.obs_size,
            clip=state["normalizer_clip"],
            enabled=state["normalize_observation"],
        )
        self._normalizer.load_state_dict(state["observation_normalizer"])


def load_reference(path: str, problem: Problem, device: torch.device) -> Reference:
    """Read a reference policy; nothing of its run is imported or executed.

    Args:
        path: a run's directory, whose newest checkpoint is taken, or a checkpoint's; the directory
            of a run's checkpoints means the run.
        problem: what it must be a policy for.
        device: where the learner lives.

    Raises:
        UserError: it is neither, or it is a policy for something else.
    """
    place = f"algo.reference={path}"
    _require_directory(path, place)
    directory = Path(path).resolve()
    is_checkpoint = (directory / MANIFEST).exists()
    if is_checkpoint:
        run = directory.parent.parent
    else:
        run = directory.parent if directory.name == CHECKPOINTS else directory
    for name in ("config.yaml", "run.json"):
        if not (run / name).is_file():
            raise UserError(f"{place} is no run, nor a checkpoint in one: no {name} in {run}")
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        env_id = json.loads((run / "run.json").read_text())["env_id"]
        settings = {name: config["algo"][name] for name in SETTINGS}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} is no run with a policy, nor a checkpoint of one: {reason}"
        ) from error
    if env_id != problem.env_id:
        raise UserError(f"{place} is a policy for {env_id}, not for {problem.env_id}")
    checkpoint = _read(directory, place) if is_checkpoint else _newest(run)
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(PREFIX)
    }
    normalizer = checkpoint.state["observation_normalizer"]
    reference = Reference(problem, device)
    try:
        reference.load_state_dict(
            {**settings, "weights": weights, "observation_normalizer": normalizer}
        )
    except RuntimeError as error:  # names or shapes of weights differ
        raise UserError(
            f"{place} is a policy for other observations or actions than these of "
            f"{problem.env_id}: {problem.obs_size} numbers, {problem.action_space}"
        ) from error
    return reference


def _require_directory(path: str, place: str) -> None:
    """Refuse what names no directory, the current one by an empty name among them."""
    if not path:
        raise UserError("algo.reference is empty: give a run's directory, a checkpoint's, or null")
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
