"""A policy as a file that runs without rlrun: ONNX, torch.export, or weights with a description.

Every file goes from raw observations to actions (`DeployedPolicy`), any number of them at once, and
says what it is: environment, spaces, algorithm, step, return, commit.
"""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from rlrun.errors import UserError
from rlrun.runs.export.description import describe
from rlrun.runs.export.facts import facts_of
from rlrun.runs.export.policy import DeployedPolicy
from rlrun.runs.files.disk import replacing
from rlrun.runs.reopen import saved_run
from rlrun.runs.trained import deployed

# Of the example that a policy is traced with: neither 0 nor 1, which could be taken for constants.
EXAMPLE_BATCH = 2

EXPORTERS = logging.getLogger("torch.onnx")

# The entry of a file that has the facts as JSON.
FACTS = "rlrun.json"


class Format(NamedTuple):
    """A kind of file.

    Attributes:
        suffixes: of the names of the files that it consists of; the first one is the policy.
        packages: that writing it needs, beside rlrun's own.
        write: policy, facts -> contents of the files.
    """

    suffixes: Sequence[str]
    packages: Sequence[str]
    write: Callable[[DeployedPolicy, dict[str, Any]], Sequence[bytes]]


def export_policy(
    directory: Path,
    to: str,
    *,
    output: Path | None = None,
    force: bool = False,
    checkpoint: str = "last",
    plugins: Sequence[str] = (),
) -> list[Path]:
    """Write a run's policy as a file.

    Args:
        directory: the run's directory.
        to: "onnx", "torch" or "safetensors".
        output: the file; None: ``policy.<suffix>`` in the run's directory.
        force: whether a file of this name may be replaced.
        checkpoint: "last" or "best".
        plugins: the user's packages that the run may use.

    Returns:
        The files; beside weights there is one that describes them.

    Raises:
        UserError: there is no such policy, a package is missing, the policy cannot be exported, or
            the file is there already or cannot be written.
    """
    kind = FORMATS[to]
    require_packages(kind.packages, f"--to {to}", "onnx")
    file = output or directory / f"policy{kind.suffixes[0]}"
    if file.suffix != kind.suffixes[0]:
        raise UserError(f"--output: a file of --to {to} ends in {kind.suffixes[0]}, got '{file}'")
    files = [file.with_suffix(suffix) for suffix in kind.suffixes]
    require_free(files, force)
    with saved_run(directory, checkpoint, plugins) as (assembly, path):
        policy, facts = deployed(assembly), facts_of(assembly, path)
        try:
            contents = kind.write(policy, facts)
        except Exception as error:  # whatever torch makes of a network of the user's own
            reason = " ".join(str(error).split())
            raise UserError(
                f"the policy of {facts['algorithm']}, a {type(policy.policy).__name__}, cannot be "
                f"exported to {to}: {type(error).__name__}: {reason}"
            ) from error
    for name, content in zip(files, contents, strict=True):
        try:
            with replacing(name) as opened:
                opened.write(content)
        except OSError as error:
            raise UserError(f"{name} cannot be written: {error.strerror}") from error
    return files


def require_packages(packages: Sequence[str], option: str, extra: str) -> None:
    """Refuse what needs a package that is not there.

    Args:
        packages: names of modules.
        option: what needs them.
        extra: of rlrun, that brings them.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{option} needs {' and '.join(missing)}: pip install 'rlrun[{extra}]'")


def require_free(files: Sequence[Path], force: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        UserError: a file exists, and may not be replaced, or there is no such directory.
    """
    for file in files:
        if not file.parent.is_dir():
            raise UserError(f"--output: no directory '{file.parent}'")
        if file.is_dir() or (file.exists() and not force):
            remedy = "another name" if file.is_dir() else "another name, or --force"
            raise UserError(f"{file} exists: --output with {remedy}")


def example_of(policy: DeployedPolicy, batch: int = EXAMPLE_BATCH) -> tuple[Tensor, ...]:
    """Return a batch of observations to trace a policy with."""
    return tuple(torch.zeros(batch, *leaf.shape, dtype=leaf.dtype) for leaf in policy.leaves)


def traced(policy: DeployedPolicy) -> torch.export.ExportedProgram:
    """Return a policy as a graph of operations, for any number of observations."""
    batch = torch.export.Dim("batch")
    shapes = {"observations": tuple({0: batch} for _ in policy.leaves)}
    with silenced():
        return torch.export.export(policy, example_of(policy), dynamic_shapes=shapes, strict=False)


def write_onnx(policy: DeployedPolicy, facts: dict[str, Any]) -> list[bytes]:
    """Return an ONNX model; its inputs are the leaves by name, its metadata the facts."""
    with silenced():
        made = torch.onnx.export(
            policy,
            example_of(policy),
            dynamic_shapes={"observations": tuple({0: "batch"} for _ in policy.leaves)},
            input_names=[leaf.name for leaf in policy.leaves],
            output_names=output_names(policy),
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    made.model.metadata_props.update({name: str(value) for name, value in facts.items()})
    return [made.model_proto.SerializeToString()]


def write_program(policy: DeployedPolicy, facts: dict[str, Any]) -> list[bytes]:
    """Return a program of torch.export: ``torch.export.load(file).module()(obs)["action"]``."""
    file = io.BytesIO()
    with silenced():
        torch.export.save(traced(policy), file, extra_files={FACTS: json.dumps(facts)})
    return [file.getvalue()]


def write_weights(policy: DeployedPolicy, facts: dict[str, Any]) -> list[bytes]:
    """Return the tensors by name, and a JSON description of what is to be computed with them."""
    tensors = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    weights = safetensors.torch.save(tensors, metadata={FACTS: json.dumps(facts)})
    return [weights, (json.dumps(describe(policy, facts), indent=2) + "\n").encode()]


def output_names(policy: DeployedPolicy) -> list[str]:
    """Return the names of what a policy returns, in their order."""
    with torch.no_grad():
        return list(policy(*example_of(policy)))


@contextmanager
def silenced() -> Iterator[None]:
    """Keep quiet what exporters say of themselves; an error is raised all the same."""
    level = EXPORTERS.level
    EXPORTERS.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        EXPORTERS.setLevel(level)


FORMATS = {
    "onnx": Format((".onnx",), ("onnx", "onnxscript"), write_onnx),
    "torch": Format((".pt2",), (), write_program),
    "safetensors": Format((".safetensors", ".json"), (), write_weights),
}
