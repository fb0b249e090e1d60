"""A pretrained model from a directory, trained whole or by adapters: ``model=huggingface``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from rlrun.config.types import Count
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.pretrained import PretrainedTokenizer
from rlrun.errors import UserError
from rlrun.models.huggingface.adapters import (
    LoRA,
    adapt,
    with_own_adapters,
    without_adapters,
)
from rlrun.models.huggingface.decoder import PretrainedDecoder
from rlrun.models.huggingface.directory import context_of, read_model, require_model
from rlrun.models.language import refusals
from rlrun.models.language.networks import Precision, Reader, TokenCritic, TokenPolicy
from rlrun.models.networks import Policy, StateCritic


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """Settings; ``conf/model/huggingface.yaml`` explains them."""

    choice: ClassVar[str] = "huggingface"
    action_critic = refusals.action_critic
    squashed_policy = deterministic_policy = refusals.policy_over_a_box
    action_values = refusals.action_values

    path: str
    lora: LoRA | None
    micro_batch: Count | None
    precision: Precision
    init: str | None

    # The policies that were built: what is frozen of the last one, a reference can share.
    built: list[TokenPolicy] = field(default_factory=list, init=False, repr=False, compare=False)

    def policy(self, problem: Problem, generator: torch.Generator) -> Policy:
        """Read π(a|s) (see :class:`~rlrun.models.networks.Model`)."""
        policy = TokenPolicy(self._reader(problem, generator))
        self.built.append(policy)
        return policy

    def critic(self, problem: Problem, generator: torch.Generator) -> StateCritic:
        """Read V(s), a model of its own with another head (as `policy`)."""
        return TokenCritic(self._reader(problem, generator))

    @property
    def place(self) -> str:
        """How the user named the model."""
        return f"model.path={self.path}"

    def shares_with(self, path: Path) -> bool:
        """Say whether a policy has the model of a directory in it, frozen."""
        return self.lora is not None and path.resolve() == Path(self.path).resolve()

    def before_training(self) -> TokenPolicy:
        """Return the policy that was built, without its adapters, by the same tensors."""
        return without_adapters(self.built[-1])

    def other_adapters(self) -> TokenPolicy:
        """Return a copy of the policy that was built; what its adapters adapt is shared."""
        return with_own_adapters(self.built[-1])

    def differs_by_adapters(self, node: Any) -> bool:
        """Say whether a policy is of the same model with the same kind of adapters.

        Args:
            node: the settings of its run's model, as they stand in that run's config.
        """
        if self.lora is None or not isinstance(node, Mapping) or "path" not in node:
            return False
        here = {**asdict(self), "path": Path(self.path).resolve()}
        there = {**node, "path": Path(str(node["path"])).resolve()}
        if there.get("_target_") != f"{HuggingFace.__module__}.{HuggingFace.__name__}":
            return False
        return all(there.get(name) == here[name] for name in ("path", "lora", "precision"))

    def save(self, policy: TokenPolicy, directory: Path) -> None:
        """Write a directory that transformers loads: the model, adapters merged, and tokeniser.

        Args:
            policy: one that was built by such settings.
            directory: that is there.
        """
        decoder = policy.reader.decoder
        assert isinstance(decoder, PretrainedDecoder)
        decoder.save(directory, spare_rows=True, ends=policy.reader.language.ends)
        PretrainedTokenizer(self.path, "model.path").save(directory)

    def _reader(self, problem: Problem, generator: torch.Generator) -> Reader:
        language, path = refusals.language_of(self, problem), Path(self.path)
        require_model(path, self.place)
        if PretrainedTokenizer(self.path, "model.path").tokens != language.tokens:
            raise UserError(
                f"{self.place} has a tokeniser of its own, and {problem.env_id} other tokens: "
                f"env=prompts env.tokenizer={self.path}"
            )
        limit, longest = context_of(path), language.prompt_rows + language.response_rows
        if limit is not None and longest > limit:
            room = limit - language.response_rows
            raise UserError(
                f"{self.place} reads {limit} tokens, and the longest prompt of {problem.env_id} "
                f"({language.prompt_rows}) with a response ({language.response_rows}) is {longest}"
                + (f"; see env.max_prompt_tokens, of which {room} fit" if room > 0 else "")
            )
        model = read_model(path, self.place)
        decoder = PretrainedDecoder(model, path, language.size, self.place)
        if self.lora is not None:
            adapt(model, self.lora, generator)
        return Reader(decoder, language, self.micro_batch, self.precision)
