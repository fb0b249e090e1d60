"""Times the parts of an iteration in rlrun; `throughput.py --profile` runs it.

    python benchmarks/breakdown.py outputs/2026-11-21/10-00-00-000000_ppo_hopper_s0

Goes on from the run's last checkpoint, so that the states are those of a policy that has learned
something. The parts are rlrun's own functions at work, each behind a stopwatch; what a part calls
is taken off its own time. Policy and critic, which may be fitted side by side, are one part: its
time is what the iteration waits for both. Nothing is written to the run. Prints one line of JSON:
µs per environment step of each part, µs per minibatch update (of policy and critic, with its share
of the shuffles), seconds per evaluation.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, cast

from rlrun.algos.contract import OnPolicyAlgorithm
from rlrun.config.load import load_run
from rlrun.envs.mujoco.vector import MujocoVectorEnv
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.files.disk import CHECKPOINTS
from rlrun.runs.setup.assembly import Assembly

UPDATES = "minibatch updates, shuffles"


class Stopwatches:
    """Time methods of the main thread, without the watched methods that they call.

    Attributes:
        seconds: spent, by name.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]  # seconds of watched calls made within each open call

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Put a stopwatch around ``owner.method``, from now on."""
        function = getattr(owner, method)
        self.seconds[name] = 0.0

        def timed(*arguments: Any, **keywords: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            result = function(*arguments, **keywords)
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inside.pop()
            self._inside[-1] += elapsed
            return result

        setattr(owner, method, timed)

    def reset(self) -> None:
        """Start all of them at zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)


def measure(directory: Path, *, iterations: int) -> dict[str, Any]:
    """Go on with a run for some iterations.

    Args:
        directory: the run's.
        iterations: how many to time, after one that is not.
    """
    experiment = load_run(directory)
    store = CheckpointStore(directory / CHECKPOINTS, keep=experiment.checkpoint.keep)
    experiment.hardware.prepare()
    assembly = Assembly(experiment, store.load_last())
    algorithm = cast(OnPolicyAlgorithm, assembly.algorithm)
    agent = algorithm.agent
    assembly.compilation.run()
    progress = assembly.counters.step / experiment.total_steps
    collector = assembly.open_collector()
    vector_env = assembly.as_steps()._vector_env

    watches = Stopwatches()
    if isinstance(vector_env, MujocoVectorEnv):
        watches.watch(vector_env._batch, "step", "physics")
        watches.watch(vector_env, "step", "observations, rewards, endings, resets")
    else:
        watches.watch(vector_env, "step", "Gymnasium's environments")
    watches.watch(assembly.env, "step", "flattening, checks, episode statistics")
    watches.watch(agent.actor, "act", "policy")
    watches.watch(collector, "collect", "rest of collecting: buffers, snapshots")
    watches.watch(agent, "rollout", "normalisation, and what the critics say of the rollout")
    watches.watch(agent, "judge", "normalisation, and what the critics say of the rollout")
    watches.watch(agent, "estimate", "advantages")
    watches.watch(algorithm, "update", UPDATES)
    steps, updates = 0, 0
    for iteration in range(iterations + 1):
        transitions = collector.collect(agent.actor)
        metrics = algorithm.update(transitions, progress=progress)
        agent.publish()
        if iteration == 0:
            watches.reset()
        else:
            steps += transitions.steps
            updates += int(metrics["updates"])

    assembly.evaluator.play(experiment.evaluation.episodes, seed=0)  # makes the environments
    start = time.perf_counter()
    evaluation = assembly.evaluator.play(experiment.evaluation.episodes, seed=0)
    return {
        "us_per_step": {name: s / steps * 1e6 for name, s in watches.seconds.items()},
        "us_per_minibatch": watches.seconds[UPDATES] / updates * 1e6,
        "evaluation_s": time.perf_counter() - start,
        "evaluation_episodes": experiment.evaluation.episodes,
        "evaluation_length": sum(evaluation.lengths) / len(evaluation.lengths),
        "compiled": assembly.compilation.wanted,
        "physics_threads": experiment.hardware.physics_threads,
        "iterations": iterations,
    }


def main() -> None:
    """Measure, and print the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="directory of a run with a checkpoint")
    parser.add_argument("--iterations", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.run, iterations=arguments.iterations)))


if __name__ == "__main__":
    main()
