"""Gradient steps on one network: its parameters θ as a vector, its loss, its optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from rlrun.learning.optimizers import Optimizer, clip_by_norm
from rlrun.models.flat_parameters import FlatParameters

# A network with given parameters, and a minibatch (a NamedTuple of tensors [B, ...]),
# -> the loss [] and what to log [].
Loss = Callable[[Callable[..., Any], Any], tuple[Tensor, dict[str, Tensor]]]

# Minibatch updates in one compiled call: the cost of a call is shared, the time to compile grows.
UPDATES_PER_CALL = 16


class Learner:
    """Minimises a loss over minibatches, with clipped gradients.

    Args:
        network: its parameters become views of one vector θ [P].
        loss: the loss to descend, as a function of the network and a minibatch.
        minibatches: how many there usually are in an epoch.
        optimizer: takes the steps.

    Attributes:
        parameters: θ.
        state: of the optimiser.
        is_compiled: whether the steps run without Python.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        *,
        minibatches: int,
        optimizer: Optimizer,
    ):
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.parameters = FlatParameters(network)
        self.state = optimizer.start(self.parameters.vector)
        # Every call takes the same number of minibatches, so that one compilation is enough.
        counts = range(1, UPDATES_PER_CALL + 1)
        self.updates_per_call = max(n for n in counts if minibatches % n == 0)
        self.is_compiled = False
        self._compiled_steps: Callable[..., Any] = self._take_steps
        self._example: Any = None

    def compile(
        self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]], example: Any
    ) -> None:
        """Compile the steps, at the call of `warm_up`.

        Args:
            compiled: function -> its compiled form.
            example: one minibatch, a NamedTuple of tensors [B, ...]; minibatches of other shapes
                are run eagerly.
        """
        self.is_compiled = True
        self._compiled_steps = compiled(self._take_steps)
        self._example = example

    def run_eagerly(self) -> None:
        """Take the steps without a compiler: the same numbers to float precision, but slower."""
        self.is_compiled = False

    @torch.no_grad()
    def warm_up(self) -> None:
        """Compile by taking steps whose result is dropped."""
        if self.is_compiled:
            count, example = self.updates_per_call, self._example
            batches = example._make(torch.stack([column] * count) for column in example)
            theta = self.parameters.vector
            self._compiled_steps(theta, self.state, theta.new_zeros(()), batches)

    def _steps_for(self, batches: Any) -> Callable[..., Any]:
        """Choose the compiled form for the shapes that it was compiled for."""
        fits = self.is_compiled and (len(batches[0]), len(batches[0][0])) == (
            self.updates_per_call,
            len(self._example[0]),
        )
        return self._compiled_steps if fits else self._take_steps

    def rate(self, progress: float) -> Tensor:
        """Return the step size when a share of the run's steps is done, []."""
        return self.parameters.vector.new_tensor(self.optimizer.rate(progress))

    @torch.no_grad()
    def fit(self, batches: Any, learning_rate: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step on each of M minibatches, in their order.

        Args:
            batches: a NamedTuple of tensors [M, B, ...].
            learning_rate: step size [].

        Returns:
            What the loss logs, each [M].
        """
        theta, state, history = self.parameters.vector, self.state, []
        columns = [column.split(self.updates_per_call) for column in batches]
        for several in map(batches._make, zip(*columns, strict=True)):
            theta, state, metrics = self._steps_for(several)(theta, state, learning_rate, several)
            history.append(metrics)
        self.parameters.vector.copy_(theta)
        self.state = state
        return {name: torch.cat([metrics[name] for metrics in history]) for name in history[0]}

    def _take_steps(
        self, theta: Tensor, state: Any, learning_rate: Tensor, batches: Any
    ) -> tuple[Tensor, Any, dict[str, Tensor]]:
        """Take K steps on K minibatches [K, B, ...], as a pure function; metrics are [K]."""

        def loss_at(theta: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            named = self.parameters.unflatten(theta)
            return self.loss(lambda *inputs: functional_call(self.network, named, inputs), batch)

        history = []
        for k in range(len(batches[0])):
            batch = batches._make(column[k] for column in batches)
            gradient, (_, metrics) = grad_and_value(loss_at, has_aux=True)(theta, batch)
            gradient = clip_by_norm(gradient, self.optimizer.max_grad_norm)
            theta, state = self.optimizer.step(theta, gradient, state, learning_rate=learning_rate)
            history.append(metrics)
        return theta, state, {name: torch.stack([m[name] for m in history]) for name in history[0]}

    def state_dict(self) -> dict:
        """Return the optimiser's state; the weights are the network's."""
        return {"optimizer": tuple(self.state)}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        device = self.parameters.vector.device
        self.state = self.state._make(tensor.to(device) for tensor in state["optimizer"])
