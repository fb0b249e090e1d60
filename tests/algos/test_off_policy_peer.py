"""Updates equal to Stable-Baselines3's, which ``oracles/sb3_updates.py`` recorded."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from gymnasium import spaces

from rlrun.algos.off_policy.replay_update import Draw, Given
from rlrun.data.replay.rows import Rows
from rlrun.learning.learner import GradientState

ORACLE = json.loads((Path(__file__).parent / "oracles" / "sb3_updates.json").read_text())
SETTINGS = ORACLE["settings"]
BATCH, OBS, ACTIONS = 6, 3, 2

# Of one network: ours -> SB3's, and where SB3 has two layers side by side.
POLICIES = {
    "sac": {0: ["latent_pi.0"], 2: ["latent_pi.2"], 4: ["mu", "log_std"]},
    "td3": {0: ["mu.0"], 2: ["mu.2"], 4: ["mu.4"]},
    "ddpg": {0: ["mu.0"], 2: ["mu.2"], 4: ["mu.4"]},
}
STEMS = {"sac": "parameters_of", "td3": "action", "ddpg": "action"}


class Space(gym.Env):
    """An environment that has spaces and nothing else."""

    observation_space = spaces.Box(-np.inf, np.inf, (OBS,), np.float32)

    def __init__(self, action_space: spaces.Space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        return np.zeros(OBS, np.float32), {}


def policy(algo: str, weights: dict[str, Any], name: str = "actor") -> dict[str, torch.Tensor]:
    """SB3's policy under our names."""
    return {
        f"policy.{STEMS[algo]}.{layer}.{kind}": torch.cat(
            [torch.tensor(weights[f"{name}.{part}.{kind}"]) for part in parts]
        )
        for layer, parts in POLICIES[algo].items()
        for kind in ("weight", "bias")
    }


def critics(weights: dict[str, Any], count: int, name: str = "critic") -> dict[str, torch.Tensor]:
    """SB3's critics under our names."""
    return {
        f"action_critic.value/{layer}/{kind}": torch.stack(
            [torch.tensor(weights[f"{name}.qf{i}.{layer}.{kind}"]) for i in range(count)]
        )
        for layer in (0, 2, 4)
        for kind in ("weight", "bias")
    }


def values(weights: dict[str, Any], name: str = "q_net") -> dict[str, torch.Tensor]:
    """SB3's Q-network under our names."""
    return {
        f"policy.logits.{layer}.{kind}": torch.tensor(weights[f"{name}.q_net.{layer}.{kind}"])
        for layer in (0, 2, 4)
        for kind in ("weight", "bias")
    }


def algorithm(algo: str, **changes: Any) -> Any:
    """Ours, with the peer's settings, and its minibatches in the replay buffer."""
    discrete = algo == "dqn"
    space = spaces.Discrete(ACTIONS) if discrete else spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)
    env = tiny.control(lambda: Space(space), 1)
    rate = SETTINGS["learning_rate"]
    optimizers = (
        {"optimizer.learning_rate": rate, "optimizer.max_grad_norm": 0.5}
        if discrete
        else {"policy_optimizer.learning_rate": rate, "critic_optimizer.learning_rate": rate}
    )
    ours, _ = tiny.set_up(
        env,
        algo,
        model=tiny.small_model(hidden_sizes=[5, 4], activation="relu"),
        horizon=2,
        gamma=SETTINGS["gamma"],
        target_rate=SETTINGS["tau"],
        batch_size=BATCH,
        warmup_steps=BATCH,
        updates_per_step=1.0,
        capacity=2 * BATCH,
        **optimizers,
        **changes,
    )
    for batch in ORACLE[algo]["batches"]:
        column = {name: torch.tensor(numbers) for name, numbers in batch.items()}
        over = column["dones"].squeeze(-1).bool()
        ours.buffer.write(
            Rows(
                obs=column["observations"],
                action=column["actions"].squeeze(-1) if discrete else column["actions"],
                reward=column["rewards"].squeeze(-1),
                next_obs=column["next_observations"],
                terminated=over,
                done=over,
            )
        )
    return ours


def load(ours: Any, weights: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> Any:
    """Set networks and targets; return copies of the flat vectors of the targets."""
    network = ours.agent.networks
    network.load_state_dict({**network.state_dict(), **targets})
    state = ours.body.learner.state
    vectors = {
        name: part.theta.clone()
        for name, part in state._asdict().items()
        if isinstance(part, GradientState)
    }
    network.load_state_dict({**network.state_dict(), **weights})
    return vectors


def update(ours: Any, noise: torch.Tensor, delay: int = 1) -> None:
    """Take two updates on the two minibatches."""
    index = torch.arange(2 * BATCH).view(2, BATCH)
    draw = Draw(index, torch.ones(2, BATCH), noise)
    if delay > 1:
        draw = Draw(*(column.unsqueeze(0) for column in draw))
    rates = {name: torch.tensor(SETTINGS["learning_rate"]) for name in ours.body._optimizers}
    ours.body.learner.fit(draw, Given(ours.buffer.ring, rates))


def assert_equal(ours: Any, wanted: dict[str, torch.Tensor]) -> None:
    mine = ours.agent.networks.state_dict()
    assert mine.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(mine[name], tensor, atol=1e-5, rtol=1e-5)


def assert_target(ours: Any, field: str, targets: dict[str, torch.Tensor], part: str) -> None:
    """Compare a target's flat vector with the peer's."""
    vector = ours.body.learner.state._asdict()[field]
    flat = torch.cat([tensor.flatten() for tensor in targets.values()])
    assert flat.shape == vector.shape, part
    torch.testing.assert_close(vector, flat, atol=1e-5, rtol=1e-5)


def test_sac_takes_the_updates_of_stable_baselines3():
    record = ORACLE["sac"]
    ours = algorithm(
        "sac", **{"temperature.initial": 0.5, "temperature.optimizer.learning_rate": 1e-2}
    )
    before, after = record["before"], record["after"]
    start = {**policy("sac", before), **critics(before, 2)}
    target = load(ours, start, critics(before, 2, "critic_target"))["critics"]
    ours.body.learner.state.target.copy_(target)
    update(ours, torch.tensor(record["noise"]))
    assert_equal(ours, {**policy("sac", after), **critics(after, 2)})
    assert_target(ours, "target", critics(after, 2, "critic_target"), "critics")
    log_alpha = ours.body.learner.state.log_temperature.theta
    assert log_alpha.item() == pytest.approx(record["log_temperature"], abs=1e-6)


@pytest.mark.parametrize(("algo", "count", "delay"), [("td3", 2, 2), ("ddpg", 1, 1)])
def test_deterministic_policies_take_the_updates_of_stable_baselines3(algo, count, delay):
    record = ORACLE[algo]
    ours = algorithm(algo, **({"target_noise_clip": 0.3} if algo == "td3" else {}))
    before, after = record["before"], record["after"]
    start = {**policy(algo, before), **critics(before, count)}
    targets = {**policy(algo, before, "actor_target"), **critics(before, count, "critic_target")}
    vectors = load(ours, start, targets)
    ours.body.learner.state.target_policy.copy_(vectors["policy"])
    ours.body.learner.state.target_critics.copy_(vectors["critics"])
    update(ours, torch.tensor(record["noise"]).squeeze(1), delay)
    assert_equal(ours, {**policy(algo, after), **critics(after, count)})
    assert_target(ours, "target_policy", policy(algo, after, "actor_target"), "policy")
    assert_target(ours, "target_critics", critics(after, count, "critic_target"), "critics")


def test_dqn_takes_the_updates_of_stable_baselines3():
    record = ORACLE["dqn"]
    ours = algorithm("dqn", double=False, target_every=100, huber_threshold=1.0)
    before, after = record["before"], record["after"]
    target = load(ours, values(before), values(before, "q_net_target"))["online"]
    ours.body.learner.state.target.copy_(target)
    update(ours, torch.zeros(2, 3, 0))
    assert_equal(ours, values(after))
    assert_target(ours, "target", values(before, "q_net_target"), "values")
