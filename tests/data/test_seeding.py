import copy

import numpy as np
import torch

from rlrun.data.seeding import Streams, evaluation_seed

GENERATORS = ("init", "action", "minibatch")


def draw(streams: Streams, name: str) -> torch.Tensor:
    return torch.rand(5, generator=vars(streams)[name])


def test_streams_do_not_disturb_each_other():
    used, fresh = Streams.from_seed(3), Streams.from_seed(3)
    torch.rand(100, generator=used.action)
    for name in ("init", "minibatch"):
        assert torch.equal(draw(used, name), draw(fresh, name))


def test_streams_differ_from_each_other_and_between_seeds():
    drawn = [draw(Streams.from_seed(seed), name) for seed in (3, 4) for name in GENERATORS]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 6
    seeds = [Streams.from_seed(seed) for seed in range(20)]
    assert len({streams.env for streams in seeds} | {s.evaluation for s in seeds}) == 40


def test_loaded_streams_go_on_alike():
    streams, loaded = Streams.from_seed(3), Streams.from_seed(4)
    for name in GENERATORS:
        draw(streams, name)
    loaded.load_state_dict(copy.deepcopy(streams.state_dict()))
    for name in GENERATORS:
        assert torch.equal(draw(streams, name), draw(loaded, name))


def test_an_evaluations_seed_depends_on_the_run_and_the_step_alone():
    stream, other = (Streams.from_seed(seed).evaluation for seed in (7, 8))
    steps = range(0, 100_000, 1_000)
    seeds = {step: evaluation_seed(stream, step) for step in steps}
    # A run that was resumed draws other numbers before, or asks for fewer seeds.
    np.random.seed(0)
    torch.manual_seed(0)
    again = {step: evaluation_seed(stream, step) for step in reversed(steps)}
    assert again == seeds
    others = {evaluation_seed(other, step) for step in steps}
    assert len({*seeds.values(), *others}) == 200


def test_the_streams_state_is_a_snapshot():
    streams, loaded = Streams.from_seed(3), Streams.from_seed(4)
    state = streams.state_dict()
    first = [draw(streams, name) for name in GENERATORS]
    loaded.load_state_dict(state)
    for name, drawn in zip(GENERATORS, first, strict=True):
        assert torch.equal(draw(loaded, name), drawn)
