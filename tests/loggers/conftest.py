import pytest

from rlrun.loggers.interface import RunInfo


@pytest.fixture
def info(tmp_path):
    return RunInfo(
        directory=tmp_path,
        name="ppo-hopper-s3",
        facts={"algo": "ppo", "env_id": "Hopper-v5", "seed": 3, "versions": {"torch": "2"}},
        config={"seed": 3, "algo": {"gamma": 0.99, "hidden": [64, 64]}},
        group="ppo-hopper",
        tags=["paper", "v1"],
    )
