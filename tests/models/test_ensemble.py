from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from rlrun.models.ensemble import Ensemble
from rlrun.models.flat_parameters import FlatParameters


def members(count: int = 3) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)) for _ in range(count)]


def test_an_ensemble_is_its_members_side_by_side():
    networks, x = members(), torch.randn(7, 4)
    together = Ensemble(networks)(x)
    assert together.shape == (3, 7, 2)
    for network, output in zip(networks, together, strict=True):
        torch.testing.assert_close(output, network(x))


def test_the_first_members_alone():
    networks, x = members(), torch.randn(7, 4)
    ensemble = Ensemble(networks)
    torch.testing.assert_close(ensemble(x, first=2), ensemble(x)[:2])
    assert operations(lambda: ensemble(x)) == 3 * operations(lambda: ensemble(x, first=1)) > 0


def operations(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_weights_of_an_ensemble_are_its_own():
    networks, x = members(), torch.randn(7, 4)
    ensemble = Ensemble(networks)
    before = ensemble(x)
    with torch.no_grad():
        networks[0][0].weight.zero_()
    assert torch.equal(ensemble(x), before)


def test_an_ensemble_is_a_function_of_one_vector():
    ensemble, x = Ensemble(members()), torch.randn(7, 4)
    wanted = ensemble(x)
    parameters = FlatParameters(ensemble)
    named = parameters.unflatten(parameters.vector)
    torch.testing.assert_close(functional_call(ensemble, named, (x,)), wanted)
    doubled = parameters.unflatten(2 * parameters.vector)
    assert not torch.equal(functional_call(ensemble, doubled, (x,)), wanted)
    parameters.vector.zero_()
    assert torch.equal(ensemble(x), torch.zeros(3, 7, 2))
