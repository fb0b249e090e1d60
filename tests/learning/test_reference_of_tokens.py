"""The KL to a reference on tokens: in reward or loss, by k1, k2 or k3, adapted, refreshed."""

from pathlib import Path

import pytest
import torch
from running import PLAIN, experiment

from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.setup.assembly import Assembly

SMALL = (*PLAIN, "model.width=8", "model.heads=2", "algo.num_envs=16")
BETA = 0.5


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A policy that is far from a new one."""
    directory = tmp_path_factory.mktemp("sft") / "run"
    words = ("total_steps=400", "algo.optimizer.learning_rate=3e-2", f"run_dir={directory}")
    api.train(experiment(["algo=sft", "env=add", *SMALL, *words]))
    return directory


def opened(run: Path, *words: str, algo: str = "grpo"):
    """An algorithm on tokens with a reference, and what collects for it."""
    kl = (f"algo.kl.reference={run}", f"algo.kl.coefficient={BETA}")
    described = experiment([f"algo={algo}", "env=add", *SMALL, *kl, *words])
    assembly = Assembly(described, None)
    return assembly.algorithm, assembly.open_collector()


def log_probs(algorithm, rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """Log π and log π_ref of all tokens at each step, [T, N, V]."""
    policy, reference = algorithm.agent.networks.policy, algorithm.parts["reference"]
    with torch.no_grad():
        return tuple(each(rollout.obs).logits.log_softmax(-1) for each in (policy, reference))


# Those that have the penalty in the reward alone.
WITH_CRITICS = ["ppo", "reinforce"]

ESTIMATES = {
    "k1": lambda x: x,
    "k2": lambda x: x**2 / 2,
    "k3": lambda x: (-x).exp() - 1 + x,
}


@pytest.mark.parametrize("algo", ["grpo", "rloo", "gspo", "cispo", *WITH_CRITICS])
@pytest.mark.parametrize("estimator", ESTIMATES)
def test_in_the_reward_it_is_taken_from_each_token_that_was_written(estimator, algo, run):
    words = (f"algo.kl.estimator={estimator}", "algo.kl.place=reward")
    algorithm, collector = opened(run, *words, algo=algo)
    rollout = algorithm.agent.rollout(collector.collect(algorithm.agent.actor))
    policy, reference = (
        each.gather(-1, rollout.action.unsqueeze(-1)).squeeze(-1)
        for each in log_probs(algorithm, rollout)
    )
    expected = rollout.reward - BETA * ESTIMATES[estimator](policy - reference) * rollout.mask
    penalty = algorithm.penalty if algo in WITH_CRITICS else algorithm.body.penalty
    got = penalty(rollout).rollout.reward
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert (got - rollout.reward).abs().max() > 0.1
    assert not rollout.mask.all()


def test_what_is_logged_is_the_exact_one_of_the_tokens_that_were_written(run):
    algorithm, collector = opened(run)
    transitions = collector.collect(algorithm.agent.actor)
    rollout = algorithm.agent.rollout(transitions)
    policy, reference = log_probs(algorithm, rollout)
    expected = (policy.exp() * (policy - reference)).sum(-1)[rollout.mask].mean()
    metrics = algorithm.update(transitions, progress=0.0)
    torch.testing.assert_close(metrics["policy/reference_kl"], expected)
    assert expected > 0.1


@pytest.mark.parametrize(("target", "grows"), [(1e-3, True), (1e3, False)])
@pytest.mark.parametrize("algo", ["grpo", *WITH_CRITICS])
def test_an_adapted_coefficient_follows_the_kl(algo, target, grows, run):
    words = (f"algo.kl.target={target}", "algo.kl.horizon=16")
    algorithm, collector = opened(run, *words, algo=algo)
    seen = []
    for _ in range(3):
        transitions = collector.collect(algorithm.agent.actor)
        metrics = algorithm.update(transitions, progress=0.0)
        seen.append(metrics["schedule/kl_coefficient"].item())
    factor = 1.2 if grows else 0.8  # all 16 responses of a horizon of 16
    assert seen == pytest.approx([BETA, BETA * factor, BETA * factor**2])


@pytest.mark.parametrize("algo", ["grpo", *WITH_CRITICS])
def test_a_penalty_brings_the_policy_to_the_reference(algo, run):
    words = ("algo.kl.coefficient=10.0", "algo.optimizer.learning_rate=1e-2")
    algorithm, collector = opened(run, *words, algo=algo)
    seen = []
    for _ in range(15):
        transitions = collector.collect(algorithm.agent.actor)
        seen.append(algorithm.update(transitions, progress=0.0)["policy/reference_kl"].item())
    assert seen[-1] < 0.5 * seen[0]


@pytest.mark.parametrize("algo", ["grpo", *WITH_CRITICS])
def test_the_reference_is_refreshed(algo, run):
    words = ("algo.kl.refresh_every=2", "algo.optimizer.learning_rate=1e-2")
    algorithm, collector = opened(run, *words, algo=algo)
    seen = []
    for _ in range(4):
        transitions = collector.collect(algorithm.agent.actor)
        seen.append(algorithm.update(transitions, progress=0.0)["policy/reference_kl"].item())
    assert min(seen[:2]) > 0.01
    assert seen[2] == pytest.approx(0.0, abs=1e-6)
    assert seen[3] > 1e-6


@pytest.mark.parametrize("algo", WITH_CRITICS)
def test_a_loss_without_a_penalty_says_so(algo):
    with pytest.raises(UserError, match=r"algo: kl\.place must be reward: this algorithm's loss"):
        experiment([f"algo={algo}", "env=add", "algo.kl.place=loss"])
