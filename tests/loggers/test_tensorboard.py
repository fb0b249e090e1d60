import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlrun.errors import UserError
from rlrun.loggers.tensorboard import TensorboardLogger

SPEC = TensorboardLogger(flush_seconds=10)


def read(info):
    return EventAccumulator(str(info.directory / "tensorboard")).Reload()


def scalars(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_scalars_and_config_come_back_as_logged(info):
    logger = SPEC.open(info, None)
    logger.log({"train/return": 0.5, "update": 320}, 2048)
    logger.log({"train/return": 1.5, "update": 640}, 4096)
    logger.log({"eval/return": -2.25}, 4096)
    assert logger.state_dict() == {"step": 4096}
    logger.close("finished", {})

    events = read(info)
    assert scalars(events, "train/return") == [(2048, 0.5), (4096, 1.5)]
    assert scalars(events, "update") == [(2048, 320.0), (4096, 640.0)]
    assert scalars(events, "eval/return") == [(4096, -2.25)]
    (text,) = events.Tensors("config/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]) == {**info.facts, "settings": info.config}


def test_a_resumed_run_replaces_what_was_logged_after_the_checkpoint(info):
    logger = SPEC.open(info, None)
    for step in range(1, 6):
        logger.log({"train/return": float(step)}, step)
        if step == 3:
            state = logger.state_dict()
    logger.close("interrupted", {})

    resumed = SPEC.open(info, state)
    assert resumed.state_dict() == {"step": 3}
    for step in range(4, 7):
        resumed.log({"train/return": 10.0 * step}, step)
    resumed.close("finished", {})

    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0), (6, 60.0)]
    assert scalars(read(info), "train/return") == expected


def test_a_missing_package_is_named_with_its_remedy(info, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'rlrun\[tensorboard\]'"):
        SPEC.open(info, None)
    with pytest.raises(UserError, match=r"pip install 'rlrun\[tensorboard\]'"):
        SPEC.check()
    assert not (info.directory / "tensorboard").exists()
