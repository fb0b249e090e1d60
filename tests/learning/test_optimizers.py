from dataclasses import replace

import pytest
import torch

from rlrun.config.schema import check_arguments
from rlrun.errors import UserError
from rlrun.learning.optimizers import Adam, RMSprop, clip_by_norm

# What a step does not depend on.
OTHERS = {"learning_rate": 1e-3, "anneal_learning_rate": True, "max_grad_norm": 0.5}
OURS = {
    "adam": Adam(epsilon=1e-5, **OTHERS),
    "adam_other_betas": Adam(epsilon=1e-8, beta1=0.5, beta2=0.99, **OTHERS),
    "rmsprop": RMSprop(alpha=0.99, epsilon=1e-5, **OTHERS),
    "rmsprop_other_alpha": RMSprop(alpha=0.9, epsilon=1e-2, **OTHERS),
}


def torchs(ours, parameter):
    """Torch's optimiser with the same constants."""
    if isinstance(ours, Adam):
        betas = (ours.beta1, ours.beta2)
        return torch.optim.Adam([parameter], betas=betas, eps=ours.epsilon)
    return torch.optim.RMSprop([parameter], alpha=ours.alpha, eps=ours.epsilon)


@pytest.mark.parametrize("ours", OURS.values(), ids=OURS)
def test_equals_torch_over_twenty_steps(ours):
    generator = torch.Generator().manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(50, generator=generator))
    theta = theirs.detach().clone()
    state, optimizer = ours.start(theta), torchs(ours, theirs)
    for step in range(20):
        # Gradients of very different sizes, where ε and the corrections of the moments matter.
        gradient = torch.randn(50, generator=generator) * 10.0 ** -(step % 6)
        learning_rate = 1e-2 * (1 - step / 20)
        optimizer.param_groups[0]["lr"] = learning_rate
        theirs.grad = gradient.clone()
        optimizer.step()
        rate = torch.tensor(learning_rate)
        theta, state = ours.step(theta, gradient, state, learning_rate=rate)
        torch.testing.assert_close(theta, theirs.detach(), atol=1e-6, rtol=1e-6)


# With θ = (1, 1) and g = (0.5, −1e-5), α = 0.1 and ε = 1e-5:
@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        # The corrected moments of the first step are g and g²: θ − α g / (|g| + ε).
        # 1 − 0.1·0.5/(0.5 + 1e-5) = 0.900002;  1 + 0.1·1e-5/(2e-5) = 1.05
        (Adam(epsilon=1e-5, **OTHERS), [0.900002, 1.05]),
        # v = 0.25 g², so that its root is |g|/2: 1 − 0.1·0.5/(0.25 + 1e-5) = 0.800008;
        # 1 + 0.1·1e-5/(1.5e-5) = 1.066667
        (RMSprop(alpha=0.75, epsilon=1e-5, **OTHERS), [0.800008, 1.066667]),
    ],
    ids=["adam", "rmsprop"],
)
def test_the_first_step_by_hand(ours, expected):
    theta, gradient = torch.tensor([1.0, 1.0]), torch.tensor([0.5, -1e-5])
    rate = torch.tensor(0.1)
    stepped, _ = ours.step(theta, gradient, ours.start(theta), learning_rate=rate)
    assert stepped.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("ours", OURS.values(), ids=OURS)
def test_arguments_are_left_as_they_are(ours):
    theta, gradient = torch.ones(3), torch.ones(3)
    state = ours.start(theta)
    new_theta, new_state = ours.step(theta, gradient, state, learning_rate=torch.tensor(0.1))
    assert theta.tolist() == gradient.tolist() == [1.0, 1.0, 1.0]
    assert not any(tensor.any() for tensor in state)
    assert (new_theta != theta).all()
    assert all(tensor.all() for tensor in new_state)


def test_adam_counts_its_steps():
    ours, theta = Adam(epsilon=1e-5, **OTHERS), torch.ones(3)
    state = ours.start(theta)
    for _ in range(4):
        _, state = ours.step(theta, theta, state, learning_rate=torch.tensor(0.1))
    assert state.t.item() == 4


@pytest.mark.parametrize(
    ("optimizer", "setting"), [(Adam, "beta1"), (Adam, "beta2"), (RMSprop, "alpha")]
)
def test_a_decay_of_one_is_refused(optimizer, setting):
    needed = {"alpha": 0.99} if optimizer is RMSprop else {}
    values = {**OTHERS, **needed, "epsilon": 1e-5}
    assert check_arguments(optimizer, {**values, setting: 0}, "algo.optimizer")[setting] == 0
    for value in (1, 1.5, -0.1):
        with pytest.raises(UserError, match=rf"optimizer\.{setting} must be in \[0, 1\), got"):
            check_arguments(optimizer, {**values, setting: value}, "algo.optimizer")


@pytest.mark.parametrize("size", [0.0, 1e-3, 0.4999, 0.5, 3.0, 1e6])
def test_clip_equals_torchs(size):
    gradient = torch.randn(50, generator=torch.Generator().manual_seed(0))
    gradient *= size / gradient.norm()
    parameter = torch.nn.Parameter(torch.zeros(50))
    parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    clipped = clip_by_norm(gradient, 0.5)
    torch.testing.assert_close(clipped, parameter.grad)
    assert clipped.norm().item() == pytest.approx(min(size, 0.5), rel=1e-4)


@pytest.mark.parametrize("ours", [OURS["adam"], OURS["rmsprop"]], ids=["adam", "rmsprop"])
def test_the_rate_falls_linearly_to_zero_if_it_falls(ours):
    steady = replace(ours, anneal_learning_rate=False)
    for progress in (0.0, 0.25, 1.0):
        assert ours.rate(progress) == pytest.approx(1e-3 * (1 - progress))
        assert steady.rate(progress) == 1e-3
