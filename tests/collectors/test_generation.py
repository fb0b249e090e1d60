"""Responses: drawn from what is recorded, judged at their end, the same as step by step."""

import itertools

import pytest
import torch
from languages import actor_of, generator, policy_of, task_of

from rlrun.advantages.temporal import gae
from rlrun.collectors.engines import own
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.generation import Generation, Refill
from rlrun.collectors.sampling import Sampling
from rlrun.collectors.segments import Segments
from rlrun.data.draws import draw
from rlrun.data.rollout import Rollout
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.errors import UserError
from rlrun.runs.language.responses import repeated

AS_IT_IS = Sampling(temperature=1.0, top_k=None, top_p=1.0)
N = 12


def collect(
    task,
    policy,
    *,
    sampling=AS_IT_IS,
    group_size=1,
    refill=None,
    count=N,
    seed=3,
    engine=own,
    bound=2.0,
):
    """What is written to N prompts, and by whom."""
    spec = Generation(
        group_size=group_size,
        sampling=sampling,
        engine=engine,
        truncated_importance=bound,
        refill=refill,
    )
    shape = spec.shape(Problem.of_prompts(task), count)
    collector = spec.open(TokenEnv(task, num_envs=count), shape, seed=seed)
    return collector.collect(actor_of(policy)), collector


# ---------------------------------------------------------------------- sampling


def by_hand(logits: list[float], temperature: float, k: int, p: float) -> list[float]:
    """What tokens are drawn with, by the definitions."""
    scaled = [torch.tensor(each / temperature).exp().item() for each in logits]
    order = sorted(range(len(scaled)), key=lambda token: -scaled[token])[:k]
    total = sum(scaled[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if reached >= p:
            break
        kept.append(token)
        reached += scaled[token] / total
    total = sum(scaled[token] for token in kept)
    return [scaled[token] / total if token in kept else 0.0 for token in range(len(logits))]


@pytest.mark.parametrize(
    ("temperature", "k", "p"), [(1, 5, 1), (0.7, 5, 1), (1.5, 3, 1), (0.8, 4, 0.7)]
)
def test_what_is_drawn_is_what_is_recorded(temperature, k, p):
    logits = [0.3, 2.0, -1.0, 1.2, 0.9]
    sampling = Sampling(temperature=temperature, top_k=k, top_p=p)
    log_probs = sampling.log_probs(torch.tensor(logits))
    expected = torch.tensor(by_hand(logits, temperature, k, p))
    assert torch.allclose(log_probs.exp(), expected, atol=1e-6)
    count = 20_000
    drawn = draw(log_probs.expand(count, -1), torch.rand(count, generator=generator()))
    share = torch.bincount(drawn, minlength=5) / count
    assert torch.allclose(share, expected, atol=0.015)
    assert (share[expected == 0] == 0).all()


def test_a_token_without_probability_is_never_drawn():
    log_probs = torch.tensor([-torch.inf, 0.5, 0.5, -torch.inf]).log_softmax(-1)
    extremes = torch.tensor([0.0, 1 - 2**-24])
    assert draw(log_probs.expand(2, -1), extremes).tolist() == [1, 2]


@pytest.mark.parametrize("sampling", [AS_IT_IS, Sampling(temperature=0.7, top_k=4, top_p=0.9)])
def test_log_mu_is_that_of_the_distribution_that_was_drawn_from(sampling):
    task = task_of("add", digits=3)
    policy = policy_of(task)
    transitions, _ = collect(task, policy, sampling=sampling, bound=None)
    mu = sampling.log_probs(policy(transitions.obs).logits)
    expected = mu.gather(-1, transitions.action.unsqueeze(-1)).squeeze(-1)
    mask = transitions.mask
    assert mask.sum(0).unique().numel() > 1  # some have left the batch before others
    assert torch.allclose(transitions.logp[mask], expected[mask], atol=1e-5)


def test_all_parts_of_what_responses_are_worth_are_logged():
    task = task_of("copy", reward="exact")
    env = TokenEnv(task, num_envs=4)
    prompts = env.encoded(["C12="] * 4)
    answers = [task.vocabulary.encode(text) for text in ("12", "19", "92", "99")]
    tokens = torch.tensor([[*answer, task.language.end] for answer in answers]).T
    verdict = env.judge(prompts.texts, tokens, torch.ones(4, dtype=torch.bool))
    said = {name: float(mean) for name, mean in verdict.metrics("train", task.without).items()}
    assert said == pytest.approx(
        {
            "train/outcome": 1 / 4,
            "train/format": 1.0,
            "train/fraction": (1 + 2 / 3 + 2 / 3 + 1 / 3) / 4,  # the end is a place
            "train/prefix": (1 + 1 / 3) / 4,
            "train/verifier_failed": 0.0,
        }
    )
    several = task_of("countdown")
    responses, _ = collect(several, policy_of(several))
    assert {"train/outcome", "train/format"} <= responses.metrics.keys()
    assert not {"train/fraction", "train/prefix"} & responses.metrics.keys()


# ---------------------------------------------------------------------- what comes of it


@pytest.mark.parametrize("name", ["add", "mod_add", "copy", "brackets"])
def test_responses_are_episodes(name):
    """Same seed, same policy: whole responses are what single steps are."""
    task = task_of(name)
    policy = policy_of(task)
    written, _ = collect(task, policy)
    env = ControlEnv.make(task, num_envs=N, threads=1)
    spec = Episodes(group_size=1)
    played = spec.open(env, spec.shape(Problem.of(task, env), N), seed=3).collect(actor_of(policy))
    assert torch.equal(written.mask, played.mask)
    assert torch.equal(written.action[written.mask], played.action[played.mask])
    assert torch.allclose(written.logp[written.mask], played.logp[played.mask], atol=1e-5)
    for column in ("reward", "terminated", "truncated"):
        assert torch.equal(getattr(written, column), getattr(played, column)), column
    assert written.steps == played.steps


def test_responses_are_segments():
    """The first response of each environment, as far as it fits into the segment."""
    task = task_of("add")
    policy = policy_of(task)
    written, _ = collect(task, policy)
    env = ControlEnv.make(task, num_envs=N, threads=1)
    spec = Segments(horizon=len(written.mask))
    played = spec.open(env, spec.shape(Problem.of(task, env), N), seed=3).collect(actor_of(policy))
    mask = written.mask
    for column in ("action", "reward", "terminated", "truncated"):
        one, other = getattr(written, column), getattr(played, column)
        assert torch.equal(one[mask], other[mask]), column


def test_nothing_follows_a_response_that_is_cut():
    """It is judged as it is; a critic's guess of what would follow would be paid for not ending."""
    task = task_of("add")
    transitions, _ = collect(task, policy_of(task), count=64)
    cut = transitions.truncated
    assert 0 < cut.sum() < transitions.done.sum()
    assert torch.equal(transitions.terminated, transitions.done)
    names = ("obs", "next_obs", "action", "logp", "reward", "terminated", "truncated", "mask")
    ones = torch.ones(cut.shape)
    rollout = Rollout(
        **{name: getattr(transitions, name) for name in names},
        raw_obs=transitions.obs,
        raw_reward=transitions.reward,
        whole_episodes=True,
        group=None,
        columns={"value": ones, "next_value": ones},
    )
    _, target = gae(rollout, gamma=1.0, lam=0.95)
    assert torch.equal(target[cut], transitions.reward[cut])


def test_the_last_token_is_paid():
    task = task_of("add", reward="fraction")
    transitions, _ = collect(task, policy_of(task))
    done = transitions.done
    assert (done.sum(0) == 1).all()
    last = transitions.mask.sum(0) - 1
    assert torch.equal(done.int().argmax(0), last)
    assert (transitions.reward[~done] == 0).all()
    tokens = transitions.action[last, torch.arange(N)]
    assert torch.equal(transitions.truncated[last, torch.arange(N)], tokens != task.language.end)
    assert (last[tokens != task.language.end] == task.time_limit - 1).all()


def test_the_members_of_a_group_have_one_prompt():
    task = task_of("add")
    transitions, collector = collect(task, policy_of(task), group_size=4)
    prompts = transitions.obs.tokens[: transitions.obs.prompt_rows].T.tolist()
    groups = transitions.group[0].tolist()
    for one, other in itertools.combinations(range(N), 2):
        assert (prompts[one] == prompts[other]) is (groups[one] == groups[other])
    assert collector.state_dict() == {"next_seed": 6}


def test_groups_whose_outcomes_tie_are_replaced():
    """By their outcome: rewards for a part of the answer would let noise pass for a difference."""
    task = task_of("mod_add", modulus=2, reward="format")
    refill = Refill(max_refills=20, spread_tolerance=0.0)
    transitions, _ = collect(task, policy_of(task), group_size=4, refill=refill)
    outcomes = transitions.outcome.sum(0).view(3, 4)
    assert (outcomes.amax(1) > outcomes.amin(1)).all()
    assert transitions.metrics["groups/dropped"] > 0
    assert transitions.steps > transitions.mask.sum()
    assert 0 < transitions.metrics["train/outcome"] < 1


def test_a_collector_goes_on_where_its_state_was():
    task = task_of("add")
    policy = policy_of(task)
    _, collector = collect(task, policy)
    state = collector.state_dict()
    actors = [actor_of(policy, seed=5) for _ in range(2)]
    then = collector.collect(actors[0])
    collector.load_state_dict(state)
    again = collector.collect(actors[1])
    assert torch.equal(then.obs.tokens, again.obs.tokens)
    assert torch.equal(then.logp, again.logp)


def test_groups_must_fit():
    with pytest.raises(
        UserError, match=r"num_envs=12 is not a multiple of collector\.group_size=8"
    ):
        collect(task_of("add"), None, group_size=8)
    refill = Refill(max_refills=1, spread_tolerance=0.0)
    with pytest.raises(UserError, match="drops groups without a spread"):
        collect(task_of("add"), None, refill=refill)


# ---------------------------------------------------------------------- prompts


@pytest.mark.parametrize("name", ["add", "copy", "sort", "countdown", "digit_sequence", "parity"])
def test_prompts_of_training_and_of_evaluations_never_meet(name):
    env = TokenEnv(task_of(name, held_out=0.3), num_envs=300)
    trained, held_out = set(env.prompts(range(300)).texts), set(env.held_out_prompts(0).texts)
    assert trained
    assert held_out
    assert not trained & held_out


def test_prompts_end_in_the_last_row():
    env = TokenEnv(task_of("add"), num_envs=20)
    prompts = env.prompts(range(20))
    for n, text in enumerate(prompts.texts):
        shown = env.task.vocabulary.decode(prompts.tokens[prompts.blank[n] :, n].tolist())
        assert shown == text
    assert repeated(prompts, 2).texts[:2] == [prompts.texts[0]] * 2


def test_a_prompt_of_other_characters_or_too_long_is_refused():
    env = TokenEnv(task_of("add"), num_envs=1)
    with pytest.raises(
        UserError, match=r"prompt 'a\+b=': add has no character 'a'; it has 0123456789"
    ):
        env.encoded(["a+b="])
    with pytest.raises(UserError, match="has 8 tokens; a prompt of add has 1 to 6"):
        env.encoded(["123+456="])
    one = TokenEnv(task_of("brackets", held_out=0.001), num_envs=1)
    with pytest.raises(UserError, match="too few prompts to hold some out"):
        one.held_out_prompts(0)
