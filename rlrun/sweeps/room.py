"""How many runs a machine has room for at the same time, and what each of them gets of it."""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import torch

from rlrun import loops
from rlrun.config.experiment import Experiment
from rlrun.hardware.cpu import available_cores
from rlrun.hardware.memory import available_memory

# Of a process with torch, MuJoCo and a compiled update: 450 to 500 MiB were measured for PPO.
BYTES_PER_RUN = 600 * 2**20

# Share of the memory that is free which runs may fill.
FILLED = 0.9


def slots(experiments: Sequence[Experiment]) -> list[str | None]:
    """Decide how many runs are trained at a time.

    Runs of one thread each lose nothing beside each other, where one run with several threads
    waits for the slowest of them; so there are as many as there are cores, and memory for them.

    Args:
        experiments: of the runs, which have been set up.

    Returns:
        For each run of that time the GPU that it is to see; None: whatever its config says.
    """
    wanted = [experiment.hardware for experiment in experiments]
    gpus = visible_gpus() if any(each.device == "cuda" for each in wanted) else []
    asked = [each.jobs for each in wanted if each.jobs != "auto"]
    if asked:
        count = min(asked)
    elif gpus:
        count = len(gpus)
    else:
        needed = max(map(bytes_of, experiments))
        by_memory = int(FILLED * available_memory() / needed)
        threads = max(each.threads or 1 for each in wanted)
        count = min(available_cores() // threads, by_memory)
    count = max(1, min(count, len(experiments)))
    return [gpus[number % len(gpus)] if gpus else None for number in range(count)]


def bytes_of(experiment: Experiment) -> int:
    """Return about how much memory a run takes, whose algorithm is set up."""
    algorithm = experiment.algo
    on_cpu = torch.device(experiment.hardware.device).type == "cpu"
    replay = algorithm.buffer.most_bytes if algorithm.loop is loops.off_policy and on_cpu else 0
    return BYTES_PER_RUN + replay


def visible_gpus() -> list[str]:
    """Return the GPUs that a run of this process could use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = (name.strip() for name in named.split(","))
        return [*takewhile(lambda name: name not in ("", "-1"), names)]  # as CUDA reads it
    return [str(number) for number in range(torch.cuda.device_count())]


def with_share(experiment: Experiment, runs: int) -> Experiment:
    """Give a run its share of the threads, unless it was told how many it has.

    Args:
        experiment: of the run.
        runs: how many there are at a time.
    """
    if experiment.hardware.threads is not None:
        return experiment
    threads = max(1, available_cores() // runs)
    hardware = {**experiment.config["hardware"], "threads": threads}
    return replace(
        experiment,
        hardware=replace(experiment.hardware, threads=threads),
        config={**experiment.config, "hardware": hardware},
    )
