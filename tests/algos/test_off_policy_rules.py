"""Rules of the methods with a replay buffer, each by hand: without its line one of these fails."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny
import torch
from gymnasium import spaces
from running import experiment
from torch import Tensor

from rlrun.algos.off_policy.action_kinds import BoxActions, Choices
from rlrun.collectors.segments import Segments
from rlrun.learning.learner import GradientState
from rlrun.models.bounded_distributions import Box, Dirac
from rlrun.models.distributions import Categorical
from rlrun.runs import api

# Two numbers: -2...2 and 0...0.5.
BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 0.5], np.float32))


class Wide(gym.Env):
    """An environment of that box."""

    observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = BOX

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=3).astype(np.float32).clip(-1, 1), {}

    def step(self, action):
        obs = self.np_random.normal(size=3).astype(np.float32).clip(-1, 1)
        return obs, float(action[0]), False, False, {}


def fitted(algo: str, make_env: Any = tiny.PointMass, **changes: Any) -> Any:
    """An algorithm with three iterations in its buffer."""
    ours, collector = tiny.set_up(tiny.control(make_env, 4), algo, horizon=8, **changes)
    ours.explore(0.0)
    for _ in range(3):
        ours.buffer.append(collector.collect(ours.agent.actor))
    return ours


def moved(algo: str, progress: float, *, falls: bool) -> dict[str, float]:
    """By how far the first update moves what is fitted, at some point of a run."""
    parts = {"dqn": ["optimizer"], "sac": ["temperature.optimizer"]}
    both = ["policy_optimizer", "critic_optimizer"]
    optimizers = [*parts.get(algo, []), *([] if algo == "dqn" else both)]
    anneal = {f"{name}.anneal_learning_rate": falls for name in optimizers}
    updates = 2 if algo == "td3" else 1
    ours = fitted(
        algo,
        tiny.Corridor if algo == "dqn" else tiny.PointMass,
        updates_per_step=updates / 32,
        **anneal,
    )
    state = ours.body.learner.state
    fields = {k: v for k, v in state._asdict().items() if isinstance(v, GradientState)}
    before = {name: part.theta.clone() for name, part in fields.items()}
    ours.update(progress)
    return {name: float((part.theta - before[name]).norm()) for name, part in fields.items()}


@pytest.mark.parametrize("algo", ["dqn", "ddpg", "td3", "sac"])
def test_step_sizes_fall_where_they_are_to(algo):
    whole, later = moved(algo, 0.0, falls=True), moved(algo, 0.75, falls=True)
    assert len(whole) == {"dqn": 1, "sac": 3}.get(algo, 2)
    for name, length in whole.items():
        assert later[name] == pytest.approx(0.25 * length, rel=0.1)
    assert moved(algo, 0.75, falls=False) == pytest.approx(moved(algo, 0.0, falls=False))


@pytest.mark.parametrize("algo", ["dqn", "ddpg", "td3", "sac"])
def test_logs_have_the_step_sizes_of_the_moment(algo):
    parts = {"dqn": ["online"], "sac": ["policy", "critics", "temperature"]}
    names = parts.get(algo, ["policy", "critics"])
    words = {"policy": "policy_optimizer", "critics": "critic_optimizer", "online": "optimizer"}
    words["temperature"] = "temperature.optimizer"
    changes = {f"{words[name]}.anneal_learning_rate": True for name in names}
    changes |= {f"{words[name]}.learning_rate": 1e-3 * (k + 1) for k, name in enumerate(names)}
    ours = fitted(algo, tiny.Corridor if algo == "dqn" else tiny.PointMass, **changes)
    metrics = ours.update(0.75)
    for k, name in enumerate(names):
        rate = metrics[f"schedule/{name}_learning_rate"].item()
        assert rate == pytest.approx(0.25e-3 * (k + 1))


def test_logs_of_dqn_have_the_randomness_of_its_actions_and_the_correction_of_its_draws():
    priorities = {"exponent": 0.6, "correction": 0.4, "epsilon": 1e-6}
    falls = {"exploration.start": 1.0, "exploration.end": 0.0, "exploration.share": 1.0}
    ours = fitted("dqn", tiny.Corridor, priorities=priorities, **falls)
    ours.explore(0.25)
    metrics = ours.update(0.5)
    assert metrics["schedule/epsilon"] == 0.75
    assert metrics["schedule/importance_correction"].item() == pytest.approx(0.7)


def gradient(ours: Any, progress: float, target: Any) -> Tensor:
    """The gradient of DQN's loss in its next update, from the notes: double, n-step, weighed."""
    body = ours.body
    generator = body._generator.get_state()
    index, weight = body._sampler.draw(
        1,
        body._settings.batch_size,
        count=body.buffer.count,
        stored=len(body.buffer),
        progress=progress,
        generator=body._generator,
    )
    noise = torch.randn(1, *body._noise_shape, generator=body._generator)[0]
    body._generator.set_state(generator)
    online = copy.deepcopy(ours.agent.networks.policy.logits).requires_grad_()
    batch = body.take(index[0], body.buffer.ring)
    own, others, choosing = noise
    choice = online(batch.next_obs, choosing).argmax(-1, keepdim=True)
    following = target(batch.next_obs, others).gather(-1, choice).squeeze(-1)
    y = (batch.reward + batch.discount * following).detach()
    q = online(batch.obs, own).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
    loss = (weight[0].float() * 0.5 * (q - y).square()).mean()
    weights = list(online.parameters())
    found = torch.autograd.grad(loss, weights)
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_all_options_of_dqn_together_have_the_gradient_of_the_notes(progress):
    ours = fitted(
        "dqn",
        tiny.Corridor,
        updates_per_step=1 / 32,
        dueling=True,
        double=True,
        noisy={"sigma": 3.0},  # so that what is best changes with it
        priorities={"exponent": 0.6, "correction": 0.4, "epsilon": 1e-6},
        target_every=100,
        **{
            "replay.n_step": 3,
            "huber_threshold": float("inf"),
            "optimizer.max_grad_norm": float("inf"),
        },
    )
    target = copy.deepcopy(ours.agent.networks.policy.logits)
    for _ in range(3):  # until priorities differ, and the network from its target
        ours.update(0.5)
    state = ours.body.learner.state.online
    wanted, before = gradient(ours, progress, target), state.optimizer.m.clone()
    ours.update(progress)
    found = (state.optimizer.m - 0.9 * before) / 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


def test_noisy_weights_learn_how_noisy_to_be():
    ours = fitted("dqn", tiny.Corridor, noisy={"sigma": 0.5})
    spread = {k: v for k, v in ours.agent.weights().items() if "sigma" in k or "noise" in k}
    assert spread
    ours.update(0.0)
    after = ours.agent.weights()
    assert all(not torch.equal(after[name], value) for name, value in spread.items())


def test_the_action_of_td3s_target_is_smoothed_in_units_of_the_box_and_stays_in_it():
    td3 = tiny.algorithm_of("td3", num_envs=4, target_noise=0.2, target_noise_clip=0.3)
    box = Box(torch.tensor(BOX.low), torch.tensor(BOX.high))
    chosen = Dirac(torch.tensor([[1.0, 0.2], [1.9, 0.05]]), box)
    weights = torch.tensor([1.0, 10.0])
    noise = torch.tensor([[1.0, 9.0], [1.0, -9.0]])  # 0.2 of the half width; cut to 0.3 of it
    value = td3.next_value(
        lambda obs: chosen,
        lambda obs, action: torch.stack([action @ weights, action @ weights + 1]),
        torch.zeros(2, 3),
        noise,
    )
    first = 1.0 + 2 * 0.2 + 10 * (0.2 + 0.25 * 0.3)
    torch.testing.assert_close(value, torch.tensor([first, 2.0 + 10 * 0.0]))


def context(make_env: Any) -> Any:
    return tiny.context_of(tiny.control(make_env, 2), Segments(horizon=8))


def test_expectations_over_choices_by_hand():
    choices = Choices(context(tiny.Corridor))
    assert choices.target_entropy == pytest.approx(0.98 * np.log(2))
    q = torch.tensor([[[1.0, 5.0]], [[3.0, 2.0]]])  # [2, 1, K]
    logits = torch.tensor([[0.0, np.log(3.0)]])
    value, logp = choices.expected(
        lambda obs: Categorical(logits), lambda obs: q, torch.zeros(1, 5), torch.zeros(1, 0)
    )
    assert value.item() == pytest.approx(0.25 * 1 + 0.75 * 2)
    assert logp.item() == pytest.approx(0.25 * np.log(0.25) + 0.75 * np.log(0.75))


def test_the_entropy_that_is_kept_does_not_depend_on_the_units_of_actions():
    """Uniform in a box of -1...1 has log 2 for each number, and in ours log 4 and log 0.5."""
    wanted = -2 + np.log(2.0) + np.log(0.25)
    assert BoxActions(context(Wide)).target_entropy == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("output", "log_std"), [(1e3, 2.0), (-1e3, -20.0)])
def test_a_squashed_policys_spread_has_bounds(output, log_std):
    made = context(tiny.PointMass)
    policy = made.model.squashed_policy(made.problem, made.streams.init)
    for parameter in policy.parameters_of.parameters():
        parameter.data.fill_(output)
    obs = torch.ones(1, made.problem.obs_size)
    policy.parameters_of[-1].weight.data.zero_()
    assert policy(obs).log_std.unique().tolist() == [log_std]


def test_the_actor_acts_by_the_weights_of_its_last_publication():
    ours = fitted("sac")
    acting, learned = ours.agent.actor.policy, ours.agent.networks.policy
    obs = torch.ones(2, 1)
    before = acting(obs).parameters.clone()
    ours.update(0.0)
    assert torch.equal(acting(obs).parameters, before)
    assert not torch.equal(learned(obs).parameters, before)
    ours.agent.publish()
    assert torch.equal(acting(obs).parameters, learned(obs).parameters)


def test_a_run_stops_acting_at_random_when_it_is_warm(tmp_path):
    words = ["algo=dqn", "env=cartpole", "~tuned", "total_steps=640", "hardware.compile=off"]
    few = ["algo.replay.warmup_steps=128", "evaluation.episodes=1", "logger=none"]
    run = experiment([*words, *few, f"run_dir={tmp_path / 'run'}"])
    api.train(run)
    assert not run.algo.agent.actor.warming_up
    assert run.algo.greedy.epsilon < 0.2
