"""Gradient steps on one network: its parameters θ as a vector, its loss, its optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from rlrun.networks import FlatParameters
from rlrun.optim import AdamState, adam, clip_by_norm

# A network with given parameters, and a minibatch (a NamedTuple of tensors [B, ...]),
# -> the loss [] and what to log [].
Loss = Callable[[Callable[[Tensor], Any], Any], tuple[Tensor, dict[str, Tensor]]]

# Minibatch updates in one compiled call: the cost of a call is shared, the time to compile grows.
UPDATES_PER_CALL = 16


class Learner:
    """Minimises a loss over minibatches with Adam and clipped gradients.

    Args:
        network: module of one argument. Its parameters become views of one vector θ [P].
        loss: the loss to descend, as a function of the network and a minibatch.
        minibatches: how many there are in an epoch.
        adam_epsilon: Adam's ε.
        max_grad_norm: largest norm of the gradient over all of θ.

    Attributes:
        parameters: θ.
        adam: state of the optimiser.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        *,
        minibatches: int,
        adam_epsilon: float,
        max_grad_norm: float,
    ):
        self.network = network
        self.loss = loss
        self.adam_epsilon = adam_epsilon
        self.max_grad_norm = max_grad_norm
        self.parameters = FlatParameters(network)
        self.adam = AdamState.zeros_like(self.parameters.vector)
        # Every call takes the same number of minibatches, so that one compilation is enough.
        counts = range(1, UPDATES_PER_CALL + 1)
        self.updates_per_call = max(n for n in counts if minibatches % n == 0)
        self.take_steps: Callable[..., Any] = self._take_steps

    def compile(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Compile the steps, at their first call."""
        self.take_steps = compiled(self._take_steps)

    def run_eagerly(self) -> None:
        """Take the steps without a compiler: the same numbers to float precision, but slower."""
        self.take_steps = self._take_steps

    @torch.no_grad()
    def warm_up(self, example: Any) -> None:
        """Compile by taking steps whose result is dropped.

        Args:
            example: one minibatch, a NamedTuple of tensors [B, ...].
        """
        batches = example._make(torch.stack([column] * self.updates_per_call) for column in example)
        self.take_steps(self.parameters.vector, self.adam, torch.zeros_like(self.adam.t), batches)

    @torch.no_grad()
    def fit(self, batches: Any, learning_rate: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step on each of M minibatches, in their order.

        Args:
            batches: a NamedTuple of tensors [M, B, ...].
            learning_rate: step size [].

        Returns:
            What the loss logs, each [M].
        """
        theta, state, history = self.parameters.vector, self.adam, []
        columns = [column.split(self.updates_per_call) for column in batches]
        for several in zip(*columns, strict=True):
            theta, state, metrics = self.take_steps(
                theta, state, learning_rate, batches._make(several)
            )
            history.append(metrics)
        self.parameters.vector.copy_(theta)
        self.adam = state
        return {name: torch.cat([metrics[name] for metrics in history]) for name in history[0]}

    def _take_steps(
        self, theta: Tensor, state: AdamState, learning_rate: Tensor, batches: Any
    ) -> tuple[Tensor, AdamState, dict[str, Tensor]]:
        """Take K steps on K minibatches [K, B, ...], as a pure function; metrics are [K]."""

        def loss_at(theta: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            named = self.parameters.unflatten(theta)
            return self.loss(lambda obs: functional_call(self.network, named, (obs,)), batch)

        history = []
        for k in range(len(batches[0])):
            batch = batches._make(column[k] for column in batches)
            gradient, (_, metrics) = grad_and_value(loss_at, has_aux=True)(theta, batch)
            gradient = clip_by_norm(gradient, self.max_grad_norm)
            theta, state = adam(
                theta, gradient, state, learning_rate=learning_rate, epsilon=self.adam_epsilon
            )
            history.append(metrics)
        return theta, state, {name: torch.stack([m[name] for m in history]) for name in history[0]}

    def state_dict(self) -> dict:
        """Return the optimiser's state; the weights are the network's."""
        return {"adam": tuple(self.adam)}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        device = self.parameters.vector.device
        self.adam = AdamState(*(tensor.to(device) for tensor in state["adam"]))
