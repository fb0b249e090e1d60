"""A policy's episodes as a dataset of Minari's (minari.farama.org)."""

import copy
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
from gymnasium.vector.utils import concatenate, create_empty_array

from rlrun.config.experiment import Experiment
from rlrun.errors import UserError
from rlrun.runs.evaluate import unwatched
from rlrun.runs.export.facts import facts_of
from rlrun.runs.export.formats import require_packages
from rlrun.runs.files.disk import remove
from rlrun.runs.reopen import saved_run
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.trained import TrainedPolicy, deployed

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer

# Where Minari looks for datasets.
ROOT = "MINARI_DATASETS_PATH"

# Of an id, as Minari reads it: (namespace/)…name-v0.
ID = re.compile(r"([\w-]+/)*[\w.:-]+-v\d+")


class Dataset(NamedTuple):
    """A dataset that was written.

    Attributes:
        id: what ``minari.load_dataset`` takes.
        path: its directory.
    """

    id: str
    path: Path


def export_episodes(
    directory: Path,
    *,
    episodes: int,
    seed: int,
    dataset_id: str | None = None,
    root: Path | None = None,
    force: bool = False,
    checkpoint: str = "last",
    plugins: Sequence[str] = (),
    watch: Callable[[int], None] = unwatched,
) -> Dataset:
    """Record episodes of a run's greedy policy, as `rlrun eval` plays them.

    Args:
        directory: the run's directory.
        episodes: how many.
        seed: of the first one; the others count up from it.
        dataset_id: Minari's; None: "<environment>/<algorithm>-s<seed>-v0".
        root: directory of datasets; None: Minari's own.
        force: whether a dataset of this id may be replaced.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.
        watch: is told how many episodes have ended.

    Raises:
        UserError: there is no such policy, Minari is missing, or there is such a dataset.
    """
    require_packages(["minari"], "--to minari", "minari")
    with saved_run(directory, checkpoint, plugins) as (assembly, path), datasets_in(root):
        from minari.storage import get_dataset_path

        name = dataset_id or default_id(assembly)
        if not ID.fullmatch(name):
            raise UserError(f"--output: {name!r} is no id of Minari's, such as hopper/ppo-v0")
        place = Path(get_dataset_path(name))
        if place.exists() and not force:
            raise UserError(f"{place} exists: --output with another id, or --force")
        dataset = Dataset(name, place)
        policy = TrainedPolicy(deployed(assembly), facts_of(assembly, path), seed)
        record(assembly, policy, dataset, episodes=episodes, seed=seed, watch=watch)
        return dataset


def default_id(assembly: Assembly) -> str:
    """Return the id of a run's episodes: "hopper/ppo-s0-v0"."""
    experiment = assembly.experiment
    names = (experiment.choices["env"], f"{experiment.choices['algo']}-s{experiment.seed}")
    env, algo = (re.sub(r"[^\w-]+", "-", name) for name in names)
    return f"{env}/{algo}-v0"


@contextmanager
def datasets_in(root: Path | None) -> Iterator[None]:
    """Have Minari keep its datasets in a directory for a while; None: where it does anyway."""
    before = os.environ.get(ROOT)
    if root is not None:
        os.environ[ROOT] = str(root.resolve())
    try:
        yield
    finally:
        os.environ.pop(ROOT, None)
        if before is not None:
            os.environ[ROOT] = before


def record(
    assembly: Assembly,
    policy: TrainedPolicy,
    dataset: Dataset,
    *,
    episodes: int,
    seed: int,
    watch: Callable[[int], None],
) -> None:
    """Play episodes one after the other, and write each.

    Args:
        assembly: of the run, which says what the environment is.
        policy: who acts.
        dataset: where to; what is there is replaced.
        episodes: how many.
        seed: of the first one.
        watch: is told how many episodes have ended.
    """
    import minari

    experiment, facts = assembly.experiment, policy.facts
    with closing(limited(experiment.env.make_single(render_mode=None), experiment)) as env:
        remove(dataset.path)
        try:
            with warnings.catch_warnings(action="ignore"):  # that it has no author, say
                written = minari.create_dataset_from_buffers(
                    dataset.id,
                    [],
                    env=env,
                    algorithm_name=facts["algorithm"],
                    description=f"Episodes of a policy that rlrun trained: {experiment.name}",
                    jpeg_encoding=False,  # which loses something
                )
            written.storage.update_metadata({f"rlrun_{name}": v for name, v in facts.items()})
            for index in range(episodes):
                written.update_dataset_from_buffer([play(env, policy, seed + index)])
                watch(index + 1)
        except BaseException:
            remove(dataset.path)
            raise


def limited(env: gym.Env, experiment: Experiment) -> gym.Env:
    """End episodes where an evaluation does, if the environment has no such limit itself."""
    longest, own = experiment.evaluation.max_length, experiment.env.time_limit
    if own is not None and own <= longest:
        return env
    return gym.wrappers.TimeLimit(env, longest)


def play(env: gym.Env, policy: TrainedPolicy, seed: int) -> "EpisodeBuffer":
    """Play one episode of the greedy policy: T steps, and T + 1 observations.

    Args:
        env: one environment.
        policy: who acts.
        seed: of the environment.
    """
    from minari.data_collector import EpisodeBuffer

    obs, _ = env.reset(seed=seed)
    observations, actions, outcomes = [copy.deepcopy(obs)], [], []
    over = False
    while not over:
        actions.append(policy.act(obs))
        obs, reward, terminated, truncated, _ = env.step(actions[-1])
        over = bool(terminated or truncated)
        observations.append(copy.deepcopy(obs))  # many an environment writes over it
        outcomes.append((float(reward), bool(terminated), bool(truncated)))
    rewards, terminations, truncations = zip(*outcomes, strict=True)
    return EpisodeBuffer(
        seed=seed,
        observations=stacked(env.observation_space, observations),
        actions=stacked(env.action_space, actions),
        rewards=list(rewards),
        terminations=list(terminations),
        truncations=list(truncations),
    )


def stacked(space: gym.Space, values: Sequence[Any]) -> Any:
    """Put T values of a space together: an array [T, ...], or a tuple or dict of such."""
    empty: Any = create_empty_array(space, len(values))
    return concatenate(space, values, empty)
