import pytest
import torch
from gymnasium import spaces
from torch import nn

from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.problem import Problem
from rlrun.models.actor import Actor
from rlrun.models.bounded_distributions import Box
from rlrun.models.explorers import ActionNoise, EpsilonGreedy, Explorer, NoisyActions, OwnChance
from rlrun.models.networks import (
    CategoricalPolicy,
    DeterministicPolicy,
    GreedyPolicy,
    SquashedGaussianPolicy,
)

BOX = Box(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0]))


def problem(space: spaces.Space) -> Problem:
    return Problem(
        env_id="Tiny-v0", obs_size=3, action_space=space, action_units="raw", time_limit=None
    )


def actor(policy: nn.Module, seed: int = 0) -> Actor:
    as_it_is = ObservationNormalizer(3, clip=torch.inf, enabled=False)
    generator = torch.Generator().manual_seed(seed)
    return Actor(policy, as_it_is, generator, torch.device("cpu"), apart=True)


def q_values() -> GreedyPolicy:
    torch.manual_seed(0)
    return GreedyPolicy(nn.Linear(3, 4))


@torch.no_grad()
def test_epsilon_greedy_takes_each_action_as_often_as_it_says():
    exploration = EpsilonGreedy(0)
    exploration.epsilon = 0.4
    policy = q_values()
    obs = torch.randn(1, 3).expand(20_000, 3)
    action, behaviour = exploration.act(actor(policy), obs)
    wanted = torch.full((4,), 0.1)
    wanted[policy(obs[0]).mode()] = 0.7
    torch.testing.assert_close(action.bincount(minlength=4) / 20_000, wanted, atol=0.02, rtol=0)
    torch.testing.assert_close(behaviour.log_prob(action).exp(), wanted[action])


@torch.no_grad()
def test_without_epsilon_the_best_action_is_taken():
    exploration = EpsilonGreedy(0)
    exploration.epsilon = 0.0
    policy, obs = q_values(), torch.randn(50, 3)
    assert torch.equal(exploration.act(actor(policy), obs)[0], policy(obs).mode())


@torch.no_grad()
def test_noise_follows_its_recursion():
    policy = DeterministicPolicy(nn.Linear(3, 2), BOX.low, BOX.high)
    obs = torch.randn(1, 3)
    settings = ActionNoise(std=0.02, reversion=0.25)
    exploration, one = NoisyActions(settings, BOX, 1), actor(policy)
    generator, noise = torch.Generator().manual_seed(0), torch.zeros(1, 2)
    for _ in range(20):
        action, _ = exploration.act(one, obs)
        drawn = torch.randn(1, 2, generator=generator)
        noise = 0.75 * noise + 0.02 * BOX.scale * drawn
        torch.testing.assert_close(action, BOX.clip(policy(obs).action + noise))
    again = NoisyActions(settings, BOX, 1)
    again.load_state_dict(exploration.state_dict())
    assert torch.equal(again.state_dict()["noise"], exploration.state_dict()["noise"])
    with pytest.raises(ValueError, match="noise of"):
        NoisyActions(settings, BOX, 2).load_state_dict(exploration.state_dict())


@torch.no_grad()
def test_noise_without_memory_is_independent_and_stays_in_the_box():
    policy = DeterministicPolicy(nn.Linear(3, 2), BOX.low, BOX.high)
    nn.init.zeros_(policy.action.weight), nn.init.zeros_(policy.action.bias)
    exploration, one = NoisyActions(ActionNoise(std=0.3, reversion=1.0), BOX, 1), actor(policy)
    actions = torch.cat([exploration.act(one, torch.zeros(1, 3))[0] for _ in range(4000)])
    assert (actions >= BOX.low).all()
    assert (actions <= BOX.high).all()
    torch.testing.assert_close(actions.std(0), 0.3 * BOX.scale, atol=0.02, rtol=0)
    centred = (actions - actions.mean(0)) / actions.std(0)
    assert (centred[1:] * centred[:-1]).mean(0).abs().max() < 0.06


@torch.no_grad()
@pytest.mark.parametrize(
    "space", [spaces.Discrete(4), spaces.Box(BOX.low.numpy(), BOX.high.numpy())]
)
def test_a_cold_explorer_acts_at_random(space):
    discrete = isinstance(space, spaces.Discrete)
    torch.manual_seed(0)
    network = nn.Linear(3, 4)
    policy = (
        CategoricalPolicy(network)
        if discrete
        else SquashedGaussianPolicy(network, BOX.low, BOX.high)
    )
    explorer = Explorer(actor(policy), OwnChance(), problem(space))
    obs = torch.randn(1, 3).expand(8000, 3)
    action, behaviour = explorer.act(obs)
    if discrete:
        assert (action.bincount() / 8000 - 0.25).abs().max() < 0.03
        assert behaviour.log_prob(action).exp()[0].item() == pytest.approx(0.25)
    else:
        torch.testing.assert_close(action.mean(0), BOX.middle, atol=0.05, rtol=0)
        torch.testing.assert_close(action.std(0), 2 * BOX.scale / 12**0.5, atol=0.05, rtol=0)
    explorer.warming_up = False
    warm, behaviour = explorer.act(obs)
    assert type(behaviour) is type(policy(obs))
    assert not torch.equal(action, warm)


@torch.no_grad()
def test_an_explorer_acts_with_what_was_published():
    policy = q_values()
    explorer = Explorer(actor(policy), EpsilonGreedy(0), problem(spaces.Discrete(4)))
    obs = torch.randn(30, 3)
    before = explorer.act_greedily(obs)
    policy.logits.weight.neg_(), policy.logits.bias.neg_()
    assert torch.equal(explorer.act_greedily(obs), before)
    explorer.publish()
    assert torch.equal(explorer.act_greedily(obs), policy(obs).mode())
    assert not torch.equal(explorer.act_greedily(obs), before)
    assert explorer.version == 1
