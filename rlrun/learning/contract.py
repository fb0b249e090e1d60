"""What a run asks of its parts, what it asks of what fits a network, and what it gives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rlrun.advantages.columns import Estimator
from rlrun.collectors.writing import Writer
from rlrun.data.packing import Packed
from rlrun.data.rollout import RolloutShape
from rlrun.data.seeding import Streams
from rlrun.data.sequences import Observations
from rlrun.envs.problem import Problem
from rlrun.envs.tabular import TabularModel
from rlrun.errors import UserError
from rlrun.hardware.compilable import Compilable
from rlrun.hardware.spec import Hardware
from rlrun.models.distributions import Distribution
from rlrun.models.networks import Model
from rlrun.models.reference import Reference

# What an update or a loss says for the logs, by name.
Metrics = dict[str, Tensor]

# A policy with given parameters: observations -> distribution.
PolicyFunction = Callable[[Observations | Packed], Distribution]

# The loss, [], and what it says for the logs, each [].
LossAndMetrics = tuple[Tensor, Metrics]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an algorithm is set up with: the other parts of the run.

    Attributes:
        problem: what is to be learned.
        total_steps: environment steps of the run.
        collected: shape of the rollouts that the collector will return; None: there is none.
        networks: builds networks; None: nothing does.
        estimator: called as ``estimator(rollout, gamma=gamma)``; None: the run has none.
        hardware: where the learner is.
        streams: initial weights, exploration and shuffles.
        read_table: reads the environment's model; a UserError if it has none.
        load_policy: path of a run or a checkpoint, device, the setting that names it -> its policy,
            frozen. What a new run reads so is part of its state from then on: a resumed run reads
            nothing.
        resumed: whether a checkpoint is loaded after `setup`: what a new run was told is not said
            again.
        initial: path of the run or checkpoint whose policy this one begins as; None: it is new.
        author: writes the right answers of a task of language; None: it is no such task.
    """

    problem: Problem
    total_steps: int
    collected: RolloutShape | None
    networks: Model | None
    estimator: Estimator | None
    hardware: Hardware
    streams: Streams
    read_table: Callable[[], TabularModel]
    load_policy: Callable[..., Reference]
    resumed: bool = False
    initial: str | None = None
    author: Callable[[], Writer] | None = None

    @property
    def shape(self) -> RolloutShape:
        """Of the rollouts that the collector will return.

        Raises:
            UserError: there is no collector.
        """
        if self.collected is None:
            raise UserError("this algorithm learns from rollouts: collector=segments, say")
        return self.collected

    @property
    def model(self) -> Model:
        """What builds networks.

        Raises:
            UserError: there is nothing that does.
        """
        if self.networks is None:
            raise UserError("this algorithm learns networks: model=mlp, say")
        return self.networks


class Stateful(Protocol):
    """A part of a run that decides its future."""

    def state_dict(self) -> dict:
        """Return it as plain containers and tensors."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        ...


class Trainable(Stateful, Protocol):
    """What fits a network: a :class:`~rlrun.learning.learner.Learner`, say."""

    @property
    def functions(self) -> Sequence[Compilable]:
        """What can be compiled of it, with what it expects to be called with."""
        ...
