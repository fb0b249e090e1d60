"""Directories of pretrained models: read without running anything in them."""

import json
from pathlib import Path
from typing import Any

import torch

from rlrun.envs.tokens.pretrained import quiet, require_transformers
from rlrun.errors import UserError, near_path

CONFIG, WEIGHTS = "config.json", ("model.safetensors", "model.safetensors.index.json")

# In what transformers says of a model that is a program.
REMOTE_CODE = "trust_remote_code"
OTHER_SIZES = "ignore_mismatched_sizes"

# Of peft's: it names the model that it belongs to, wherever that is.
ADAPTER = "adapter_config.json"


def is_model(path: Path) -> bool:
    """Say whether a directory is a pretrained model's, and no run's."""
    return (path / CONFIG).is_file() and not (path / "run.json").exists()


def require_model(path: Path, place: str) -> None:
    """Refuse a directory that is no model's, or whose weights could be code.

    Args:
        path: the directory.
        place: how the user named it ("model.path=…").

    Raises:
        UserError: names what is missing.
    """
    require_transformers("model=huggingface")
    if not path.is_dir():
        raise UserError(f"{place}: no such directory{near_path(path)}")
    if (path / ADAPTER).exists():
        raise UserError(f"{place} has {ADAPTER}: an adapter is no model by itself; merge it first")
    if not (path / CONFIG).is_file():
        raise UserError(f"{place} is no model: it has no {CONFIG}")
    if not any((path / name).is_file() for name in WEIGHTS):
        pickled = sorted(each.name for each in path.glob("*.bin"))
        hint = f"; {pickled[0]} may be code, and is not read" if pickled else ""
        raise UserError(f"{place} has no weights: no {' nor '.join(WEIGHTS)}{hint}")


def read_model(path: Path, place: str) -> Any:
    """Read a model, with weights in single precision.

    Args:
        path: its directory.
        place: how the user named it.

    Raises:
        UserError: it is none, or not a whole one.
    """
    require_model(path, place)
    from transformers import AutoModelForCausalLM

    try:
        with quiet(), torch.random.fork_rng(devices=[]):  # it draws what it then reads
            read: Any = AutoModelForCausalLM.from_pretrained(
                path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except Exception as error:  # of many kinds, by the model's
        reason = " ".join(str(error).split())[:300]
        if REMOTE_CODE in reason:
            reason = "it comes with code of its own, which is never run"
        if OTHER_SIZES in reason:
            reason = f"its weights are not of the sizes that {CONFIG} says"
        raise UserError(f"{place} cannot be read: {reason}") from error
    model, said = read
    if lost := sorted(said["missing_keys"]):
        raise UserError(f"{place} is not whole: its weights lack {', '.join(lost[:3])}")
    return model.eval()


def context_of(path: Path) -> int | None:
    """Return how many tokens a model reads at most; None: its config does not say."""
    config = json.loads((path / CONFIG).read_text())
    return next(
        (config[name] for name in ("max_position_embeddings", "n_positions") if name in config),
        None,
    )
