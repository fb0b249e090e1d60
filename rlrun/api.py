"""What the command line calls, and a notebook can: train, resume and evaluate runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlrun import directory as run_directory
from rlrun.checkpoint import CheckpointStore
from rlrun.config import Experiment, load_run
from rlrun.envs.control import ControlEnv
from rlrun.errors import Interrupted, UserError
from rlrun.evaluate import evaluate
from rlrun.run import Run


def train(experiment: Experiment) -> float:
    """Train a new run.

    Args:
        experiment: checked configuration with its parts.

    Returns:
        The mean return of the last evaluation.

    Raises:
        UserError: the parts do not fit together; no directory is made.
        Interrupted, EnvironmentFailure, NonFiniteError: see :meth:`rlrun.run.Run.execute`.
    """
    run = Run(experiment, checkpoint=None)
    directory = run_directory.make_directory(experiment.parent, experiment.run_dir, run.name)
    run_directory.write_config(directory, experiment.config, experiment.overrides)
    return execute(run, directory, run_directory.provenance())


def resume(directory: Path, *, total_steps: int | None, plugins: Sequence[str] = ()) -> float:
    """Continue a run from its newest whole checkpoint, or from the start if it has none.

    Args:
        directory: the run's directory.
        total_steps: environment steps at which it ends now; None for what it was started with.
        plugins: the user's packages that the run may use.

    Returns:
        The mean return of the last evaluation.

    Raises:
        UserError: there is nothing to continue, or a process is still running there.
    """
    experiment = load_run(directory, plugins)
    if total_steps is not None:
        experiment.config = {**experiment.config, "total_steps": total_steps}
        experiment.total_steps = total_steps
    with run_directory.lock(directory):
        store = CheckpointStore(directory / "checkpoints", keep=experiment.checkpoint.keep)
        checkpoint = store.load_last() if store.steps() else None
    if checkpoint is not None and checkpoint.info["step"] >= experiment.total_steps:
        done = checkpoint.info["step"]
        raise UserError(
            f"{directory} has done its {done:,} steps; go on with "
            f"`rlrun resume {directory} total_steps={2 * done}`"
        )
    run = Run(experiment, checkpoint)
    run_directory.write_config(directory, experiment.config, experiment.overrides)
    earlier = json.loads((directory / "run.json").read_text())
    record = run_directory.provenance()
    record["resumed"] = [*earlier.get("resumed", []), record["started"]]
    record["started"] = earlier["started"]
    return execute(run, directory, record)


def execute(run: Run, directory: Path, record: dict[str, Any]) -> float:
    """Run to the end, or to a signal, and say what there is now and what to do with it.

    Args:
        run: a new run, or one that goes on.
        directory: its directory.
        record: what ``run.json`` says besides the run's state.

    Returns:
        The mean return of the last evaluation.
    """
    try:
        final_return = run.execute(directory, record)
    except Interrupted:
        print(f"Stopped at step {run.counters.step:,}, after a checkpoint. To go on:")
        print(f"  rlrun resume {directory}")
        raise
    counters = run.counters
    print(
        f"Reached a return of {final_return:,.1f} (best {counters.best_return:,.1f}) after "
        f"{counters.step:,} steps in {counters.time_s:,.0f} s: "
        f"{counters.step / counters.time_s:,.0f} steps/s with evaluation and logging"
    )
    print(f"The run is in {directory}: curves.png, metrics.jsonl, checkpoints. Next:")
    print(f"  rlrun eval {directory} --checkpoint best --video run.mp4")
    print(f"  rlrun resume {directory} total_steps={2 * counters.step}")
    print("  rlrun list")
    return final_return


def evaluate_run(
    directory: Path,
    *,
    episodes: int,
    seed: int,
    checkpoint: str,
    video: Path | None,
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Play episodes of a run's policy.

    Args:
        directory: the run's directory.
        episodes: how many; each has an environment of its own.
        seed: of the first environment; the others count up from it.
        checkpoint: "last" or "best".
        video: file for a film of one more episode, or None.
        plugins: the user's packages that the run may use.

    Returns:
        Facts about the policy and about its returns.

    Raises:
        UserError: there is no such checkpoint, or the video cannot be made.
    """
    experiment = load_run(directory, plugins)
    store = CheckpointStore(directory / "checkpoints", keep=experiment.checkpoint.keep)
    loaded = store.load_last() if checkpoint == "last" else store.load_best()
    run = Run(experiment, loaded)
    result = evaluate(run.act_greedily, run.make_evaluation_env(episodes), seed=seed)
    returns = np.array(result.returns)
    if video is not None:
        film(run, seed=seed, path=video)
    return {
        "checkpoint": str(loaded.path),
        "step": loaded.info["step"],
        "episodes": episodes,
        "return": float(returns.mean()),
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length": float(np.mean(result.lengths)),
    }


def film(run: Run, *, seed: int, path: Path) -> None:
    """Write a video of one episode of the greedy policy.

    Args:
        run: with the policy to show.
        seed: of the environment.
        path: video file; its ending chooses the format.

    Raises:
        UserError: a package for videos is missing, or there is no way to draw here.
    """
    try:
        import imageio.v3
        import imageio_ffmpeg  # noqa: F401  (imageio's plugin for mp4)
    except ImportError as error:
        raise UserError("videos need: pip install 'rlrun[video]'") from error
    spec = run.experiment.env
    env = spec.make_single(render_mode="rgb_array")
    space = env.observation_space
    obs, _ = env.reset(seed=seed)
    frames, ended = [env.render()], False
    try:
        while not ended:
            flat = torch.from_numpy(ControlEnv.flatten(space, obs)).unsqueeze(0)
            action = ControlEnv.unflatten(env.action_space, run.act_greedily(flat)[0].numpy())
            obs, _, terminated, truncated, _ = env.step(action)
            frames.append(env.render())
            ended = terminated or truncated
    finally:
        env.close()
    rate = env.metadata.get("render_fps", 30)
    imageio.v3.imwrite(path, np.stack(frames), fps=rate)
