"""A frozen policy, read from another run, that a policy in training is to stay near."""

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch
import yaml
from torch import Tensor

from rlrun.checkpoint import MANIFEST, Checkpoint, CheckpointStore, load
from rlrun.errors import UserError, near_path
from rlrun.networks import (
    Categorical,
    CategoricalPolicy,
    DiagonalGaussian,
    GaussianPolicy,
    make_policy,
)
from rlrun.normalize import ObservationNormalizer
from rlrun.problem import Problem

# What the names of a policy's weights begin with in a checkpoint (rlrun/agent.py).
PREFIX = "policy."


class Reference:
    """A frozen policy that sees raw observations through a normaliser of its own.

    Attributes:
        sha256: of its weights and its normaliser's statistics.
    """

    def __init__(
        self,
        policy: CategoricalPolicy | GaussianPolicy,
        normalizer: ObservationNormalizer,
        *,
        path: str,
        device: torch.device,
    ):
        moments = {"mean": normalizer.moments.mean, "variance": normalizer.moments.variance}
        content = safetensors.torch.save({**policy.state_dict(), **moments})
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._policy = policy.requires_grad_(False).to(device)
        self._normalizer = normalizer
        self._path = path
        self._device = device

    def __call__(self, raw_obs: Tensor) -> Categorical | DiagonalGaussian:
        """Return π_ref(·|s) at observations [T, N, D] as the environment gave them (CPU)."""
        return self._policy(self._normalizer(raw_obs).to(self._device))

    def state_dict(self) -> dict:
        """Return which policy it is: a run that goes on must go on with the same one."""
        return {"sha256": self.sha256}

    def load_state_dict(self, state: dict) -> None:
        """Check that it is the policy of the run so far.

        Raises:
            UserError: it is another one.
        """
        if state["sha256"] != self.sha256:
            raise UserError(
                f"algo.reference={self._path} is another policy than the one that the run began "
                "with: its weights have changed since"
            )


def load_reference(path: str, problem: Problem, device: torch.device) -> Reference:
    """Read a reference policy; nothing of its run is imported or executed.

    Args:
        path: a run's directory, whose newest checkpoint is taken, or a checkpoint's.
        problem: what it must be a policy for.
        device: where the learner lives.

    Raises:
        UserError: it is neither, or it is a policy for something else.
    """
    place = f"algo.reference={path}"
    directory = Path(path)
    if not directory.is_dir():
        raise UserError(f"{place}: no such directory{near_path(directory)}")
    is_checkpoint = (directory / MANIFEST).exists()
    run = directory.resolve().parent.parent if is_checkpoint else directory
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        env_id = json.loads((run / "run.json").read_text())["env_id"]
        settings = config["algo"]
        hidden_sizes = settings["hidden_sizes"]
        clip, enabled = settings["normalizer_clip"], settings["normalize_observation"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{place} is no run with a policy, nor a checkpoint of one: {reason}"
        ) from error
    if env_id != problem.env_id:
        raise UserError(f"{place} is a policy for {env_id}, not for {problem.env_id}")
    checkpoint = _read(directory, place) if is_checkpoint else _newest(directory)
    policy = make_policy(
        problem, hidden_sizes=hidden_sizes, log_std=0.0, generator=torch.Generator()
    )
    weights = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in checkpoint.weights.items()
        if name.startswith(PREFIX)
    }
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:  # names or shapes differ
        raise UserError(
            f"{place} is a policy for other observations or actions than these of "
            f"{problem.env_id}: {problem.obs_size} numbers, {problem.action_space}"
        ) from error
    normalizer = ObservationNormalizer(problem.obs_size, clip=clip, enabled=enabled)
    normalizer.load_state_dict(checkpoint.state["observation_normalizer"])
    return Reference(policy, normalizer, path=path, device=device)


def _newest(run: Path) -> Checkpoint:
    """Read the newest checkpoint of a run."""
    return CheckpointStore(run / "checkpoints", keep=1).load_last()


def _read(checkpoint: Path, place: str) -> Checkpoint:
    """Read one checkpoint."""
    try:
        return load(checkpoint)
    except ValueError as error:
        raise UserError(f"{place} cannot be read: {error}") from error
