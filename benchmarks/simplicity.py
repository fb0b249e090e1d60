"""Measures how much of rlrun one has to read: of one checkout, or of several side by side.

    python benchmarks/simplicity.py                     # this tree
    python benchmarks/simplicity.py ../before .         # a checkout of another commit, and this one
    python benchmarks/simplicity.py --list              # and every function that was counted

Code lines are lines without blanks, comments and docstrings. Measured are:

- **From the loop to the optimiser step**, of PPO and GRPO on CartPole, eagerly: every function of
  rlrun that runs between the start of ``loops.on_policy`` and the end of the first ``update``, the
  files that they stand in, and their code lines; and how many of them call another one, which are
  the jumps, while the others are leaves: a formula, a copy, a look-up. Those that are open when the
  optimiser takes its step are the way itself, beside which all others stand. `iteration_path.py`
  finds them by running the command, and says what is left out: the environment, the run's own
  files, the loggers.
- **algos/**: the code lines of the policy gradient, for which the limit was set; and the share of
  all that is mathematics and its order of work, which
  are losses, ``update`` and all functions and methods but those that build, save and check
  (`PLUMBING`).
- **Duplicates**: pairs of files in ``algos/`` that share six code lines in a row, imports aside.
"""

import argparse
import ast
import io
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
# Of which the path is followed, with settings that make their first iteration short.
ALGORITHMS = {"ppo": ("algo.num_envs=2", "algo.epochs=1"), "grpo": ("algo.epochs=1",)}
# What is wanted: at most, but for the share of mathematics, at least.
LIMITS = {
    **{f"{algo}: functions": 25 for algo in ALGORITHMS},
    **{f"{algo}: files": 8 for algo in ALGORITHMS},
    **{f"{algo}: functions open at the optimiser's step": 25 for algo in ALGORITHMS},
    **{f"{algo}: their files": 8 for algo in ALGORITHMS},
    "algos/: code lines of the policy gradient": 850,
    "algos/: share of mathematics": 0.5,
    "algos/: duplicates": 0,
}
# Methods that are neither mathematics nor its order of work; nor is what begins with an underscore
# twice (but for __call__), and functions whose name begins like one of CHECKS.
PLUMBING = (
    "setup",
    "collect",
    "updates",
    "compile",
    "warm_up",
    "run_eagerly",
    "weights",
    "load_weights",
    "state_dict",
    "load_state_dict",
    # Made up for a trial, or for the compiler.
    "example",
    "made_up_rollout",
)
CHECKS = ("check_", "require_", "refuse_", "make_")
# Rooms of algos/ with algorithms that there were none of when the limit was set.
OTHER_FAMILIES = ("tabular", "off_policy", "preference")
RUN = 6  # code lines in a row that make a pair of files duplicates

Function = ast.FunctionDef | ast.AsyncFunctionDef
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Step(NamedTuple):
    """A function on the way from the loop to the optimiser.

    Attributes:
        file: where it stands, below ``rlrun/``.
        name: with its class.
        depth: calls between the loop and its first call.
        jumps: whether it calls another function on the way.
        leads_there: whether it is open when the optimiser takes its step.
        code_lines: of its own.
    """

    file: str
    name: str
    depth: int
    jumps: bool
    leads_there: bool
    code_lines: int


class Source:
    """A file's syntax tree, and the numbers of its code lines."""

    def __init__(self, path: Path):
        text = path.read_text()
        self.lines = text.splitlines()
        self.tree = ast.parse(text)
        skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
        skipped |= {tokenize.INDENT, tokenize.DEDENT}
        self.code = {
            number
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in skipped
            for number in range(token.start[0], token.end[0] + 1)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                self.code -= span(node.body[0])

    def count(self, node: ast.stmt) -> int:
        """Count a node's code lines."""
        return len(span(node) & self.code)

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Yield the functions and methods, by qualified name, without those of protocols."""
        for node in self.tree.body:
            if isinstance(node, Function):
                yield node.name, node
            elif isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
                for method in node.body:
                    if isinstance(method, Function):
                        yield f"{node.name}.{method.name}", method

    def runs(self) -> set[tuple[str, ...]]:
        """Return every `RUN` code lines in a row, without imports and the margin."""
        imports = (ast.Import, ast.ImportFrom)
        left_out = set().union(*(span(n) for n in ast.walk(self.tree) if isinstance(n, imports)))
        lines = [self.lines[number - 1].strip() for number in sorted(self.code - left_out)]
        return {tuple(lines[k : k + RUN]) for k in range(len(lines) - RUN + 1)}


def span(node: ast.stmt) -> set[int]:
    """Return the numbers of a statement's lines, with its decorators."""
    first = node.lineno
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        first = min([first, *(decorator.lineno for decorator in node.decorator_list)])
    return set(range(first, (node.end_lineno or first) + 1))


@cache
def path_to_the_optimizer(checkout: Path, algo: str) -> list[Step]:
    """Return the functions that run from the loop to the end of the first update.

    Args:
        checkout: root of a tree of rlrun.
        algo: choice of its group ``algo``.
    """
    package = checkout / "rlrun"
    with tempfile.TemporaryDirectory() as scratch:
        words = [f"algo={algo}", "env=cartpole", "hardware.compile=off", "hardware.threads=1"]
        words += ["logger=none", "total_steps=1", f"run_dir={scratch}/run", *ALGORITHMS[algo]]
        done = subprocess.run(
            [sys.executable, str(HERE / "iteration_path.py"), str(checkout), *words],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=scratch,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"{checkout}, {algo}: {done.stderr.strip()[-1000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    sources = {file: Source(package / file) for file, *_ in found}
    lines = {
        (file, name): source.count(node)
        for file, source in sources.items()
        for name, node in source.functions()
    }
    steps = [
        Step(file, name, depth, jumps, leads_there, lines[file, name])
        for file, name, depth, jumps, leads_there in found
    ]
    if not any("optim" in step.file and step.name.endswith(".step") for step in steps):
        raise RuntimeError(f"{checkout}, {algo}: no optimiser's step among {steps}")
    return steps


def is_mathematics(name: str) -> bool:
    """Tell whether a function of ``algos/`` is mathematics or its order of work."""
    last = name.rpartition(".")[2]
    special = last.startswith("__") and last != "__call__"
    return not special and last not in PLUMBING and not last.startswith(CHECKS)


def measure(checkout: Path) -> tuple[dict[str, float], list[str]]:
    """Return a checkout's measures, and what was counted as lines of text."""
    measures: dict[str, float] = {}
    counted = []
    for algo in ALGORITHMS:
        steps = path_to_the_optimizer(checkout, algo)
        measures[f"{algo}: code lines"] = sum(step.code_lines for step in steps)
        measures[f"{algo}: functions"] = len(steps)
        measures[f"{algo}: of them, functions that call others"] = sum(s.jumps for s in steps)
        measures[f"{algo}: files"] = len({step.file for step in steps})
        way = [step for step in steps if step.leads_there]
        measures[f"{algo}: functions open at the optimiser's step"] = len(way)
        measures[f"{algo}: their files"] = len({step.file for step in way})
        counted.append(f"\n{algo}, from the loop to the optimiser step (code lines, function):")
        counted += [
            f"{s.code_lines:4} {'>' if s.leads_there else ' '}{'  ' * s.depth}{s.name}  {s.file}"
            for s in steps
        ]

    algos = checkout / "rlrun" / "algos"
    sources = {path: Source(path) for path in sorted(algos.rglob("*.py"))}
    lines = {path.relative_to(algos): len(source.code) for path, source in sources.items()}
    total, mathematics = sum(lines.values()), 0
    counted.append("\nmathematics and its order of work in algos/:")
    for path, source in sources.items():
        for name, node in source.functions():
            if is_mathematics(name):
                mathematics += source.count(node)
                counted.append(f"{source.count(node):4} {name}  {path.relative_to(algos)}")
    others = sum(count for path, count in lines.items() if path.parts[0] in OTHER_FAMILIES)
    measures["algos/: code lines of the policy gradient"] = total - others
    measures["algos/: share of mathematics"] = round(mathematics / total, 3)
    runs = {path: source.runs() for path, source in sources.items()}
    pairs = [(one, other) for one, other in combinations(sources, 2) if runs[one] & runs[other]]
    measures["algos/: duplicates"] = len(pairs)
    counted.append(f"\npairs of files in algos/ with {RUN} same code lines in a row:")
    counted += [f"     {one.name} {other.name}" for one, other in pairs]
    return measures, counted


def too_much(measures: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> list[str]:
    """Return the measures that are not as they should be."""
    wrong = []
    for name, limit in limits.items():
        value = measures[name]
        if value < limit if name.endswith("mathematics") else value > limit:
            wrong.append(f"{name}: {value:g}, wanted {limit:g}")
    return wrong


def make_table(columns: dict[str, dict[str, float]]) -> str:
    """Return the Markdown table of measures: checkouts across."""
    heads = [*columns, "wanted"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'--:|' * len(heads)}"]
    for name in next(iter(columns.values())):
        bound = "≥" if name.endswith("mathematics") else "≤"
        wanted = f"{bound} {LIMITS[name]:g}" if name in LIMITS else ""
        cells = (f"{measures[name]:g}" for measures in columns.values())
        lines.append(f"| {name} | {' | '.join(cells)} | {wanted} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; exit with 1 if the last checkout is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE.parent])
    parser.add_argument("--list", action="store_true", help="every function that was counted")
    arguments = parser.parse_args()
    columns = {}
    for checkout in arguments.checkouts:
        columns[str(checkout)], counted = measure(checkout.resolve())
        if arguments.list:
            print(f"\n== {checkout}", *counted, sep="\n")
    print(make_table(columns))
    wrong = too_much(columns[str(arguments.checkouts[-1])])
    print(*wrong, sep="\n", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
