"""A reference policy sees observations through its own normaliser, not through the run's."""

import copy
from typing import Any

import pytest
import torch
from tiny import Corridor, control, learn, problem_of, set_up, small_model, yaml_of
from torch import Tensor

from rlrun.models.reference import Reference

CPU = torch.device("cpu")
MEAN, STD, CLIP = 1.5, 0.5, 1.2
# A model as a run's config.yaml has it, and its weights.
MODEL = {**yaml_of("model", "mlp"), "hidden_sizes": [8]}


def reference_policy(problem, *, normalized: bool) -> tuple[Reference, Any]:
    """A frozen policy whose statistics are far from those of any run here, and its network."""
    generator = torch.Generator().manual_seed(7)
    policy = small_model().policy(problem, generator)
    for weight in policy.parameters():  # so that it makes a difference what it looks at
        weight.data.normal_(generator=generator)
    reference = Reference(problem, CPU)
    size = problem.obs_size
    moments = {
        "mean": torch.full((size,), MEAN, dtype=torch.float64),
        "variance": torch.full((size,), STD**2, dtype=torch.float64),
        "count": 1000,
    }
    reference.load_state_dict(
        {
            "model": MODEL,
            "clip": CLIP,
            "normalized": normalized,
            "weights": policy.state_dict(),
            "observation_normalizer": moments,
        }
    )
    return reference, policy.requires_grad_(False)


def kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL(π ‖ π_ref) of categorical distributions, [...]."""
    log_p, log_q = logits.log_softmax(-1), other.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("algo", ["rloo", "grpo", "gspo"])
def test_each_policy_sees_observations_through_its_own_normalizer(algo, normalized):
    env = control(Corridor, 4)
    reference, network = reference_policy(problem_of(env), normalized=normalized)
    algorithm, collector = set_up(
        env,
        algo,
        group_size=2,
        load_policy=lambda path, device: reference,
        **{"kl.reference": "elsewhere"},
    )
    learn(algorithm, collector, iterations=2)  # so that the run's statistics are some, too
    agent = algorithm.agent
    before = copy.deepcopy(agent.observation_normalizer)
    transitions = collector.collect(agent.actor)
    with torch.no_grad():
        own = agent.networks.policy(before(transitions.obs)).logits
    seen = ((transitions.obs - MEAN) / STD).clamp(-CLIP, CLIP) if normalized else transitions.obs
    expected = kl(own, network(seen).logits)[transitions.mask].mean()
    through_ours = kl(own, network(before(transitions.obs)).logits)[transitions.mask].mean()
    assert abs(expected - through_ours) > 0.01  # it makes a difference

    metrics = algorithm.update(transitions, progress=0.0)

    torch.testing.assert_close(metrics["policy/reference_kl"], expected, rtol=1e-5, atol=1e-6)


def test_what_a_run_sees_does_not_move_the_references_statistics():
    env = control(Corridor, 4)
    reference, _ = reference_policy(problem_of(env), normalized=True)
    algorithm, collector = set_up(
        env,
        "grpo",
        group_size=2,
        load_policy=lambda path, device: reference,
        **{"kl.reference": "elsewhere"},
    )
    before = copy.deepcopy(reference.state_dict()["observation_normalizer"])
    learn(algorithm, collector, iterations=3)
    after = reference.state_dict()["observation_normalizer"]
    assert algorithm.agent.observation_normalizer.moments.count > 0
    assert after["count"] == before["count"]
    assert torch.equal(after["mean"], before["mean"])
    assert torch.equal(after["variance"], before["variance"])
