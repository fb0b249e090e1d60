"""A trained policy in Python: ``rlrun.load(RUN).act(obs)``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from rlrun.errors import UserError
from rlrun.models.actor import Actor
from rlrun.models.bounded_distributions import Dirac
from rlrun.models.distributions import ActionValues
from rlrun.models.explorers import Explorer
from rlrun.runs.export.facts import facts_of
from rlrun.runs.export.observations import read_batch
from rlrun.runs.export.policy import DeployedPolicy
from rlrun.runs.reopen import saved_run
from rlrun.runs.setup.assembly import Assembly


class TrainedPolicy:
    """A run's policy, for environments of one's own.

    It has the weights and the normaliser of a checkpoint, and computes on the CPU.

    Attributes:
        module: what computes: a ``torch.nn.Module``, from raw observations to actions.
        facts: what it is: environment, algorithm, checkpoint, step, return, git commit …
        generator: source of the actions that are drawn; ``generator.manual_seed(1)`` begins anew.
    """

    def __init__(self, module: DeployedPolicy, facts: dict[str, Any], seed: int):
        """Take a policy.

        Args:
            module: what computes.
            facts: what it is.
            seed: of the generator.
        """
        self.module = module
        self.facts = facts
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def observation_space(self) -> gym.Space:
        """Of one environment of the run."""
        return self.module.observation_space

    @property
    def action_space(self) -> gym.Space:
        """Of one environment of the run."""
        return self.module.action_space

    @torch.no_grad()
    def act(self, obs: Any, *, deterministic: bool = True) -> Any:
        """Choose an action, or one for each observation of a batch.

        Args:
            obs: as an environment of the run gives it, or N of them as a vector environment does
                (arrays [N, ...]; a tuple or dict of such). NumPy, torch or plain numbers, float32
                or float64.
            deterministic: the policy's best action; else one that is drawn from π(·|s).

        Returns:
            What ``env.step`` takes, of the action space's type: an array, or a scalar of a choice;
            with an axis of N more for a batch. A tensor, on the same device, where tensors came.

        Raises:
            UserError: ``obs`` is no observation of this environment, or nothing can be drawn.
        """
        batch = read_batch(self.observation_space, obs)
        leaves = self.module.leaves
        observations = [
            torch.from_numpy(array).to(leaf.dtype)
            for leaf, array in zip(leaves, batch.arrays, strict=True)
        ]
        distribution = self.module.distribution(*observations)
        if deterministic:
            chosen = distribution.mode()
        elif isinstance(distribution, ActionValues | Dirac):
            raise UserError(
                f"the policy of {self.facts['algorithm']} is deterministic: it has no actions to "
                "draw from; deterministic=True"
            )
        else:
            chosen = distribution.sample(self.generator)
        action = self.module.to_env(chosen)
        if batch.single:
            action = action[0]
        if batch.device is not None:
            return action.to(batch.device)
        return action.numpy()[()]  # a NumPy scalar, of a choice

    def __repr__(self) -> str:
        """Name it in one line."""
        facts = self.facts
        return f"<policy of {facts['algorithm']} on {facts['env_id']}, step {facts['step']:,}>"


def load_policy(
    directory: Path, *, checkpoint: str = "last", plugins: Sequence[str] = (), seed: int = 0
) -> TrainedPolicy:
    """Read a run's policy, as ``rlrun eval`` plays it.

    Args:
        directory: the run's directory.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.
        seed: of what the policy draws.

    Raises:
        UserError: there is no such checkpoint, or no policy in it that can act by itself.
    """
    with saved_run(directory, checkpoint, plugins) as (assembly, path):
        return TrainedPolicy(deployed(assembly), facts_of(assembly, path), seed)


def deployed(assembly: Assembly) -> DeployedPolicy:
    """Return the policy of a run, with what stands between it and its environments.

    Args:
        assembly: of the run, from a checkpoint.

    Raises:
        UserError: the algorithm acts by something else than a policy.
    """
    actor = assembly.algorithm.agent.actor
    if not isinstance(actor, Actor | Explorer):
        name = assembly.experiment.choices["algo"]
        raise UserError(
            f"{name} acts by a {type(actor).__name__} of its own, and not by a policy of rlrun's "
            "(rlrun/models/actor.py), which is what can be loaded and exported"
        )
    return DeployedPolicy(actor.policy, actor.normalizer, assembly.as_steps()).eval()
