"""The unified view: the gradient of each loss is Σ GC ∇ log π, with the coefficients it states."""

import pytest
import torch
from languages import generator, policy_of, random_sequences, task_of
from tiny import part_of

from rlrun.algos.groups.episode_update import EpisodeBatch
from rlrun.algos.policy_gradient.actor_critic_update import PolicyBatch
from rlrun.algos.preference.imitation import WeightedSteps, likelihood_loss
from rlrun.algos.preference.pairs import PairBatch, best_and_worst
from rlrun.learning.losses.aggregation import step_weights

TASK = task_of("add")
T, N = 4, 6
LENGTHS = torch.tensor([4, 2, 3, 1, 4, 2])
MASK = torch.arange(T)[:, None] < LENGTHS
OBS = random_sequences(TASK, N, T)
ACTION = torch.randint(TASK.language.size, (T, N), generator=generator(3))
ADVANTAGE = torch.randn(N, generator=generator(5)).expand(T, N)
MEAN_OF_MEANS = MASK / (N * LENGTHS)


def policy():
    return policy_of(TASK).requires_grad_(True)


def gradient(loss, network):
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, network.parameters())])


def expected(coefficient, weight):
    """−Σ w GC ∇ log π, of coefficients that are numbers."""
    network = policy()
    logp = network(OBS).log_prob(ACTION)
    return gradient(-(weight * coefficient.detach() * logp).sum(), network)


def logp_now():
    with torch.no_grad():
        return policy()(OBS).log_prob(ACTION)


def reference_logp():
    return logp_now() + 0.5 * torch.randn(T, N, generator=generator(7))


def assert_gradient(loss, network, coefficient, weight):
    got, wanted = gradient(loss, network), expected(coefficient, weight)
    assert wanted.norm() > 1e-3
    assert torch.allclose(got, wanted, atol=1e-5)


def episode_batch():
    beta = torch.full((T, N), 0.3)
    return EpisodeBatch(OBS, ACTION, logp_now(), ADVANTAGE, MEAN_OF_MEANS, reference_logp(), beta)


def group_algorithm(name, **changes):
    algorithm = (
        part_of("algo", name, reference="/run", **changes) if changes else part_of("algo", name)
    )
    algorithm.entropy_coefficient = 0.0
    return algorithm


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "rloo", "cispo"])
def test_groups(name):
    """GC = A, and with GRPO's penalty A + β (π_ref/π_θ − 1)."""
    batch, network = episode_batch(), policy()
    coefficient = batch.advantage
    if name == "grpo":
        algorithm = group_algorithm("grpo", **{"kl.coefficient": 0.3})
        ratio = (batch.reference_logp - batch.logp).exp()
        coefficient = coefficient + 0.3 * (ratio - 1)
    else:
        algorithm = group_algorithm(name)
    weight = MEAN_OF_MEANS
    loss, _ = algorithm.policy_loss(network, batch)
    assert_gradient(loss, network, coefficient, weight)


@pytest.mark.parametrize("name", ["grpo", "gspo", "rloo", "cispo"])
def test_a_penalty_of_k2(name):
    """GC = A − β log π_θ/π_ref: the gradient of KL(π_θ ‖ π_ref)."""
    batch, network = episode_batch(), policy()
    algorithm = group_algorithm(name, **{"kl.estimator": "k2", "kl.place": "loss"})
    loss, _ = algorithm.policy_loss(network, batch)
    coefficient = ADVANTAGE - batch.kl_coefficient * (batch.logp - batch.reference_logp)
    assert_gradient(loss, network, coefficient, MEAN_OF_MEANS)


def test_cispo_far_from_the_policy_that_wrote():
    """GC = clip(ρ, 1 − ε_low, 1 + ε_high) A, for every token."""
    algorithm = group_algorithm("cispo")
    algorithm.clip_low, algorithm.clip_high = 0.1, 0.2
    network, batch = policy(), episode_batch()
    batch = batch._replace(logp=batch.logp + 0.3 * torch.randn(T, N, generator=generator(9)))
    ratio = (logp_now() - batch.logp).exp()
    assert (ratio > 1.2).any()
    assert (ratio < 0.9).any()
    loss, _ = algorithm.policy_loss(network, batch)
    assert_gradient(loss, network, ratio.clamp(0.9, 1.2) * ADVANTAGE, MEAN_OF_MEANS)


def test_ppo():
    """GC = A_t."""
    algorithm, network = part_of("algo", "ppo", normalize_advantage=False), policy()
    rows = MASK.flatten().nonzero().squeeze(-1)
    columns = (ACTION, logp_now(), ADVANTAGE, torch.ones(T, N))
    batch = PolicyBatch(OBS.rows(rows), *(column.flatten()[rows] for column in columns))
    loss, _ = algorithm.policy_loss(network, batch)
    assert_gradient(loss, network, ADVANTAGE, MASK / MASK.sum())


@pytest.mark.parametrize("coefficient", [torch.ones(T, N), (ADVANTAGE > 0).float()])
def test_imitation(coefficient):
    """GC = 1, for what is imitated: all answers (SFT), or those that are right (RFT)."""
    network, weight = policy(), step_weights(MASK, "step_mean", longest=T)
    rows = (MASK & (coefficient != 0)).flatten().nonzero().squeeze(-1)
    columns = (ACTION, weight * coefficient)
    batch = WeightedSteps(OBS.rows(rows), *(column.flatten()[rows] for column in columns))
    loss, _ = likelihood_loss(network, batch)
    assert_gradient(loss, network, coefficient, weight)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo"])
def test_pairs(name, normalized):
    """GC = β (σ(−β Δ) − ε), or 2 (1/(2β) − Δ), with + for the better response."""
    smoothing = 0.2 if name == "cdpo" else 0.0
    changes = {} if name == "ipo" else {"label_smoothing": smoothing}
    kind = "ipo" if name == "ipo" else "dpo"
    algorithm = part_of("algo", kind, beta=0.4, length_normalized=normalized, **changes)
    reference, network = reference_logp(), policy()
    loss, metrics = algorithm.policy_loss(network, PairBatch(OBS, ACTION, MASK, reference))
    scale = 1 / LENGTHS if normalized else torch.ones(N)
    better, worse = (scale * (MASK * (logp_now() - reference)).sum(0)).chunk(2)
    delta = better - worse
    slope = (
        2 * (1 / 0.8 - delta) if name == "ipo" else 0.4 * (torch.sigmoid(-0.4 * delta) - smoothing)
    )
    coefficient = torch.cat([slope, -slope]) * scale
    assert_gradient(loss, network, coefficient.expand(T, N), MASK / (N / 2))
    assert torch.isclose(metrics["pairs/accuracy"], (delta > 0).float().mean())


def test_distillation():
    """E_a[GC ∇ log π] with GC = log π_T − log π."""
    algorithm, network = part_of("algo", "distill"), policy()
    algorithm.teacher = policy_of(TASK, seed=1)
    weight = step_weights(MASK, "step_mean", longest=T)
    rows = MASK.flatten().nonzero().squeeze(-1)
    batch = WeightedSteps(OBS.rows(rows), ACTION.flatten()[rows], weight.flatten()[rows])
    loss, _ = algorithm.policy_loss(network, batch)
    got = gradient(loss, network)
    network = policy()
    log_pi = network(OBS).logits.log_softmax(-1)
    log_teacher = algorithm.teacher(OBS).logits.log_softmax(-1)
    coefficient = (log_teacher - log_pi).detach()
    mean = (log_pi.exp().detach() * coefficient * log_pi).sum(-1)
    assert torch.allclose(got, gradient(-(weight * mean).sum(), network), atol=1e-5)


def test_a_pair_is_the_best_and_the_worst_of_a_group_that_has_both():
    returns = torch.tensor([0.0, 1.0, 0.5, 0.2, 0.2, 0.2, 0.3, 0.1, 0.9])
    reward = torch.zeros(2, 9)
    reward[1] = returns
    mask = torch.ones(2, 9, dtype=torch.bool)
    assert best_and_worst(reward, mask, 3).tolist() == [[1, 8], [0, 7]]
