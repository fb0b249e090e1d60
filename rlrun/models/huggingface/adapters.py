"""Adapters of low rank, by the package peft; what they adapt is frozen, and can be shared."""

import copy
import importlib.util
import math
import warnings
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from rlrun.config.types import Count
from rlrun.errors import UserError

M = TypeVar("M", bound=nn.Module)

# In the names of an adapter's weights.
MARK = "lora_"


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Adapters: W + α/r · B A (Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language …").

    Attributes:
        rank: r.
        alpha: α.
        targets: names of the layers that have one; None: all linear ones but the head.
    """

    rank: Count
    alpha: Count
    targets: list[str] | None


def adapt(model: Any, settings: LoRA, generator: torch.Generator) -> None:
    """Put adapters into a model, which at first change nothing, and freeze the rest of it.

    What is frozen is no parameter any more but a buffer that is not saved: an optimiser, a
    checkpoint and a check for gradients see the adapters alone.

    Args:
        model: of transformers.
        settings: of the adapters.
        generator: source of A; B is 0.

    Raises:
        UserError: peft is not there, or there are no such layers.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError("model.lora needs peft: pip install 'rlrun[transformers]'")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.targets or "all-linear",
        lora_dropout=0.0,
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
            inject_adapter_in_model(config, model)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model.lora.targets: {reason}") from error
    for name, weight in model.named_parameters():
        if f"{MARK}A" in name:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)  # as peft's
        elif f"{MARK}B" in name:
            nn.init.zeros_(weight)
    frozen: dict[int, torch.Tensor] = {}  # tied weights stay one
    for path, module in model.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if MARK not in f"{path}.{name}":
                delattr(module, name)
                tensor = frozen.setdefault(id(weight), weight.detach())
                module.register_buffer(name, tensor, persistent=False)


def without_adapters(module: M) -> M:
    """Return a module as it was before `adapt`: a twin that has the same tensors, and not copies.

    Args:
        module: with adapters.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    same = {id(each): each for each in chain(module.parameters(), module.buffers())}
    twin = copy.deepcopy(module, same)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
    return twin


def merged(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a module by name, with adapters added to what they adapt.

    Args:
        module: with adapters; it is not changed.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(module)
    for parent in list(whole.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return dict(chain(whole.named_parameters(), whole.named_buffers()))
