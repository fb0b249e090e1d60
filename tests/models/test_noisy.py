import math

import torch
from torch import nn

from rlrun.models.networks import Dueling
from rlrun.models.noisy import Noisy


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_without_noise_the_weights_are_their_means():
    plain, x = network(), torch.randn(5, 3)
    torch.testing.assert_close(Noisy(plain, 0.5)(x), plain(x))
    torch.testing.assert_close(Noisy(plain, 0.5)(x, torch.zeros(13)), plain(x))


def test_noise_is_factorised_layer_by_layer():
    plain, x = network(), torch.randn(5, 3)
    noisy = Noisy(plain, 0.5)
    assert noisy.noise_size == 3 + 4 + 4 + 2
    noise = torch.randn(noisy.noise_size)
    f = noise.sign() * noise.abs().sqrt()
    weights, hidden, start = [plain[0], plain[2]], x, 0
    for layer in weights:
        outputs, inputs = layer.weight.shape
        e_in, e_out = f[start : start + inputs], f[start + inputs : start + inputs + outputs]
        start += inputs + outputs
        sigma = 0.5 / math.sqrt(inputs)
        weight = layer.weight + sigma * e_out[:, None] * e_in[None, :]
        hidden = hidden @ weight.T + layer.bias + sigma * e_out
        hidden = hidden.relu() if layer is plain[0] else hidden
    torch.testing.assert_close(noisy(x, noise), hidden)


def test_dueling_advantages_have_mean_zero():
    streams = nn.Linear(3, 5)
    x = torch.randn(6, 3)
    value, advantage = streams(x)[:, :1], streams(x)[:, 1:]
    q = Dueling(streams)(x)
    torch.testing.assert_close(q.mean(-1, keepdim=True), value)
    torch.testing.assert_close(q - value, advantage - advantage.mean(-1, keepdim=True))
