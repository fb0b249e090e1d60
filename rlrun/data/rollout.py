"""What passes from collecting to learning: the rollout, and how it is cut into minibatches."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T steps of N environments, time-major. Row [t, n] is one transition.

    The last columns are what policy and critics say of it (:meth:`rlrun.models.agent.Agent.judge`);
    one is None where nothing in the run needs it.

    Attributes:
        obs: normalised observation s_t, [T, N, D].
        next_obs: the true successor s_{t+1}, normalised; the final observation where an episode
            ended, never the first one of the next, [T, N, D].
        raw_obs: s_t as the environment gave it, [T, N, D] (CPU).
        action: as sampled, not clipped to the bounds, [T, N] (int64) or [T, N, A].
        logp: log μ(a|s) under the behaviour policy, which sampled the action, [T, N].
        reward: r_t as the algorithm sees it (scaled, if it asked for that), [T, N].
        raw_reward: r_t as the environment gave it, [T, N].
        terminated: s_{t+1} is terminal: nothing follows it, [T, N] (bool).
        truncated: the episode was cut after this step, but would have gone on, [T, N] (bool).
        mask: rows that count, [T, N] (bool); the others are padding behind the end of an episode,
            with zeros for rewards and False for endings.
        whole_episodes: each column is one episode, from its first step to its last.
        group: number of the group of episodes with a common start that a row belongs to, [T, N];
            None where every episode has a start of its own.
        policy_logp: log π(a|s) under the policy that learns; at collection it is μ, [T, N].
        value: V(s_t) of the critic at the time of judging, [T, N].
        next_value: V(s_{t+1}), [T, N].
        q: Q(s_t, a_t), [T, N].
        next_q: E Q(s_{t+1}, a') over a' ~ π, exact for discrete actions and one sample for
            continuous ones, [T, N].
        policy_q: Σ_a π(a|s_t) Q(s_t, a), of discrete actions, [T, N].
        score_square: ‖∇_θ log π(a_t|s_t)‖², [T, N].
    """

    obs: Tensor
    next_obs: Tensor
    raw_obs: Tensor
    action: Tensor
    logp: Tensor
    reward: Tensor
    raw_reward: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor
    whole_episodes: bool
    group: Tensor | None
    policy_logp: Tensor | None = None
    value: Tensor | None = None
    next_value: Tensor | None = None
    q: Tensor | None = None
    next_q: Tensor | None = None
    policy_q: Tensor | None = None
    score_square: Tensor | None = None

    @property
    def done(self) -> Tensor:
        """Whether the episode ended with this step, for whatever reason, [T, N] (bool)."""
        return self.terminated | self.truncated
