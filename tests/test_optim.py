import pytest
import torch

from rlrun.optim import AdamState, adam, clip_by_norm


def test_equals_torch_over_twenty_steps():
    generator = torch.Generator().manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(50, generator=generator))
    ours = theirs.detach().clone()
    state = AdamState.zeros_like(ours)
    optimizer = torch.optim.Adam([theirs], lr=1e-2, eps=1e-5)
    for step in range(20):
        # Gradients of very different sizes, where ε and the corrections of the moments matter.
        gradient = torch.randn(50, generator=generator) * 10.0 ** -(step % 6)
        learning_rate = 1e-2 * (1 - step / 20)
        optimizer.param_groups[0]["lr"] = learning_rate
        theirs.grad = gradient.clone()
        optimizer.step()
        ours, state = adam(
            ours, gradient, state, learning_rate=torch.tensor(learning_rate), epsilon=1e-5
        )
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=1e-6)
    assert state.t.item() == 20


def test_the_first_step_by_hand():
    # The corrected moments of the first step are g and g²: θ − α g / (|g| + ε).
    theta, gradient = torch.tensor([1.0, 1.0]), torch.tensor([0.5, -1e-5])
    stepped, _ = adam(
        theta,
        gradient,
        AdamState.zeros_like(theta),
        learning_rate=torch.tensor(0.1),
        epsilon=1e-5,
    )
    # 1 − 0.1·0.5/(0.5 + 1e-5) = 0.900002;  1 + 0.1·1e-5/(2e-5) = 1.05
    assert stepped.tolist() == pytest.approx([0.900002, 1.05], abs=1e-6)


def test_arguments_are_left_as_they_are():
    theta, gradient = torch.ones(3), torch.ones(3)
    state = AdamState.zeros_like(theta)
    adam(theta, gradient, state, learning_rate=torch.tensor(0.1), epsilon=1e-5)
    assert theta.tolist() == gradient.tolist() == [1.0, 1.0, 1.0]
    assert not any(tensor.any() for tensor in state)


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
