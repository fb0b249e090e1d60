"""One update of an algorithm, on all batches of episodes that there can be.

An algorithm is built by its own `setup` and takes its own `update`, on the transitions of all
batches. Its policy and critics are tables, networks without hidden layers over one number for each
state at each step. Ψ is estimated in each batch alone and multiplied by how often the batch is
played, P(b) times the number of batches: at ratio 1 a gradient is linear in Ψ, so that this one
gradient is the expectation of those of single batches.
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
from tiny import CPU, algorithm_of, no_policy, no_table, yaml_of
from torch import Tensor, nn
from torch.func import vmap

from rlrun.data.normalize import RunningMoments
from rlrun.data.rollout import Rollout, RolloutShape, Transitions
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.learning.contract import Context
from rlrun.learning.trust_region import TrustRegionStep
from rlrun.models.networks import CategoricalPolicy, DiscreteActionCritic
from rlrun.models.networks import Critic as StateCritic

all_batches = cache(mdp.batches)
parameters_of = cache(yaml_of)

# Each state at each step, also after the last one, is an input of its own.
PLACES = (mdp.HORIZON + 1) * (mdp.STATES + 1)


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


class Tables:
    """A model whose networks are tables: the softmax of π's logits, and the values of a critic."""

    def __init__(self, critic: Critic):
        self.values = critic

    def policy(self, problem: Problem, generator: torch.Generator) -> CategoricalPolicy:
        return CategoricalPolicy(table(LOGITS.expand(mdp.HORIZON + 1, -1, -1)))

    def critic(self, problem: Problem, generator: torch.Generator) -> StateCritic:
        return StateCritic(table(self.values.value.unsqueeze(-1)))

    def action_critic(self, problem: Problem, generator: torch.Generator) -> DiscreteActionCritic:
        return DiscreteActionCritic(table(self.values.q))


def table(entries: Tensor) -> nn.Linear:
    """A layer from places to entries [H or H + 1, S or S + 1, K]; there is 0 beyond these."""
    linear = nn.Linear(PLACES, entries.shape[-1], bias=False)
    weight = torch.zeros(mdp.HORIZON + 1, mdp.STATES + 1, entries.shape[-1])
    weight[: entries.shape[0], : entries.shape[1]] = entries
    linear.weight.data = weight.flatten(0, 1).T.contiguous()
    return linear


def place(state: Tensor, step: Tensor) -> Tensor:
    """What is observed in states [T, N] at steps [T, 1], [T, N, PLACES]."""
    return torch.eye(PLACES)[step * (mdp.STATES + 1) + state]


def set_up(
    algo: str,
    case: Case,
    num_envs: int,
    *,
    critic: Critic | None = None,
    often: Tensor | None = None,
    **changes: Any,
) -> Any:
    """An algorithm whose policy is the softmax of π's logits, with an estimator.

    Args:
        algo: name of its YAML file.
        case: the estimator.
        num_envs: episodes of its rollout.
        critic: values of states and actions; None: those of the case, undiscounted.
        often: how often each batch of the rollout is played, [B]; None: it is one batch.
        changes: of the settings.
    """
    half = num_envs // 2
    wanted = {
        "num_envs": num_envs,
        "horizon": mdp.HORIZON,
        "epochs": 1,
        "critic.epochs": 1,
        "minibatch_size": half * mdp.HORIZON,
        "critic.minibatch_size": half * mdp.HORIZON,
        "episodes_per_minibatch": half,
        "aggregation": "episode_mean_step_sum",
        "normalize_advantage": False,
        "normalization.observation": False,
        "normalization.reward": False,
        "gamma": 1.0,
        **changes,
    }
    settings = parameters_of("algo", algo)
    known = {path: value for path, value in wanted.items() if has(settings, path)}
    algorithm = algorithm_of(algo, **known)
    estimator = case.estimator()
    shape = RolloutShape(
        num_envs=num_envs,
        longest=mdp.HORIZON,
        whole_episodes=True,
        group_size=case.size if case.grouped else 1,
    )
    algorithm.setup(
        Context(
            total_steps=1,
            problem=Problem(
                env_id="Tabular-v0",
                obs_size=PLACES,
                action_space=gym.spaces.Discrete(mdp.ACTIONS),
                action_units="raw",
                time_limit=mdp.HORIZON,
            ),
            collected=shape,
            networks=Tables(critic or case.values(1.0, mdp.TRANSITION)),
            estimator=estimator if often is None else in_each_batch(estimator, often),
            hardware=CPU,
            streams=Streams.from_seed(0),
            read_table=no_table,
            load_policy=no_policy,
        )
    )
    return algorithm


def has(settings: dict[str, Any], path: str) -> bool:
    """Whether there is such a setting."""
    node: Any = settings
    for key in path.split("."):
        if key not in node:
            return False
        node = node[key]
    return True


def in_each_batch(
    estimate: Callable[..., tuple[Tensor, Tensor]], often: Tensor
) -> Callable[..., tuple[Tensor, Tensor]]:
    """An estimator that looks at each batch alone, with Ψ as often as is said, [B]."""

    def estimate_in_each_batch(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
        def split(columns: Any) -> dict[str, Tensor]:
            return {
                name: column.unflatten(1, (len(often), -1))
                for name, column in columns.items()
                if isinstance(column, Tensor)
            }

        def of_one(batch: dict[str, Tensor], columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            return estimate(replace(rollout, **batch, columns=columns), gamma=gamma)

        advantage, target = vmap(of_one, in_dims=1, out_dims=1)(
            split(vars(rollout)), split(rollout.columns)
        )
        return (often[:, None] * advantage).flatten(1), target.flatten(1)

    return estimate_in_each_batch


def side_by_side(episodes: Batches) -> Transitions:
    """All batches as if they had been collected at once, [H, B·N]."""

    def join(column: Tensor) -> Tensor:
        return column.movedim(0, 1).flatten(1, 2)

    # Of these columns none is what a critic says.
    columns = mdp.columns_of(episodes, mdp.true_critic(1.0))
    reward, logp, terminated, truncated, mask = (
        join(columns[name]) for name in ("reward", "logp", "terminated", "truncated", "mask")
    )
    group = torch.arange(len(episodes.chance)).repeat_interleave(episodes.mask.shape[-1])
    step = torch.arange(mdp.HORIZON)[:, None]
    obs = place(join(episodes.state), step)
    return Transitions(
        obs=obs,
        next_obs=place(join(episodes.successor), step + 1),
        action=join(episodes.action),
        logp=logp,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        mask=mask,
        whole_episodes=True,
        group=group.repeat(mdp.HORIZON, 1) if episodes.grouped else None,
        policy_version=torch.zeros_like(mask, dtype=torch.int64),
        obs_moments=RunningMoments.of(obs[mask]),
        steps=int(mask.sum()),
    )


def ascent(algorithm: Any, transitions: Transitions) -> Tensor:
    """Where an update moves the logits, [S, A]."""
    policy, gradients = algorithm.learners["policy"], []

    class Recorder:
        """An optimiser that stays where it is."""

        max_grad_norm = math.inf

        def rate(self, progress: float) -> float:
            return 1.0

        def step(self, theta: Tensor, gradient: Tensor, state: Any, **_: Any) -> tuple[Tensor, Any]:
            gradients.append(-gradient)
            return theta, state

    def take(batch: Any) -> dict[str, Tensor]:
        gradients.append(policy._gradient(policy.parameters.vector, batch))
        return {}

    if isinstance(policy, TrustRegionStep):
        policy.take = take
    else:
        policy.step.optimizer = Recorder()
    algorithm.update(transitions, progress=0.0)
    mean = torch.stack(gradients).mean(0)  # over the minibatches
    by_place = policy.parameters.unflatten(mean)["logits.weight"].T
    # The same logits at every step: their gradient is the sum.
    return by_place.unflatten(0, (mdp.HORIZON + 1, -1)).sum(0)[: mdp.STATES]
