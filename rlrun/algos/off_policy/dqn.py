"""Deep Q-network, with what was found since as options that combine.

Mnih et al. 2015, "Human-level control through deep reinforcement learning", algorithm 1:

    y = r + γ (1 − d) Q̄(s', a'),  a' = argmax Q̄(s', ·)
    L(θ) = E[w ℓ(Q(s, a) − y)],  ℓ(δ) = c (|δ| − c/2),  c = min(|δ|, κ)

- ``double``: a' = argmax Q(s', ·) of the online network (van Hasselt, Guez & Silver 2016).
- ``dueling``: Q is made of V and A (Wang et al. 2016).
- ``priorities``: rows with large errors are drawn more often, and weighed with w (Schaul et al.
  2016).
- ``noisy``: weights are random, which explores; an evaluation uses their means (Fortunato et al.
  2018).
- ``replay.n_step``: r is that of n steps (Sutton 1988; uncorrected, as in Hessel et al. 2018).

Departures: Adam, and not RMSProp; by default the square of the error (κ = ∞), as rewards are not
clipped; V and A share all layers but the last, where Wang et al. give each one more of its own; the
updates of an iteration go on beside its environment steps, so that they learn from what was seen
before them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.off_policy.replay_update import ERROR, Draw, Given, ReplayUpdate
from rlrun.config.types import Count, Fraction, PositiveOrInfinite
from rlrun.data.replay.buffer import Replay
from rlrun.data.replay.priorities import Priorities
from rlrun.errors import UserError
from rlrun.learning.contract import Context, LossAndMetrics, Metrics
from rlrun.learning.exploration import Exploration
from rlrun.learning.learner import GradientDescent, GradientState
from rlrun.learning.optimizers import Adam
from rlrun.models.explorers import EpsilonGreedy
from rlrun.models.networks import GreedyPolicy
from rlrun.models.noisy import Noisy, NoisyWeights


class DQNState(NamedTuple):
    """What an update changes.

    Attributes:
        online: θ, and its optimiser's state.
        target: θ̄.
        updates: taken since the last look at the target, [] (float).
    """

    online: GradientState
    target: Tensor
    updates: Tensor


class Batch(NamedTuple):
    """What the network learns from: s, a, y, w, and the noise of its weights."""

    obs: Tensor
    action: Tensor
    target: Tensor
    weight: Tensor
    noise: Tensor


@dataclass(kw_only=True, eq=False)
class DQN:
    """Hyperparameters (explained in ``conf/algo/dqn.yaml``), and the loss."""

    loop: ClassVar = staticmethod(loops.off_policy)

    num_envs: Count
    horizon: Count
    gamma: Fraction
    replay: Replay
    exploration: Exploration
    target_rate: Fraction
    target_every: Count
    double: bool
    dueling: bool
    noisy: NoisyWeights | None
    priorities: Priorities | None
    huber_threshold: PositiveOrInfinite
    optimizer: Adam

    def setup(self, context: Context) -> None:
        """Build the network and what fits it (see ``algos/contract.py``)."""
        if not context.problem.discrete:
            raise UserError(
                f"DQN chooses among finitely many actions, and those of {context.problem.env_id} "
                "are a box: algo=sac, say"
            )
        sigma = None if self.noisy is None else self.noisy.sigma
        values = context.model.action_values(
            context.problem, context.streams.init, dueling=self.dueling, sigma=sigma
        ).to(context.hardware.torch_device())
        noise = sum(part.noise_size for part in values.modules() if isinstance(part, Noisy))
        self.online = GradientDescent(values, self.loss, self.optimizer)
        self.greedy = EpsilonGreedy(noise)
        start = self.online.start()
        self.body = ReplayUpdate(
            context,
            self.replay,
            GreedyPolicy(values),
            None,
            self.greedy,
            gamma=self.gamma,
            step=self.step,
            state=DQNState(start, start.theta.clone(), start.theta.new_zeros(())),
            optimizers={"online": self.optimizer},
            noise_shape=(3, noise),
            priorities=self.priorities,
        )
        self.agent, self.buffer, self.learners, self.parts = self.body.contract

    def explore(self, progress: float) -> None:
        """Take random actions with the ε of this moment."""
        self.body.explore(progress)
        self.greedy.epsilon = self.exploration.epsilon(progress)

    def update(self, progress: float) -> Metrics:
        """Take the updates of an iteration; say how random the actions beside them were."""
        metrics = self.body.update(progress)
        if self.agent.actor.warming_up:  # they are all random, and nothing is drawn
            return metrics
        schedules = {"schedule/epsilon": torch.tensor(self.greedy.epsilon)}
        if self.priorities is not None:
            beta = torch.tensor(self.priorities.beta(progress))
            schedules["schedule/importance_correction"] = beta
        return {**metrics, **schedules}

    def step(self, state: DQNState, draw: Draw, given: Given) -> tuple[DQNState, Metrics]:
        """Take one update, as a pure function."""
        batch = self.body.take(draw.places, given.ring)
        noise, target_noise, choice_noise = draw.noise
        value = self.values(self.online.at(state.target), batch.next_obs, target_noise)
        choice = value
        if self.double:
            choice = self.values(self.online.at(state.online.theta), batch.next_obs, choice_noise)
        next_value = value.gather(-1, choice.argmax(-1, keepdim=True)).squeeze(-1)
        y = batch.reward + batch.discount * next_value
        online, metrics = self.online(
            state.online,
            Batch(batch.obs, batch.action, y, draw.weight, noise),
            given.rates["online"],
        )
        updates = (state.updates + 1) % self.target_every
        # θ̄ ← θ̄ + τ (θ − θ̄), once in so many updates
        moved = torch.lerp(state.target, online.theta, self.target_rate)
        target = torch.where(updates == 0, moved, state.target)
        return DQNState(online, target, updates), metrics

    def values(self, network: Callable[..., Tensor], obs: Tensor, noise: Tensor) -> Tensor:
        """Return Q(s, ·), [B, K], with random weights if they are noisy."""
        return network(obs) if self.noisy is None else network(obs, noise)

    def loss(self, network: Callable[..., Tensor], batch: Batch) -> LossAndMetrics:
        """L(θ) = E[w ℓ(Q(s, a) − y)]."""
        values = self.values(network, batch.obs, batch.noise)
        q = values.gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        error = q - batch.target  # δ
        size = error.abs()
        quadratic = size.clamp(max=self.huber_threshold)
        loss = (batch.weight * quadratic * (size - 0.5 * quadratic)).mean()
        metrics = {"loss/value": loss, "value/q": q.mean(), "value/td_error": size.mean()}
        if self.priorities is not None:
            metrics[ERROR] = error.detach()
        return loss, metrics
