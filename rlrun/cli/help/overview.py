"""`rlrun --help`: what rlrun does, what can be chosen, and examples.

The choices are read from the files themselves, so help never names one that is not there.
"""

from collections.abc import Sequence
from pathlib import Path

from rlrun.cli.parser import OneLineParser
from rlrun.errors import UserError, near_path

# In the order in which a user thinks of them; the words say what a choice of the group is.
GROUPS = {
    "algo": "the algorithm",
    "env": "the environment",
    "advantage": "the advantage estimator, in place of the algorithm's own",
    "collector": "where the data come from, in place of the algorithm's own",
    "model": "the networks",
    "hardware": "where it runs",
    "logger": "where metrics go, besides metrics.jsonl; several: logger=[wandb,tensorboard]",
    "tuned": "values for one pair, taken by themselves",
}

USAGE = """\
rlrun: reinforcement-learning experiments from one command line

  rlrun [group=choice ...] [setting=value ...]     train one run
  rlrun -m algo=ppo seed=0,1,2 ...                 train one run for each combination, side by side
  rlrun tune name=value ...                        search good values, prove them on fresh seeds

  rlrun eval RUN       episodes of a trained policy, and a video of one
  rlrun export RUN     the policy as a file that runs without rlrun: --to onnx, torch, safetensors
  rlrun resume RUN     continue a run to its total, or total_steps=... further; or a sweep
  rlrun list [ROOT]    the runs under outputs/: status, steps, return, time
  rlrun compare RUN …  methods over seeds and tasks: a table, and with --output a report
  (each has its own --help)

  rlrun --help SETTING what a setting (algo.clip) or group (env) is, its type and its value

Groups and their choices (rlrun --cfg job shows every setting and its value):
"""

OPTIONS = """\
Options:
  --cfg job                shows the composed config and stops; with -p algo, a part of it
  -m, --multirun           one run for each combination of values with commas
  --config-dir DIR         adds your own groups and choices (DIR/env/mine.yaml)
  --info [defaults-tree]   shows how the config was composed
  -sc install=bash         shell completion: eval "$(rlrun -sc install=bash)"; also zsh, fish
  --version                shows rlrun's version
"""

EXAMPLES = """\
Examples:
  rlrun algo=ppo env=hopper
  rlrun env=cartpole total_steps=200_000 seed=3
  rlrun env=hopper advantage=td algo.optimizer.learning_rate=1e-4
  rlrun env=gym env.id=MountainCar-v0 logger=[wandb,tensorboard]
  rlrun -m env=hopper,walker2d seed=0,1,2,3,4
  rlrun eval outputs/<date>/<run> --episodes 20 --video hopper.mp4
"""


def asked_for(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the settings that a command line gives, and those that it asks about.

    Args:
        words: the command line with --help ("algo=trpo", "--help", "algo.trust_region.max_kl").
    """
    parser = OneLineParser("rlrun", add_help=False)
    parser.add_argument("--config-dir", "-cd")
    others = [word for word in parser.parse_known_args(words)[1] if not word.startswith("-")]
    # Completion ends a setting with the "=" that is to follow.
    words = [word.removesuffix("=") for word in others]
    overrides = [word for word in words if "=" in word or word.startswith(("+", "~"))]
    return overrides, [word for word in words if word not in (*overrides, "train")]


def users_directory(words: Sequence[str]) -> list[Path]:
    """Returns the user's own directory of groups, if the command line names one.

    Args:
        words: the command line.

    Raises:
        UserError: there is no such directory.
    """
    parser = OneLineParser("rlrun", add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    directory = parser.parse_known_args(words)[0].config_dir
    if directory is not None and not directory.is_dir():
        raise UserError(f"--config-dir: no directory '{directory}'{near_path(directory)}")
    return [] if directory is None else [directory]


def text(directories: Sequence[Path]) -> str:
    """Returns the help text.

    Args:
        directories: those of the groups; of two choices with one name the later one counts.
    """
    parts = [USAGE]
    for group, meaning in GROUPS.items():
        lines: dict[str, str] = {}
        for conf in directories:
            lines |= choices(conf / group)
        if lines:
            width = max(len(name) for name in lines)
            parts.append(f"  {group}: {meaning}\n")
            parts.extend(f"    {name:<{width}}  {line}\n" for name, line in lines.items())
            parts.append("\n")
    return "".join([*parts, OPTIONS, "\n", EXAMPLES]).rstrip()


def choices(directory: Path) -> dict[str, str]:
    """Returns the choices of a group, each with the first comment line of its file."""
    return {path.stem: first_comment(path) for path in sorted(directory.glob("*.yaml"))}


def first_comment(path: Path) -> str:
    """Returns a YAML file's first comment line that is not an instruction to Hydra."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.removeprefix("#").strip()
    return ""
