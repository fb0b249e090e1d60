"""How the losses of single steps become one number: the weight of each step.

The rules differ once episodes differ in length. Weights are computed once for all episodes of an
update, so that neither padding nor a cut into micro-batches changes the gradient: the losses of
the parts add up to that of the whole.
"""

from typing import Literal

from torch import Tensor

Aggregation = Literal[
    "step_mean", "episode_mean_step_mean", "episode_mean_step_sum", "episode_mean_step_norm"
]


def step_weights(mask: Tensor, aggregation: Aggregation, *, longest: int) -> Tensor:
    """Return the weight w of each step, so that the loss of an update is Σ w ℓ.

    With m the mask, |o_i| the length of episode i and B the number of episodes that have a step:

    - ``step_mean``: m / Σ m. Every step counts alike, a long episode as often as it has steps
      (PPO in control; DAPO's "token-mean").
    - ``episode_mean_step_mean``: m / (B |o_i|). Every episode counts alike; a step of a long one
      counts less (GRPO, Shao et al. 2024; GSPO).
    - ``episode_mean_step_sum``: m / B. The policy gradient itself: E over episodes of a sum over
      steps (REINFORCE).
    - ``episode_mean_step_norm``: m / (B L) with a constant L, the longest that an episode can be:
      the direction of ``episode_mean_step_sum`` at the size of a mean (Dr. GRPO, Liu et al. 2025).

    Args:
        mask: steps that count, [T, N]; each column is an episode.
        aggregation: the rule.
        longest: L, steps.

    Returns:
        w, [T, N] (float), 0 where the mask is.
    """
    steps = mask.float()
    lengths = steps.sum(0)
    episodes = (lengths > 0).sum()
    match aggregation:
        case "step_mean":
            return steps / lengths.sum()
        case "episode_mean_step_mean":
            return steps / (episodes * lengths.clamp_min(1))
        case "episode_mean_step_sum":
            return steps / episodes
        case "episode_mean_step_norm":
            return steps / (episodes * longest)
    raise ValueError(f"no aggregation {aggregation!r}")


def minibatch_weights(weight: Tensor, *, size: int) -> Tensor:
    """Return the weights with which the loss of a minibatch is Σ w ℓ, [T, N].

    Scaled by (number of all episodes) / n: the mean loss of the minibatches is that of the whole
    update, and each alone is an unbiased estimate of it.

    Args:
        weight: w of all episodes of the update (:func:`step_weights`), [T, N].
        size: n, episodes a minibatch.
    """
    return weight * ((weight > 0).any(0).sum() / size)
