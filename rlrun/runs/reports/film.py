"""A film of a run's policy: the first episode of an evaluation."""

import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlrun.config.experiment import Experiment
from rlrun.envs.control import ControlEnv, EnvStep
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.errors import UserError, near_path
from rlrun.runs.evaluate import Evaluator


def check_video(path: Path) -> None:
    """Refuse a video that could not be written, before any episode is played.

    Raises:
        UserError: not an mp4 file, or no such directory.
    """
    if path.suffix != ".mp4":
        raise UserError(f"a video's name ends in .mp4, got '{path}'")
    if not path.parent.is_dir():
        raise UserError(f"no directory '{path.parent}' for the video{near_path(path.parent)}")


class Film:
    """An mp4 file of an episode, written while the episode is played.

    What goes wrong with it is kept: the returns are true without pictures, too.

    Attributes:
        path: of the file.
        frames: written so far.
        error: why there is no film; None: there is one, or nothing was to be filmed yet.
    """

    def __init__(self, path: Path, watch: Callable[[int], None] = lambda frames: None):
        """Write nothing yet.

        Args:
            path: mp4 file.
            watch: is told the frames so far.

        Raises:
            UserError: a file of this name cannot be written.
        """
        check_video(path)
        self.path = path
        self.frames = 0
        self.error: UserError | None = None
        self._watch = watch
        self._writer: Generator[None, NDArray | None, None] | None = None

    def add(self, frame: NDArray[np.uint8], frames_per_second: float) -> None:
        """Write a frame, [height, width, 3].

        Args:
            frame: all are of one size.
            frames_per_second: of the film.

        Raises:
            UserError: the disk does not take it.
        """
        from imageio_ffmpeg import write_frames

        try:
            if self._writer is None:
                height, width, _ = frame.shape
                self._writer = write_frames(
                    self.path,
                    (width, height),
                    fps=frames_per_second,
                    macro_block_size=2,  # H.264 wants even sizes; the default: multiples of 16
                )
                self._writer.send(None)  # starts the generator
            self._writer.send(np.ascontiguousarray(frame))
        except OSError as error:  # a full disk, or a directory that is read-only
            reason = str(error).partition("\n")[0]  # ffmpeg's own words follow
            raise UserError(f"no video: {reason}") from error
        self.frames += 1
        self._watch(self.frames)

    def close(self) -> None:
        """End the film; a second call does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class FilmedEnv:
    """The environments of an evaluation, of which the first one is filmed.

    Attributes:
        device: where the tensors are.
        num_envs: N, the filmed one among them.
    """

    def __init__(self, filmed: SerialVectorEnv, envs: Sequence[ControlEnv], film: Film):
        """Put them side by side.

        Args:
            filmed: one environment that can draw.
            envs: the same, as loops see it, and the others, if there are any.
            film: what is drawn goes there, until the first episode ends.
        """
        self.device = envs[0].device
        self.num_envs = sum(env.num_envs for env in envs)
        self._filmed, self._envs, self._film = filmed, envs, film
        self._frame: NDArray[np.uint8] | None = None

    def reset(self, seed: int) -> Tensor:
        """Begin an episode in every environment (see `ControlEnv`)."""
        obs = torch.cat([env.reset(seed + index) for index, env in enumerate(self._envs)])
        self._draw()
        return obs

    def step(self, action: Tensor, rows: Tensor | None = None) -> EnvStep:
        """Advance environments by one step (see `ControlEnv`)."""
        chosen = torch.ones(self.num_envs, dtype=torch.bool)
        if rows is not None:
            chosen = torch.zeros_like(chosen).index_fill_(0, rows, True)
        self._keep_frame()  # of a state that the policy acts in
        sizes = [env.num_envs for env in self._envs]
        parts = zip(self._envs, action.split(sizes), chosen.split(sizes), strict=True)
        steps = [advance(env, given, rows) for env, given, rows in parts]
        step = EnvStep(*(torch.cat(columns) for columns in zip(*steps, strict=True)))
        if step.terminated[0] or step.truncated[0]:
            self._film.close()
        elif chosen[0]:
            self._draw()
        return step

    def drain_episodes(self) -> list[tuple[float, int]]:
        """Return the episodes that have ended, and forget them."""
        return [episode for env in self._envs for episode in env.drain_episodes()]

    def _draw(self) -> None:
        self._frame = None
        if self._film.error is None:
            try:
                self._frame = draw(self._filmed)
            except UserError as error:
                self._film.error = error

    def _keep_frame(self) -> None:
        frame, self._frame = self._frame, None
        if frame is not None:
            try:
                self._film.add(frame, self._filmed.metadata.get("render_fps", 30))
            except UserError as error:
                self._film.error = error


def advance(env: ControlEnv, action: Tensor, chosen: Tensor) -> EnvStep:
    """Advance the chosen environments, [N] bool, none of them perhaps."""
    if not chosen.any():
        nothing = torch.zeros(env.num_envs, dtype=torch.bool)
        return EnvStep(env.obs, env.obs, torch.zeros(env.num_envs), nothing, nothing)
    return env.step(action, None if chosen.all() else chosen.nonzero()[:, 0])


@contextmanager
def filmed(
    experiment: Experiment, evaluator: Evaluator, episodes: int, film: Film
) -> Iterator[FilmedEnv | ControlEnv]:
    """Make the environments of an evaluation whose first episode is filmed.

    They are those of an evaluation without a film: a MuJoCo task is as batched physics what it is
    as Gymnasium's environment, which can draw.

    Args:
        experiment: of the run.
        evaluator: makes environments.
        episodes: N.
        film: what is drawn goes there.

    Yields:
        The environments; without a film where no environment can be made that draws.
    """
    spec = experiment.env
    try:
        # Wrapped as in training, so that observations and actions mean the same.
        vector_env = SerialVectorEnv([lambda: spec.make_single(render_mode="rgb_array")])
    except UserError as error:
        film.error = UserError(f"no video: {error}")
        with closing(evaluator.make(episodes)) as env:
            yield env
        return
    with closing(vector_env), closing(film):
        first = ControlEnv(vector_env, action_units=spec.action_units)
        if episodes == 1:
            yield FilmedEnv(vector_env, [first], film)
            return
        with closing(evaluator.make(episodes - 1)) as others:
            yield FilmedEnv(vector_env, [first, others], film)


def draw(env: SerialVectorEnv) -> NDArray[np.uint8]:
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
