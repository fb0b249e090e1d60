"""What a run is made of: the top level of config.yaml, checked and built."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrun.config.types import Count, NonNegativeInt, NonNegativeOrInfinite

# Evaluations are so many environment steps apart, unless that makes too few of them for a curve.
USUAL_INTERVAL = 50_000
FEWEST_EVALUATIONS = 10


@dataclass(kw_only=True)
class Evaluation:
    """When and how long the policy is evaluated.

    Attributes:
        every_steps: environment steps between evaluations; None: as `interval` says.
        episodes: episodes of one evaluation.
        max_length: steps after which an episode of an evaluation counts as over.
    """

    every_steps: Count | None
    episodes: Count
    max_length: Count

    def interval(self, total_steps: int) -> int:
        """Return the environment steps between evaluations, of which even a short run has ten."""
        return self.every_steps or max(1, min(USUAL_INTERVAL, total_steps // FEWEST_EVALUATIONS))


@dataclass(kw_only=True)
class Checkpointing:
    """When the run's state is saved, and how many are kept.

    Attributes:
        every_seconds: seconds between checkpoints; infinite: at the end only.
        keep: number of newest checkpoints kept, beside the best.
        replay: whether a replay buffer is saved, too.
    """

    every_seconds: NonNegativeOrInfinite
    keep: Count
    replay: bool


@dataclass(kw_only=True)
class Experiment:
    """Everything that a run is made of, checked and built: the top level of config.yaml.

    Attributes:
        algo: the algorithm, with its hyperparameters.
        env: environment spec, which makes the environments.
        collector: collector spec, which makes what the algorithm gets its data from; None for an
            algorithm that collects none.
        model: model spec, which builds the networks; None for an algorithm without.
        advantage: estimator ``rollout -> (advantage, target)``; None for an algorithm without.
        hardware: device, threads and compilation.
        loggers: logger specs by name, beside those that are always on.
        seed: the number that all of the run's random streams come from.
        total_steps: environment steps to train for.
        log_every_steps: environment steps that a row of metrics is about, at least.
        evaluation: when and how long to evaluate.
        checkpoint: when to save the state.
        run_dir: the run's directory; None for a new one in `parent`.
        tags: free words for the loggers.
        group: name that the loggers show runs together under; None for the label.
        tuned_on: seeds that its values were chosen on; runs of earlier versions do not say so.
        plugins: the user's packages, imported before anything is built.
        choices: what was chosen of each group that a part is built from: {"algo": "ppo", …}.
        label: the run in a word without its seed ("ppo_hopper_td"): algorithm, environment, and the
            other parts as far as they are not the algorithm's own.
        parent: directory in which a new run's directory is made.
        config: the resolved config in plain containers.
        overrides: the command line's words.
        sweep: what the run's sweep is called; None: it is part of none.
    """

    algo: Any
    env: Any
    collector: Any = None
    model: Any = None
    advantage: Callable | None
    hardware: Any
    loggers: dict[str, Any]
    seed: NonNegativeInt
    total_steps: Count
    log_every_steps: Count
    evaluation: Evaluation
    checkpoint: Checkpointing
    run_dir: str | None
    tags: list[str]
    group: str | None
    tuned_on: list[NonNegativeInt] = field(default_factory=list)
    plugins: list[str]
    choices: dict[str, str]
    label: str
    parent: Path
    config: dict[str, Any]
    overrides: list[str]
    sweep: str | None = None

    @property
    def name(self) -> str:
        """The run in a word, for people."""
        return f"{self.label}_s{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """What the run is, by name: {"algo": "ppo", "env": "hopper", "env_id": "Hopper-v5", …}."""
        others = dict(sorted(self.choices.items()))
        algo, env = others.pop("algo"), others.pop("env")
        return {"algo": algo, "env": env, "env_id": self.env.id, **others, "seed": self.seed}
