import copy
import threading
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny import CPU, Corridor, PointMass, algorithm_of, control, learn, problem_of, set_up

from rlrun.advantages.columns import column
from rlrun.advantages.temporal import gae, nstep
from rlrun.algos.contract import OnPolicyAlgorithm
from rlrun.data.seeding import Streams
from rlrun.errors import UserError
from rlrun.hardware.spec import find_compiler

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
    learners = [algorithm.policy_learner, *algorithm.critics.learners.values()]
    return [int(learner.state.t) for learner in learners]


# ---------------------------------------------------------------------- hyperparameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"gamma": -0.1}, "gamma must be in"),
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"minibatch_size": 0}, "minibatch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"adam_epsilon": -1e-5}, "adam_epsilon must be positive"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"normalizer_clip": -10.0}, "normalizer_clip must be positive"),
        ({"value_clip": -0.2}, "value_clip must be positive, got -0.2"),
        ({"target_kl": 0.0}, "target_kl must be positive"),
        ({"entropy_coefficient": -0.1}, "entropy_coefficient must be at least 0"),
        ({"hidden_sizes": [64, 0]}, "hidden_sizes must be at least 1, got 0"),
        (
            {"num_envs": 3, "horizon": 5, "minibatch_size": 4},
            "minibatch_size must divide num_envs x horizon = 15, got 4",
        ),
        ({"minibatch_size": 1}, "minibatch_size must be at least 2 to normalize_advantage"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        algorithm_of("ppo", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"hidden_sizes": []},
        {"minibatch_size": 1, "normalize_advantage": False},
        {"num_envs": 1, "horizon": 1, "minibatch_size": 1, "normalize_advantage": False},
    ],
)
def test_the_ends_of_the_ranges_train(changes):
    env = control(Corridor, changes.pop("num_envs", 4))
    algorithm, collector = set_up(env, **changes)
    metrics = algorithm.update(collector.collect(algorithm.agent), progress=0.0)
    assert all(value.isfinite() for value in metrics.values())


def test_no_estimator_is_the_users_mistake():
    env, algorithm = control(Corridor, 4), algorithm_of("ppo")
    with pytest.raises(UserError, match="ppo needs an estimator"):
        algorithm.setup(
            problem_of(env),
            hardware=CPU,
            streams=Streams.from_seed(0),
            estimator=None,
            compiled=False,
            from_checkpoint=False,
        )


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (partial(gae, lam=1.5), r"lam must be in \[0, 1\], got 1.5"),
        (partial(nstep, n=0), "n must be at least 1, got 0"),
    ],
)
def test_an_estimators_constant_out_of_range_is_refused_before_any_rollout(estimator, message):
    with pytest.raises(UserError, match=f"^advantage: {message}$"):
        set_up(control(Corridor, 4), estimator=estimator)


# ---------------------------------------------------------------------- the update


@both
def test_the_same_seed_gives_the_same_metrics_and_weights(make_env):
    (first, one), (second, other) = (learned(make_env, seed=1) for _ in range(2))
    for metrics, again in zip(first, second, strict=True):
        assert_equal(metrics, again)
    assert_equal(one.agent.weights(), other.agent.weights())

    third, _ = learned(make_env, seed=2)
    for name in ("loss/policy", "loss/value", "value/explained_variance"):
        assert first[0][name] != third[0][name]


def test_updates_are_counted_and_foreseen():
    metrics, algorithm = learned(Corridor, epochs=3)
    # 4 environments x 8 steps = 32 rows = 4 minibatches of 8, three times
    assert [int(m["updates"]) for m in metrics] == [12, 12, 12]
    assert algorithm.updates(total_steps=3 * 32) == 36
    assert optimizer_steps(algorithm) == [36, 36]


def epoch_kls(**settings) -> list[float]:
    """The mean KL of every epoch of the first iteration."""
    algorithm, collector = set_up(control(Corridor, 4), **settings)
    kls, fit = [], algorithm.policy_learner.fit

    def watched(*arguments):
        metrics = fit(*arguments)
        kls.append(metrics["policy/kl"].mean().item())
        return metrics

    algorithm.policy_learner.fit = watched
    algorithm.update(collector.collect(algorithm.agent), progress=0.0)
    assert len(kls) == settings["epochs"]
    return kls


# 1, 4 and 18 minibatches, the last in two calls: the limit is for the mean of them all.
@pytest.mark.parametrize(("horizon", "size"), [(8, 32), (8, 8), (18, 4)])
def test_target_kl_stops_after_the_first_epoch_beyond_it(horizon, size):
    settings = {"horizon": horizon, "epochs": 8, "minibatch_size": size, "learning_rate": 3e-3}
    kls = epoch_kls(**settings)
    # The last epoch but one or more that went further than all before it.
    last = max(i for i in range(1, 7) if kls[i] > max(kls[:i]))
    assert last >= 2
    limit = (max(kls[:last]) + kls[last]) / 2
    for target_kl, epochs in ((limit / 1.5, last + 1), (10 * max(kls), 8)):
        metrics, algorithm = learned(Corridor, 1, target_kl=target_kl, **settings)
        updates = epochs * 4 * horizon // size
        assert int(metrics[0]["updates"]) == updates
        # The critic stops with the policy.
        assert optimizer_steps(algorithm) == [updates, updates]


def test_recomputed_advantages_are_those_of_the_present_critic():
    seen = []

    def watched(rollout):
        seen.append(rollout)
        critic = algorithm.agent.critic
        torch.testing.assert_close(rollout.value, critic(rollout.obs))
        torch.testing.assert_close(rollout.next_value, critic(rollout.next_obs))
        return estimate(rollout)

    settings = {"epochs": 3, "recompute_advantage": True, "learning_rate": 1e-2}
    algorithm, collector = set_up(control(Corridor, 4), **settings)
    estimate, algorithm.estimate = algorithm.estimate, watched
    algorithm.update(collector.collect(algorithm.agent), progress=0.0)
    assert len(seen) == 3
    assert not torch.allclose(seen[0].value, seen[2].value, atol=1e-3)
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
    rollout = collector.collect(algorithm.agent)
    rates = [
        algorithm.update(rollout, progress=progress)["schedule/learning_rate"].item()
        for progress in (0.0, 0.25, 0.75)
    ]
    assert rates == pytest.approx([4e-3, 3e-3, 1e-3])
    before = copy.deepcopy(algorithm.agent.weights())
    algorithm.update(rollout, progress=1.0)
    assert_equal(algorithm.agent.weights(), before)

    constant, _ = set_up(control(Corridor, 4), learning_rate=4e-3, anneal_learning_rate=False)
    rate = constant.update(rollout, progress=0.75)["schedule/learning_rate"]
    assert rate.item() == pytest.approx(4e-3)


def test_an_update_leaves_its_rollout_as_it_is():
    algorithm, collector = set_up(control(Corridor, 4), recompute_advantage=True)
    rollout = collector.collect(algorithm.agent)
    before = copy.deepcopy(vars(rollout))
    algorithm.update(rollout, progress=0.0)
    columns = {name: x for name, x in vars(rollout).items() if isinstance(x, torch.Tensor)}
    assert_equal(columns, {name: before[name] for name in columns})


def test_rows_that_are_masked_teach_nothing():
    algorithm, collector = set_up(control(Corridor, 4), minibatch_size=16)
    rollout = collector.collect(algorithm.agent)
    mask = rollout.mask.clone()
    mask[:, :2] = False
    rollout = replace(rollout, mask=mask)
    poisoned = replace(rollout, obs=rollout.obs.masked_fill(~mask[..., None], torch.nan))
    # Only the columns that estimators do not read are poisoned.
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
        rollout = algorithm.collect(collector)
        rows = int(rollout.mask.sum())
        before = optimizer_steps(algorithm)[0]
        metrics = algorithm.update(rollout, progress=0.0)
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


# ---------------------------------------------------------------------- acting and saving


def test_greedy_actions_are_the_modes():
    algorithm, collector = set_up(control(PointMass, 4))
    obs = collector.collect(algorithm.agent).obs[0]
    mean = algorithm.agent.policy(obs).mean
    assert torch.equal(algorithm.agent.act_greedily(obs), mean)
    assert not torch.equal(algorithm.agent.act(obs), mean)


@both
def test_a_loaded_learner_goes_on_alike(make_env):
    _, algorithm = learned(make_env)
    loaded, collector = set_up(control(make_env, 4), seed=5)
    loaded.agent.load_weights(copy.deepcopy(algorithm.agent.weights()))
    for name, learner in algorithm.learners.items():
        loaded.learners[name].load_state_dict(copy.deepcopy(learner.state_dict()))
    loaded.streams.load_state_dict(algorithm.streams.state_dict())
    rollout = collector.collect(loaded.agent)
    # The same shuffles too: collecting has drawn from another stream.
    assert_equal(algorithm.update(rollout, progress=0.5), loaded.update(rollout, progress=0.5))
    assert_equal(algorithm.agent.weights(), loaded.agent.weights())


# ---------------------------------------------------------------------- compiled


def refuse(*arguments):
    raise AssertionError("a step without the compiler")


def watch_threads(algorithm) -> list[int]:
    """The threads of the policy's and the critic's fits, from now on."""
    threads = []
    for learner in algorithm.learners.values():

        def watched(*arguments, fit=learner.fit):
            threads.append(threading.get_ident())
            return fit(*arguments)

        learner.fit = watched
    return threads


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)")
def test_the_compiled_update_equals_the_eager_one(pytestconfig, monkeypatch):
    # Compiled code outlives the session, as it outlives a run: only the first one waits for g++.
    cache = pytestconfig.cache.mkdir("inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    settings = {"minibatch_size": 32, "hidden_sizes": [4], "learning_rate": 1e-2}
    in_turn = replace(CPU, compile="on")
    updates = {}
    for hardware in (CPU, in_turn, replace(in_turn, threads=2)):
        algorithm, collector = set_up(control(PointMass, 4), hardware=hardware, **settings)
        before = copy.deepcopy(algorithm.agent.weights())
        for learner in algorithm.learners.values():
            learner.warm_up()
        assert_equal(algorithm.agent.weights(), before)  # nothing is learned from zeros
        assert optimizer_steps(algorithm) == [0, 0]
        if hardware.compile == "on":
            for learner in (algorithm.policy_learner, *algorithm.critics.learners.values()):
                assert learner.is_compiled
                learner._take_steps = refuse  # minibatches of this size need no eager step
        threads = watch_threads(algorithm)
        metrics = algorithm.update(collector.collect(algorithm.agent), progress=0.0)
        assert len(set(threads)) == hardware.threads
        updates[hardware] = metrics | algorithm.agent.weights()
    eager, compiled, side_by_side = updates.values()
    for name in eager:
        torch.testing.assert_close(compiled[name], eager[name], atol=1e-5, rtol=1e-4)
    assert_equal(side_by_side, compiled)


def test_without_the_compiler_after_all_the_update_is_eager():
    settings = {"hidden_sizes": [4], "hardware": replace(CPU, compile="on", threads=2)}
    algorithm, collector = set_up(control(PointMass, 4), **settings)
    for learner in algorithm.learners.values():
        learner.run_eagerly()
    threads = watch_threads(algorithm)
    metrics = algorithm.update(collector.collect(algorithm.agent), progress=0.0)
    expected, _ = learned(PointMass, 1, hidden_sizes=[4])
    assert_equal(metrics, expected[0])
    assert set(threads) == {threading.get_ident()}


def test_ppo_keeps_the_contract_of_its_loop():
    def contract(algorithm: OnPolicyAlgorithm) -> OnPolicyAlgorithm:
        return algorithm  # mypy compares the signatures

    algorithm = contract(set_up(control(Corridor, 4))[0])
    for name in (*OnPolicyAlgorithm.__annotations__, *vars(OnPolicyAlgorithm)):
        if not name.startswith("_"):
            getattr(algorithm, name)
