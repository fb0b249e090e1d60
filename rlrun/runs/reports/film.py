"""A film of a run's policy."""

import os
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rlrun.envs.control import ControlEnv
from rlrun.envs.serial import SerialVectorEnv
from rlrun.errors import UserError, near_path
from rlrun.runs.assembly import Assembly


def check_video(path: Path) -> None:
    """Refuse a video that could not be written, before any episode is played.

    Raises:
        UserError: not an mp4 file, or no such directory.
    """
    if path.suffix != ".mp4":
        raise UserError(f"a video's name ends in .mp4, got '{path}'")
    if not path.parent.is_dir():
        raise UserError(f"no directory '{path.parent}' for the video{near_path(path.parent)}")


@torch.inference_mode()
def film(assembly: Assembly, *, seed: int, path: Path) -> None:
    """Write a video of one episode of the greedy policy, up to the last state it acts in.

    One that goes on after ``evaluation.max_length`` steps is over there, as in an evaluation.

    Args:
        assembly: of the run, with the policy to show.
        seed: of the environment.
        path: mp4 file.

    Raises:
        UserError: there is no way to draw here, or to write the file.
    """
    from imageio_ffmpeg import write_frames

    spec = assembly.experiment.env
    # Wrapped as in training, so that observations and actions mean the same.
    vector_env = SerialVectorEnv([lambda: spec.make_single(render_mode="rgb_array")])
    with closing(vector_env):
        env = ControlEnv(vector_env, action_units=spec.action_units)
        obs = env.reset(seed)
        frame = _draw(vector_env)
        height, width, _ = frame.shape
        writer = write_frames(
            path,
            (width, height),
            fps=vector_env.metadata.get("render_fps", 30),
            macro_block_size=2,  # H.264 wants even sizes; the default: multiples of 16
        )
        try:
            writer.send(None)  # starts the generator
            for _ in range(assembly.experiment.evaluation.max_length):
                writer.send(np.ascontiguousarray(frame))
                step = env.step(assembly.algorithm.agent.actor.act_greedily(obs))
                if step.terminated[0] or step.truncated[0]:
                    break
                obs = step.obs
                frame = _draw(vector_env)
        except OSError as error:  # a full disk, or a directory that is read-only
            raise UserError(f"no video: {error}") from error
        finally:
            writer.close()


def _draw(env: SerialVectorEnv) -> NDArray[np.uint8]:
    """Draw the one environment, [height, width, 3].

    Raises:
        UserError: it cannot be drawn, or not on this machine.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # GLFW's, which the error repeats
            (frame,) = env.render()
    except NotImplementedError:
        frame = None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = "on a machine without a display set MUJOCO_GL=egl"
        if os.environ.get("MUJOCO_GL") == "egl":
            remedy = "where there is no EGL, MUJOCO_GL=osmesa draws by OSMesa, if that is there"
        raise UserError(f"no video: {reason}; {remedy}") from error
    if not isinstance(frame, np.ndarray):
        raise UserError("no video: this environment draws no pictures")
    return frame
