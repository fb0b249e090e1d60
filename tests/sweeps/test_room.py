import pytest
from running import experiment, small

from rlrun.runs.setup.preflight import Preflight
from rlrun.sweeps import room


def planned(*words, algo="ppo", env="cartpole"):
    job = experiment(small(env, *words, algo=algo))
    Preflight().check(job)
    return job


@pytest.fixture
def machine(monkeypatch):
    """Four cores and plenty of memory, until a test says otherwise."""
    monkeypatch.setattr(room, "available_cores", lambda: 4)
    monkeypatch.setattr(room, "available_memory", lambda: 2**40)
    return monkeypatch


def test_there_are_as_many_runs_at_a_time_as_cores(machine):
    jobs = [planned()] * 9
    assert room.slots(jobs) == [None] * 4
    assert room.slots(jobs[:3]) == [None] * 3
    assert room.slots([planned("hardware.threads=2")] * 9) == [None] * 2
    assert room.slots([planned("hardware.threads=8")] * 9) == [None]
    assert room.slots([planned("hardware.jobs=6")] * 9) == [None] * 6
    # The most modest of several wishes is everybody's.
    assert room.slots([*jobs, planned("hardware.threads=2")]) == [None] * 2
    assert (
        room.slots([*jobs, *[planned(f"hardware.jobs={count}") for count in (3, 2)]]) == [None] * 2
    )


def test_there_are_as_many_runs_as_the_memory_carries(machine):
    machine.setattr(room, "available_memory", lambda: 2.5 * room.BYTES_PER_RUN)
    jobs = [planned()] * 9
    assert room.slots(jobs) == [None] * 2
    large = planned("algo.replay.capacity=1e6", "total_steps=1e6", algo="dqn")
    assert room.bytes_of(large) == room.BYTES_PER_RUN + large.algo.buffer.most_bytes
    machine.setattr(room, "available_memory", lambda: 2.5 * room.bytes_of(large))
    assert room.slots([*jobs, large]) == [None] * 2
    machine.setattr(room, "available_memory", lambda: 0)
    assert room.slots(jobs) == [None]


def test_each_gpu_has_a_run_or_several(machine):
    machine.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    jobs = [experiment(small("cartpole", "hardware=gpu"))] * 9
    assert room.slots(jobs) == ["4", "7"]
    jobs = [experiment(small("cartpole", "hardware=gpu", "hardware.jobs=3"))] * 9
    assert room.slots(jobs) == ["4", "7", "4"]
    machine.setenv("CUDA_VISIBLE_DEVICES", "4,-1,7")  # CUDA reads no further
    assert room.visible_gpus() == ["4"]
    one = [experiment(small("cartpole", "hardware=gpu", "hardware.device=cuda:1"))] * 9
    assert set(room.slots(one)) == {None}


def test_runs_share_the_cores_unless_they_were_told(machine):
    job = experiment([word for word in small("cartpole") if "threads" not in word])
    shared = room.with_share(job, 2)
    assert shared.hardware.threads == shared.config["hardware"]["threads"] == 2
    assert job.hardware.threads is job.config["hardware"]["threads"] is None
    assert room.with_share(job, 9).hardware.threads == 1
    told = planned("hardware.threads=3")
    assert room.with_share(told, 2) is told
