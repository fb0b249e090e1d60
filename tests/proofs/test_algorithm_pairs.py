"""The expected gradient of each algorithm with each estimator, as its optimiser gets it."""

from typing import Any

import pytest
import tabular_mdp as mdp
import torch
from one_update import Case, ascent, set_up, side_by_side
from tabular_mdp import LOGITS, true_critic, wrong_critic
from tiny import algorithms
from torch import Tensor

from rlrun import loops
from rlrun.collectors.contract import Actor
from rlrun.collectors.dynamic_sampling import DynamicSamplingCollector
from rlrun.config.files import conf_directory
from rlrun.data.rollout import RolloutShape, Transitions
from rlrun.errors import UserError

# Their loss is a mean over a given number of rows: 1/T of the gradient, if episodes have T steps.
OVER_ROWS = ["a2c", "actor_critic_q", "actor_critic_td", "ppo", "ppo_kl", "trpo"]
# Theirs is an aggregate of episodes, which may differ in length.
OVER_EPISODES = ["cispo", "dapo", "grpo", "gspo", "reinforce", "rloo"]
ALL = OVER_ROWS + OVER_EPISODES
WITHOUT_CRITIC = ["cispo", "dapo", "grpo", "gspo", "rloo"]

# Discounted from step t: unbiased, if steps are weighed with γ^t.
FROM_THE_STEP = {
    "reward_to_go": Case("reward_to_go"),
    "baseline_constant": Case("baseline_constant", size=2),
    "baseline_optimal": Case("baseline_optimal", size=2),
    "time_group": Case("time_group", size=2, grouped=True),
    "baseline_value, V wrong": Case("baseline_value", critic=wrong_critic),
    "gae of lambda 1, V wrong": Case("gae", {"lam": 1.0}, critic=wrong_critic),
    "gae": Case("gae", critic=true_critic),
    "nstep to the end, V wrong": Case("nstep", critic=wrong_critic),
    "nstep of 2": Case("nstep", {"n": 2}, critic=true_critic),
    "td": Case("td", critic=true_critic),
    "vtrace, V wrong": Case("vtrace", critic=wrong_critic),
    "q_value": Case("q_value", critic=true_critic),
    "advantage_q": Case("advantage_q", critic=true_critic),
    "advantage_q, policy_mean": Case(
        "advantage_q", {"baseline": "policy_mean"}, critic=true_critic
    ),
}
# Discounted from the start: unbiased as they are, dr_grpo but for (K − 1)/K.
RLOO = Case("rloo", size=2, grouped=True)
DR_GRPO = Case("dr_grpo", size=2, grouped=True, scale=1 / 2)
FROM_THE_START = {"total_return": Case("total_return"), "rloo": RLOO, "dr_grpo": DR_GRPO}
BIASED = {
    "grpo": Case("grpo", size=2, grouped=True),
    "reinforce_pp": Case("reinforce_pp", size=2),
    "reinforce_pp, group": Case("reinforce_pp", {"baseline": "group"}, size=2, grouped=True),
    "gae, V wrong": Case("gae", {"lam": 0.5}, critic=wrong_critic),
    "nstep of 2, V wrong": Case("nstep", {"n": 2}, critic=wrong_critic),
    "td, V wrong": Case("td", critic=wrong_critic),
    "q_value, Q wrong": Case("q_value", critic=wrong_critic),
    "advantage_q, Q wrong": Case("advantage_q", critic=wrong_critic),
}


def pairs(cases: dict[str, Case], algorithms: list[str] = ALL) -> pytest.MarkDecorator:
    """All algorithms with the estimators that they can use."""
    return pytest.mark.parametrize(
        ("algo", "case"),
        [
            pytest.param(algo, case, id=f"{algo}-{name}")
            for algo in algorithms
            for name, case in cases.items()
            if case.critic is None or algo not in WITHOUT_CRITIC
        ],
    )


@pytest.fixture(autouse=True)
def double():
    """Networks in double precision; `step_weights` rounds to float32 all the same."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(ours: Tensor, known: Tensor) -> None:
    torch.testing.assert_close(ours, known, rtol=1e-6, atol=1e-6)


def assert_differ(ours: Tensor, known: Tensor) -> None:
    assert (ours - known).abs().max() > 0.02


def process(algo: str) -> tuple[Tensor, float]:
    """The decision process that an algorithm is tried on, and what its loss makes of a sum."""
    return (mdp.ENDLESS, 1 / mdp.HORIZON) if algo in OVER_ROWS else (mdp.TRANSITION, 1.0)


def expected(algo: str, case: Case, transition: Tensor, gamma: float = 1.0, **changes) -> Tensor:
    """What an algorithm expects to ascend, [S, A]."""
    episodes = case.episodes(transition)
    transitions = side_by_side(episodes)
    algorithm = set_up(
        algo,
        case,
        transitions.mask.shape[1],
        critic=case.values(gamma, transition),
        often=len(episodes.chance) * episodes.probability(LOGITS),
        gamma=gamma,
        **changes,
    )
    return ascent(algorithm, transitions)


def known_sum(
    case: Case, transition: Tensor, gamma: float = 1.0, *, by_length: bool = False
) -> Tensor:
    """E[(1/N) Σ_i Σ_t Ψ ∇ log π], the part of each episode divided by its length or not, [S, A]."""
    episodes, critic = case.episodes(transition), case.values(gamma, transition)
    advantage, _ = mdp.judge(case.estimator(), episodes, gamma=gamma, critic=critic)
    if by_length:
        advantage = advantage / episodes.mask.sum(1, keepdim=True)
    each = mdp.gradients(advantage, episodes, gamma=gamma, weigh_states=False)
    return torch.einsum("b,bsa->sa", episodes.probability(LOGITS), each)


# ---------------------------------------------------------------------- the gradient


@pairs(FROM_THE_STEP | FROM_THE_START)
def test_unbiased_pairs_expect_the_gradient(algo, case):
    transition, scale = process(algo)
    truth = mdp.true_gradient(1.0, transition=transition)
    assert_same(expected(algo, case, transition), scale * case.scale * truth)


@pairs(FROM_THE_START)
def test_returns_from_the_start_need_no_other_discount(algo, case):
    transition, scale = process(algo)
    truth = mdp.true_gradient(0.8, transition=transition)
    assert_same(expected(algo, case, transition, 0.8), scale * case.scale * truth)


@pytest.mark.parametrize("algo", OVER_ROWS)
def test_padding_has_no_part_in_a_mean_over_rows(algo):
    mask = RLOO.episodes(mdp.TRANSITION).mask
    ours = expected(algo, RLOO, mdp.TRANSITION, minibatch_size=mask.numel())
    assert_same(ours * mask.sum() / mask.any(1).sum(), mdp.true_gradient(1.0))


@pairs(FROM_THE_STEP, ["reinforce"])
def test_discounted_states_make_the_others_exact(algo, case):
    ours = expected(algo, case, mdp.TRANSITION, 0.8, discount_states=True)
    assert_same(ours, mdp.true_gradient(0.8))


# ---------------------------------------------------------------------- not the gradient


@pairs(BIASED)
def test_an_algorithm_adds_nothing_to_the_bias_of_its_estimator(algo, case):
    transition, scale = process(algo)
    known = known_sum(case, transition)
    assert_same(expected(algo, case, transition), scale * known)
    assert_differ(known, mdp.true_gradient(1.0, transition=transition))


@pairs({"reward_to_go": Case("reward_to_go")})
def test_without_the_factor_the_discounted_gradient_is_another(algo, case):
    # Practice drops γ^t (systems.md, R20).
    transition, scale = process(algo)
    known = known_sum(case, transition, 0.8)
    assert_same(expected(algo, case, transition, 0.8), scale * known)
    assert_differ(known, mdp.true_gradient(0.8, transition=transition))


@pairs(FROM_THE_START, ["reinforce"])
def test_discounted_states_discount_returns_from_the_start_twice(algo, case):
    # E[γ^t R ∇ log π_t] = E[γ^2t G_t ∇ log π_t].
    ours = expected(algo, case, mdp.TRANSITION, 0.8, discount_states=True)
    to_go = Case("reward_to_go")
    episodes, critic = to_go.episodes(mdp.TRANSITION), true_critic(0.8)
    returns, _ = mdp.judge(to_go.estimator(), episodes, gamma=0.8, critic=critic)
    each = mdp.gradients(returns, episodes, gamma=0.8**2)
    known = torch.einsum("b,bsa->sa", episodes.probability(LOGITS), each)
    assert_same(ours, case.scale * known)
    assert_differ(known, mdp.true_gradient(0.8))


# ---------------------------------------------------------------------- aggregation and sampling


@pytest.mark.parametrize("algo", OVER_EPISODES)
def test_which_aggregations_only_scale_the_gradient(algo):
    # A constant does. The mean over all steps does if episodes are equally long.
    for aggregation, transition in (
        ("episode_mean_step_norm", mdp.TRANSITION),
        ("step_mean", mdp.ENDLESS),
    ):
        truth = mdp.true_gradient(1.0, transition=transition)
        ours = expected(algo, RLOO, transition, aggregation=aggregation)
        assert_same(ours, truth / mdp.HORIZON)


@pytest.mark.parametrize("algo", OVER_EPISODES)
def test_a_mean_over_the_steps_of_each_episode_biases(algo):
    # What GRPO and GSPO do: steps of long episodes count less. In GSPO it is the gradient of the
    # geometric mean of the steps' ratios.
    ours = expected(algo, RLOO, mdp.TRANSITION, aggregation="episode_mean_step_mean")
    known = known_sum(RLOO, mdp.TRANSITION, by_length=True)
    assert_same(ours, known)
    cosine = torch.cosine_similarity(known.flatten(), mdp.true_gradient(1.0).flatten(), dim=0)
    assert cosine < 0.999


class Played:
    """A collector whose episodes are there already."""

    def __init__(self, transitions: Transitions):
        self.transitions = transitions

    def collect(self, actor: Actor) -> Transitions:
        return self.transitions

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize(
    ("case", "gamma", "exact"),
    [
        pytest.param(RLOO, 1.0, True, id="rloo"),
        pytest.param(DR_GRPO, 1.0, True, id="dr_grpo"),
        pytest.param(RLOO, 0.8, False, id="rloo, discounted"),
        pytest.param(FROM_THE_STEP["time_group"], 1.0, False, id="time_group"),
        pytest.param(Case("total_return", size=2, grouped=True), 1.0, False, id="total_return"),
    ],
)
def test_dynamic_sampling_may_drop_groups_only_if_they_have_no_gradient(case, gamma, exact):
    # Played until there is a spread: E[g | spread] = E[g 1{spread}] / P(spread), which is the
    # gradient over P(spread) where groups of equal rewards have no advantage at any step.
    episodes = case.episodes(mdp.TRANSITION)
    played = side_by_side(episodes)
    returns = played.reward.sum(0).view(-1, 2)
    spread = returns[:, 0] != returns[:, 1]
    probability = episodes.probability(LOGITS)[spread]
    kept = 2 * int(spread.sum())
    algorithm = set_up(
        "dapo",
        case,
        kept,
        critic=true_critic(gamma),
        often=spread.sum() * probability / probability.sum(),
        gamma=gamma,
        episodes_per_minibatch=kept,
    )
    shape = RolloutShape(
        num_envs=played.mask.shape[1], longest=mdp.HORIZON, whole_episodes=True, group_size=2
    )
    collector = DynamicSamplingCollector(Played(played), shape, max_refills=0, spread_tolerance=0.0)
    sampled = collector.collect(algorithm.agent.actor)
    assert sampled.mask.shape[1] == kept < shape.num_envs
    ours = ascent(algorithm, sampled)
    known = case.scale * mdp.true_gradient(gamma) / probability.sum()
    difference = (ours - known).abs().max()
    assert difference < 1e-6 if exact else difference > 0.005


# ---------------------------------------------------------------------- are these all


def test_every_algorithm_and_estimator_has_its_place():
    cases = [*FROM_THE_STEP.values(), *FROM_THE_START.values(), *BIASED.values()]
    assert set(algorithms(loops.on_policy)) == set(ALL)
    estimators = {path.stem for path in (conf_directory() / "advantage").glob("*.yaml")}
    assert estimators == {case.advantage for case in cases}


@pytest.mark.parametrize("algo", WITHOUT_CRITIC)
def test_an_algorithm_without_a_critic_refuses_the_other_estimators(algo):
    for case in FROM_THE_STEP.values():
        if case.critic is not None:
            with pytest.raises(UserError, match="which this algorithm has not"):
                set_up(algo, case, 4)
