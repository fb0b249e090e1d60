"""A learner: takes steps of a pure function of a state, and the step that descends a gradient."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from rlrun.hardware.compilable import Compilable, Steps
from rlrun.learning.optimizers import Optimizer, clip_by_norm
from rlrun.models.flat_parameters import FlatParameters

# A network with given parameters, and a minibatch (a NamedTuple of tensors [B, ...]),
# -> the loss [] and what to log [].
Loss = Callable[[Callable[..., Any], Any], tuple[Tensor, dict[str, Tensor]]]

# State, minibatch, what is the same for all steps of a call (the learning rate) -> the next state
# and what to log [].
Step = Callable[[Any, Any, Any], tuple[Any, dict[str, Tensor]]]


class Learner:
    """Takes steps on minibatches.

    The step is a pure function. All that it changes is in the state: parameters of networks as
    flat vectors, of which the networks are views, moments of optimisers, target networks. What a
    step takes from elsewhere is a constant of the compiled code.

    Args:
        step: see :data:`Step`.
        state: the first one, a NamedTuple of tensors or of such; its tensors are written to.
        in_place: whether compiled code writes to them itself (see :class:`Steps`).

    Attributes:
        state: the present one.
        steps: takes several steps in one call, compiled or not.
    """

    def __init__(self, step: Step, state: Any, *, in_place: bool = False):
        self.step = step
        self.state = state
        self.steps = Steps(step, in_place=in_place)

    def expect(
        self,
        batch: Any,
        *,
        rate: float,
        minibatches: int,
        every_shape: bool = False,
        constant: Any = None,
    ) -> None:
        """Say what it will be fitted to, for the case that the run is compiled.

        Args:
            batch: a minibatch, a NamedTuple of tensors [B, ...]; others are worked on in Python.
            constant: the same for all steps of a call; None: a learning rate.
            rate: optimiser steps for each environment step, on average.
            minibatches: in a call of `fit`, usually.
            every_shape: compile for other shapes, too, when they come: there are few.
        """
        batches = batch._make(column.unsqueeze(0) for column in batch)
        self.steps.expect(
            self.state,
            tree_leaves(self.state)[0].new_zeros(()) if constant is None else constant,
            batches,
            rate=rate,
            together=minibatches,
            every_shape=every_shape,
        )

    @property
    def is_compiled(self) -> bool:
        """Whether steps run without Python."""
        return self.steps.is_compiled

    @property
    def functions(self) -> Sequence[Compilable]:
        """What there is to compile."""
        return (self.steps,)

    @torch.no_grad()
    def fit(self, batches: Any, constant: Any) -> dict[str, Tensor]:
        """Take one step on each of M minibatches, in their order.

        Args:
            batches: a NamedTuple of tensors [M, B, ...].
            constant: what is the same for all: a step size [], say.

        Returns:
            What the steps log, each [M].
        """
        state, metrics = self.steps(self.state, constant, batches)
        if state is not self.state:
            self._write(tree_leaves(state))
        return metrics

    def _write(self, values: Sequence[Tensor]) -> None:
        for tensor, value in zip(tree_leaves(self.state), values, strict=True):
            tensor.copy_(value)

    def state_dict(self) -> dict:
        """Return a copy of the state."""
        return {"state": [tensor.clone() for tensor in tree_leaves(self.state)]}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state."""
        self._write(state["state"])


class GradientState(NamedTuple):
    """What a step of gradient descent changes: θ [P], and the optimiser's state."""

    theta: Tensor
    optimizer: Any


class GradientDescent:
    """The step that descends a loss of one network: clipped gradient, optimiser.

    Args:
        network: its parameters become views of one vector θ [P].
        loss: the loss to descend, as a function of the network and a minibatch.
        optimizer: takes the steps.
    """

    def __init__(self, network: nn.Module, loss: Loss, optimizer: Optimizer):
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.parameters = FlatParameters(network)

    def start(self) -> GradientState:
        """Return the state before the first step."""
        theta = self.parameters.vector
        return GradientState(theta, self.optimizer.start(theta))

    def at(self, theta: Tensor) -> Callable[..., Any]:
        """Return the network with other parameters θ [P]."""
        named = self.parameters.unflatten(theta)
        return lambda *inputs, **options: functional_call(self.network, named, inputs, options)

    def __call__(
        self, state: GradientState, batch: Any, learning_rate: Tensor
    ) -> tuple[GradientState, dict[str, Tensor]]:
        """Take a step on a minibatch [B, ...], as a pure function."""
        # Not torch.func.grad: it imports torch's compiler, which takes seconds.
        with torch.enable_grad():
            theta = state.theta.detach().requires_grad_()
            loss, metrics = self.loss(self.at(theta), batch)
            (gradient,) = torch.autograd.grad(loss, theta)
        gradient = clip_by_norm(gradient, self.optimizer.max_grad_norm)
        theta, moments = self.optimizer.step(
            state.theta, gradient, state.optimizer, learning_rate=learning_rate
        )
        return GradientState(theta, moments), {k: value.detach() for k, value in metrics.items()}


class GradientLearner(Learner):
    """A learner that descends a loss of one network.

    Args:
        network: its parameters become views of one vector θ.
        loss: see :class:`GradientDescent`.
        optimizer: takes the steps.

    Attributes:
        parameters: θ.
    """

    def __init__(self, network: nn.Module, loss: Loss, optimizer: Optimizer):
        step = GradientDescent(network, loss, optimizer)
        super().__init__(step, step.start())
        self.network = network
        self.optimizer = optimizer
        self.parameters = step.parameters

    def rate(self, progress: float) -> Tensor:
        """Return the step size when a share of the run's steps is done, []."""
        return self.state.theta.new_tensor(self.optimizer.rate(progress))
