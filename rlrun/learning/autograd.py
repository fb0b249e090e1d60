"""A learner of large models: plain autograd, and an optimiser of torch's."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlrun.data.rollout import RolloutShape
from rlrun.hardware.compilable import Compilable
from rlrun.learning.learner import GradientLearner, Loss
from rlrun.learning.optimizers import Optimizer


class AutogradLearner:
    """Descends a loss of one network, as :class:`~rlrun.learning.learner.GradientLearner` does.

    That one takes a step as a pure function of one vector of all parameters, which compiled code
    takes in one piece; of a large network it would hold several copies, and not all of what such
    networks are made of passes ``torch.func``. Minibatches may differ in shape.

    Args:
        network: its parameters are fitted.
        loss: the loss to descend, as a function of the network and a minibatch.
        optimizer: takes the steps.
    """

    is_compiled = False
    functions: Sequence[Compilable] = ()

    def __init__(self, network: nn.Module, loss: Loss, optimizer: Optimizer):
        self.network = network
        self.optimizer = optimizer
        self._loss = loss
        self._parameters = list(network.requires_grad_(True).parameters())
        self._torch = optimizer.of_torch(self._parameters)

    def expect(self, batch: Any, **expected: Any) -> None:
        """Compile nothing, whatever is expected (see :meth:`GradientLearner.expect`)."""

    def rate(self, progress: float) -> Tensor:
        """Return the step size when a share of the run's steps is done, []."""
        return torch.tensor(self.optimizer.rate(progress))

    @torch.enable_grad()
    def fit(self, batches: Any, constant: Tensor) -> dict[str, Tensor]:
        """Take one step on each of M minibatches, in their order.

        Args:
            batches: a NamedTuple of columns, each of M parts.
            constant: the step size, [].

        Returns:
            What the losses log, each [M].
        """
        for group in self._torch.param_groups:
            group["lr"] = constant.item()
        history = []
        for columns in zip(*batches, strict=True):
            loss, metrics = self._loss(self.network, type(batches)._make(columns))
            self._torch.zero_grad()
            loss.backward()
            if self.optimizer.max_grad_norm < math.inf:
                nn.utils.clip_grad_norm_(self._parameters, self.optimizer.max_grad_norm)
            self._torch.step()
            history.append({name: value.detach() for name, value in metrics.items()})
        self._torch.zero_grad()
        return {name: torch.stack([each[name] for each in history]) for name in history[0]}

    def state_dict(self) -> dict:
        """Return a copy of the optimiser's state; the weights are the agent's."""
        state = self._torch.state_dict()["state"]
        return {
            "moments": {
                number: {name: moment.clone() for name, moment in moments.items()}
                for number, moments in state.items()
            }
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        groups = self._torch.state_dict()["param_groups"]
        self._torch.load_state_dict({"state": state["moments"], "param_groups": groups})


# What descends the loss of a network.
AnyLearner = type[GradientLearner] | type[AutogradLearner]


def learner_of(shape: RolloutShape) -> AnyLearner:
    """Return what fits networks to such rollouts."""
    return AutogradLearner if shape.sequences else GradientLearner
