"""What is to be computed with a policy's tensors, for who has nothing but them."""

from typing import Any

from gymnasium import spaces

from rlrun.models.language.networks import TokenPolicy
from rlrun.models.networks import (
    BoundedPolicy,
    CategoricalPolicy,
    DeterministicPolicy,
    Dueling,
    GaussianPolicy,
    GreedyPolicy,
    SquashedGaussianPolicy,
)
from rlrun.models.noisy import Noisy
from rlrun.models.tables import Table
from rlrun.runs.export.observations import Leaf
from rlrun.runs.export.policy import DeployedPolicy

# From y, which a policy's network returns, to u, an action in the policy's own units.
CHOICES = {
    CategoricalPolicy: "u = the first index of the largest y",
    GreedyPolicy: "u = the first index of the largest y",
    GaussianPolicy: "u = y",
    TokenPolicy: "u = the first index of the largest y",
    SquashedGaussianPolicy: "u = m + s * tanh(the first half of y)",
    DeterministicPolicy: "u = m + s * tanh(y)",
}


# What the tensors of a transformer are for.
DECODER = (
    "y = the logits of the next token, by the decoder of rlrun/models/language/transformer.py: a "
    "Llama-like one, with RMSNorm of epsilon 1e-6, rotary positions of base 10,000 and SwiGLU; "
    "logits = the last token's vector @ embedding.weight.T; a choice of V is a place without token"
)


def describe(policy: DeployedPolicy, facts: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's description as plain values: what it is, and how it computes an action.

    Args:
        policy: whose tensors have the names of its ``state_dict``.
        facts: what it is.
    """
    return {
        **facts,
        "inputs": [describe_input(leaf) for leaf in policy.leaves],
        "computation": computation(policy),
        "modules": {name: type(module).__name__ for name, module in policy.named_modules() if name},
    }


def describe_input(leaf: Leaf) -> dict[str, Any]:
    """Return what an array of an observation is."""
    return {
        "name": leaf.name,
        "space": " ".join(str(leaf.space).split()),
        "dtype": str(leaf.dtype).removeprefix("torch."),
        "shape": list(leaf.shape),
    }


def computation(policy: DeployedPolicy) -> list[str]:
    """Say how an action is computed, a step a line, with the names of the tensors."""
    lines = [
        "x = the inputs in their order, flat, as float32; a choice one-hot, from its first value on"
    ]
    if policy.normalizer is not None:
        clip = policy.normalizer.clip
        lines.append(f"x = clip((x - normalizer.mean) * normalizer.inverse_std, {-clip}, {clip})")
    kinds = {type(module) for module in policy.policy.modules()}
    if TokenPolicy in kinds:
        lines.append(DECODER)
    elif Table in kinds:
        lines.append("y = policy.logits.rows[s], s = (choice 1 * values of 2 + choice 2) * …")
    else:
        lines.append("y = x through the modules of policy in order; Linear: x @ weight.T + bias")
    if Noisy in kinds:
        lines.append("of noisy layers the mean alone: tensors called sigma are not used")
    if Dueling in kinds:
        lines.append("y = y[0] + y[1:] - mean(y[1:])")
    kind = type(policy.policy)
    lines.append(CHOICES.get(kind, f"u = what {kind.__name__} makes of y"))
    if isinstance(policy.policy, BoundedPolicy):
        low, high = policy.policy.low, policy.policy.high
        lines.append(f"where m = (h + l) / 2, s = (h - l) / 2, l = {low}, h = {high}")
    space = policy.action_space
    if isinstance(space, spaces.Discrete):
        lines.append(f"action = u + {int(space.start)}")
    else:
        scaled = "to_env.middle + to_env.scale * u" if policy.to_env.scaled else "u"
        shape = list(space.shape or ())
        lines.append(f"action = clip({scaled}, to_env.low, to_env.high), of shape {shape}")
    return lines
