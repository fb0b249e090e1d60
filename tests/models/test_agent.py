"""What an agent has, and what it says of a rollout."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny import CPU, bare_rollout

from rlrun.advantages.columns import ACTOR_CRITIC_COLUMNS
from rlrun.data.rollout import Rollout
from rlrun.data.seeding import Streams
from rlrun.envs.problem import Problem
from rlrun.models.agent import ROWS_AT_ONCE, Agent
from rlrun.models.networks import BoxActionCritic, DiscreteActionCritic

ACTION_SPACES = {"discrete": gym.spaces.Discrete(3), "box": gym.spaces.Box(-1, 1, (2,), np.float32)}
both = pytest.mark.parametrize("kind", ACTION_SPACES)
T, N, D = 7, 3, 4


def agent_for(kind: str, columns=ACTOR_CRITIC_COLUMNS, seed: int = 0) -> Agent:
    """An agent whose weights are far from the cautious ones of a new policy."""
    problem = Problem(
        env_id="Any-v0",
        obs_size=D,
        action_space=ACTION_SPACES[kind],
        time_limit=None,
        group_size=None,
    )
    agent = Agent(
        problem,
        columns=columns,
        hidden_sizes=[8],
        log_std=-0.5,
        hardware=CPU,
        streams=Streams.from_seed(seed),
    )
    generator = torch.Generator().manual_seed(seed)
    for weight in agent.weights().values():
        weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
    agent.send_to_actor()
    return agent


def rollout_of(agent: Agent) -> Rollout:
    """Random states, and what the agent does there."""
    generator = torch.Generator().manual_seed(1)
    obs, next_obs = (torch.randn(T, N, D, generator=generator) for _ in range(2))
    action = torch.stack([agent.act(row) for row in obs])
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
    assert (agent.critic is not None) is critic
    assert (agent.action_critic is not None) is action_critic
    judged = agent.judge(rollout_of(agent))
    assert (judged.policy_logp is not None) is ("policy_logp" in columns)
    assert (judged.value is not None) is (judged.next_value is not None) is critic
    assert (judged.q is not None) is (judged.next_q is not None) is action_critic
    assert (judged.score_square is not None) is ("score_square" in columns)
    parts = {name.partition(".")[0] for name in agent.weights()}
    expected = {"policy": True, "critic": critic, "action_critic": action_critic}
    assert parts == {name for name, there in expected.items() if there}


def test_the_action_critic_fits_the_actions():
    assert isinstance(agent_for("discrete").action_critic, DiscreteActionCritic)
    assert isinstance(agent_for("box").action_critic, BoxActionCritic)


def test_a_critic_that_is_not_needed_leaves_the_policy_as_it_is():
    with_critics, alone = agent_for("discrete"), agent_for("discrete", set())
    obs = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    assert torch.equal(with_critics.policy.logits[0].weight, alone.policy.logits[0].weight)
    assert with_critics.policy(obs).logits.shape == (5, 3)


@both
def test_an_example_is_a_minibatch(kind):
    agent = agent_for(kind)
    example, rollout = agent.example(6), rollout_of(agent)
    columns = rollout.obs, rollout.action, rollout.logp
    for ours, column in zip(example, columns, strict=True):
        flat = column.flatten(0, 1)[:6]
        assert (ours.shape, ours.dtype) == (flat.shape, flat.dtype)


# ---------------------------------------------------------------------- acting


@both
def test_actions_are_draws_of_the_policy_from_its_stream(kind):
    agent, again = agent_for(kind), agent_for(kind)
    obs = torch.randn(50, D, generator=torch.Generator().manual_seed(0))
    first = agent.act(obs)
    assert torch.equal(first, again.act(obs))
    assert not torch.equal(first, agent.act(obs))
    assert torch.equal(agent.act_greedily(obs), agent.policy(obs).mode())


@both
def test_loaded_weights_act_and_judge_alike(kind):
    agent, other = agent_for(kind), agent_for(kind, seed=1)
    rollout = rollout_of(agent)
    assert not torch.equal(other.judge(rollout).value, agent.judge(rollout).value)
    other.load_weights({name: weight.clone() for name, weight in agent.weights().items()})
    assert torch.equal(other.act_greedily(rollout.obs), agent.act_greedily(rollout.obs))
    for name in ("policy_logp", "value", "q"):
        column = vars(agent.judge(rollout))[name]
        assert torch.equal(vars(other.judge(rollout))[name], column)


# ---------------------------------------------------------------------- judging


@both
def test_judging_fills_in_its_columns_and_changes_no_other(kind):
    agent = agent_for(kind)
    rollout = rollout_of(agent)
    judged = agent.judge(rollout)
    filled = set(ACTOR_CRITIC_COLUMNS)
    if kind == "box":
        assert judged.policy_q is None
        filled.remove("policy_q")
    for name, column in vars(judged).items():
        if name in filled:
            assert column.shape == (T, N)
            assert not column.requires_grad
            assert vars(rollout)[name] is None
        else:
            assert column is vars(rollout)[name]


@both
def test_values_and_probabilities_are_those_of_their_rows(kind):
    agent = agent_for(kind)
    rollout = rollout_of(agent)
    judged = agent.judge(rollout)
    assert torch.equal(judged.policy_logp, agent.log_prob(rollout.obs, rollout.action))
    for t in range(T):
        for n in range(N):
            obs, action = rollout.obs[t, n], rollout.action[t, n]
            logp = agent.policy(obs).log_prob(action)
            torch.testing.assert_close(judged.policy_logp[t, n], logp)
            torch.testing.assert_close(judged.value[t, n], agent.critic(obs))
            successor = agent.critic(rollout.next_obs[t, n])
            torch.testing.assert_close(judged.next_value[t, n], successor)
            torch.testing.assert_close(judged.q[t, n], agent.action_critic(obs, action))


def test_the_policys_q_is_the_sum_over_all_actions():
    agent = agent_for("discrete")
    rollout = rollout_of(agent)
    judged = agent.judge(rollout)
    for obs, mean in ((rollout.obs, judged.policy_q), (rollout.next_obs, judged.next_q)):
        expected = torch.zeros(T, N)
        for choice in range(3):  # Σ_a π(a|s) Q(s, a)
            action = torch.full((T, N), choice)
            probability = agent.policy(obs).log_prob(action).exp()
            expected += probability * agent.action_critic(obs, action)
        torch.testing.assert_close(mean, expected)


def test_the_next_q_of_a_box_is_that_of_a_drawn_action():
    agent, again = agent_for("box"), agent_for("box")
    rollout = rollout_of(agent)
    rollout_of(again)  # which draws as many actions from the stream
    drawn = again.act(rollout.next_obs)
    expected = again.action_critic(rollout.next_obs, drawn)
    judged = agent.judge(rollout)
    torch.testing.assert_close(judged.next_q, expected)
    assert not torch.equal(agent.judge(rollout).next_q, judged.next_q)  # another draw


@both
def test_the_square_of_the_score_equals_autograd_row_by_row(kind):
    agent = agent_for(kind)
    rollout = rollout_of(agent)
    squares = agent.judge(rollout).score_square
    parameters = [p.requires_grad_(True) for p in agent.policy.parameters()]
    for t in range(T):
        for n in range(N):
            logp = agent.policy(rollout.obs[t, n]).log_prob(rollout.action[t, n])
            score = torch.autograd.grad(logp, parameters)
            expected = sum(gradient.square().sum() for gradient in score)
            torch.testing.assert_close(squares[t, n], expected)


def test_the_square_of_the_score_is_that_of_each_row_beyond_one_chunk():
    agent = agent_for("discrete")
    rollout = rollout_of(agent)
    times = ROWS_AT_ONCE // (T * N) + 2
    long = replace(
        rollout,
        obs=rollout.obs.repeat(times, 1, 1),
        next_obs=rollout.next_obs.repeat(times, 1, 1),
        action=rollout.action.repeat(times, 1),
    )
    assert long.obs.shape[0] * N > ROWS_AT_ONCE
    expected = agent.judge(rollout).score_square.repeat(times, 1)
    torch.testing.assert_close(agent.judge(long).score_square, expected)
