"""Measures what the MuJoCo environments add to their physics.

    python benchmarks/physics.py --json benchmarks/results/physics.json

Per task and round, rlrun's vector environment takes a number of steps with random actions (with
observations, rewards, endings and resets). Then a bare ``mujoco.batch.Batch`` of the same model
repeats the same physics: every step from the same state with the same actions. The ratio is bare
time / environment time of one round, 1 when observations, rewards and resets cost nothing. The bare
batch does not reset; where random actions end episodes often, as those of the pendulums, the ratio
of the steps without a reset says what a policy that stays up will see.
"""

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from rlrun.envs.mujoco.env import MujocoEnv
from rlrun.envs.mujoco.tasks import TASKS
from rlrun.envs.mujoco.vector import MujocoVectorEnv, load_model


def measure(env_id: str, *, num_envs: int, threads: int, rounds: int, steps: int) -> dict:
    """Time one task.

    Args:
        env_id: Gymnasium's id.
        num_envs: simulations in the batch.
        threads: threads that simulate.
        rounds: number of alternations between environment and bare batch.
        steps: vector steps in a round.

    Returns:
        µs per vector step, medians over the rounds, and the ratio: its median, lowest and highest,
        and its median over the steps in which no episode ended.
    """
    spec = MujocoEnv(id=env_id, max_episode_steps=None, options={}, action_units="raw")
    env = spec.make_batch(num_envs, threads)
    batch = Batch(load_model(env.task.xml_file), num_envs, threads)
    env.action_space.seed(0)
    env.reset(seed=0)
    play(env, batch, steps)  # warm-up

    times = [play(env, batch, steps) for _ in range(rounds)]
    ratios = [float(round_.bare.sum() / round_.whole.sum()) for round_ in times]
    without_resets = [
        float(round_.bare[~round_.ended].sum() / round_.whole[~round_.ended].sum())
        for round_ in times
        if not round_.ended.all()
    ]
    return {
        "bare_us": float(np.median([round_.bare.mean() for round_ in times])) * 1e6,
        "env_us": float(np.median([round_.whole.mean() for round_ in times])) * 1e6,
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "ratio_without_resets": statistics.median(without_resets),
        "resets_per_step": float(np.mean([round_.ended for round_ in times])),
    }


class Round(NamedTuple):
    """One round's steps.

    Attributes:
        whole: seconds of the environment's steps [steps].
        bare: seconds of the bare batch's [steps].
        ended: whether an episode ended in the step [steps].
    """

    whole: NDArray[np.float64]
    bare: NDArray[np.float64]
    ended: NDArray[np.bool_]


def play(env: MujocoVectorEnv, batch: Batch, steps: int) -> Round:
    """Take steps in the environment, then repeat their physics in the bare batch."""
    result = Round(np.zeros(steps), np.zeros(steps), np.zeros(steps, np.bool_))
    actions = [env.action_space.sample() for _ in range(steps)]
    states = []
    for index, action in enumerate(actions):
        states.append(env.state_dict()["simulations"].numpy())
        start = time.perf_counter()
        infos = env.step(action)[-1]
        result.whole[index] = time.perf_counter() - start
        result.ended[index] = "final_obs" in infos

    controls = batch.bind("ctrl")
    for index, (state, action) in enumerate(zip(states, actions, strict=True)):
        batch.state[:] = state
        controls[:] = action
        start = time.perf_counter()
        batch.step(nstep=env.task.frame_skip)
        result.bare[index] = time.perf_counter() - start
    return result


def main() -> None:
    """Measure every task; print a table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100, help="vector steps in a round")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    settings = {name: vars(arguments)[name] for name in ("num_envs", "threads", "rounds", "steps")}

    print(
        f"{'task':26} {'bare µs':>9} {'env µs':>9} {'ratio':>7}   lowest to highest"
        f"{'without resets':>17} {'resets/step':>12}"
    )
    results = {}
    for env_id in arguments.tasks:
        results[env_id] = row = measure(env_id, **settings)
        print(
            f"{env_id:26} {row['bare_us']:9.1f} {row['env_us']:9.1f} {row['ratio']:7.3f}   "
            f"{row['ratio_lowest']:.3f} to {row['ratio_highest']:.3f}"
            f"{row['ratio_without_resets']:18.3f} {row['resets_per_step']:12.2f}",
            flush=True,
        )
    if arguments.json:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "mujoco": mujoco.__version__,
            "numpy": np.__version__,
            "gymnasium": version("gymnasium"),
        }
        report = {"settings": settings, "machine": machine, "tasks": results}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
