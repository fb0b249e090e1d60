"""Who acts while values are learned: a policy, and what it does besides to find out more."""

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from rlrun.config.types import Fraction, Positive
from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.rollout_buffer import Behaviour
from rlrun.envs.problem import Problem
from rlrun.models.actor import Actor
from rlrun.models.bounded_distributions import Box, CensoredGaussian, Dirac, UniformBox
from rlrun.models.distributions import ActionValues, Categorical
from rlrun.models.networks import Policy


class ExplorationRule(Protocol):
    """How a policy's distribution becomes what is done."""

    def act(self, actor: Actor, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Draw actions at raw observations [N, D]; return them, and what they were drawn from."""
        ...

    def state_dict(self) -> dict:
        """Return what decides its future."""
        ...

    def load_state_dict(self, state: dict) -> None:
        """Go on from a saved state."""
        ...


class Explorer:
    """Acts at random while the run warms up, then as its exploration says.

    Attributes:
        warming_up: whether actions are drawn uniformly.
    """

    def __init__(self, actor: Actor, exploration: ExplorationRule, problem: Problem):
        """Begin to act.

        Args:
            actor: has a copy of the policy, as it acts while the learner learns.
            exploration: what it does once it is warm.
            problem: gives the actions there are.
        """
        self._actor = actor
        self._exploration = exploration
        self._choices = problem.choices
        self._box = None if problem.discrete else Box(*problem.bounds)
        self.warming_up = True

    @property
    def policy(self) -> Policy:
        """Who acts once the run is warm."""
        return self._actor.policy

    @property
    def normalizer(self) -> ObservationNormalizer:
        """Of the observations: none, as a replay buffer holds them as they came."""
        return self._actor.normalizer

    @property
    def version(self) -> int:
        """Of the policy's weights."""
        return self._actor.version

    @property
    def generator(self) -> torch.Generator:
        """Source of the exploration."""
        return self._actor.generator

    def act(self, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Draw an action at each raw observation [N, D]; return μ(·|s) besides."""
        if not self.warming_up:
            return self._exploration.act(self._actor, obs)
        behaviour: Categorical | UniformBox
        if self._box is not None:
            behaviour = UniformBox(torch.zeros(len(obs)), self._box)
        else:
            assert self._choices is not None
            behaviour = Categorical(torch.zeros(len(obs), self._choices))
        return behaviour.sample(self.generator), behaviour

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the policy's best action at each observation [N, D], as [N] or [N, A]."""
        return self._actor.act_greedily(obs)

    def publish(self) -> None:
        """Act with the learner's present weights from now on."""
        self._actor.publish()

    def refresh(self) -> None:
        """Copy the learner's weights."""
        self._actor.refresh()

    def state_dict(self) -> dict:
        """Return the version, and what the exploration remembers."""
        return {"actor": self._actor.state_dict(), "exploration": self._exploration.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a saved state, with weights that are loaded by now."""
        self._actor.load_state_dict(state["actor"])
        self._exploration.load_state_dict(state["exploration"])


class OwnChance:
    """Draws from the policy itself, which is random enough."""

    def act(self, actor: Actor, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Draw actions (see :class:`ExplorationRule`)."""
        return actor.act(obs)

    def state_dict(self) -> dict:
        """Return nothing: it remembers nothing."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Go on."""


class EpsilonGreedy:
    """Takes the best action, and with probability ε any.

    Attributes:
        epsilon: ε.
        noise_size: random numbers that a noisy network takes; 0: it is not noisy.
    """

    def __init__(self, noise_size: int):
        """Begin with random actions."""
        self.epsilon = 1.0
        self.noise_size = noise_size

    def act(self, actor: Actor, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Draw actions (see :class:`ExplorationRule`)."""
        noise = torch.randn(self.noise_size, generator=actor.generator)
        policy = actor.distribution(obs, *([noise] if self.noise_size else []))
        values = cast(ActionValues, policy).values
        probability = torch.full_like(values, self.epsilon / values.shape[-1])
        probability[torch.arange(len(obs)), values.argmax(-1)] += 1 - self.epsilon
        behaviour = Categorical(probability.log())
        return behaviour.sample(actor.generator), behaviour

    def state_dict(self) -> dict:
        """Return nothing: ε follows from how far the run is."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Go on."""


@dataclass(frozen=True, kw_only=True)
class ActionNoise:
    """Noise n that is added to actions: n ← (1 − θ) n + σ ε, ε ~ N(0, 1).

    With θ = 1 it is new at each step (Fujimoto et al. 2018); with less, an Ornstein-Uhlenbeck
    process in steps of 1 (Lillicrap et al. 2016: θ = 0.15, σ = 0.2).

    Attributes:
        std: σ, in halves of the box's width.
        reversion: θ.
    """

    std: Positive
    reversion: Fraction


class NoisyActions:
    """Adds noise to the policy's action, within the box."""

    def __init__(self, noise: ActionNoise, box: Box, num_envs: int):
        """Begin without noise.

        Args:
            noise: its settings.
            box: of the actions.
            num_envs: N, each of which has a noise of its own, also across its episodes.
        """
        self._reversion = noise.reversion
        self._std = noise.std * box.scale
        self._box = box
        self._noise = torch.zeros(num_envs, len(box.low))

    def act(self, actor: Actor, obs: Tensor) -> tuple[Tensor, Behaviour]:
        """Draw actions (see :class:`ExplorationRule`)."""
        chosen = cast(Dirac, actor.distribution(obs)).action
        kept = (1 - self._reversion) * self._noise
        drawn = torch.randn(self._noise.shape, generator=actor.generator)
        self._noise = kept + self._std * drawn
        behaviour = CensoredGaussian(chosen + kept, self._std, self._box)
        return self._box.clip(chosen + self._noise), behaviour

    def state_dict(self) -> dict:
        """Return the noise."""
        return {"noise": self._noise}

    def load_state_dict(self, state: dict) -> None:
        """Go on with it.

        Raises:
            ValueError: it is that of another number of environments or actions.
        """
        if state["noise"].shape != self._noise.shape:
            raise ValueError(f"noise of {list(state['noise'].shape)} actions")
        self._noise = state["noise"].to(self._noise)
