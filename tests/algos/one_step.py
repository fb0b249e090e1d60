"""One gradient step of an algorithm on groups, where the size of the gradient counts."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tiny import counting, learn, set_up

from rlrun.data.rollout import Transitions

CHOICE = spaces.Discrete(3)
BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)

# On all eight episodes. Adam's ε is large.
ONE_STEP = {
    "epochs": 1,
    "episodes_per_minibatch": 8,
    "epsilon": 1.0,
    "learning_rate": 0.02,
    "anneal_learning_rate": False,
    "max_grad_norm": float("inf"),
}


def ready(
    algo: str, actions: spaces.Space, *, moved: float = 0.0, estimator: Any = None, **changes: Any
) -> tuple[Any, Transitions]:
    """An algorithm after one step, episodes of 1 to 4 steps for the next, and other weights since.

    Args:
        algo: the algorithm.
        actions: what there is to do.
        moved: standard deviation of what is added to each weight after the episodes were played.
        estimator: of advantages; None: the algorithm's own.
        changes: of the algorithm's settings.
    """
    env, _ = counting(8, actions)
    settings = {**ONE_STEP, **changes}
    algorithm, collector = set_up(env, algo, group_size=4, estimator=estimator, **settings)
    learn(algorithm, collector, iterations=1)
    transitions = collector.collect(algorithm.agent.actor)
    assert len(set(transitions.mask.sum(0).tolist())) > 1
    theta = algorithm.learners["policy"].parameters.vector
    theta.add_(moved * torch.randn(len(theta), generator=torch.Generator().manual_seed(1)))
    return algorithm, transitions
