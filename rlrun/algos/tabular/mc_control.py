"""Monte Carlo control.

Sutton & Barto 2018, §5.4, on-policy and ε-greedy. After an episode, Q(s, a) of each of its pairs is
the mean of the returns that followed it so far,

    Q(s, a) ← Q(s, a) + [G_t − Q(s, a)] / n(s, a)        G_t = r_t + γ r_{t+1} + …

counting the first visit of an episode, or every one.

Departures: an episode that is truncated counts with the return that it had by then.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.experience import Episode, Experience, Visits, experience
from rlrun.algos.tabular.online import OnlineTable
from rlrun.config.types import Fraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics
from rlrun.learning.exploration import Exploration


@dataclass(kw_only=True, eq=False)
class MCControl:
    """Hyperparameters (explained in ``conf/algo/mc_control.yaml``), and what an episode teaches."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    visits: Visits
    exploration: Exploration

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = OnlineTable(context, self.exploration)
        self.agent, self.act = self.body.agent, self.body.act
        self.memory = Episode(self.agent.action_value)
        self.parts = {**self.body.parts, "episode": self.memory}
        self.learners, self.forget_episode = self.body.learners, self.memory.forget_episode

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Remember the step; at the end of the episode, learn from all of them, backwards."""
        errors = []
        seen = experience(self.agent, obs, action, step)
        for (s, a), following in self.memory.learned(seen, self.gamma, self.visits, pair):
            self.memory.count[s, a] += 1
            errors.append(self.body.move(s, a, following, 1 / float(self.memory.count[s, a])))
        if not errors:
            return {}
        error = torch.stack(errors).abs().mean()
        return {"value/mc_error": error, **self.body.schedule(progress)}


def pair(seen: Experience) -> tuple[int, int]:
    """Return what Q is of: (s, a)."""
    return seen.state, seen.action
