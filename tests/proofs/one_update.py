"""One update of an algorithm, on all batches of episodes that there can be.

An algorithm is built by its own `setup` and takes its own `update`, on one rollout of all batches.
Ψ is estimated in each batch alone and multiplied by how often the batch is played, P(b) times the
number of batches: at ratio 1 a gradient is linear in Ψ, so that this one gradient is the
expectation of those of single batches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import gymnasium as gym
import tabular_mdp as mdp
import torch
from hydra.utils import instantiate
from tabular_mdp import LOGITS, Batches, Critic, wrong_critic
from tiny import CPU, algorithm_of, bare_rollout, yaml_of
from torch import Tensor
from torch.func import vmap

from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.learning.trust_region import TrustRegionStep

all_batches = cache(mdp.batches)
parameters_of = cache(yaml_of)


@dataclass(frozen=True, eq=False)
class Case:
    """An estimator, and what it is tried on.

    Attributes:
        advantage: name of its YAML file.
        constants: other ones than there.
        size: episodes of a batch.
        grouped: whether these are a group.
        critic: what fills in V and Q; None: it does not look at them.
        scale: of the expected gradient.
    """

    advantage: str
    constants: dict[str, Any] = field(default_factory=dict)
    size: int = 1
    grouped: bool = False
    critic: Callable[..., Critic] | None = None
    scale: float = 1.0

    def estimator(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return instantiate(parameters_of("advantage", self.advantage) | self.constants)

    def episodes(self, transition: Tensor) -> Batches:
        return all_batches(self.size, grouped=self.grouped, transition=transition)

    def values(self, gamma: float, transition: Tensor) -> Critic:
        return (self.critic or wrong_critic)(gamma, transition)


def set_up(algo: str, case: Case, num_envs: int, **changes: Any) -> Any:
    """An algorithm whose policy is the softmax of π's logits, with an estimator."""
    half = num_envs // 2
    wanted = {
        "num_envs": num_envs,
        "horizon": None,
        "epochs": 1,
        "critic_epochs": 1,
        "minibatch_size": half * mdp.HORIZON,
        "episodes_per_minibatch": half,
        "aggregation": "episode_mean_step_sum",
        "normalize_advantage": False,
        "max_grad_norm": math.inf,
        "gamma": 1.0,
        "hidden_sizes": [],
        **changes,
    }
    fields = parameters_of("algo", algo)
    algorithm = algorithm_of(algo, **{name: wanted[name] for name in wanted if name in fields})
    problem = Problem(
        env_id="Tabular-v0",
        obs_size=mdp.STATES,
        action_space=gym.spaces.Discrete(mdp.ACTIONS),
        time_limit=mdp.HORIZON,
        group_size=2 if case.grouped or algo == "dapo" else 1,
    )
    streams = Streams.from_seed(0)
    algorithm.setup(
        problem,
        hardware=CPU,
        streams=streams,
        estimator=case.estimator(),
        compiled=False,
        from_checkpoint=False,
    )
    algorithm.agent.policy.logits[0].weight.copy_(LOGITS.T)
    return algorithm


def side_by_side(episodes: Batches, critic: Critic) -> Rollout:
    """All batches as one rollout, [H, B·N]."""

    def join(column: Tensor) -> Tensor:
        return column.movedim(0, 1).flatten(1, 2)

    group = torch.arange(len(episodes.chance)).repeat_interleave(episodes.mask.shape[-1])
    return bare_rollout(
        **{name: join(column) for name, column in mdp.columns_of(episodes, critic).items()},
        obs=torch.eye(mdp.STATES)[join(episodes.state)],
        action=join(episodes.action),
        whole_episodes=True,
        group=group.repeat(mdp.HORIZON, 1) if episodes.grouped else None,
    )


def ascent(algorithm: Any, rollout: Rollout, often: Tensor) -> Tensor:
    """Where an update moves the logits, [S, A], with batches as often as is said, [B]."""
    estimate, (policy, *_) = algorithm.estimate, algorithm.learners.values()
    gradients = []

    def estimate_in_each_batch(rollout: Rollout) -> tuple[Tensor, Tensor]:
        columns = {
            name: column.unflatten(1, (len(often), -1))
            for name, column in vars(rollout).items()
            if isinstance(column, Tensor)
        }
        of_one = vmap(lambda batch: estimate(replace(rollout, **batch)), in_dims=1, out_dims=1)
        advantage, target = of_one(columns)
        return (often[:, None] * advantage).flatten(1), target.flatten(1)

    class Recorder:
        """An optimiser that stays where it is."""

        def step(self, theta: Tensor, gradient: Tensor, state: Any, **_: Any) -> tuple[Tensor, Any]:
            gradients.append(-gradient)
            return theta, state

    def take(batch: Any) -> dict[str, Tensor]:
        gradients.append(policy._gradient(policy.parameters.vector, batch))
        return {}

    algorithm.estimate = estimate_in_each_batch
    if isinstance(policy, TrustRegionStep):
        policy.take = take
    else:
        policy.optimizer = Recorder()
    algorithm.update(rollout, progress=0.0)
    mean = torch.stack(gradients).mean(0)  # over the minibatches
    return policy.parameters.unflatten(mean)["logits.0.weight"].T
