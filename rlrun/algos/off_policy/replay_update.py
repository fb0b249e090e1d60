"""The body of the methods that learn from a replay buffer: what they act by, draw and fit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.replay.buffer import Replay, ReplayBuffer
from rlrun.data.replay.priorities import BYTES_PER_ROW, Priorities, PrioritizedSampler
from rlrun.data.replay.rows import ReplayBatch, Ring, take
from rlrun.errors import UserError
from rlrun.hardware.memory import memory_suffices
from rlrun.learning.contract import Context, Metrics, Stateful, Trainable
from rlrun.learning.learner import Learner, Step
from rlrun.learning.metrics import summarize
from rlrun.learning.optimizers import Optimizer
from rlrun.models.actor import Actor
from rlrun.models.explorers import ExplorationRule, Explorer
from rlrun.models.networks import ActionCritic, Networks, Policy

# A step's errors of the rows that it was given, [B], for their priorities: no number for the logs.
ERROR = "error"


class Draw(NamedTuple):
    """What was drawn for one update.

    Attributes:
        places: in the ring, [B]; [d, B] for a step of d updates, likewise below.
        weight: importance weights, [B].
        noise: normal random numbers, as many as the step asked for.
    """

    places: Tensor
    weight: Tensor
    noise: Tensor


class Given(NamedTuple):
    """What is the same for all updates of a call.

    Attributes:
        ring: the replay buffer.
        rates: step sizes by the optimiser's name, each [].
    """

    ring: Ring
    rates: dict[str, Tensor]


class ActionCriticBatch(NamedTuple):
    """What critics learn from: s [B, D], a [B] or [B, A], and y [B]."""

    obs: Tensor
    action: Tensor
    target: Tensor


class ReplayAgent:
    """Networks, and who acts by them.

    Attributes:
        networks: a policy, and critics where they are networks of their own.
        actor: explores, with a copy of the policy.
    """

    def __init__(self, networks: Networks, actor: Explorer):
        """Put them together."""
        self.networks = networks
        self.actor = actor

    def publish(self) -> None:
        """Let the actor act with the present weights."""
        self.actor.publish()

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the networks' weights by name."""
        return {name: tensor.clone() for name, tensor in self.networks.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""
        self.networks.load_state_dict(weights)
        self.actor.refresh()


def explore(self: Any, progress: float) -> None:
    """Act at random while the run warms up: the `explore` of most algorithms here."""
    self.body.explore(progress)


def update(self: Any, progress: float) -> Metrics:
    """Take the updates of an iteration: the `update` of every algorithm here."""
    metrics: Metrics = self.body.update(progress)
    return metrics


class ReplayUpdate:
    """Takes the updates of an iteration on what was seen before it.

    Attributes:
        agent: whose networks are fitted.
        buffer: what was seen.
        learners: of all that an update changes.
        parts: what else decides the future.
    """

    def __init__(
        self,
        context: Context,
        settings: Replay,
        policy: Policy,
        critics: ActionCritic | None,
        exploration: ExplorationRule,
        *,
        gamma: float,
        step: Step,
        state: Any,
        optimizers: Mapping[str, Optimizer],
        noise_shape: Sequence[int] = (0,),
        delay: int = 1,
        priorities: Priorities | None = None,
    ):
        """Make room for what will be seen, and the learner.

        Args:
            context: the other parts of the run.
            settings: how it learns from what was seen.
            policy: who acts, on the learner's device.
            critics: what is fitted besides.
            exploration: what the policy does besides.
            gamma: discount γ.
            step: `Learner`'s, of a :class:`Draw` and a :class:`Given`.
            state: the first one.
            optimizers: those whose step sizes the step is given, by name.
            noise_shape: of the normal random numbers of an update.
            delay: d, updates of one step.
            priorities: of rows; None: all are drawn alike.

        Raises:
            UserError: the parts do not fit each other, or not into memory.
        """
        problem, shape = context.problem, context.shape
        if shape.whole_episodes:
            raise UserError("this algorithm learns from single steps: collector=segments")
        self._settings, self._gamma, self._delay = settings, gamma, delay
        self._updates = round(settings.updates_per_step * shape.rows)
        self._device = device = context.hardware.torch_device()
        self.buffer = ReplayBuffer(
            problem,
            capacity=settings.capacity,
            num_envs=shape.num_envs,
            total_steps=context.total_steps,
            device=device,
            anew=not context.resumed,
            besides=0 if priorities is None else BYTES_PER_ROW,
        )
        self._check(settings, self.buffer.capacity, shape.rows, delay, context.total_steps)
        as_it_is = ObservationNormalizer(problem.obs_size, clip=torch.inf, enabled=False)
        cpu = torch.device("cpu")
        actor = Actor(policy, as_it_is, context.streams.action, cpu, apart=True)
        explorer = Explorer(actor, exploration, problem)
        self.agent = ReplayAgent(Networks(policy, None, critics), explorer)
        self._optimizers = optimizers
        self._noise_shape = tuple(noise_shape)
        self._generator = context.streams.minibatch
        self.learner = Learner(step, state, in_place=True)
        self.learners: dict[str, Trainable] = {"update": self.learner}
        self.parts: dict[str, Stateful] = {"replay": self.buffer, "actor": explorer}
        self._sampler: PrioritizedSampler | None = None
        if priorities is not None:
            with memory_suffices("the priorities of a replay buffer (algo.replay.capacity)"):
                self._sampler = PrioritizedSampler(priorities, self.buffer.capacity, device)
            self.parts["priorities"] = self._sampler
        steps = self._updates // delay
        self.learner.expect(
            Draw(*(column[0] for column in self._arrange(self._example()))),
            rate=settings.updates_per_step / delay,
            minibatches=steps,
            constant=Given(self.buffer.ring, self._rates(0.0)),
        )

    @staticmethod
    def _check(settings: Replay, capacity: int, rows: int, delay: int, total_steps: int) -> None:
        """Refuse numbers that leave nothing to learn from, or not a whole number of updates."""
        updates = settings.updates_per_step * rows
        if updates < 1 or abs(updates - round(updates)) > 1e-9 or round(updates) % delay:
            whole = f"a multiple of {delay}" if delay > 1 else "a whole number"
            raise UserError(
                "algo: replay.updates_per_step x num_envs x horizon is the updates of an iteration "
                f"and must be {whole}, got {updates:g}"
            )
        if settings.batch_size > settings.warmup_steps:
            raise UserError(
                f"algo.replay.batch_size={settings.batch_size:,} is more than what is stored at "
                f"the first update: warmup_steps={settings.warmup_steps:,}"
            )
        for what, needed in (
            (f"warmup_steps={settings.warmup_steps:,}", settings.warmup_steps),
            (f"num_envs x horizon = {rows:,}", rows),
        ):
            if capacity < needed:
                raise UserError(
                    f"algo.replay.capacity={settings.capacity:,} holds {capacity:,} steps of all "
                    f"environments, which is less than {what}"
                )
        if settings.warmup_steps >= total_steps:
            raise UserError(
                f"algo.replay.warmup_steps={settings.warmup_steps:,} leave nothing to learn in "
                f"total_steps={total_steps:,}"
            )

    @property
    def contract(
        self,
    ) -> tuple[ReplayAgent, ReplayBuffer, dict[str, Trainable], dict[str, Stateful]]:
        """What a run needs of its algorithm: agent, buffer, learners and parts."""
        return self.agent, self.buffer, self.learners, self.parts

    def explore(self, progress: float) -> None:
        """Have the actor act at random while the run warms up."""
        self.agent.actor.warming_up = self.buffer.count < self._settings.warmup_steps

    def update(self, progress: float) -> Metrics:
        """Take an iteration's updates, if there is enough to learn from.

        Args:
            progress: share of the run's steps done, for schedules.

        Returns:
            Means of what the steps log and the values of schedules, each [], and ``updates``, the
            number of updates.
        """
        if len(self.buffer) < self._settings.warmup_steps:
            return {"updates": torch.tensor(0)}
        draw = self._draw(progress)
        given = Given(self.buffer.ring, self._rates(progress))
        metrics = self.learner.fit(self._arrange(draw), given)
        if self._sampler is not None:
            self._sampler.learn(draw.places, metrics.pop(ERROR).view(draw.places.shape))
        return {
            **summarize([metrics]),
            **{f"schedule/{name}_learning_rate": rate for name, rate in given.rates.items()},
            "updates": torch.tensor(self._updates),
        }

    def take(self, index: Tensor, ring: Ring) -> ReplayBatch:
        """Return the rows at [B] places, each with its n steps of reward."""
        steps = self._settings.n_step
        num_envs = self.buffer.num_envs
        return take(ring, index, gamma=self._gamma, steps=steps, num_envs=num_envs)

    def _draw(self, progress: float) -> Draw:
        """Draw rows and noise for K updates, each [K, ...]."""
        size, generator = self._settings.batch_size, self._generator
        if self._sampler is None:
            index = self.buffer.uniform(self._updates, size, generator)
            weight = torch.ones(index.shape, device=self._device)
        else:
            index, weight = self._sampler.draw(
                self._updates,
                size,
                count=self.buffer.count,
                stored=len(self.buffer),
                progress=progress,
                generator=generator,
            )
        noise = torch.randn(self._updates, *self._noise_shape, generator=generator)
        return Draw(index, weight, noise.to(self._device))

    def _example(self) -> Draw:
        """Return what a draw looks like."""
        index = torch.zeros(self._updates, self._settings.batch_size, device=self._device)
        noise = torch.zeros(self._updates, *self._noise_shape, device=self._device)
        return Draw(index.long(), index, noise)

    def _arrange(self, draw: Draw) -> Draw:
        """Put the updates of one step side by side: [K, ...] -> [K/d, d, ...] where d > 1."""
        if self._delay == 1:
            return draw
        return Draw(*(column.unflatten(0, (-1, self._delay)) for column in draw))

    def _rates(self, progress: float) -> dict[str, Tensor]:
        return {
            name: torch.tensor(optimizer.rate(progress), device=self._device)
            for name, optimizer in self._optimizers.items()
        }
