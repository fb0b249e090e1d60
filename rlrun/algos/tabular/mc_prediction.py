"""Monte Carlo prediction: the value of a given policy as the mean of what followed.

Sutton & Barto 2018, §5.1. After an episode, V(s) of each of its states moves towards the return

    V(s) ← V(s) + α [G_t − V(s)],  G_t = r_t + γ r_{t+1} + …

with α = 1/n(s), which makes it a mean, or constant; counting the first visit of an episode, or
every one. Its targets have no bias (of first visits) and a high variance; those of TD have a bias
while V is wrong and a lower variance, and on the same data TD is often the more accurate (§6.3).

Departures: an episode that is truncated counts with the return that it had by then, which is a bias
as far as γ lets the rest count.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from rlrun import loops
from rlrun.algos.tabular.experience import Episode, Experience, Visits, experience
from rlrun.algos.tabular.prediction import GivenPolicy
from rlrun.config.types import Fraction, PositiveFraction
from rlrun.envs.control import EnvStep
from rlrun.learning.contract import Context, Metrics


@dataclass(kw_only=True, eq=False)
class MCPrediction:
    """Hyperparameters (``conf/algo/mc_prediction.yaml``), and what an episode teaches."""

    loop: ClassVar = staticmethod(loops.online)
    num_envs: ClassVar = 1

    gamma: Fraction
    randomness: Fraction
    visits: Visits
    step_size: PositiveFraction | None

    def setup(self, context: Context) -> None:
        """Make the table (see ``algos/contract.py``)."""
        self.body = GivenPolicy(context, gamma=self.gamma, randomness=self.randomness)
        self.agent, self.act = self.body.agent, self.body.act
        self.memory = Episode(self.agent.value)
        self.parts = {**self.body.parts, "episode": self.memory}
        self.learners, self.forget_episode = self.body.learners, self.memory.forget_episode

    def learn(self, obs: Tensor, action: Tensor, step: EnvStep, *, progress: float) -> Metrics:
        """Remember the step; at the end of the episode, learn from all of them, backwards."""
        value, count = self.agent.value, self.memory.count
        seen = experience(self.agent, obs, action, step)
        for s, following in self.memory.learned(seen, self.gamma, self.visits, state):
            count[s] += 1
            value[s] += (self.step_size or 1 / count[s]) * (following - value[s])
        return self.body.score() if seen.over else {}


def state(seen: Experience) -> int:
    """Return what V is of: s."""
    return seen.state
