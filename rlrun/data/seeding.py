"""One seed, split into named streams, so that no part's draws shift another's."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """Independent sources of randomness of a run.

    Attributes:
        env: seed of the training environments (environment i gets ``env + i``).
        evaluation: seed from which every evaluation derives its own.
        init: initial weights.
        action: exploration, sampled on the CPU.
        minibatch: shuffles.
    """

    env: int
    evaluation: int
    init: torch.Generator
    action: torch.Generator
    minibatch: torch.Generator

    @classmethod
    def from_seed(cls, seed: int) -> "Streams":
        """Derive the streams of a run from its seed."""
        # The order is part of every published result: append, never insert.
        env, evaluation, init, action, minibatch = (
            int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(5)
        )
        generators = (torch.Generator().manual_seed(s) for s in (init, action, minibatch))
        return cls(env, evaluation, *generators)

    def state_dict(self) -> dict:
        """Return the state of the generators (the seeds follow from the run's seed)."""
        return {
            "init": self.init.get_state(),
            "action": self.action.get_state(),
            "minibatch": self.minibatch.get_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue the streams from a saved state."""
        self.init.set_state(state["init"])
        self.action.set_state(state["action"])
        self.minibatch.set_state(state["minibatch"])


def evaluation_seed(stream: int, step: int) -> int:
    """Return the seed of the evaluation at environment step ``step``.

    A function of the step alone, so that a resumed run evaluates on the same episodes.
    """
    return int(np.random.SeedSequence([stream, step]).generate_state(1)[0])
