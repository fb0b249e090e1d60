"""Packed sequences: each token has its place, and what is said of it is what is said unpacked."""

import pytest
import torch
from languages import generator, policy_of, random_sequences, task_of
from running import PLAIN, experiment

from rlrun.algos.preference.imitation import WeightedSteps, likelihood_loss
from rlrun.data.minibatches import all_rows
from rlrun.data.packing import LONGEST_A_ROW, first_fit, pack
from rlrun.runs.setup.assembly import Assembly

TASK = task_of("add", digits=3)
T, N = 5, 9
OBS = random_sequences(TASK, N, T)
ACTION = OBS.tokens[OBS.prompt_rows :]
LENGTHS = torch.tensor([5, 2, 3, 1, 4, 2, 5, 1, 3])
MASK = torch.arange(T)[:, None] < LENGTHS


def test_each_has_a_place_of_its_own():
    lengths = [3, 1, 4, 1, 5, 2, 0]
    places, rows = first_fit(lengths, 6)
    assert rows == 3  # 5 + 1, 4 + 2, 3 + 1
    taken = [
        place + k for place, length in zip(places, lengths, strict=True) for k in range(length)
    ]
    assert len(set(taken)) == len(taken) == sum(lengths)
    for place, length in zip(places, lengths, strict=True):
        assert place % 6 + length <= 6


def test_rows_are_full_of_what_leads_to_the_steps():
    packed = pack(OBS, MASK)
    read = OBS.prompt_rows - OBS.blank + LENGTHS - 1
    assert int((packed.sequence >= 0).sum()) == int(read.sum())
    assert packed.tokens.shape[1] == LONGEST_A_ROW * int(read.max())
    assert packed.tokens.numel() < OBS.tokens.numel()
    for n in range(N):
        own = packed.tokens[packed.sequence == n]
        first = int(OBS.blank[n])
        assert torch.equal(own, OBS.tokens[first : first + int(read[n]), n])


@pytest.mark.parametrize("counts", [MASK, MASK & (torch.arange(N) % 2 == 0)])
@pytest.mark.parametrize("micro_batch", [None, 1])
def test_the_loss_and_its_gradient_are_those_of_padded_sequences(counts, micro_batch):
    policy = policy_of(TASK, micro_batch=micro_batch).requires_grad_(True)
    rows = all_rows(counts)[0]
    weight = torch.rand(len(rows), generator=generator(3))
    action = ACTION.flatten()[rows]

    def loss_and_gradient(obs):
        loss, _ = likelihood_loss(policy, WeightedSteps(obs, action, weight))
        return loss, torch.autograd.grad(loss, list(policy.parameters()))

    loss, gradient = loss_and_gradient(pack(OBS, counts))
    expected, wanted = loss_and_gradient(OBS.rows(rows))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    for got, each in zip(gradient, wanted, strict=True):
        torch.testing.assert_close(got, each, atol=1e-5, rtol=1e-4)


def test_others_in_the_row_are_not_seen():
    policy, packed = policy_of(TASK), pack(OBS, MASK)
    other = torch.where(packed.sequence == 0, packed.tokens, (packed.tokens + 1) % 5)
    first = packed.sequence.flatten()[packed.steps] == 0
    before, after = (
        policy(type(packed)(tokens, packed.sequence, packed.steps)).logits[first]
        for tokens in (packed.tokens, other)
    )
    assert torch.equal(before, after)


def test_sft_takes_the_same_steps():
    def weights(packed: bool):
        words = ("algo=sft", "env=add", *PLAIN, "model.width=16", "algo.num_envs=32")
        assembly = Assembly(experiment([*words, f"algo.packed={packed}", "total_steps=64"]), None)
        collector, algorithm = assembly.open_collector(), assembly.algorithm
        for _ in range(2):
            metrics = algorithm.update(collector.collect(algorithm.author), progress=0.0)
        return algorithm.agent.weights(), metrics["loss/policy"]

    (padded, loss), (packed, other) = weights(False), weights(True)
    torch.testing.assert_close(loss, other, atol=1e-5, rtol=0)
    for name in padded:
        torch.testing.assert_close(padded[name], packed[name], atol=1e-4, rtol=0)
