import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from rlrun.envs.flatten import check_observation_space, flatten_batch
from rlrun.errors import UserError


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.0, 1.0, (3,), np.float32),
        spaces.Box(-1.0, 1.0, (2, 3), np.float64),
        spaces.Box(0, 255, (128,), np.uint8),
        spaces.Discrete(5),
        spaces.Discrete(4, start=-2),
        spaces.MultiDiscrete([2, 3, 4]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [-1, 2]]),
        spaces.MultiBinary((2, 2)),
        spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2))),
        spaces.Dict(
            {
                "z": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
                "a": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
            }
        ),
    ],
    ids=str,
)
def test_batches_are_flattened_as_gymnasium_flattens_one(space):
    space.seed(0)
    samples = [space.sample() for _ in range(6)]
    batch = concatenate(space, samples, create_empty_array(space, 6))
    flat = flatten_batch(space, batch)
    expected = np.stack([spaces.flatten(space, sample) for sample in samples])
    assert flat.dtype == np.float32
    assert (flat == expected.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (210, 160, 3), np.uint8), "images .210 x 160 x 3. are not supported"),
        (
            spaces.Dict({"camera": spaces.Box(0, 255, (64, 64), np.uint8)}),
            "images .64 x 64. are not supported",
        ),
        (spaces.Box(-1.0, 1.0, (84, 84, 3), np.float32), "images .84 x 84 x 3. .*FlattenObs"),
        (
            spaces.Discrete(10_000_000),
            "10,000,000 inputs, a choice as one-hot, and 4,096 is the most",
        ),
        (spaces.MultiDiscrete([4000, 97]), "4,097 inputs, a choice as one-hot"),
        (spaces.Tuple((spaces.Discrete(4097),)), "4,097 inputs, a choice as one-hot"),
        (spaces.MultiBinary(5000), "5,000 inputs"),
        (spaces.Box(-1.0, 1.0, (1_000_000,), np.float32), "1,000,000 inputs"),
        (spaces.Box(np.arange(5000.0), np.full(5000, 9e9)), "5,000 inputs"),
        (spaces.Tuple((spaces.Discrete(4000), spaces.MultiBinary(97))), "4,097 inputs"),
        (
            spaces.Dict({name: spaces.Box(-1.0, 1.0, (2049,), np.float32) for name in "ab"}),
            "4,098 inputs",
        ),
        (spaces.Text(10), "Text.* is not supported"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Text(10))), "Text.* is not supported"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence.* is not supported"),
        (spaces.Graph(spaces.Discrete(2), None), "Graph.* is not supported"),
    ],
)
def test_refuses_observations(space, message):
    with pytest.raises(UserError, match=message) as error:
        check_observation_space(space)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 9, (7, 7, 3), np.uint8),  # a small grid is not an image
        spaces.Box(-1.0, 1.0, (4096,), np.float32),  # nor is a long vector
        spaces.Discrete(4096),
        spaces.MultiBinary(4096),
        spaces.Dict({name: spaces.Discrete(2048) for name in "ab"}),
    ],
    ids=str,
)
def test_takes_what_is_not_too_large(space):
    check_observation_space(space)
