"""The agent of a policy-gradient algorithm: a policy, and the critics that its estimator needs."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from rlrun.advantages.columns import Estimator, prepare
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.errors import UserError
from rlrun.hardware.spec import Hardware
from rlrun.models.distributions import Categorical, DiagonalGaussian
from rlrun.models.networks import (
    BoxActionCritic,
    CategoricalPolicy,
    Critic,
    DiscreteActionCritic,
    GaussianPolicy,
    Networks,
    make_action_critic,
    make_policy,
)

# Rows whose gradients are taken at once: a gradient is as large as the policy.
ROWS_AT_ONCE = 512


class Agent:
    """Acts, judges what was done, and holds the weights.

    Attributes:
        device: where the networks are.
        networks: policy and critics.
        weighs_steps: whether the estimator compares the policy with the one that sampled the
            actions, and so weighs each step with a ratio of its own.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        columns: AbstractSet[str],
        hidden_sizes: Sequence[int],
        log_std: float,
        hardware: Hardware,
        streams: Streams,
    ):
        """Build the networks.

        Args:
            problem: gives their sizes.
            columns: names of the columns of a rollout that the estimator needs
                (:func:`rlrun.advantages.columns.prepare`), which decide the critics.
            hidden_sizes: widths of the hidden layers of each network.
            log_std: logarithm of the policy's first standard deviation, for a box of actions.
            hardware: where the learner lives.
            streams: initial weights, exploration.
        """
        self.device = hardware.torch_device()
        self._obs_size = problem.obs_size
        self._streams = streams
        self.weighs_steps = "policy_logp" in columns
        self._needs_score = "score_square" in columns
        policy = make_policy(
            problem, hidden_sizes=hidden_sizes, log_std=log_std, generator=streams.init
        )
        critic = action_critic = None
        if "value" in columns or "next_value" in columns:
            critic = Critic([problem.obs_size, *hidden_sizes, 1], streams.init)
        if columns & {"q", "next_q", "policy_q"}:
            action_critic = make_action_critic(
                problem, hidden_sizes=hidden_sizes, generator=streams.init
            )
        self.networks = Networks(policy, critic, action_critic).to(self.device)
        self.networks.requires_grad_(False)
        # Environments step on the CPU, where a forward pass of a small network takes less time
        # than a launch on a GPU: acting uses a copy of the policy there.
        self._acting = policy
        if self.device.type != "cpu":
            self._acting = make_policy(
                problem, hidden_sizes=hidden_sizes, log_std=log_std, generator=torch.Generator()
            )
        self.send_to_actor()

    @torch.no_grad()
    def example(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a minibatch of observations [B, D], actions [B] or [B, A], and zeros [B].

        Of the right shapes and types to compile for.
        """
        obs = torch.zeros(size, self._obs_size, device=self.device)
        return obs, self.policy(obs).mode(), torch.zeros(size, device=self.device)

    @property
    def policy(self) -> CategoricalPolicy | GaussianPolicy:
        """π(a|s)."""
        return self.networks.policy

    @property
    def critic(self) -> Critic | None:
        """V(s), if the estimator needs it."""
        return self.networks.critic

    @property
    def action_critic(self) -> DiscreteActionCritic | BoxActionCritic | None:
        """Q(s, a), if the estimator needs it."""
        return self.networks.action_critic

    def send_to_actor(self) -> None:
        """Bring the copy that acts up to date, after each update."""
        if self._acting is not self.networks.policy:
            self._acting.load_state_dict(self.networks.policy.state_dict())

    # ------------------------------------------------------------------ acting

    def act(self, obs: Tensor) -> Tensor:
        """Sample an action at each observation [N, D] (CPU), as [N] or [N, A]."""
        return self._acting(obs).sample(self._streams.action)

    def act_greedily(self, obs: Tensor) -> Tensor:
        """Return the most probable action at each observation [N, D] (CPU), as [N] or [N, A]."""
        return self._acting(obs).mode()

    # ------------------------------------------------------------------ judging

    @torch.no_grad()
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s), [T, N]."""
        return self.policy(obs).log_prob(action)

    @torch.no_grad()
    def judge(self, rollout: Rollout) -> Rollout:
        """Fill in what policy and critics say now of the rollout's states and actions."""
        obs, action, next_obs = rollout.obs, rollout.action, rollout.next_obs
        columns: dict[str, Any] = {}
        if self.weighs_steps:
            columns["policy_logp"] = self.log_prob(obs, action)
        if self.critic is not None:
            columns |= {"value": self.critic(obs), "next_value": self.critic(next_obs)}
        if self.action_critic is not None:
            columns |= self._judge_actions(self.action_critic, rollout)
        if self._needs_score:
            columns["score_square"] = self._score_square(obs, action)
        return replace(rollout, **columns)

    def _judge_actions(
        self, critic: DiscreteActionCritic | BoxActionCritic, rollout: Rollout
    ) -> dict[str, Tensor]:
        """Return the columns of the action-value critic, each [T, N]."""
        next_policy = self.policy(rollout.next_obs)
        columns = {"q": critic(rollout.obs, rollout.action)}
        if isinstance(critic, DiscreteActionCritic):
            columns["policy_q"] = expected_q(critic, self.policy(rollout.obs), rollout.obs)
            columns["next_q"] = expected_q(critic, next_policy, rollout.next_obs)
        else:
            next_action = next_policy.sample(self._streams.action)
            columns["next_q"] = critic(rollout.next_obs, next_action)
        return columns

    def _score_square(self, obs: Tensor, action: Tensor) -> Tensor:
        """Return ‖∇_θ log π(a|s)‖² of every row, [T, N]."""
        parameters: dict[str, Tensor] = dict(self.policy.named_parameters())

        def log_prob(parameters: dict[str, Tensor], obs: Tensor, action: Tensor) -> Tensor:
            return functional_call(self.policy, parameters, (obs,)).log_prob(action)

        def square(obs: Tensor, action: Tensor) -> Tensor:
            score = grad(log_prob)(parameters, obs, action)
            return torch.stack([g.square().sum() for g in score.values()]).sum()

        rows = vmap(square, chunk_size=ROWS_AT_ONCE)(obs.flatten(0, 1), action.flatten(0, 1))
        return rows.view(obs.shape[:2])

    # ------------------------------------------------------------------ saving

    def weights(self) -> dict[str, Tensor]:
        """Return the networks' weights by name: what is shared of a trained policy."""
        return dict(self.networks.state_dict())

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Continue from saved weights."""
        self.networks.load_state_dict(weights)
        self.send_to_actor()


def expected_q(
    critic: DiscreteActionCritic, distribution: Categorical | DiagonalGaussian, obs: Tensor
) -> Tensor:
    """Return Σ_a π(a|s) Q(s, a), [...], of observations [..., D]."""
    assert isinstance(distribution, Categorical)
    return (distribution.logits.softmax(-1) * critic.values(obs)).sum(-1)


class AgentSettings(Protocol):
    """The hyperparameters of an algorithm that decide its agent.

    Attributes:
        num_envs: N, the columns of a rollout.
        gamma: discount γ of the return.
        hidden_sizes: widths of the hidden layers of each network.
        log_std: logarithm of the policy's first standard deviation, for a box of actions.
    """

    num_envs: int
    gamma: float
    hidden_sizes: list[int]
    log_std: float


def make_agent(
    settings: AgentSettings,
    problem: Problem,
    *,
    algorithm: str,
    estimator: Estimator | None,
    offers: AbstractSet[str],
    hardware: Hardware,
    streams: Streams,
) -> tuple[Agent, Callable[[Rollout], tuple[Tensor, Tensor]]]:
    """Build a policy, and the critics that an estimator asks for.

    Args:
        settings: the algorithm's hyperparameters.
        problem: what is to be learned.
        algorithm: what messages call it.
        estimator: called as ``estimator(rollout, gamma=gamma)``.
        offers: names of the columns of a rollout that the algorithm can fill in.
        hardware: where the learner lives.
        streams: initial weights, exploration.

    Returns:
        The agent, and the estimator as a function of the rollout alone.

    Raises:
        UserError: there is no estimator, it asks for what this run cannot have, or one of its
            constants is out of range.
    """
    estimate, columns = prepare(
        estimator,
        algorithm=algorithm,
        offers=offers,
        gamma=settings.gamma,
        problem=problem,
        num_envs=settings.num_envs,
    )
    agent = Agent(
        problem,
        columns=columns,
        hidden_sizes=settings.hidden_sizes,
        log_std=settings.log_std,
        hardware=hardware,
        streams=streams,
    )
    return agent, estimate


def refuse_second_ratio(agent: Agent) -> None:
    """Check, for a surrogate with a ratio π/μ, that an estimator's recomputed Ψ has none as well.

    Raises:
        UserError: once the policy has moved, each step would be weighed twice.
    """
    if agent.weighs_steps:
        raise UserError(
            "advantage: it weighs each step with the ratio of the policies, which the algorithm "
            "does too: algo.recompute_advantage=false"
        )
