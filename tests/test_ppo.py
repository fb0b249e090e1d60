import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny import Corridor, PointMass, control, learner, ppo
from torch.nn.utils import clip_grad_norm_

from rlrun.algos.ppo import Minibatch
from rlrun.errors import UserError
from rlrun.hardware import find_compiler
from rlrun.networks import Categorical
from rlrun.seeding import Streams

ENVS = {"discrete": Corridor, "continuous": PointMass}
both = pytest.mark.parametrize("make_env", ENVS.values(), ids=ENVS)


def learn(make_env, iterations: int = 3, **settings):
    """Metrics of several iterations, and the learner."""
    algorithm, collector = learner(control(make_env, 4), **settings)
    metrics = [
        algorithm.update(collector.collect(algorithm), progress=i / iterations)
        for i in range(iterations)
    ]
    return metrics, algorithm


def batches_of(algorithm, rollout, shape: tuple[int, int]) -> Minibatch:
    """All rows of a rollout in order, as K minibatches of B rows."""
    columns = (rollout.obs, rollout.action, rollout.logp, rollout.value)
    columns = (*columns, *algorithm.estimate(rollout))
    return Minibatch(*(x.flatten(0, 1).unflatten(0, shape) for x in columns))


def ready(make_env, shape: tuple[int, int] = (4, 8), **settings):
    """A learner after one iteration, and the minibatches of its second rollout [K, B]."""
    algorithm, collector = learner(control(make_env, 4), **settings)
    algorithm.update(collector.collect(algorithm), progress=0.0)
    return algorithm, batches_of(algorithm, collector.collect(algorithm), shape)


def assert_equal(one, other) -> None:
    """The same names and numbers, bit for bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


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
        ({"value_coefficient": -0.5}, "value_coefficient must be at least 0"),
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
        ppo(**changes)


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
    algorithm, collector = learner(env, **changes)
    metrics = algorithm.update(collector.collect(algorithm), progress=0.0)
    assert all(value.isfinite() for value in metrics.values())


def test_no_estimator_is_the_users_mistake():
    with pytest.raises(UserError, match="ppo needs an estimator"):
        learner(control(Corridor, 4), estimator=None)


# ---------------------------------------------------------------------- the loss


def plain_loss(algorithm, batch: Minibatch) -> torch.Tensor:
    """The loss of the paper, on the network's own parameters and torch's distributions."""
    distribution, value = algorithm.network(batch.obs)
    if isinstance(distribution, Categorical):
        policy = torch.distributions.Categorical(logits=distribution.logits)
        logp, entropy = policy.log_prob(batch.action), policy.entropy()
    else:
        policy = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
        logp, entropy = policy.log_prob(batch.action).sum(-1), policy.entropy().sum(-1)
    losses = []
    advantage = batch.advantage
    if algorithm.normalize_advantage:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for i in range(len(advantage)):
        ratio = torch.exp(logp[i] - batch.logp[i])
        clipped = min(max(ratio, 1 - algorithm.clip), 1 + algorithm.clip)
        error = (value[i] - batch.target[i]) ** 2
        if algorithm.value_clip is not None:
            low, high = batch.value[i] - algorithm.value_clip, batch.value[i] + algorithm.value_clip
            error = max(error, (min(max(value[i], low), high) - batch.target[i]) ** 2)
        losses.append(
            -min(ratio * advantage[i], clipped * advantage[i])
            + algorithm.value_coefficient * 0.5 * error
            - algorithm.entropy_coefficient * entropy[i]
        )
    return torch.stack(losses).mean()


VARIANTS = {
    "default": {},
    "entropy": {"entropy_coefficient": 0.1, "value_coefficient": 0.25},
    "value_clip": {"value_clip": 0.05},
    "raw_advantage": {"normalize_advantage": False},
}


@both
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_step_equals_autograd_and_torchs_adam(make_env, changes):
    # Far enough from the old policy that ratios leave the band: a large first step.
    algorithm, batches = ready(make_env, (1, 32), hidden_sizes=[8], **changes)
    algorithm.parameters.vector.add_(
        0.3 * torch.randn(len(algorithm.parameters.vector), generator=algorithm.streams.init)
    )
    batch = Minibatch(*(x[0] for x in batches))
    theta, before = algorithm.parameters.vector.clone(), algorithm.adam
    stepped, state, metrics = algorithm._take_steps(theta, before, torch.tensor(1e-3), batches)
    assert metrics["policy/clip_fraction"] > 0.1

    named = dict(algorithm.network.named_parameters())
    for parameter in named.values():
        parameter.requires_grad_(True)
    loss = plain_loss(algorithm, batch)
    loss.backward()
    torch.testing.assert_close(metrics["loss/total"][0], loss.detach())

    optimizer = torch.optim.Adam(named.values(), lr=1e-3, eps=algorithm.adam_epsilon)
    for source, name in zip((before.m, before.v), ("exp_avg", "exp_avg_sq"), strict=True):
        for key, piece in algorithm.parameters.unflatten(source).items():
            optimizer.state[named[key]][name] = piece.clone()
    for parameter in named.values():
        optimizer.state[parameter]["step"] = before.t.clone()
    clip_grad_norm_(named.values(), algorithm.max_grad_norm)
    optimizer.step()
    expected = torch.cat([named[key].detach().flatten() for key in algorithm.parameters.names])
    torch.testing.assert_close(stepped, expected, atol=2e-6, rtol=1e-4)
    assert state.t == before.t + 1


@both
def test_the_ratio_is_one_on_the_first_minibatch(make_env):
    # Also in later iterations, when the normaliser's statistics have changed in between.
    algorithm, collector = learner(control(make_env, 4), epochs=1, learning_rate=1e-2)
    first = []
    take_steps = algorithm.take_steps

    def watched(theta, state, learning_rate, batches):
        distribution, _ = algorithm.network(batches.obs[0])
        first.append(distribution.log_prob(batches.action[0]) - batches.logp[0])
        return take_steps(theta, state, learning_rate, batches)

    algorithm.take_steps = watched
    for _ in range(3):
        algorithm.update(collector.collect(algorithm), progress=0.0)
    assert len(first) == 3  # one call an iteration
    for log_ratio in first:
        assert log_ratio.abs().max() < 1e-5


@both
def test_the_first_step_of_an_iteration_sees_no_kl_and_clips_nothing(make_env):
    settings = {"epochs": 1, "minibatch_size": 32, "learning_rate": 1e-2}
    for metrics in learn(make_env, **settings)[0]:
        assert metrics["policy/kl"] < 1e-8
        assert metrics["policy/clip_fraction"] == 0
        assert abs(metrics["loss/policy"]) < 1e-5  # minus the mean of normalised advantages


def test_an_action_with_a_positive_advantage_becomes_likelier():
    def prefer_right(rollout, *, gamma):
        return rollout.action.float() * 2 - 1, rollout.value

    algorithm, collector = learner(control(Corridor, 4), estimator=prefer_right)
    rollout = collector.collect(algorithm)
    right = torch.ones_like(rollout.action)
    before, _ = algorithm.judge(rollout.obs, right)
    algorithm.update(rollout, progress=0.0)
    after, _ = algorithm.judge(rollout.obs, right)
    assert (after > before).all()


# ---------------------------------------------------------------------- the update


@both
def test_the_same_seed_gives_the_same_metrics_and_weights(make_env):
    (first, one), (second, other) = (learn(make_env, seed=1) for _ in range(2))
    for metrics, again in zip(first, second, strict=True):
        assert_equal(metrics, again)
    assert_equal(one.weights(), other.weights())

    third, _ = learn(make_env, seed=2)
    for name in ("loss/policy", "loss/value", "value/explained_variance"):
        assert first[0][name] != third[0][name]


@both
def test_several_steps_a_call_equal_as_many_calls(make_env):
    algorithm, batches = ready(make_env, (8, 4))
    theta, state = algorithm.parameters.vector.clone(), algorithm.adam
    rate = torch.tensor(1e-3)
    together, state_together, metrics_together = algorithm._take_steps(theta, state, rate, batches)

    history = []
    for k in range(8):
        one = Minibatch(*(x[k : k + 1] for x in batches))
        theta, state, metrics = algorithm._take_steps(theta, state, rate, one)
        history.append(metrics)
    assert torch.equal(theta, together)
    for ours, theirs in zip(state, state_together, strict=True):
        assert torch.equal(ours, theirs)
    joined = {name: torch.cat([metrics[name] for metrics in history]) for name in history[0]}
    assert_equal(joined, metrics_together)


@pytest.mark.parametrize(
    ("rows", "size", "calls"),
    [(32, 4, 8), (64, 4, 8), (32, 8, 4), (32, 32, 1), (36, 4, 3), (44, 4, 1)],
)
def test_minibatches_are_divided_evenly_among_the_calls(rows, size, calls):
    # 9 minibatches an epoch: 3 calls of 3; 11: no number from 2 to 8 divides it
    algorithm, _ = learner(control(Corridor, 4), horizon=rows // 4, minibatch_size=size)
    assert algorithm.updates_per_call == calls


def test_updates_are_counted_and_foreseen():
    metrics, algorithm = learn(Corridor, epochs=3)
    # 4 environments x 8 steps = 32 rows = 4 minibatches of 8, three times
    assert [int(m["updates"]) for m in metrics] == [12, 12, 12]
    assert algorithm.updates(total_steps=3 * 32) == 36
    assert algorithm.adam.t == 36


def epoch_kls(**settings) -> list[float]:
    """The mean KL of every epoch of the first iteration."""
    algorithm, collector = learner(control(Corridor, 4), **settings)
    kls, take_steps = [], algorithm.take_steps

    def watched(*arguments):
        result = take_steps(*arguments)
        kls.append(result[2]["policy/kl"].mean().item())
        return result

    algorithm.take_steps = watched
    algorithm.update(collector.collect(algorithm), progress=0.0)
    calls = len(kls) // settings["epochs"]
    return [math.fsum(kls[i : i + calls]) / calls for i in range(0, len(kls), calls)]


# 8, 4 and 1 minibatches a call, which the mean over an epoch must not depend on.
@pytest.mark.parametrize("size", [2, 8, 32])
def test_target_kl_stops_after_the_first_epoch_beyond_it(size):
    settings = {"epochs": 8, "minibatch_size": size, "learning_rate": 3e-3}
    kls = epoch_kls(**settings)
    # The last epoch but one or more that went further than all before it.
    last = max(i for i in range(1, 7) if kls[i] > max(kls[:i]))
    assert last >= 2
    limit = (max(kls[:last]) + kls[last]) / 2
    metrics, _ = learn(Corridor, 1, target_kl=limit / 1.5, **settings)
    assert int(metrics[0]["updates"]) == (last + 1) * 32 // size
    metrics, _ = learn(Corridor, 1, target_kl=10 * max(kls), **settings)
    assert int(metrics[0]["updates"]) == 8 * 32 // size


def test_recomputed_advantages_are_those_of_the_present_critic():
    seen = []

    def watched(rollout, *, gamma):
        seen.append(rollout)
        present = algorithm.value(rollout.obs), algorithm.value(rollout.next_obs)
        torch.testing.assert_close(rollout.value, present[0])
        torch.testing.assert_close(rollout.next_value, present[1])
        delta = rollout.reward + gamma * rollout.next_value - rollout.value
        return delta, delta + rollout.value

    settings = {"epochs": 3, "estimator": watched, "learning_rate": 1e-2}
    algorithm, collector = learner(control(Corridor, 4), recompute_advantage=True, **settings)
    algorithm.update(collector.collect(algorithm), progress=0.0)
    assert len(seen) == 3
    assert not torch.allclose(seen[0].value, seen[2].value, atol=1e-3)
    assert torch.equal(seen[0].logp, seen[2].logp)  # ratios stay against the collecting policy


def test_recomputing_matters_from_the_second_epoch_on():
    def weights(epochs: int, recompute: bool):
        settings = {"epochs": epochs, "recompute_advantage": recompute}
        return learn(Corridor, 1, **settings)[1].parameters.vector

    assert torch.equal(weights(1, True), weights(1, False))
    assert not torch.equal(weights(2, True), weights(2, False))


def test_the_learning_rate_falls_linearly_to_zero():
    algorithm, collector = learner(control(Corridor, 4), learning_rate=4e-3)
    rollout = collector.collect(algorithm)
    rates = [
        algorithm.update(rollout, progress=progress)["schedule/learning_rate"].item()
        for progress in (0.0, 0.25, 0.75)
    ]
    assert rates == pytest.approx([4e-3, 3e-3, 1e-3])
    before = algorithm.parameters.vector.clone()
    algorithm.update(rollout, progress=1.0)
    assert torch.equal(algorithm.parameters.vector, before)

    constant, _ = learner(control(Corridor, 4), learning_rate=4e-3, anneal_learning_rate=False)
    rate = constant.update(rollout, progress=0.75)["schedule/learning_rate"]
    assert rate.item() == pytest.approx(4e-3)


def test_a_clipped_value_stays_near_the_old_one():
    # Targets far above: unclipped, the critic runs after them; clipped, it stops near its bound.
    def far(rollout, *, gamma):
        return torch.randn(rollout.reward.shape, generator=generator), rollout.value + 100.0

    moved = {}
    for value_clip in (None, 0.01):
        generator = torch.Generator().manual_seed(0)
        settings = {"epochs": 30, "learning_rate": 1e-3, "estimator": far}
        algorithm, collector = learner(control(Corridor, 4), value_clip=value_clip, **settings)
        rollout = collector.collect(algorithm)
        algorithm.update(rollout, progress=0.0)
        moved[value_clip] = (algorithm.value(rollout.obs) - rollout.value).abs().max().item()
    assert moved[0.01] < 0.2 * moved[None]


def test_an_update_leaves_its_rollout_as_it_is():
    algorithm, collector = learner(control(Corridor, 4), recompute_advantage=True)
    rollout = collector.collect(algorithm)
    before = copy.deepcopy(vars(rollout))
    algorithm.update(rollout, progress=0.0)
    for name, column in vars(rollout).items():
        if column is not None:
            assert torch.equal(column, before[name])


def test_rows_that_are_masked_teach_nothing():
    algorithm, collector = learner(control(Corridor, 4), minibatch_size=16)
    rollout = collector.collect(algorithm)
    mask = rollout.mask.clone()
    mask[:, :2] = False
    rollout = replace(rollout, mask=mask)
    poisoned = replace(rollout, obs=rollout.obs.masked_fill(~mask[..., None], torch.nan))
    # Only the columns that estimators do not read are poisoned.
    metrics = algorithm.update(poisoned, progress=0.0)
    assert all(value.isfinite() for value in metrics.values())
    assert algorithm.parameters.vector.isfinite().all()


# ---------------------------------------------------------------------- acting and saving


def test_greedy_actions_are_the_modes():
    algorithm, collector = learner(control(PointMass, 4))
    obs = collector.collect(algorithm).obs[0]
    mean = algorithm.network.policy(obs).mean
    assert torch.equal(algorithm.act_greedily(obs), mean)
    assert not torch.equal(algorithm.act(obs), mean)


@both
def test_a_loaded_learner_goes_on_alike(make_env):
    _, algorithm = learn(make_env)
    loaded, collector = learner(control(make_env, 4), seed=5)
    loaded.load_weights({name: w.clone() for name, w in algorithm.weights().items()})
    loaded.load_state_dict(copy.deepcopy(algorithm.state_dict()))
    loaded.streams.load_state_dict(algorithm.streams.state_dict())
    rollout = collector.collect(loaded)
    # The same shuffles too: collecting has drawn from another stream.
    assert_equal(algorithm.update(rollout, progress=0.5), loaded.update(rollout, progress=0.5))
    assert_equal(algorithm.weights(), loaded.weights())


def test_streams_do_not_disturb_each_other():
    used, fresh = Streams.from_seed(3), Streams.from_seed(3)
    torch.rand(100, generator=used.action)
    for name in ("init", "minibatch"):
        one, other = (torch.rand(5, generator=vars(s)[name]) for s in (used, fresh))
        assert torch.equal(one, other)
    drawn = [torch.rand(5, generator=vars(fresh)[name]) for name in ("init", "action", "minibatch")]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert len({Streams.from_seed(seed).env for seed in range(20)}) == 20


# ---------------------------------------------------------------------- compiled


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++)")
def test_the_compiled_update_equals_the_eager_one(pytestconfig, monkeypatch):
    # Compiled code outlives the session, as it outlives a run: only the first one waits for g++.
    cache = pytestconfig.cache.mkdir("inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    settings = {"minibatch_size": 32, "hidden_sizes": [4], "learning_rate": 1e-2}
    updates = {}
    for compiled in (False, True):
        algorithm, collector = learner(control(PointMass, 4), compiled=compiled, **settings)
        before = algorithm.parameters.vector.clone()
        algorithm.warm_up()
        assert torch.equal(algorithm.parameters.vector, before)  # nothing is learned from zeros
        assert algorithm.adam.t == 0
        metrics = algorithm.update(collector.collect(algorithm), progress=0.0)
        updates[compiled] = metrics, algorithm.weights()
    for eager, compiled in zip(updates[False], updates[True], strict=True):
        for name in eager:
            torch.testing.assert_close(compiled[name], eager[name], atol=1e-5, rtol=1e-4)
    assert algorithm.take_steps != algorithm._take_steps
