"""What an estimator may ask of a rollout: the columns that networks fill in, and how it asks.

`COLUMNS` is the one place where a column is declared: what a user calls its source, which network
it needs, and how it is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from rlrun.data.rollout import Rollout
from rlrun.data.sequences import Observations
from rlrun.models.distributions import Categorical
from rlrun.models.networks import DiscreteActionCritic, Networks, Policy

# (rollout, gamma=γ) -> advantage and value target, each [T, N].
Estimator = Callable[..., tuple[Tensor, Tensor]]

# (networks, rollout, source of random numbers) -> [T, N].
Compute = Callable[[Networks, Rollout, torch.Generator], Tensor]

# Rows whose gradients are taken at once: a gradient is as large as the policy.
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Column:
    """A column of a rollout that networks fill in.

    Attributes:
        source: what a user calls that which it comes from.
        network: which of the networks it needs.
        compute: how it is filled in.
        discrete: whether it is a sum over all actions, which must then be finitely many.
        single: whether each state is looked at by itself, not as a step of a sequence.
    """

    source: str
    network: Literal["policy", "critic", "action_critic"]
    compute: Compute
    discrete: bool = False
    single: bool = False


def log_prob(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return log π(a|s) under the policy that learns; at collection it is μ, [T, N]."""
    return networks.policy(rollout.obs).log_prob(rollout.action)


def value(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return V(s_t), [T, N]."""
    assert networks.critic is not None
    return networks.critic(rollout.obs)


def next_value(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return V(s_{t+1}), [T, N]."""
    assert networks.critic is not None
    return networks.critic(rollout.next_obs)


def q(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return Q(s_t, a_t), [T, N]."""
    assert networks.action_critic is not None
    return networks.action_critic(rollout.obs, rollout.action)


def next_q(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return E Q(s_{t+1}, a') over a' ~ π, [T, N].

    Exact for discrete actions, one sample for continuous ones.
    """
    critic = networks.action_critic
    assert critic is not None
    if isinstance(critic, DiscreteActionCritic):
        return expected_q(networks.policy, critic, rollout.next_obs)
    return critic(rollout.next_obs, networks.policy(rollout.next_obs).sample(generator))


def policy_q(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return Σ_a π(a|s_t) Q(s_t, a), of discrete actions, [T, N]."""
    assert isinstance(networks.action_critic, DiscreteActionCritic)
    return expected_q(networks.policy, networks.action_critic, rollout.obs)


def expected_q(policy: Policy, critic: DiscreteActionCritic, obs: Observations) -> Tensor:
    """Return Σ_a π(a|s) Q(s, a), [...], of observations [..., D]."""
    distribution = policy(obs)
    assert isinstance(distribution, Categorical)
    return (distribution.logits.softmax(-1) * critic.values(obs)).sum(-1)


def score_square(networks: Networks, rollout: Rollout, generator: torch.Generator) -> Tensor:
    """Return ‖∇_θ log π(a_t|s_t)‖² of every row, [T, N]."""
    parameters: dict[str, Tensor] = dict(networks.policy.named_parameters())

    def log_prob(parameters: dict[str, Tensor], obs: Tensor, action: Tensor) -> Tensor:
        return functional_call(networks.policy, parameters, (obs,)).log_prob(action)

    def square(obs: Tensor, action: Tensor) -> Tensor:
        score = grad(log_prob)(parameters, obs, action)
        return torch.stack([g.square().sum() for g in score.values()]).sum()

    assert isinstance(rollout.obs, Tensor)
    obs, action = rollout.obs.flatten(0, 1), rollout.action.flatten(0, 1)
    return vmap(square, chunk_size=ROWS_AT_ONCE)(obs, action).view(rollout.reward.shape)


COLUMNS = {
    "policy_logp": Column("a policy", "policy", log_prob),
    "score_square": Column(
        "the policy's gradient at each step", "policy", score_square, single=True
    ),
    "value": Column("a critic V(s)", "critic", value),
    "next_value": Column("a critic V(s)", "critic", next_value),
    "q": Column("a critic Q(s, a)", "action_critic", q),
    "next_q": Column("a critic Q(s, a)", "action_critic", next_q),
    "policy_q": Column("a critic Q(s, a)", "action_critic", policy_q, discrete=True),
}


class MissingColumn(Exception):
    """An estimator asked for a column that the rollout does not have."""

    def __init__(self, name: str):
        super().__init__(f"the rollout has no column {name!r}, which needs {COLUMNS[name].source}")
        self.name = name


def column(rollout: Rollout, name: str) -> Tensor:
    """Return a column that networks fill in, [T, N].

    Args:
        rollout: what was collected.
        name: the column.

    Raises:
        MissingColumn: this run has no such column.
    """
    if name not in rollout.columns:
        raise MissingColumn(name)
    return rollout.columns[name]


def groups(rollout: Rollout) -> Tensor:
    """Return the number of each episode's group, [N].

    Raises:
        ValueError: the rollout is not made of groups of two or more.
    """
    if rollout.group is None:
        if rollout.whole_episodes:
            raise ValueError(
                "this estimator compares episodes from one start: collector.group_size=8, say; got "
                "collector.group_size=1"
            )
        raise ValueError(
            "this estimator compares episodes from one start: collector=groups; got "
            "collector=segments"
        )
    return rollout.group[0]


def require_whole_episodes(rollout: Rollout) -> None:
    """Check that each column of a rollout is one whole episode.

    Raises:
        ValueError: it is not.
    """
    if not rollout.whole_episodes:
        raise ValueError("this estimator needs whole episodes: collector=episodes, or groups")
