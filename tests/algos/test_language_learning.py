"""Language: rewards for right answers are learned from, and others lead nowhere."""

import random
from dataclasses import dataclass, replace

import pytest
from running import experiment

from rlrun.envs.tokens.arithmetic import ModAdd
from rlrun.envs.tokens.task import Judgement
from rlrun.runs.setup.assembly import Assembly

SMALL = (
    "env=mod_add",
    "env.modulus=3",
    "algo.num_envs=128",
    "model.width=32",
    "model.layers=1",
    "algo.optimizer.learning_rate=1e-2",
    "hardware.compile=off",
    "hardware.threads=1",
)


# Few gradient steps an iteration, and one generation. PPO has more of them, on smaller minibatches:
# with steps of 1e-2 one seed of four learns.
FEWER_STEPS = {
    "ppo": ["algo.epochs=2", "algo.optimizer.learning_rate=3e-3"],
    "dapo": ["collector.refill.max_refills=0"],
}


@dataclass(kw_only=True)
class Coin(ModAdd):
    """A sum that is paid by tossing a coin; whether it is right is noted as ever."""

    def __post_init__(self):
        """Take a coin."""
        super().__post_init__()
        self._coin = random.Random(0)

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        judgement = super().judge(prompt, response, complete=complete)
        return judgement._replace(fraction=float(self._coin.random() < 0.5))


def outcomes(iterations: int, *words: str, env=None) -> list[float]:
    """Share of right answers in training, over some iterations."""
    described = experiment([*SMALL, *words])
    if env is not None:
        described = replace(described, env=env)
    assembly = Assembly(described, None)
    collector, algorithm = assembly.open_collector(), assembly.algorithm
    shares = []
    for i in range(iterations):
        transitions = collector.collect(algorithm.agent.actor)
        algorithm.update(transitions, progress=i / iterations)
        algorithm.agent.publish()
        shares.append(float(transitions.metrics["train/outcome"]))
    return shares


def mean(shares: list[float]) -> float:
    return sum(shares) / len(shares)


@pytest.mark.parametrize("algo", ["grpo", "rloo", "ppo", "reinforce", "dapo", "gspo", "cispo"])
def test_right_answers_are_learned(algo):
    shares = outcomes(60, f"algo={algo}", *FEWER_STEPS.get(algo, ()))
    assert mean(shares[:3]) < 0.35
    assert mean(shares[-5:]) > 0.9


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_random_rewards_teach_nothing(algo):
    coin = Coin(modulus=3, reward="fraction", held_out=0.0, samples=1)
    shares = outcomes(60, f"algo={algo}", *FEWER_STEPS.get(algo, ()), env=coin)
    assert mean(shares[-20:]) < 0.6


def test_a_policy_that_does_not_learn_stays_where_it_is():
    shares = outcomes(40, "algo=grpo", "algo.optimizer.learning_rate=1e-12")
    assert abs(mean(shares[:20]) - mean(shares[20:])) < 0.05
    assert mean(shares) < 0.35
