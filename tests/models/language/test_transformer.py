"""The transformer: what is cached, padded, or read in parts, changes nothing."""

from dataclasses import replace

import pytest
import torch
from languages import generator, policy_of, random_sequences, task_of
from tiny import part_of
from torch.nn import functional

from rlrun.data.sequences import Sequences
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.errors import UserError
from rlrun.models.distributions import Categorical
from rlrun.models.language import token_distributions
from rlrun.models.language.caches import distinct
from rlrun.models.language.token_distributions import TokenCategorical

TASK = task_of("add", digits=3)
T = 5


def log_probs(policy, obs):
    """Log π of all tokens at each step, [T, N, V]."""
    return policy(obs).logits.log_softmax(-1)


@pytest.mark.parametrize("blank", [True, False])
def test_reading_token_by_token_is_reading_the_whole(blank):
    policy, obs = policy_of(TASK), random_sequences(TASK, 6, T)
    if not blank:
        obs = replace(obs, blank=torch.zeros_like(obs.blank))
    whole = log_probs(policy, obs)
    prompts, response = obs.tokens[: obs.prompt_rows], obs.tokens[obs.prompt_rows :]
    choice, cache = policy.start(prompts, obs.blank, T)
    for step in range(T):
        assert torch.allclose(choice.logits.log_softmax(-1), whole[step], atol=1e-5)
        if step == 2:  # half of them leave
            stay = torch.tensor([0, 3, 5])
            cache.keep(stay)
            whole, response = whole[:, stay], response[:, stay]
            choice = TokenCategorical(choice.hidden[stay], choice.head)
        choice = policy.go_on(response[step], cache)


def test_padding_above_and_below_changes_nothing():
    policy, obs = policy_of(TASK), random_sequences(TASK, 6, T)
    expected = log_probs(policy, obs)
    # Other tokens where there are none.
    places = torch.arange(len(obs.tokens))[:, None]
    other = torch.where(places < obs.blank, (obs.tokens + 3) % TASK.language.size, obs.tokens)
    assert not torch.equal(other, obs.tokens)
    assert torch.equal(log_probs(policy, replace(obs, tokens=other)), expected)
    # Each alone, without the rows above it, and with rows behind the end.
    for n in range(obs.count):
        first = int(obs.blank[n])
        alone = Sequences(
            obs.tokens[first:, n : n + 1],
            torch.zeros(1, dtype=torch.int64),
            obs.prompt_rows - first,
        )
        got = log_probs(policy, alone.padded(T + 1))[:T, 0]
        assert torch.allclose(got, expected[:, n], atol=1e-5)


@pytest.mark.parametrize("blank", [True, False])
@pytest.mark.parametrize("length", [1, T])
def test_prompts_that_are_alike_are_read_once(length, blank):
    policy, four = policy_of(TASK).requires_grad_(True), random_sequences(TASK, 4, length)
    if not blank:
        four = replace(four, blank=torch.zeros_like(four.blank))
    numbers = torch.tensor([0, 1, 2, 3] * 3)[torch.randperm(12, generator=generator())]
    response = torch.randint(TASK.language.size, (length, 12), generator=generator(5))
    tokens = torch.cat([four.tokens[: four.prompt_rows, numbers], response])
    obs = replace(four, tokens=tokens, blank=four.blank[numbers])
    weight = torch.randn(length, 12, generator=generator(6))
    read: list[int] = []
    hook = policy.reader.decoder.embedding.register_forward_hook(
        lambda module, arguments, output: read.append(output.shape[0] * output.shape[1])
    )

    def logp_and_gradient(obs):
        logp = policy(obs).log_prob(obs.tokens[-length:])
        return logp, torch.autograd.grad((weight[:, : logp.shape[1]] * logp).sum(), parameters)

    parameters = list(policy.parameters())
    together, gradient = logp_and_gradient(obs)
    assert sum(read) == 4 * four.prompt_rows + 12 * (length - 1)
    hook.remove()
    alone = torch.cat(
        [
            policy(obs.columns(torch.tensor([n]))).log_prob(obs.tokens[-length:, n : n + 1])
            for n in range(12)
        ],
        1,
    )
    assert torch.allclose(together, alone, atol=1e-5)
    expected = torch.autograd.grad((weight * alone).sum(), parameters)
    for got, wanted in zip(gradient, expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-4)


def test_later_tokens_are_not_seen():
    policy, obs = policy_of(TASK), random_sequences(TASK, 4, T)
    changed = obs.tokens.clone()
    changed[obs.prompt_rows + 2 :] = 0
    before, after = log_probs(policy, obs), log_probs(policy, replace(obs, tokens=changed))
    assert torch.equal(before[:3], after[:3])
    assert not torch.allclose(before[3:], after[3:])


def test_some_steps_are_those_of_all():
    policy, obs = policy_of(TASK), random_sequences(TASK, 6, T)
    rows = torch.tensor([0, 5, 7, 4, 4, 19])  # step and sequence: t·6 + n
    some = policy(obs.rows(rows))
    assert some.hidden.shape == (6, 16)
    expected = log_probs(policy, obs).flatten(0, 1)[rows]
    assert torch.allclose(some.logits.log_softmax(-1), expected, atol=1e-5)


def test_a_successor_is_the_state_of_the_next_step():
    model = part_of("model", "transformer", width=16, heads=2)
    critic = model.critic(Problem.of_prompts(TASK), generator())
    obs = random_sequences(TASK, 4, T)
    with torch.no_grad():
        critic.head.weight.normal_(generator=generator(1))
        value, after = critic(obs), critic(obs.successors())
    assert value.std() > 0.1
    assert torch.allclose(after[:-1], value[1:], atol=1e-5)


def test_a_single_state_is_a_step_of_its_sequence():
    policy, env = policy_of(TASK), TASK.make_single(render_mode=None)
    obs, _ = env.reset(seed=1)
    seen, written = [obs], []
    for token in (3, 1, 4):
        obs, *_ = env.step(token)
        seen.append(obs)
        written.append(token)
    places = torch.stack([torch.from_numpy(each) for each in seen])
    single = functional.one_hot(places, TASK.language.size + 1).flatten(1).float()
    prompts = TokenEnv(TASK, num_envs=1).prompts([1])
    tokens = torch.cat([prompts.tokens, torch.tensor([*written, 0])[:, None]])
    whole = log_probs(policy, Sequences(tokens, prompts.blank, len(prompts.tokens)))[:, 0]
    assert torch.allclose(policy(single).logits.log_softmax(-1), whole, atol=1e-5)


@pytest.mark.parametrize("most", [2**24, 40])
def test_a_choice_of_tokens_is_a_categorical(most, monkeypatch):
    monkeypatch.setattr(token_distributions, "MOST_LOGITS", most)  # 40: two rows at a time
    hidden, head = (torch.randn(*size, generator=generator()) for size in ((3, 5, 8), (20, 8)))
    hidden, head = hidden.requires_grad_(), head.requires_grad_()
    action = torch.randint(20, (3, 5), generator=generator(1))
    other = TokenCategorical(torch.randn(3, 5, 8, generator=generator(2)), head.detach())
    weight = torch.randn(3, 3, 5, generator=generator(3))

    def measures(distribution, reference):
        logp = distribution.log_prob(action)
        return torch.stack([logp, distribution.entropy(), distribution.kl(reference)])

    lazy = measures(TokenCategorical(hidden, head), other)
    plain = measures(Categorical(hidden @ head.T), Categorical(other.logits))
    assert torch.allclose(lazy, plain, atol=1e-5)
    gradients = [
        torch.autograd.grad((weight * each).sum(), [hidden, head]) for each in (lazy, plain)
    ]
    for got, expected in zip(*gradients, strict=True):
        assert torch.allclose(got, expected, atol=1e-4)
    assert torch.allclose(other.kl_from(other.parameters), torch.zeros(3, 5), atol=1e-5)


def test_entropy_alone():
    distribution = TokenCategorical(torch.randn(4, 8), torch.randn(20, 8))
    expected = torch.distributions.Categorical(logits=distribution.logits).entropy()
    assert torch.allclose(distribution.entropy(), expected, atol=1e-5)


def test_the_width_is_shared_by_the_heads():
    with pytest.raises(UserError, match=r"model\.width must be a multiple of twice the heads"):
        part_of("model", "transformer", width=20, heads=8)


def test_numbers_are_not_read():
    problem = replace(Problem.of_prompts(TASK), language=None, env_id="CartPole-v1")
    model = part_of("model", "transformer")
    with pytest.raises(UserError, match="reads tokens, and CartPole-v1 shows numbers: model=mlp"):
        model.policy(problem, generator())


def test_prompts_are_alike_where_their_tokens_are_and_not_what_stands_above_them():
    prompts = torch.tensor([[0, 1, 2], [5, 1, 2], [0, 1, 2], [4, 1, 2], [0, 1, 2]])
    numbers, place = distinct(prompts, torch.tensor([0, 1, 0, 1, 1]))
    assert numbers.tolist() == [1, 0] or numbers.tolist() == [0, 1]
    assert [numbers[kind].item() for kind in place] == [0, 1, 0, 1, 1]


def test_gradients_are_the_same_each_time_with_several_threads():
    """They are summed over the responses to a prompt in one order, whichever thread is first."""
    task = task_of("copy", shortest=3, longest=3)
    policy, env = policy_of(task, width=128), TokenEnv(task, num_envs=512)
    policy.requires_grad_(True)
    seeds = torch.arange(512)[torch.randperm(512, generator=generator())] // 8
    prompts = env.prompts(seeds.tolist())
    tokens = torch.randint(task.language.size, (T, 512), generator=generator(1))
    obs = Sequences(torch.cat([prompts.tokens, tokens]), prompts.blank, len(prompts.tokens))

    direction = torch.randn(T, 512, task.language.size, generator=generator(2))

    def gradient() -> torch.Tensor:
        policy.zero_grad()
        (log_probs(policy, obs) * direction).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in policy.parameters()])

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(10))
    finally:
        torch.set_num_threads(threads)
