"""PPO's update: its epochs, when it stops, whose advantages it takes, what its critics are."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import Corridor, PointMass, control, learn, rollout_of, set_up

from rlrun.advantages.columns import column

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def learned(make_env, iterations: int = 3, **settings):
    """Metrics of several iterations, and the algorithm."""
    algorithm, collector = set_up(control(make_env, 4), **settings)
    return learn(algorithm, collector, iterations), algorithm


def assert_equal(one, other) -> None:
    """The same names and numbers, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def optimizer_steps(algorithm) -> list[int]:
    """How many steps each optimiser has taken."""
    critics = algorithm.learners["critics"].learners.values()
    learners = [algorithm.learners["policy"], *critics]
    return [int(learner.state.optimizer.t) for learner in learners]


# ---------------------------------------------------------------------- the update


def test_updates_are_counted():
    metrics, algorithm = learned(Corridor, epochs=3)
    # 4 environments x 8 steps = 32 rows = 4 minibatches of 8, three times
    assert [int(m["updates"]) for m in metrics] == [12, 12, 12]
    assert optimizer_steps(algorithm) == [36, 36]


def epoch_kls(**settings) -> list[float]:
    """The mean KL of every epoch of the first iteration."""
    algorithm, collector = set_up(control(Corridor, 4), **settings)
    kls, fit = [], algorithm.learners["policy"].fit

    def watched(*arguments):
        metrics = fit(*arguments)
        kls.append(metrics["policy/kl"].mean().item())
        return metrics

    algorithm.learners["policy"].fit = watched
    algorithm.update(collector.collect(algorithm.agent.actor), progress=0.0)
    assert len(kls) == settings["epochs"]
    return kls


# 1, 4 and 18 minibatches, the last in two calls: the limit is for the mean of them all.
@pytest.mark.parametrize(("horizon", "size"), [(8, 32), (8, 8), (18, 4)])
def test_stop_kl_stops_after_the_first_epoch_beyond_it(horizon, size):
    settings = {"horizon": horizon, "epochs": 8, "minibatch_size": size, "learning_rate": 3e-3}
    kls = epoch_kls(**settings)
    # The last epoch but one or more that went further than all before it.
    last = max(i for i in range(1, 7) if kls[i] > max(kls[:i]))
    assert last >= 2
    limit = (max(kls[:last]) + kls[last]) / 2
    for stop_kl, epochs in ((limit / 1.5, last + 1), (10 * max(kls), 8)):
        metrics, algorithm = learned(Corridor, 1, stop_kl=stop_kl, **settings)
        updates = epochs * 4 * horizon // size
        assert int(metrics[0]["updates"]) == updates
        # The critic stops with the policy.
        assert optimizer_steps(algorithm) == [updates, updates]


def test_recomputed_advantages_are_those_of_the_present_critic():
    seen = []

    def watched(rollout):
        seen.append(rollout)
        critic = algorithm.agent.networks.critic
        columns = rollout.columns
        torch.testing.assert_close(columns["value"], critic(rollout.obs))
        torch.testing.assert_close(columns["next_value"], critic(rollout.next_obs))
        return estimate(rollout)

    settings = {"epochs": 3, "recompute_advantage": True, "learning_rate": 1e-2}
    algorithm, collector = set_up(control(Corridor, 4), **settings)
    estimate, algorithm.agent.estimate = algorithm.agent.estimate, watched
    algorithm.update(collector.collect(algorithm.agent.actor), progress=0.0)
    assert len(seen) == 3
    values = [rollout.columns["value"] for rollout in seen]
    assert not torch.allclose(values[0], values[2], atol=1e-3)
    assert torch.equal(seen[0].logp, seen[2].logp)  # ratios stay against the collecting policy


def test_recomputing_matters_from_the_second_epoch_on():
    def weights(epochs: int, recompute: bool):
        settings = {"epochs": epochs, "recompute_advantage": recompute}
        return learned(Corridor, 1, **settings)[1].agent.weights()

    assert_equal(weights(1, True), weights(1, False))
    recomputed, kept = weights(2, True), weights(2, False)
    assert not any(torch.equal(recomputed[name], kept[name]) for name in kept)


def test_the_learning_rate_falls_linearly_to_zero():
    algorithm, collector = set_up(control(Corridor, 4), learning_rate=4e-3)
    transitions = collector.collect(algorithm.agent.actor)
    rates = [
        algorithm.update(transitions, progress=progress)["schedule/learning_rate"].item()
        for progress in (0.0, 0.25, 0.75)
    ]
    assert rates == pytest.approx([4e-3, 3e-3, 1e-3])
    before = copy.deepcopy(algorithm.agent.weights())
    algorithm.update(transitions, progress=1.0)
    assert_equal(algorithm.agent.weights(), before)

    constant, _ = set_up(control(Corridor, 4), learning_rate=4e-3, anneal_learning_rate=False)
    rate = constant.update(transitions, progress=0.75)["schedule/learning_rate"]
    assert rate.item() == pytest.approx(4e-3)


def test_rows_that_are_masked_teach_nothing():
    algorithm, collector = set_up(control(Corridor, 4), minibatch_size=16)
    transitions = collector.collect(algorithm.agent.actor)
    mask = transitions.mask.clone()
    mask[:, :2] = False
    obs = transitions.obs.masked_fill(~mask[..., None], torch.nan)
    poisoned = replace(transitions, mask=mask, obs=obs)
    metrics = algorithm.update(poisoned, progress=0.0)
    assert all(value.isfinite() for value in metrics.values())
    assert all(weight.isfinite().all() for weight in algorithm.agent.weights().values())


# ---------------------------------------------------------------------- other critics, episodes


def returns_to_go(rollout, *, gamma):
    """An estimator without a critic: Σ r of the rollout's rest."""
    total = rollout.reward.flip(0).cumsum(0).flip(0)
    return total, total


def advantage_of_the_action(rollout, *, gamma):
    """An estimator with an action critic: Q(s, a) − Σ π Q."""
    following = torch.where(rollout.terminated, 0.0, column(rollout, "next_q"))
    return column(rollout, "q") - column(rollout, "policy_q"), rollout.reward + gamma * following


def both_critics(rollout, *, gamma):
    """An estimator with two critics: Q(s, a) − V(s)."""
    return column(rollout, "q") - column(rollout, "value"), rollout.reward


@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (returns_to_go, set()),
        (advantage_of_the_action, {"loss/action_value"}),
        (both_critics, {"loss/action_value", "loss/value", "value/explained_variance"}),
    ],
)
def test_the_estimator_decides_what_is_fitted(estimator, names):
    algorithm, collector = set_up(control(Corridor, 4), estimator=estimator)
    before = copy.deepcopy(algorithm.agent.weights())
    (metrics,) = learn(algorithm, collector, 1)
    assert {name for name in metrics if "value" in name} == names
    assert optimizer_steps(algorithm) == [8] * (1 + sum(name.startswith("loss") for name in names))
    for name, weight in algorithm.agent.weights().items():
        assert not torch.equal(weight, before[name]), name


@both
@pytest.mark.parametrize("group_size", [1, 2])
def test_whole_episodes_train_however_many_rows_they_have(make_env, group_size):
    settings = {"group_size": group_size, "minibatch_size": 16, "epochs": 3}
    algorithm, collector = set_up(control(make_env, 4), **settings)
    for _ in range(3):
        transitions = collector.collect(algorithm.agent.actor)
        rows = int(transitions.mask.sum())
        before = optimizer_steps(algorithm)[0]
        metrics = algorithm.update(transitions, progress=0.0)
        assert all(value.isfinite() for value in metrics.values())
        # Each epoch leaves out another remainder of the rows that count.
        assert rows % 16
        assert int(metrics["updates"]) == 3 * (rows // 16)
        assert optimizer_steps(algorithm) == [before + 3 * (rows // 16)] * 2


def test_an_episode_shorter_than_a_minibatch_trains():
    algorithm, collector = set_up(control(PointMass, 2), group_size=2, minibatch_size=64)
    (metrics,) = learn(algorithm, collector, 1)
    assert int(metrics["updates"]) == 2  # one an epoch, of 20 rows
    assert all(value.isfinite() for value in metrics.values())


# ---------------------------------------------------------------------- acting


def test_greedy_actions_are_the_modes():
    algorithm, collector = set_up(control(PointMass, 4))
    learn(algorithm, collector, 1)  # which moves the normaliser's statistics
    transitions = collector.collect(algorithm.agent.actor)
    raw, seen = transitions.obs[0], rollout_of(algorithm, transitions).obs[0]
    assert not torch.allclose(raw, seen)
    mean = algorithm.agent.networks.policy(seen).mean
    torch.testing.assert_close(algorithm.agent.actor.act_greedily(raw), mean)
    action, _ = algorithm.agent.actor.act(raw)
    assert not torch.allclose(action, mean)


@both
def test_log_mu_is_what_the_policy_says_at_the_action(make_env):
    # And what the ratio starts at: also once the statistics have changed.
    algorithm, collector = set_up(control(make_env, 4))
    learn(algorithm, collector, 2)
    transitions = collector.collect(algorithm.agent.actor)
    rollout = rollout_of(algorithm, transitions)
    again = algorithm.agent.networks.policy(rollout.obs).log_prob(rollout.action)
    torch.testing.assert_close(transitions.logp, again, atol=1e-6, rtol=1e-6)
    assert rollout.logp is transitions.logp or torch.equal(rollout.logp, transitions.logp)


def test_every_publication_is_a_version():
    algorithm, collector = set_up(control(Corridor, 4))
    for version in range(3):
        transitions = collector.collect(algorithm.agent.actor)
        assert (transitions.policy_version == version).all()
        algorithm.update(transitions, progress=0.0)
        algorithm.agent.publish()
