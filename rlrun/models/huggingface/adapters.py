"""Adapters of low rank, by the package peft; what they adapt is frozen, and can be shared."""

import copy
import hashlib
import importlib.util
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from rlrun.config.types import Count
from rlrun.errors import UserError, did_you_mean

M = TypeVar("M", bound=nn.Module)

# In the names of an adapter's weights.
MARK = "lora_"

# Numbers of each frozen tensor that its model is recognised by.
MOST_LOOKED_AT = 256


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

    def __post_init__(self):
        """Refuse adapters of nothing."""
        if self.targets == []:
            raise ValueError("targets must name layers; null: all linear ones but the head")


class FrozenModel(nn.Module):
    """Which model adapters belong to, in a checkpoint that has these alone.

    Attributes:
        digest: of some numbers of each of its tensors, [32] (uint8).
    """

    digest: torch.Tensor

    def __init__(self, tensors: Iterable[torch.Tensor]):
        """Look at frozen tensors."""
        super().__init__()
        seen = hashlib.blake2b(digest_size=32)
        for tensor in tensors:
            flat = tensor.reshape(-1)
            some = flat[:: max(1, len(flat) // MOST_LOOKED_AT)]
            seen.update(f"{list(tensor.shape)}".encode() + some.numpy().tobytes())
        digest = torch.frombuffer(bytearray(seen.digest()), dtype=torch.uint8)
        self.register_buffer("digest", digest)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Compare, in place of loading.

        Raises:
            UserError: the adapters that are loaded were trained on another model.
        """
        saved = state_dict.get(f"{prefix}digest", self.digest)
        if not torch.equal(saved.cpu(), self.digest.cpu()):
            raise UserError("these adapters were trained on another model than is in model.path")


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

    layers = [name for name, _ in model.named_modules()]
    for target in settings.targets or ():
        # As peft reads a name: of a module, or the end of one.
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            hint = did_you_mean(target, {name.rpartition(".")[2] for name in layers})
            raise UserError(f"model.lora.targets: this model has no layer {target!r}{hint}")
        if any(name == target or name.endswith(f".{target}") for name in logit_layers(model)):
            raise UserError(
                f"model.lora.targets: {target!r} makes the logits, and can have no adapter here"
            )
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
        elif f"{MARK}embedding_B" in name:  # of embeddings it is A that is 0
            nn.init.normal_(weight, generator=generator)
        elif f"{MARK}B" in name or f"{MARK}embedding_A" in name:
            nn.init.zeros_(weight)
    frozen: dict[int, torch.Tensor] = {}  # tied weights stay one
    for path, module in model.named_modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if MARK not in f"{path}.{name}":
                delattr(module, name)
                tensor = frozen.setdefault(id(weight), weight.detach())
                module.register_buffer(name, tensor, persistent=False)
    model.base_model.add_module(f"{MARK}base", FrozenModel(frozen.values()))


def logit_layers(model: Any) -> list[str]:
    """Return the names of what makes logits: the head, and an embedding that is tied to it."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    makers = [head, embedding] if head.weight is embedding.weight else [head]
    return [name for name, each in model.named_modules() if any(each is one for one in makers)]


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
            elif isinstance(child, FrozenModel):
                delattr(parent, name)
    return twin


def with_own_adapters(module: M) -> M:
    """Return a copy of a module that has the same tensors where no state has them: those frozen.

    Args:
        module: with adapters; of one without, all is copied that changes.
    """
    saved = {id(each) for each in module.state_dict(keep_vars=True).values()}
    same = {id(each): each for each in module.buffers() if id(each) not in saved}
    return copy.deepcopy(module, same)


def merged(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a module by name, with adapters added to what they adapt.

    Args:
        module: with adapters, or without; it is not changed.
    """
    if not any(MARK in name for name, _ in module.named_parameters()):
        return weights_of(module)
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(module)
    for parent in list(whole.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
    return weights_of(whole)


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a module by name, frozen ones too, which its state has not."""
    parameters = module.named_parameters(remove_duplicate=False)
    return dict(chain(parameters, module.named_buffers(remove_duplicate=False)))
