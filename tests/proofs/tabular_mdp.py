"""A decision process so small that every episode can be written down, with its probability.

Two states and a terminal one, two actions, three steps at most: the expectation of an estimate of
the gradient is a sum over all batches of episodes, and the gradient of the objective a derivative
of the Bellman equations. Both are exact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tiny import bare_rollout
from torch import Tensor
from torch.func import jacrev, vmap

DOUBLE = torch.float64
HORIZON, STATES, ACTIONS = 3, 2, 2
TERMINAL = STATES
START = torch.tensor([0.6, 0.4], dtype=DOUBLE)
# P(s'|s, a), [S, A, S + 1]: chance in some places, and episodes of every length.
TRANSITION = torch.tensor(
    [[[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]], [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]], dtype=DOUBLE
)
# Another process, whose episodes all have as many steps as there can be.
ENDLESS = torch.tensor(
    [[[0.3, 0.7, 0.0], [1.0, 0.0, 0.0]], [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]], dtype=DOUBLE
)
# r(s, a, s'), [S, A, S + 1]
REWARD = torch.tensor(
    [[[4.0, 1.0, 0.0], [0.0, 0.0, 4.5]], [[5.0, 0.0, 0.0], [0.0, 3.5, 0.0]]], dtype=DOUBLE
)
# Of the softmax policy π and of another one, μ, [S, A].
LOGITS = torch.tensor([[0.3, -0.5], [-0.2, 0.6]], dtype=DOUBLE)
OTHER_LOGITS = torch.tensor([[-0.4, 0.3], [0.5, 0.1]], dtype=DOUBLE)

Estimator = Callable[..., tuple[Tensor, Tensor]]


# ---------------------------------------------------------------------- values and the objective


@dataclass(frozen=True)
class Critic:
    """V(s) [H + 1, S + 1] and Q(s, a) [H, S, A] at each step of an episode."""

    value: Tensor
    q: Tensor


def critic_of(
    policy: Tensor,
    gamma: float,
    at_the_limit: Tensor | None = None,
    transition: Tensor = TRANSITION,
) -> Critic:
    """The true values of a policy, by the Bellman equations.

    Args:
        policy: π(a|s), [S, A].
        gamma: discount.
        at_the_limit: what the states [S + 1] are worth after the last step; None: nothing.
        transition: P(s'|s, a), [S, A, S + 1].
    """
    value = [torch.zeros(STATES + 1, dtype=DOUBLE) if at_the_limit is None else at_the_limit]
    q: list[Tensor] = []
    for _ in range(HORIZON):
        q.insert(0, (transition * (REWARD + gamma * value[0])).sum(-1))
        value.insert(0, torch.cat([(policy * q[0]).sum(-1), torch.zeros(1, dtype=DOUBLE)]))
    return Critic(torch.stack(value), torch.stack(q))


def true_critic(gamma: float, transition: Tensor = TRANSITION) -> Critic:
    """The values of π."""
    return critic_of(LOGITS.softmax(-1), gamma, transition=transition)


def wrong_critic(gamma: float, transition: Tensor = TRANSITION) -> Critic:
    """Values that are off everywhere, also in the terminal state and after the last step."""
    generator = torch.Generator().manual_seed(28)
    true = true_critic(gamma, transition)
    value, q = (
        x + torch.randn(x.shape, generator=generator, dtype=DOUBLE) for x in (true.value, true.q)
    )
    return Critic(value, q)


def objective(
    logits: Tensor,
    gamma: float,
    at_the_limit: Tensor | None = None,
    transition: Tensor = TRANSITION,
) -> Tensor:
    """J(θ) = E[Σ_t γ^t r_t], []."""
    critic = critic_of(logits.softmax(-1), gamma, at_the_limit, transition)
    return START @ critic.value[0, :STATES]


def true_gradient(
    gamma: float, at_the_limit: Tensor | None = None, transition: Tensor = TRANSITION
) -> Tensor:
    """∇J of π's logits, [S, A]."""
    return jacrev(objective)(LOGITS, gamma, at_the_limit, transition)


# ---------------------------------------------------------------------- all episodes


def walks(
    state: int, steps: int, transition: Tensor
) -> Iterator[tuple[list[tuple[int, int, int]], float]]:
    """Every way to go on from a state: its (s, a, s'), and the chance of all the s'."""
    if state == TERMINAL or steps == 0:
        yield [], 1.0
        return
    for action in range(ACTIONS):
        for successor in range(STATES + 1):
            chance = transition[state, action, successor].item()
            if chance > 0:
                for rest, others in walks(successor, steps - 1, transition):
                    yield [(state, action, successor), *rest], chance * others


@dataclass(frozen=True)
class Batches:
    """Batches [B, N] of episodes, every one that there can be.

    Attributes:
        state: s_t, [B, H, N]; some state in the padding.
        action: a_t, [B, H, N].
        successor: s_{t+1}, [B, H, N].
        mask: steps that there are, [B, H, N].
        chance: probability of all that is not a choice of the policy, [B].
        grouped: whether the episodes of a batch are a group, with one start.
    """

    state: Tensor
    action: Tensor
    successor: Tensor
    mask: Tensor
    chance: Tensor
    grouped: bool

    def probability(self, logits: Tensor) -> Tensor:
        """Of each batch under a softmax policy, [B]."""
        chosen = logits.softmax(-1)[self.state, self.action]
        return self.chance * torch.where(self.mask, chosen, 1.0).prod(-1).prod(-1)


def batches(size: int, *, grouped: bool = False, transition: Tensor = TRANSITION) -> Batches:
    """All batches of so many episodes, each with a start of its own, or grouped."""
    parts = []
    starts = [[state] for state in range(STATES)] if grouped else [list(range(STATES))]
    for among in starts:
        begun = [
            (*walk, START[state]) for state in among for walk in walks(state, HORIZON, transition)
        ]
        steps = torch.tensor(
            [walk + [(0, 0, TERMINAL)] * (HORIZON - len(walk)) for walk, _, _ in begun]
        )
        lengths = torch.tensor([len(walk) for walk, _, _ in begun])
        chance = torch.tensor([chance for _, chance, _ in begun], dtype=DOUBLE)
        start = torch.stack([start for _, _, start in begun])
        chosen = torch.cartesian_prod(*[torch.arange(len(begun))] * size).view(-1, size)  # [B, N]
        # A group draws its start once.
        drawn = start[chosen[:, 0]] if grouped else start[chosen].prod(-1)
        mask = torch.arange(HORIZON) < lengths[:, None]
        parts.append(
            (
                *steps[chosen].permute(3, 0, 2, 1),
                mask[chosen].transpose(1, 2),
                drawn * chance[chosen].prod(-1),
            )
        )
    return Batches(*(torch.cat(part) for part in zip(*parts, strict=True)), grouped=grouped)


# ---------------------------------------------------------------------- expectations


def judge(
    estimate: Estimator,
    episodes: Batches,
    *,
    gamma: float,
    critic: Critic,
    behaviour: Tensor = LOGITS,
    time_limit_truncates: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the estimator's advantage and target in all batches, each [B, H, N].

    Args:
        estimate: called as ``estimate(rollout, gamma=γ)``.
        episodes: the batches.
        gamma: discount.
        critic: what fills in V and Q.
        behaviour: logits of the policy that acted, for the column of log μ.
        time_limit_truncates: whether the last step truncates an episode, or is its end.
    """
    columns = columns_of(episodes, critic, behaviour, time_limit_truncates=time_limit_truncates)

    def of_one_batch(columns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        rollout = bare_rollout(**columns, whole_episodes=True, group=group_of(episodes))
        return estimate(rollout, gamma=gamma)

    return vmap(of_one_batch)(columns)


def group_of(episodes: Batches) -> Tensor | None:
    """The column of groups of one batch, [H, N]; None where there are none."""
    return torch.zeros(episodes.state.shape[1:], dtype=torch.int64) if episodes.grouped else None


def columns_of(
    episodes: Batches,
    critic: Critic,
    behaviour: Tensor = LOGITS,
    *,
    time_limit_truncates: bool = False,
) -> dict[str, Tensor]:
    """The columns of rollouts that estimators look at, each [B, H, N] (see :func:`judge`)."""
    state, action, successor, mask = (
        episodes.state,
        episodes.action,
        episodes.successor,
        episodes.mask,
    )
    t = torch.arange(HORIZON)[:, None].expand_as(state)
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    cut = last & (successor != TERMINAL) & time_limit_truncates
    policy = LOGITS.softmax(-1)
    # After the last step and in the terminal state there is nothing to choose.
    policy_q = torch.zeros(HORIZON + 1, STATES + 1, dtype=DOUBLE)
    policy_q[:HORIZON, :STATES] = (policy * critic.q).sum(-1)
    return {
        "reward": torch.where(mask, REWARD[state, action, successor], 0.0),
        "terminated": last & ~cut,
        "truncated": cut,
        "mask": mask,
        "logp": behaviour.log_softmax(-1)[state, action],
        "policy_logp": LOGITS.log_softmax(-1)[state, action],
        "value": critic.value[t, state],
        "next_value": critic.value[t + 1, successor],
        "q": critic.q[t, state, action],
        "next_q": policy_q[t + 1, successor],
        "policy_q": policy_q[t, state],
        "score_square": scores().square().sum((-1, -2))[state, action],
    }


def scores() -> Tensor:
    """∇ log π(a|s) of all logits, [S, A, S, A]."""
    return jacrev(lambda logits: logits.log_softmax(-1))(LOGITS)


def gradients(
    advantage: Tensor, episodes: Batches, *, gamma: float, weigh_states: bool = True
) -> Tensor:
    """Return (1/N) Σ_i Σ_t γ^t Ψ_{i,t} ∇ log π(a_{i,t}|s_{i,t}) of each batch, [B, S, A].

    Args:
        advantage: Ψ, [B, H, N].
        episodes: the batches.
        gamma: discount.
        weigh_states: whether with the factor γ^t, or without.
    """
    steps = torch.arange(HORIZON, dtype=DOUBLE)[:, None]
    weight = episodes.mask * (gamma**steps if weigh_states else 1.0) / episodes.mask.shape[-1]
    chosen = scores()[episodes.state, episodes.action]
    return torch.einsum("btn,btnsa->bsa", weight * advantage, chosen)


def expected_gradient(
    estimate: Estimator,
    episodes: Batches,
    *,
    gamma: float,
    critic: Critic,
    weigh_states: bool = True,
    time_limit_truncates: bool = False,
) -> Tensor:
    """Return E[(1/N) Σ_i Σ_t γ^t Ψ_{i,t} ∇ log π(a_{i,t}|s_{i,t})], [S, A]."""
    advantage, _ = judge(
        estimate,
        episodes,
        gamma=gamma,
        critic=critic,
        time_limit_truncates=time_limit_truncates,
    )
    each = gradients(advantage, episodes, gamma=gamma, weigh_states=weigh_states)
    return torch.einsum("b,bsa->sa", episodes.probability(LOGITS), each)
