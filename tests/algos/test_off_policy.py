"""What the methods with a replay buffer learn, and what they refuse."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from gymnasium import spaces

from rlrun.algos.off_policy.dqn import Batch
from rlrun.collectors.episodes import Episodes
from rlrun.errors import UserError

OFF_POLICY = ["dqn", "ddpg", "td3", "sac"]


def iterate(ours: Any, collector: Any, progress: float) -> None:
    """Do what the loop does once, eagerly."""
    ours.explore(progress)
    transitions = collector.collect(ours.agent.actor)
    ours.update(progress)
    ours.buffer.append(transitions)
    ours.agent.publish()


def train(env: Any, algo: str, iterations: int, seed: int = 0, **changes: Any) -> Any:
    """Train for a while."""
    ours, collector = tiny.set_up(env, algo, seed=seed, **changes)
    for iteration in range(iterations):
        iterate(ours, collector, iteration / iterations)
    return ours


class Bandit(gym.Env):
    """One step: an action a in [-2, 2] pays −(a − 0.8)², whatever the observation."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 1).astype(np.float32), {}

    def step(self, action):
        reward = -float((action[0] - 0.8) ** 2)
        return np.zeros(1, np.float32), reward, True, False, {}


class Biased(gym.Env):
    """Sutton & Barto 2018, example 6.7: right ends with 0, left leads on to rewards N(−0.1, 1).

    Observations: A, B; actions: left, right in A, and ten that are alike in B.
    """

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(10)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return 0, {}

    def step(self, action):
        if self.place == 0 and action == 0:
            self.place = 1
            return 1, 0.0, False, False, {}
        reward = 0.0 if self.place == 0 else float(self.np_random.normal(-0.1, 1.0))
        return self.place, reward, True, False, {}


def corridor_values(gamma: float) -> torch.Tensor:
    """Q of the corridor by value iteration, of the places that are acted in, [4, 2]."""
    q = torch.zeros(5, 2)
    for _ in range(100):
        for place in range(4):
            for action in (0, 1):
                following = min(max(place + (1 if action else -1), 0), 4)
                won = following == 4
                q[place, action] = 1.0 if won else -0.1 + gamma * q[following].max()
    return q[:4]


@pytest.mark.parametrize(
    "changes",
    [
        {"double": False},
        {"double": True, "dueling": True},
        {"replay.n_step": 3, "double": True},
        {"priorities": {"exponent": 0.6, "correction": 0.4, "epsilon": 1e-6}},
        {"target_rate": 0.05, "target_every": 1},
    ],
    ids=["plain", "double dueling", "n-step", "prioritised", "soft target"],
)
def test_dqn_finds_the_values_of_value_iteration(changes):
    gamma = 0.9
    settings = {
        "gamma": gamma,
        "target_every": 20,
        "exploration.start": 1.0,
        # Uncorrected n-step targets are those of the policy that acted: nearly the greedy one.
        "exploration.end": 0.02 if "replay.n_step" in changes else 0.5,
        "exploration.share": 0.3,
        "optimizer.learning_rate": 3e-2,
        "optimizer.anneal_learning_rate": True,
        "huber_threshold": float("inf"),
        "capacity": 2000,
        "batch_size": 32,
        "updates_per_step": 0.25,
        **changes,
    }
    env = tiny.control(tiny.Corridor, 4)
    model = tiny.small_model(hidden_sizes=[])
    ours = train(env, "dqn", 220, horizon=8, model=model, **settings)
    learned = ours.agent.networks.policy.logits(torch.eye(5)[:4])
    wanted = corridor_values(gamma)
    tolerance = 0.15 if "replay.n_step" in changes else 0.05
    rows = wanted.argmax(-1)
    best = torch.arange(4)
    assert torch.equal(learned.argmax(-1), rows)
    torch.testing.assert_close(learned[best, rows], wanted[best, rows], atol=tolerance, rtol=0)
    if "replay.n_step" not in changes:
        torch.testing.assert_close(learned, wanted, atol=tolerance, rtol=0)


def test_double_q_lowers_the_overestimate():
    """Left is worth −0.1; the largest of ten noisy estimates of it is more."""
    estimates = {}
    for double in (False, True):
        env = tiny.control(Biased, 4)
        settings = {
            "exploration.end": 1.0,
            "optimizer.learning_rate": 0.3,
            "optimizer.max_grad_norm": float("inf"),
            "huber_threshold": float("inf"),
        }
        ours, collector = tiny.set_up(
            env,
            "dqn",
            horizon=8,
            model=tiny.small_model(hidden_sizes=[]),
            double=double,
            gamma=1.0,
            # The target's noise is another one than the network's only if it is older.
            target_every=40,
            capacity=4096,
            batch_size=4,
            updates_per_step=0.5,
            **settings,
        )
        values = []
        for iteration in range(100):
            iterate(ours, collector, 0.0)
            if iteration > 20:
                values.append(ours.agent.networks.policy.logits(torch.eye(2)[0])[0])
        estimates[double] = torch.stack(values).mean().item()
    assert estimates[False] > 1.0
    assert estimates[True] < 0.75 * estimates[False]


def test_noisy_weights_find_the_end_of_the_corridor():
    env = tiny.control(tiny.Corridor, 4)
    ours = train(
        env,
        "dqn",
        150,
        horizon=8,
        noisy={"sigma": 0.5},
        gamma=0.9,
        target_every=20,
        updates_per_step=0.25,
        batch_size=32,
        **{"exploration.start": 0.0, "exploration.end": 0.0, "optimizer.learning_rate": 1e-2},
    )
    assert tiny.greedy_return(tiny.Corridor, ours) == pytest.approx(0.7)


@pytest.mark.parametrize("algo", ["ddpg", "td3", "sac"])
def test_the_best_action_of_a_bandit_is_found(algo):
    env = tiny.control(Bandit, 4)
    rates = {f"{part}_optimizer.learning_rate": 1e-2 for part in ("policy", "critic")}
    model = tiny.small_model(hidden_sizes=[16], activation="relu")
    ours = train(
        env, algo, 120, horizon=8, model=model, batch_size=32, updates_per_step=0.25, **rates
    )
    action = ours.agent.actor.act_greedily(torch.linspace(-1, 1, 5).view(5, 1))
    torch.testing.assert_close(action, torch.full((5, 1), 0.8), atol=0.25, rtol=0)


@pytest.mark.parametrize("algo", ["ddpg", "td3", "sac"])
def test_a_point_is_brought_to_its_place(algo):
    env = tiny.control(tiny.PointMass, 4)
    rates = {f"{part}_optimizer.learning_rate": 5e-3 for part in ("policy", "critic")}
    model = tiny.small_model(hidden_sizes=[16], activation="relu")
    ours = train(
        env, algo, 150, horizon=8, model=model, batch_size=32, updates_per_step=0.25, **rates
    )
    # Standing still pays about −3.3, the best policy about −0.08.
    assert tiny.greedy_return(tiny.PointMass, ours) > -0.6


def test_soft_actor_critic_learns_choices():
    env = tiny.control(tiny.Corridor, 4)
    rates = {f"{part}_optimizer.learning_rate": 1e-2 for part in ("policy", "critic")}
    changes = {**rates, "temperature.optimizer": None}
    settings = {**changes, "temperature.initial": 0.02, "gamma": 0.9}
    ours = train(env, "sac", 150, horizon=8, batch_size=32, updates_per_step=0.25, **settings)
    assert tiny.greedy_return(tiny.Corridor, ours) == pytest.approx(0.7)


def fitted(algo: str, make_env: Any = tiny.PointMass, **changes: Any) -> Any:
    """An algorithm after its warm-up."""
    env = tiny.control(make_env, 4)
    ours, collector = tiny.set_up(env, algo, horizon=8, **changes)
    ours.explore(0.0)
    for _ in range(3):
        ours.buffer.append(collector.collect(ours.agent.actor))
    return ours


@pytest.mark.parametrize(("wanted", "direction"), [(3.0, 1), (-3.0, -1)])
def test_the_temperature_moves_towards_the_target_entropy(wanted, direction):
    ours = fitted("sac", **{"temperature.target_entropy": wanted})
    for _ in range(3):
        ours.update(0.0)
    log_alpha = ours.body.learner.state.log_temperature.theta
    assert direction * log_alpha.item() > 1e-4


def test_a_fixed_temperature_stays():
    ours = fitted("sac", **{"temperature.optimizer": None, "temperature.initial": 0.2})
    ours.update(0.0)
    assert ours.body.learner.state.log_temperature.theta.exp().item() == pytest.approx(0.2)


@pytest.mark.parametrize("algo", ["ddpg", "sac"])
def test_targets_lag_as_their_rate_says(algo):
    ours = fitted(algo, target_rate=0.25, updates_per_step=1 / 32)
    state = ours.body.learner.state
    name = "target" if algo == "sac" else "target_critics"
    before, first = state._asdict()[name].clone(), state.critics.theta.clone()
    assert torch.equal(before, first)
    ours.update(0.0)
    after = state.critics.theta
    assert not torch.equal(after, first)
    wanted = before + 0.25 * (after - before)
    torch.testing.assert_close(state._asdict()[name], wanted)


def test_a_hard_target_is_copied_once_in_so_many_updates():
    ours = fitted("dqn", tiny.Corridor, target_every=3, updates_per_step=1 / 32)
    state = ours.body.learner.state
    first = state.target.clone()
    for update in (1, 2, 3):
        ours.update(0.0)
        assert torch.equal(state.target, first) == (update < 3)
    assert torch.equal(state.target, state.online.theta)


@pytest.mark.parametrize("algo", OFF_POLICY)
def test_nothing_follows_a_terminal_state(algo):
    """With γ (1 − d) V(s') gone, targets do not depend on the target networks."""
    discrete = algo == "dqn"
    ours = fitted(algo, tiny.Corridor if discrete else tiny.PointMass, updates_per_step=1 / 16)
    learner, ring = ours.body.learner, ours.buffer.ring
    for terminated in (True, False):
        ring.rows.terminated.fill_(terminated)
        ring.rows.done.fill_(terminated)
        results = []
        for shift in (0.0, 1.0):
            saved = learner.state_dict()
            for name, part in learner.state._asdict().items():
                if name.startswith("target"):
                    part.add_(shift)
            generator = ours.body._generator.get_state()
            ours.update(0.0)
            ours.body._generator.set_state(generator)
            fitted_part = learner.state.online if discrete else learner.state.critics
            results.append(fitted_part.theta.clone())
            learner.load_state_dict(saved)
        assert torch.equal(*results) == terminated


def test_a_policy_of_td3_moves_once_in_two_updates():
    ours = fitted("td3", updates_per_step=2 / 32)
    assert ours.update(0.0)["updates"] == 2
    state = ours.body.learner.state
    assert state.policy.optimizer.t == 1
    assert state.critics.optimizer.t == 2


@pytest.mark.parametrize("algo", OFF_POLICY)
def test_actions_are_random_until_the_run_is_warm(algo):
    env = tiny.control(tiny.Corridor if algo == "dqn" else tiny.PointMass, 4)
    ours, collector = tiny.set_up(env, algo, horizon=8, warmup_steps=64)
    for count in (0, 32, 64):
        ours.explore(0.0)
        assert ours.agent.actor.warming_up == (count < 64)
        assert (ours.update(0.0)["updates"] > 0) == (count >= 64)
        ours.buffer.append(collector.collect(ours.agent.actor))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates_per_step": 0.01}, "must be a whole number, got 0.32"),
        ({"batch_size": 65}, "batch_size=65 is more than what is stored"),
        ({"capacity": 66, "warmup_steps": 65}, "holds 64 steps .* less than warmup_steps=65"),
        ({"capacity": 24, "warmup_steps": 16}, "holds 24 .* less than num_envs x horizon = 32"),
        ({"warmup_steps": 10_000, "capacity": 10_000}, "leave nothing to learn"),
    ],
)
def test_numbers_that_cannot_be_are_named(changes, message):
    env = tiny.control(tiny.PointMass, 4)
    with pytest.raises(UserError, match=message):
        tiny.set_up(env, "sac", horizon=8, **changes)


def test_updates_of_td3_are_a_multiple_of_its_delay():
    env = tiny.control(tiny.PointMass, 4)
    with pytest.raises(UserError, match="a multiple of 2, got 3"):
        tiny.set_up(env, "td3", horizon=8, updates_per_step=3 / 32)


def test_actions_of_the_wrong_kind_are_named():
    with pytest.raises(UserError, match="DQN chooses among finitely many actions"):
        tiny.set_up(tiny.control(tiny.PointMass, 4), "dqn")
    for algo in ("ddpg", "td3"):
        with pytest.raises(UserError, match="a choice of 2, not a box"):
            tiny.set_up(tiny.control(tiny.Corridor, 4), algo)


def test_whole_episodes_are_refused():
    env = tiny.control(tiny.PointMass, 4)
    with pytest.raises(UserError, match="collector=segments"):
        tiny.set_up(env, "sac", collector=Episodes(group_size=1))


def test_targets_by_hand():
    """y of one row of each kind: a step, a time limit, an end."""
    ours = fitted("dqn", tiny.Corridor, updates_per_step=1 / 32, gamma=0.5, double=False)
    rows = ours.buffer.ring.rows
    rows.obs.zero_(), rows.next_obs.zero_()
    rows.obs[:, 0] = 1
    rows.next_obs[:, 1] = 1
    rows.reward.copy_(torch.arange(len(rows.reward)))
    rows.terminated.zero_(), rows.done.zero_()
    rows.done[1] = rows.done[2] = rows.terminated[2] = True
    value = ours.agent.networks.policy.logits(torch.eye(5)[1]).max()
    batch = ours.body.take(torch.tensor([0, 1, 2]), ours.buffer.ring)
    y = batch.reward + batch.discount * value
    torch.testing.assert_close(y, torch.stack([0.5 * value, 1 + 0.5 * value, 2 + 0 * value]))


def test_rows_are_weighed():
    ours = fitted("dqn", tiny.Corridor, huber_threshold=2.0)
    q = torch.tensor([[1.0, 9.0], [9.0, 5.0]])
    action, target = torch.tensor([0, 1]), torch.tensor([0.0, 1.0])  # errors of 1 and 4
    weight = torch.tensor([0.5, 0.25])
    batch = Batch(torch.zeros(2, 5), action, target, weight, torch.zeros(0))
    loss, _ = ours.loss(lambda obs: q, batch)
    assert loss.item() == pytest.approx((0.5 * 0.5 + 0.25 * 2 * (4 - 1)) / 2)


def test_errors_become_priorities():
    settings = {"exponent": 0.5, "correction": 0.4, "epsilon": 1e-3}
    ours = fitted("dqn", tiny.Corridor, updates_per_step=1 / 32, priorities=settings, double=False)
    generator = ours.body._generator
    before = generator.get_state()
    places = ours.body._draw(0.0).places[0]
    generator.set_state(before)
    values, batch = ours.agent.networks.policy.logits, ours.body.take(places, ours.buffer.ring)
    q = values(batch.obs).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    error = q - batch.reward - batch.discount * values(batch.next_obs).amax(-1)
    ours.update(0.0)
    found = ours.parts["priorities"].state_dict()["values"][places]
    torch.testing.assert_close(found.float(), (error.abs() + 1e-3).sqrt(), atol=1e-5, rtol=1e-5)


def test_the_temperatures_gradient_is_clipped():
    norm = {"temperature.optimizer.max_grad_norm": 0.25, "temperature.target_entropy": 9.0}
    ours = fitted("sac", updates_per_step=1 / 32, **norm)
    ours.update(0.0)
    # m ← 0.1 g of the first step.
    m = ours.body.learner.state.log_temperature.optimizer.m
    assert m.item() == pytest.approx(-0.025, rel=1e-3)
