"""What an agent has, what it makes of transitions, and what it says of a rollout."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from running import differences
from tiny import (
    Corridor,
    algorithm_of,
    bare_rollout,
    context_of,
    control,
    counting,
    part_of,
    set_up,
)

from rlrun.advantages.columns import COLUMNS, ROWS_AT_ONCE, column
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.segments import Segments
from rlrun.data.groups import take_episodes
from rlrun.data.rollout import Rollout
from rlrun.errors import UserError
from rlrun.learning.agent import Agent
from rlrun.models.networks import BoxActionCritic, DiscreteActionCritic

ACTION_SPACES = {"discrete": gym.spaces.Discrete(3), "box": gym.spaces.Box(-1, 1, (2,), np.float32)}
both = pytest.mark.parametrize("kind", ACTION_SPACES)
T, N, D = 7, 4, 3
ALL = {"discrete": set(COLUMNS), "box": set(COLUMNS) - {"policy_q"}}


def asking_for(columns):
    """An estimator that asks for columns, and returns the rewards."""

    def estimator(rollout, *, gamma):
        for name in columns:
            column(rollout, name)
        return rollout.reward, rollout.reward

    return estimator


def agent_for(kind: str, columns=None, seed: int = 0, *, critics: bool = True) -> Agent:
    """An agent whose weights are far from the cautious ones of a new policy."""
    env, _ = counting(N, ACTION_SPACES[kind])
    columns = ALL[kind] if columns is None else columns
    estimator = asking_for(sorted(columns))
    context = context_of(env, Segments(horizon=T), seed=seed, estimator=estimator)
    agent = Agent(context, algorithm_of("ppo"), critics=critics)
    generator = torch.Generator().manual_seed(seed)
    for weight in agent.networks.parameters():
        weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
    agent.publish()
    return agent


def rollout_of(agent: Agent) -> Rollout:
    """Random states, and what the agent does there."""
    generator = torch.Generator().manual_seed(1)
    obs, next_obs = (torch.randn(T, N, D, generator=generator) for _ in range(2))
    action = torch.stack([agent.actor.act(row)[0] for row in obs])
    return bare_rollout(torch.zeros(T, N), obs=obs, next_obs=next_obs, action=action)


# ---------------------------------------------------------------------- what it has


@pytest.mark.parametrize(
    ("columns", "critic", "action_critic"),
    [
        (set(), False, False),
        ({"policy_logp", "score_square"}, False, False),
        ({"value"}, True, False),
        ({"next_value"}, True, False),
        ({"q"}, False, True),
        ({"next_q"}, False, True),
        ({"policy_q"}, False, True),
        ({"value", "q"}, True, True),
    ],
)
def test_it_has_the_critics_that_the_columns_need(columns, critic, action_critic):
    agent = agent_for("discrete", columns)
    assert (agent.networks.critic is not None) is critic
    assert (agent.networks.action_critic is not None) is action_critic
    assert set(agent.judge(rollout_of(agent)).columns) == columns
    parts = {name.partition(".")[0] for name in agent.weights()}
    expected = {"policy": True, "critic": critic, "action_critic": action_critic}
    assert parts == {name for name, there in expected.items() if there}
    assert agent.weighs_steps is ("policy_logp" in columns)


def test_the_action_critic_fits_the_actions():
    assert isinstance(agent_for("discrete").networks.action_critic, DiscreteActionCritic)
    assert isinstance(agent_for("box").networks.action_critic, BoxActionCritic)


def test_a_critic_that_is_not_needed_leaves_the_policy_as_it_is():
    with_critics, alone = agent_for("discrete"), agent_for("discrete", set())
    assert alone.networks.critic is None
    first, other = (agent.networks.policy.logits[0].weight for agent in (with_critics, alone))
    assert torch.equal(first, other)


def test_an_algorithm_with_critics_refuses_data_that_may_be_empty():
    env, _ = counting(4, ACTION_SPACES["discrete"])
    collector = part_of("collector", "dynamic_sampling", group_size=2)
    context = context_of(env, collector, estimator=asking_for([]))
    assert context.shape.may_be_empty
    Agent(context, algorithm_of("grpo"), critics=False)
    with pytest.raises(UserError, match=r"^dynamic sampling .* an algorithm with critics"):
        Agent(context, algorithm_of("ppo"), critics=True)


@both
def test_an_example_is_a_minibatch(kind):
    agent = agent_for(kind)
    example, rollout = agent.example(6), rollout_of(agent)
    columns = rollout.obs, rollout.action, rollout.logp
    for ours, real in zip(example, columns, strict=True):
        flat = real.flatten(0, 1)[:6]
        assert (ours.shape, ours.dtype) == (flat.shape, flat.dtype)


@both
def test_a_made_up_rollout_has_the_columns_that_the_estimator_asks_for(kind):
    agent = agent_for(kind)
    made_up = agent.made_up_rollout()
    assert set(made_up.columns) == ALL[kind]
    advantage, target = agent.estimate(made_up)
    assert advantage.shape == target.shape == made_up.mask.shape


# ---------------------------------------------------------------------- weights


@both
def test_loaded_weights_act_and_judge_alike(kind):
    agent, other = agent_for(kind), agent_for(kind, seed=1)
    rollout = rollout_of(agent)
    first = agent.judge(rollout).columns
    assert not torch.equal(other.judge(rollout).columns["value"], first["value"])
    other.load_weights(agent.weights())
    assert torch.equal(other.actor.act_greedily(rollout.obs), agent.actor.act_greedily(rollout.obs))
    judged = other.judge(rollout).columns
    for name in ("policy_logp", "value", "q"):
        assert torch.equal(judged[name], first[name])


def test_weights_are_a_copy():
    agent = agent_for("box")
    weights = agent.weights()
    before = {name: weight.clone() for name, weight in weights.items()}
    for weight in agent.networks.parameters():
        weight.mul_(2)
    assert differences(weights, before) == []
    agent.load_weights(weights)
    for weight in agent.networks.parameters():
        weight.mul_(2)
    assert differences(weights, before) == []


# ---------------------------------------------------------------------- rollouts

RAW = {"normalization.observation": False, "normalization.reward": False}
HORIZON, ENVS = 11, 3


def segments(**changes):
    """An algorithm among counting environments and its collector, before the first rollout."""
    env, _ = counting(ENVS, gym.spaces.Discrete(2))
    settings = {"horizon": HORIZON, "minibatch_size": ENVS * HORIZON, **RAW, **changes}
    return set_up(env, **settings)


def collected(algorithm, collector) -> tuple:
    """The next transitions, and the rollout that is made of them."""
    transitions = collector.collect(algorithm.agent.actor)
    return transitions, algorithm.agent.rollout(transitions)


def test_a_rollout_has_what_was_collected():
    transitions, rollout = collected(*segments())
    for name in ("obs", "next_obs", "action", "logp", "reward", "terminated", "truncated", "mask"):
        assert torch.equal(vars(rollout)[name], vars(transitions)[name]), name
    assert torch.equal(rollout.raw_obs, transitions.obs)
    assert torch.equal(rollout.raw_reward, transitions.reward)
    assert rollout.group is None
    assert not rollout.whole_episodes


def test_values_are_those_of_their_rows():
    algorithm, collector = segments()
    _, rollout = collected(algorithm, collector)
    critic = algorithm.agent.networks.critic
    assert set(rollout.columns) == {"value", "next_value"}  # which gae asks for
    for t in range(HORIZON):
        torch.testing.assert_close(rollout.columns["value"][t], critic(rollout.obs[t]))
        torch.testing.assert_close(rollout.columns["next_value"][t], critic(rollout.next_obs[t]))


@both
def test_the_log_probability_is_that_of_the_policy_that_acted(kind):
    # Recorded when the action was drawn; recomputed, it is the same to float precision, and the
    # ratio of an update starts at 1.
    env, _ = counting(ENVS, ACTION_SPACES[kind])
    algorithm, collector = set_up(env, horizon=HORIZON, minibatch_size=HORIZON * ENVS)
    for _ in range(2):
        transitions, rollout = collected(algorithm, collector)
        policy = algorithm.agent.networks.policy
        recomputed = policy(rollout.obs).log_prob(rollout.action)
        torch.testing.assert_close(rollout.logp, recomputed, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(
            (recomputed - rollout.logp).exp(), torch.ones(HORIZON, ENVS), atol=2e-6, rtol=0
        )
    # The policy goes on; what was recorded does not.
    for weight in policy.parameters():
        weight.mul_(1.5)
    assert torch.equal(algorithm.agent.rollout(transitions).logp, transitions.logp)
    assert not torch.allclose(policy(rollout.obs).log_prob(rollout.action), transitions.logp)


def test_an_update_begins_with_ratios_of_one():
    # One step on all rows: its metrics are those of the policy that collected.
    env, _ = counting(ENVS, gym.spaces.Discrete(2))
    size = HORIZON * ENVS
    algorithm, collector = set_up(env, horizon=HORIZON, minibatch_size=size, epochs=1)
    for _ in range(2):
        transitions = collector.collect(algorithm.agent.actor)
        metrics = algorithm.update(transitions, progress=0.0)
        algorithm.agent.publish()
        assert metrics["policy/ratio_max"].item() == pytest.approx(1.0, abs=2e-6)
        assert metrics["policy/kl"].item() == pytest.approx(0.0, abs=1e-6)
        assert metrics["policy/clip_fraction"] == 0


def test_transitions_say_which_version_acted():
    algorithm, collector = segments()
    for version in range(3):
        transitions = collector.collect(algorithm.agent.actor)
        assert (transitions.policy_version == version).all()
        algorithm.update(transitions, progress=0.0)
        algorithm.agent.publish()
    assert algorithm.agent.parts["actor"].state_dict() == {"version": 3}


def test_statistics_of_observations_are_those_of_earlier_rollouts():
    algorithm, collector = segments(**{"normalization.observation": True})
    first, rollout = collected(algorithm, collector)
    assert torch.equal(rollout.obs, first.obs)  # nothing seen before: as they are
    rows = first.obs.flatten(0, 1).double()
    mean, variance = rows.mean(0), rows.var(0, correction=0)
    second, rollout = collected(algorithm, collector)
    for name in ("obs", "next_obs"):
        raw = vars(second)[name].double()
        expected = ((raw - mean) / (variance + 1e-8).sqrt()).clamp(-10, 10).float()
        torch.testing.assert_close(vars(rollout)[name], expected)
    # It saw the same while it acted, and from now on knows both.
    moments = algorithm.agent.observation_normalizer.moments
    both_rows = torch.cat([rows, second.obs.flatten(0, 1).double()])
    assert moments.count == len(both_rows)
    torch.testing.assert_close(moments.mean, both_rows.mean(0))
    torch.testing.assert_close(moments.variance, both_rows.var(0, correction=0))


def test_rewards_are_scaled_but_not_shifted():
    transitions, rollout = collected(*segments(**{"normalization.reward": True}))
    assert torch.equal(rollout.raw_reward, transitions.reward)
    assert rollout.raw_reward[0].tolist() == [0.0, 100.0, 200.0]
    scale = rollout.reward[5, 2] / rollout.raw_reward[5, 2]
    assert 0 < scale < 1
    torch.testing.assert_close(rollout.reward, scale * rollout.raw_reward)


def test_raw_observations_are_what_the_environments_gave():
    algorithm, collector = segments(**{"normalization.observation": True})
    for _ in range(2):
        _, rollout = collected(algorithm, collector)
    assert torch.equal(rollout.raw_obs[..., 0], torch.arange(3.0).expand(HORIZON, 3))
    assert rollout.obs[..., 0].min() < 0


def episodes(num_envs: int = 8, group_size: int = 1):
    """PPO on whole episodes of different lengths, with all that can be normalised."""
    env = control(Corridor, num_envs)
    changes = {"normalization.observation": True, "normalization.reward": True}
    return set_up(env, group_size=group_size, minibatch_size=2, **changes)


def test_the_normalisers_learn_from_the_rows_that_count():
    algorithm, collector = episodes()
    transitions, rollout = collected(algorithm, collector)
    rows = transitions.obs[transitions.mask].double()
    assert not transitions.mask.all()
    agent = algorithm.agent
    moments = agent.observation_normalizer.moments
    assert moments.count == agent.reward_normalizer.moments.count == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0))
    torch.testing.assert_close(moments.variance, rows.var(0, correction=0))
    # R of every step, episode by episode: R ← r + γR
    returns = []
    for rewards, counts in zip(transitions.reward.T, transitions.mask.T, strict=True):
        total = 0.0
        for reward in rewards[counts].tolist():
            total = reward + algorithm.gamma * total
            returns.append(total)
    variance = torch.tensor(returns, dtype=torch.float64).var(correction=0)
    torch.testing.assert_close(agent.reward_normalizer.moments.variance, variance[None])
    scaled = transitions.reward / (variance + 1e-8).sqrt().float()
    torch.testing.assert_close(rollout.reward, scaled)


def test_padding_stays_padding():
    transitions, rollout = collected(*episodes(group_size=2))
    padding = ~transitions.mask
    assert padding.any()
    assert torch.equal(rollout.mask, transitions.mask)
    assert torch.equal(rollout.group, transitions.group)
    assert rollout.whole_episodes
    for rewards in (rollout.reward, rollout.raw_reward):
        assert not rewards[padding].any()
    for name in ("obs", "next_obs", "logp"):
        assert vars(rollout)[name].isfinite().all()
    for values in rollout.columns.values():
        assert values.isfinite().all()


@pytest.mark.parametrize("kept", [3, 0])
def test_some_episodes_are_scaled_as_all_of_them_are(kept, recwarn):
    # Dynamic sampling returns fewer episodes than there are environments, perhaps none.
    algorithm, collector = episodes()
    collected(algorithm, collector)
    transitions = collector.collect(algorithm.agent.actor)
    scale = (algorithm.agent.reward_normalizer.moments.variance + 1e-8).rsqrt().float()
    some = take_episodes(transitions, torch.arange(kept))
    rollout = algorithm.agent.rollout(some)
    assert rollout.reward.shape == some.reward.shape
    if kept:
        factor = rollout.reward[0, 0] / some.reward[0, 0]
        torch.testing.assert_close(rollout.reward, factor * some.reward)
        assert 0.5 < factor / scale < 2
    # All that was acted in counts for the observations.
    played = algorithm.agent.observation_normalizer.moments.count
    assert played > int(transitions.mask.sum())
    assert not recwarn


def test_the_state_of_every_part_is_a_snapshot():
    algorithm, collector = segments(
        **{"normalization.observation": True, "normalization.reward": True}
    )
    parts = {**algorithm.parts, **algorithm.learners, "collector": collector}
    assert {"actor", "observation_normalizer", "reward_normalizer", "policy", "critics"} < set(
        parts
    )

    def learn():
        algorithm.update(collector.collect(algorithm.agent.actor), progress=0.0)
        algorithm.agent.publish()

    learn()
    states = {name: part.state_dict() for name, part in parts.items()}
    before = deep_copy(states)
    learn()
    assert differences(states, before) == []
    for name, part in parts.items():
        assert differences(part.state_dict(), before[name]), name
    # Nor does it when a part goes on from it.
    for name, part in parts.items():
        part.load_state_dict(states[name])
    learn()
    assert differences(states, before) == []


def deep_copy(value):
    """A copy that shares no tensor."""
    if isinstance(value, dict):
        return {key: deep_copy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(deep_copy(inner) for inner in value)
    return value.clone() if isinstance(value, torch.Tensor) else value


# ---------------------------------------------------------------------- judging


@both
def test_judging_fills_in_its_columns_and_changes_no_other(kind):
    agent = agent_for(kind)
    rollout = rollout_of(agent)
    judged = agent.judge(rollout)
    assert set(judged.columns) == ALL[kind]
    for name, values in judged.columns.items():
        assert values.shape == (T, N), name
        assert not values.requires_grad, name
    assert not rollout.columns
    for name, values in vars(judged).items():
        assert name == "columns" or values is vars(rollout)[name]


@both
def test_values_and_probabilities_are_those_of_their_rows(kind):
    agent = agent_for(kind)
    networks = agent.networks
    rollout = rollout_of(agent)
    judged = agent.judge(rollout).columns
    for t in range(T):
        for n in range(N):
            obs, action = rollout.obs[t, n], rollout.action[t, n]
            logp = networks.policy(obs).log_prob(action)
            torch.testing.assert_close(judged["policy_logp"][t, n], logp)
            torch.testing.assert_close(judged["value"][t, n], networks.critic(obs))
            successor = networks.critic(rollout.next_obs[t, n])
            torch.testing.assert_close(judged["next_value"][t, n], successor)
            torch.testing.assert_close(judged["q"][t, n], networks.action_critic(obs, action))


def test_the_policys_q_is_the_sum_over_all_actions():
    agent = agent_for("discrete")
    rollout = rollout_of(agent)
    judged = agent.judge(rollout).columns
    for obs, mean in ((rollout.obs, judged["policy_q"]), (rollout.next_obs, judged["next_q"])):
        expected = torch.zeros(T, N)
        for choice in range(3):  # Σ_a π(a|s) Q(s, a)
            action = torch.full((T, N), choice)
            probability = agent.networks.policy(obs).log_prob(action).exp()
            expected += probability * agent.networks.action_critic(obs, action)
        torch.testing.assert_close(mean, expected)


def test_the_next_q_of_a_box_is_that_of_a_drawn_action():
    agent, again = agent_for("box"), agent_for("box")
    rollout = rollout_of(agent)
    rollout_of(again)  # which draws as many actions from the stream
    drawn, _ = again.actor.act(rollout.next_obs)
    expected = again.networks.action_critic(rollout.next_obs, drawn)
    first = agent.judge(rollout).columns["next_q"]
    torch.testing.assert_close(first, expected)
    assert not torch.equal(agent.judge(rollout).columns["next_q"], first)  # another draw


@both
def test_the_square_of_the_score_equals_autograd_row_by_row(kind):
    agent = agent_for(kind)
    rollout = rollout_of(agent)
    squares = agent.judge(rollout).columns["score_square"]
    policy = agent.networks.policy
    parameters = [p.requires_grad_(True) for p in policy.parameters()]
    for t in range(T):
        for n in range(N):
            logp = policy(rollout.obs[t, n]).log_prob(rollout.action[t, n])
            score = torch.autograd.grad(logp, parameters)
            expected = sum(gradient.square().sum() for gradient in score)
            torch.testing.assert_close(squares[t, n], expected)


def test_the_square_of_the_score_is_that_of_each_row_beyond_one_chunk():
    agent = agent_for("discrete", {"score_square"})
    rollout = rollout_of(agent)
    times = ROWS_AT_ONCE // (T * N) + 2
    long = replace(
        rollout,
        obs=rollout.obs.repeat(times, 1, 1),
        next_obs=rollout.next_obs.repeat(times, 1, 1),
        action=rollout.action.repeat(times, 1),
        reward=rollout.reward.repeat(times, 1),
    )
    assert long.obs.shape[0] * N > ROWS_AT_ONCE
    expected = agent.judge(rollout).columns["score_square"].repeat(times, 1)
    torch.testing.assert_close(agent.judge(long).columns["score_square"], expected)


# ---------------------------------------------------------------------- what fits


def test_the_estimator_is_told_the_algorithms_discount():
    def estimator(rollout, *, gamma):
        return gamma * rollout.reward, rollout.reward

    env, _ = counting(N, ACTION_SPACES["box"])
    context = context_of(env, Episodes(group_size=2), estimator=estimator)
    agent = Agent(context, algorithm_of("ppo", gamma=0.5), critics=True)
    made_up = agent.made_up_rollout()
    assert torch.equal(agent.estimate(made_up)[0], 0.5 * made_up.reward)
    assert made_up.whole_episodes
    assert made_up.group[0].tolist() == [0, 0, 1, 1]
