"""A policy from raw observations to actions: what training computes, as a module and as a graph.

Policies of every algorithm, found by globbing, whose weights and statistics are random numbers.
"""

import functools
import json
import re

import gymnasium as gym
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array
from running import experiment
from tiny import algorithms
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from rlrun import loops
from rlrun.data.normalize import ObservationNormalizer
from rlrun.envs.control import ControlEnv
from rlrun.envs.flatten import flatten_batch
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.models.networks import CategoricalPolicy, GaussianPolicy
from rlrun.runs.export.formats import output_names, traced, write_onnx, write_weights
from rlrun.runs.export.observations import read_batch
from rlrun.runs.export.policy import DeployedPolicy
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.trained import deployed

CASES = {
    **{name: ("acrobot", name) for name in algorithms(loops.on_policy)},
    **{f"{name} of a box": ("hopper", name) for name in algorithms(loops.on_policy)},
    **{name: ("pendulum", name) for name in algorithms(loops.off_policy) if name != "dqn"},
    "sac of choices": ("acrobot", "sac"),
    "dqn": ("acrobot", "dqn"),
    "dqn, dueling and noisy": ("acrobot", "dqn", "algo.dueling=true", "algo.noisy={sigma: 0.5}"),
    **{name: ("frozen_lake", name) for name in algorithms(loops.planning)},
    **{name: ("frozen_lake", name) for name in algorithms(loops.online)},
    "a table of hands": ("blackjack", "q_learning"),
    "an own environment": ("gym", "ppo", "env.id=Pendulum-v1"),
    "without normalisation": ("acrobot", "ppo", "algo.normalization.observation=false"),
}


FROZEN_LAKE = spaces.Discrete(16)


def assembled(env: str, algo: str, *words: str) -> Assembly:
    """The parts of a run, with random weights and statistics."""
    model = [] if env in ("frozen_lake", "blackjack") else ["model.hidden_sizes=[8,8]"]
    choice = (f"algo={algo}", f"env={env}", "hardware.compile=off", "hardware.threads=1")
    assembly = Assembly(experiment([*choice, *model, *words]), None)
    generator = torch.Generator().manual_seed(1)
    actor = assembly.algorithm.agent.actor
    with torch.no_grad():
        for weights in actor.policy.parameters():
            weights.normal_(std=0.5, generator=generator)
    size = assembly.env.obs_size
    actor.normalizer.mean = 0.1 * torch.randn(size, generator=generator)
    actor.normalizer.inverse_std = torch.rand(size, generator=generator) + 0.5
    return assembly


def batch_of(space: gym.Space, count: int):
    """Observations of a space, as a vector environment has them."""
    space.seed(3)
    samples = [space.sample() for _ in range(count)]
    return concatenate(space, samples, create_empty_array(space, count))


def tensors_of(policy: DeployedPolicy, batch) -> list[torch.Tensor]:
    """The inputs of a policy for a batch of observations."""
    pairs = zip(policy.leaves, read_batch(policy.observation_space, batch).arrays, strict=True)
    return [torch.from_numpy(array).to(leaf.dtype) for leaf, array in pairs]


def actions_of_training(env: ControlEnv, act_greedily, batch) -> np.ndarray:
    """What an evaluation gives the environments for these observations."""
    flat = torch.from_numpy(flatten_batch(env.observation_space, batch))
    action = env.to_env(act_greedily(flat).numpy())
    return np.asarray(action, env.to_env.space.dtype)


@pytest.fixture(scope="module", autouse=True)
def operators():
    """Have torch read its operators for ONNX once: a second for each export otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        read = ONNXRegistry.from_torchlib
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(read)))
        yield


@pytest.fixture(scope="module")
def kinds() -> dict[tuple[str, ...], DeployedPolicy]:
    """One policy of each kind: the same modules for the same spaces."""
    return {}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_algorithms_policy_acts_as_in_an_evaluation(case, kinds):
    assembly = assembled(*case)
    policy, batch = deployed(assembly), batch_of(assembly.env.observation_space, 50)
    actor = assembly.algorithm.agent.actor
    expected = actions_of_training(assembly.env, actor.act_greedily, batch)
    assembly.close()
    assert len(np.unique(expected)) > 1, "one action alone tells nothing apart"
    action = policy(*tensors_of(policy, batch))["action"].numpy()
    assert action.dtype == policy.action_space.dtype
    assert np.array_equal(action, expected)
    assert all(policy.action_space.contains(one) for one in action)
    kinds[repr(policy), str(policy.observation_space), str(policy.action_space)] = policy


ACTIVATIONS = {"Tanh": np.tanh, "ReLU": lambda x: np.maximum(x, 0)}


def described_action(weights: bytes, description: bytes, policy: DeployedPolicy) -> np.ndarray:
    """What the lines of a description say, computed with NumPy from the tensors."""
    tensors, text = safetensors.numpy.load(weights), json.loads(description)
    lines = iter(text["computation"])
    assert "flat" in next(lines)
    batch = batch_of(policy.observation_space, 50)
    x = flatten_batch(policy.observation_space, batch)
    line = next(lines)
    if "normalizer" in line:
        low, high = map(float, re.search(r", (-[\d.]+), ([\d.]+)\)", line).groups())
        x = (x - tensors["normalizer.mean"]) * tensors["normalizer.inverse_std"]
        x, line = x.clip(low, high), next(lines)
    if "rows[s]" in line:
        sizes = [space.n for space in getattr(policy.observation_space, "spaces", [FROZEN_LAKE])]
        choices = [part.argmax(-1) for part in np.split(x, np.cumsum(sizes)[:-1], -1)]
        y = tensors["policy.logits.rows"][np.ravel_multi_index(choices, sizes)]
    else:
        for name, kind in text["modules"].items():
            if kind == "Linear":
                x = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
            x = ACTIVATIONS[kind](x) if kind in ACTIVATIONS else x
        y = x
    line = next(lines)
    if "sigma are not used" in line:
        line = next(lines)
    if line.startswith("y = y[0] + y[1:]"):
        y, line = y[:, :1] + y[:, 1:] - y[:, 1:].mean(-1, keepdims=True), next(lines)
    if line == "u = the first index of the largest y":
        u = y.argmax(-1)
    elif line == "u = y":
        u = y
    else:
        low, high = (np.array(json.loads(part)) for part in re.findall(r"\[.*?\]", next(lines)))
        half = y[:, : len(low)] if "first half" in line else y
        u = (high + low) / 2 + (high - low) / 2 * np.tanh(half)
    line = next(lines)
    assert not list(lines)
    if line.startswith("action = u"):
        return u + int(line.removeprefix("action = u +"))
    u = tensors["to_env.middle"] + tensors["to_env.scale"] * u if "scale" in line else u
    return u.clip(tensors["to_env.low"], tensors["to_env.high"])


def test_the_description_and_the_weights_are_all_it_takes(kinds):
    assert len(kinds) >= 10, "run the whole file"
    for policy in kinds.values():
        weights, description = write_weights(policy, {"env_id": "Some-v0"})
        (expected, *_) = policy(
            *tensors_of(policy, batch_of(policy.observation_space, 50))
        ).values()
        action = described_action(weights, description, policy)
        np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)


def test_every_kind_of_policy_computes_the_same_as_a_program_and_as_onnx(kinds):
    assert len(kinds) >= 10, "run the whole file"
    for policy in kinds.values():
        require_same(policy)


def require_same(policy: DeployedPolicy) -> None:
    """Check that what is exported computes the same, onnxruntime to 1e-5."""
    inputs = tensors_of(policy, batch_of(policy.observation_space, 50))
    outputs = policy(*inputs)
    program = traced(policy)
    for count in (50, 1, 0):  # any number at once
        run = program.module()(*(values[:count] for values in inputs))
        assert list(run) == list(outputs)
        for name, values in run.items():
            torch.testing.assert_close(values, outputs[name][:count], rtol=1e-5, atol=1e-6)
    (content,) = write_onnx(policy, {"env_id": "Some-v0", "return": None})
    session = onnxruntime.InferenceSession(content)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["env_id"] == "Some-v0"
    assert metadata["return"] == "None"
    names = [leaf.name for leaf in policy.leaves]
    assert [given.name for given in session.get_inputs()] == names
    assert all(given.shape[0] == "batch" for given in session.get_inputs())
    assert [made.name for made in session.get_outputs()] == list(outputs) == output_names(policy)
    for count in (50, 1):
        arrays = [values[:count].numpy() for values in inputs]
        computed = session.run(None, dict(zip(names, arrays, strict=True)))
        for (name, expected), values in zip(outputs.items(), computed, strict=True):
            assert values.dtype == expected.numpy().dtype
            np.testing.assert_allclose(values, expected[:count], rtol=1e-5, atol=1e-5, err_msg=name)


# ---------------------------------------------------------------------- spaces

EVERY_KIND = spaces.Dict(
    {
        "action": spaces.Box(-1, 1, (2, 3), np.float64),  # what an output is called, too
        "choice": spaces.Discrete(4, start=2),
        "choices": spaces.MultiDiscrete([3, 2], start=[1, 0]),
        "nested": spaces.Tuple(
            (
                spaces.MultiBinary(3),
                spaces.Box(0, 255, (2,), np.uint8),
                spaces.Box(-9, 9, (), np.float32),
                spaces.Dict({"deep": spaces.Box(-np.inf, np.inf, (1,), np.float32)}),
            )
        ),
    }
)
BOX = spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = {
    "choice from -1": (spaces.Discrete(3, start=-1), "raw"),
    "box": (spaces.Box(-1, 1, (2,), np.float32), "raw"),
    "large box": (spaces.Box(np.zeros(2), np.full(2, 500.0), dtype=np.float64), "box"),
    "half a box": (spaces.Box(np.array([0, -np.inf]), np.array([9, np.inf])), "box"),
    "matrix": (spaces.Box(0.1, 0.3, (2, 1), np.float32), "box"),
    "number": (spaces.Box(-2, 2, (), np.float32), "box"),
}


def policy_for(observations: gym.Space, actions: gym.Space, units: str):
    """An untrained policy for these spaces, and an environment that has them."""

    class Blank(gym.Env):
        observation_space, action_space = observations, actions

    env = ControlEnv(SerialVectorEnv([Blank]), action_units=units)
    torch.manual_seed(5)
    space, size = env.action_space, env.obs_size
    outputs = int(space.n) if isinstance(space, spaces.Discrete) else space.shape[0]
    network = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, outputs))
    discrete = isinstance(space, spaces.Discrete)
    policy = CategoricalPolicy(network)
    if not discrete:
        policy = GaussianPolicy(network, torch.zeros(outputs))
    policy.requires_grad_(False)
    normalizer = ObservationNormalizer(size, clip=np.inf, enabled=True)
    normalizer.mean = torch.randn(size)
    return policy, normalizer, env


def test_every_kind_of_observation_is_flattened_as_in_training():
    policy, normalizer, env = policy_for(EVERY_KIND, BOX, "raw")
    module = DeployedPolicy(policy, normalizer, env)
    assert [leaf.name for leaf in module.leaves] == [
        "obs.action",
        "obs.choice",
        "obs.choices",
        "obs.nested.0",
        "obs.nested.1",
        "obs.nested.2",
        "obs.nested.3.deep",
    ]
    batch = batch_of(EVERY_KIND, 20)
    parts = zip(module.leaves, tensors_of(module, batch), strict=True)
    flat = torch.cat([leaf.flatten(values) for leaf, values in parts], -1)
    assert flat.dtype == torch.float32
    assert np.array_equal(flat.numpy(), flatten_batch(EVERY_KIND, batch))
    require_same(module)


@pytest.mark.parametrize("name", ACTIONS)
def test_every_kind_of_action_is_what_the_environment_takes(name):
    space, units = ACTIONS[name]
    policy, normalizer, env = policy_for(BOX, space, units)
    module = DeployedPolicy(policy, normalizer, env)
    batch = 30 * batch_of(BOX, 20)
    expected = actions_of_training(env, lambda obs: policy(normalizer(obs)).mode(), batch)
    action = module(*tensors_of(module, batch))["action"].numpy()
    assert len(np.unique(expected)) > 1
    assert action.dtype == space.dtype
    assert action.shape == (20, *space.shape)
    np.testing.assert_array_equal(action, expected)
    assert all(space.contains(one) for one in action)
