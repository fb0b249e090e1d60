"""What a soft policy and its critics are for a box of actions, and for a choice among some.

Of a box, an expectation over actions is estimated with one of them; of a choice, it is a sum.
"""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from rlrun.learning.contract import Context
from rlrun.models.bounded_distributions import Box
from rlrun.models.ensemble import Ensemble
from rlrun.models.networks import Policy

# A network with some parameters.
Function = Callable[..., Tensor]


class ActionKind(Protocol):
    """What soft actor-critic asks of actions.

    Attributes:
        target_entropy: H̄, the entropy that a temperature is usually fitted to.
        noise_size: normal random numbers of an action.
    """

    target_entropy: float
    noise_size: int

    def policy(self, context: Context) -> Policy:
        """Build π."""
        ...

    def critics(self, context: Context, count: int) -> Ensemble:
        """Build M critics."""
        ...

    def taken(self, critics: Function, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_i(s, a), [M, B]."""
        ...

    def expected(
        self, policy: Callable, critics: Function, obs: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return E_a~π[min_i Q_i(s, a)] and E_a~π[log π(a|s)], [B] each.

        Args:
            policy: π, observations -> distribution.
            critics: observations (and actions) -> Q_i.
            obs: s, [B, D].
            noise: ε, [B, noise_size].
        """
        ...


class BoxActions:
    """One action a ~ π(·|s), as a function of noise (Haarnoja et al. 2018)."""

    def __init__(self, context: Context):
        """Take the size of an action.

        Raises:
            UserError: the box has no bounds.
        """
        box = Box(*context.problem.bounds)
        self.noise_size = len(box.low)
        # −1 for each number in units of −1…1, whatever units the box has: log π is in the box's.
        self.target_entropy = float(box.scale.log().sum()) - self.noise_size

    def policy(self, context: Context) -> Policy:
        """Build π."""
        return context.model.squashed_policy(context.problem, context.streams.init)

    def critics(self, context: Context, count: int) -> Ensemble:
        """Build M critics, of observation and action."""
        model, init = context.model, context.streams.init
        return Ensemble([model.action_critic(context.problem, init) for _ in range(count)])

    def taken(self, critics: Function, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_i(s, a), [M, B]."""
        return critics(obs, action)

    def expected(
        self, policy: Callable, critics: Function, obs: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return min_i Q_i(s, a) and log π(a|s) of one action each, [B]."""
        action, logp = policy(obs).of_noise(noise)
        return critics(obs, action).amin(0), logp


class Choices:
    """All actions, each weighed with its probability (Christodoulou 2019)."""

    noise_size = 0

    def __init__(self, context: Context):
        """Take the number of actions."""
        assert context.problem.choices is not None
        # Near the largest entropy there is: much of it has to be given up for a return.
        self.target_entropy = 0.98 * math.log(context.problem.choices)

    def policy(self, context: Context) -> Policy:
        """Build π."""
        return context.model.policy(context.problem, context.streams.init)

    def critics(self, context: Context, count: int) -> Ensemble:
        """Build M critics, of all actions at once."""
        build, init = context.model.action_values, context.streams.init
        members = [build(context.problem, init, dueling=False, sigma=None) for _ in range(count)]
        return Ensemble(members)

    def taken(self, critics: Function, obs: Tensor, action: Tensor) -> Tensor:
        """Return Q_i(s, a), [M, B]."""
        values = critics(obs)
        return values.gather(-1, action.expand(len(values), -1).unsqueeze(-1)).squeeze(-1)

    def expected(
        self, policy: Callable, critics: Function, obs: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return Σ_a π(a|s) min_i Q_i(s, a) and Σ_a π(a|s) log π(a|s), [B]."""
        logp = policy(obs).logits.log_softmax(-1)
        probability = logp.exp()
        value = (probability * critics(obs).amin(0)).sum(-1)
        return value, (probability * logp).sum(-1)


def kind_of_actions(context: Context) -> ActionKind:
    """Return what the environment's actions are.

    Raises:
        UserError: a box without bounds.
    """
    return Choices(context) if context.problem.discrete else BoxActions(context)
