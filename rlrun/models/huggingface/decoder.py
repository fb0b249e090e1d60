"""A pretrained causal model as a decoder: what it says of each token, and the logits' head."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlrun.envs.tokens.pretrained import quiet
from rlrun.errors import UserError
from rlrun.models.huggingface.adapters import merged
from rlrun.models.huggingface.directory import context_of, read_model

# How far numbers may be apart that are computed in two ways, as a share of the largest one.
TOLERANCE = 1e-3


@dataclass
class PretrainedCache:
    """Keys and values of the tokens that were read.

    Attributes:
        past: the model's own.
        blank: rows above each sequence, [N].
        padded: whether there are any.
        length: tokens read.
    """

    past: Any
    blank: Tensor
    padded: bool
    length: int = 0

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but these, numbers [n]."""
        self.past.batch_select_indices(rows)
        self.blank = self.blank[rows]


class PretrainedDecoder(nn.Module):
    """The body of a model of transformers (as :class:`~rlrun.models.language.networks.Decoder`).

    Attributes:
        body: tokens -> what is said of each.
        output: makes logits of it; None: the embedding does, transposed (tied).
        scale: what logits are multiplied by besides.
        packs: whether places that begin anew keep sequences of one row apart, as in most models.
        longest_row: tokens that the model reads: some have no place for more, in any order.
    """

    def __init__(self, model: Any, path: Path, vocabulary: int, place: str):
        """Take a model.

        Args:
            model: an ``AutoModelForCausalLM``, on the CPU.
            path: the directory that it was read from.
            vocabulary: V, tokens of the tokeniser; rows of the embedding behind them are for none.
            place: how the user named the model.

        Raises:
            UserError: it has fewer tokens, or cannot be read as other models are.
        """
        super().__init__()
        self._path, self._place = path, place
        embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
        if len(embedding.weight) < vocabulary:
            raise UserError(
                f"{place} has {len(embedding.weight)} tokens, and its tokeniser {vocabulary}"
            )
        if output is None or model.base_model is model:
            raise UserError(f"{place}: {type(model).__name__} has no body and head that are apart")
        self.body = model.base_model
        self.output = None if output.weight is embedding.weight and output.bias is None else output
        self.vocabulary = vocabulary
        self.scale = 1.0
        self._takes_places = "position_ids" in inspect.signature(self.body.forward).parameters
        self._cache_of: Callable[[], Any] = dynamic_cache(model.config)
        self._require_equal(model, place)
        self.packs = self._takes_places and self._keeps_apart()
        self.longest_row = context_of(path) or math.inf

    def save(self, directory: Path, *, spare_rows: bool = False, ends: Sequence[int] = ()) -> None:
        """Write a directory that transformers loads: the model, with adapters merged.

        Args:
            directory: that is there.
            spare_rows: whether the embedding keeps its rows that are for no token of the tokeniser.
            ends: tokens that end a response, beside those that the model's directory names.
        """
        model = read_model(self._path, self._place)
        for target, trained in (
            (model.base_model, self.body),
            (model.get_output_embeddings(), self.output),
        ):
            if trained is not None:
                weights = merged(trained)
                target.load_state_dict({name: weights[name] for name in target.state_dict()})
        with quiet():
            if not spare_rows:
                model.resize_token_embeddings(self.vocabulary)
            if ends:
                named = model.generation_config.eos_token_id
                known = named if isinstance(named, list) else [named]
                model.generation_config.eos_token_id = sorted({*known, *ends} - {None})
            model.save_pretrained(directory)

    @property
    def width(self) -> int:
        """D, numbers that are said of a token."""
        bias = self.output is not None and self.output.bias is not None
        return self.body.get_input_embeddings().weight.shape[1] + bias

    @property
    def head(self) -> Tensor:
        """What makes logits, [V, d]; a bias is its last column, of which each token has 1."""
        output = self.body.get_input_embeddings() if self.output is None else self.output
        weight = output.weight[: self.vocabulary]
        if self.output is None or self.output.bias is None:
            return weight
        return torch.cat([weight, self.output.bias[: self.vocabulary, None]], 1)

    def forward(self, tokens: Tensor, blank: Tensor) -> Tensor:
        """Read whole sequences.

        Args:
            tokens: [N, S].
            blank: tokens at the beginning of each that are none, [N].

        Returns:
            [N, S, d].
        """
        return self._read(tokens, blank, bool(blank.any()), 0, use_cache=False)

    def states(self, tokens: Tensor, blank: Tensor) -> Tensor:
        """Say what each sequence is, by its last token, [N, d] (see `forward`)."""
        return self(tokens, blank)[:, -1]

    def responses(self, tokens: Tensor, blank: Tensor, prompt_rows: int) -> Tensor:
        """Read prompts of P rows with the responses to them (see `forward`).

        Returns:
            What is said of each prompt, and of each token after it, [N, S − P + 1, d].
        """
        return self(tokens, blank)[:, prompt_rows - 1 :]

    def packed(self, tokens: Tensor, sequence: Tensor) -> Tensor:
        """Read several sequences in each row, whose places are counted from each one's beginning.

        Args:
            tokens: [R, L].
            sequence: which one each token is of, −1 for none, [R, L].

        Returns:
            [R, L, d].
        """
        column = torch.arange(tokens.shape[1], device=tokens.device)
        begins = sequence.diff(dim=1, prepend=torch.full_like(sequence[:, :1], -2)) != 0
        places = column - torch.where(begins, column, 0).cummax(1).values
        # Where there is none, a row may be longer than a model counts that says no longest row.
        places = torch.where(sequence < 0, 0, places)
        return self._said(tokens, position_ids=places, use_cache=False)

    def cache(self, blank: Tensor, rows: int) -> PretrainedCache:
        """Make room to read sequences piece by piece; it grows as they do."""
        return PretrainedCache(self._cache_of(), blank, bool(blank.any()))

    def read(self, tokens: Tensor, cache: PretrainedCache) -> Tensor:
        """Read the next tokens of sequences, [N, s]; return what is said of them, [N, s, d]."""
        hidden = self._read(
            tokens,
            cache.blank,
            cache.padded,
            cache.length,
            past_key_values=cache.past,
            use_cache=True,
        )
        cache.length += tokens.shape[1]
        return hidden

    def _read(
        self, tokens: Tensor, blank: Tensor, padded: bool, start: int, **arguments: Any
    ) -> Tensor:
        places = torch.arange(start + tokens.shape[1], device=tokens.device)
        if padded:
            arguments["attention_mask"] = (places >= blank.unsqueeze(1)).long()
        if self._takes_places:  # counted from the prompt's first token
            arguments["position_ids"] = (places[start:] - blank.unsqueeze(1)).clamp(min=0)
        return self._said(tokens, **arguments)

    def _said(self, tokens: Tensor, **arguments: Any) -> Tensor:
        """Return what the body says of tokens [N, s], and a 1 for the bias if there is one."""
        hidden = self.scale * self.body(tokens, **arguments).last_hidden_state
        if self.output is None or self.output.bias is None:
            return hidden
        return torch.cat([hidden, self.scale * torch.ones_like(hidden[..., :1])], -1)

    @torch.no_grad()
    def _require_equal(self, model: Any, place: str) -> None:
        """Try that its logits are what is made of them here, padded and token by token.

        Raises:
            UserError: they are not: it caps its logits, say, or its cache is of another kind.
        """
        tokens = torch.arange(10).view(2, 5) % self.vocabulary
        blank, none = torch.tensor([2, 0]), torch.zeros(1, dtype=torch.int64)
        with quiet():
            expected = model(tokens[1:]).logits[..., : self.vocabulary]
        found = self(tokens[1:], none) @ self.head.T
        # Some models scale their logits (Granite, Cohere).
        self.scale = ((expected * found).sum() / found.square().sum()).item()
        whole = self(tokens, blank) @ self.head.T
        alone = self(tokens[:1, 2:], none) @ self.head.T
        cache = self.cache(blank, 5)
        parts = [self.read(part, cache) @ self.head.T for part in tokens.split([3, 1, 1], 1)]
        pieces = torch.cat(parts, 1)
        pairs = {
            "its logits": (whole[1:], expected),
            "sequences with padding": (whole[:1, 2:], alone),
            "reading token by token": (pieces[:, 2:], whole[:, 2:]),
        }
        for what, (one, other) in pairs.items():
            if not alike(one, other):
                raise UserError(
                    f"{place}: rlrun cannot read a {type(model).__name__}: {what} differ from "
                    "what the model says"
                )

    @torch.no_grad()
    def _keeps_apart(self) -> bool:
        """Try whether it says the same of two sequences in one row as of each by itself."""
        row = torch.arange(8).unsqueeze(0) % self.vocabulary
        none = torch.zeros(1, dtype=torch.int64)
        apart = torch.cat([self(part, none) for part in row.split([5, 3], 1)], 1)
        return alike(self.packed(row, torch.tensor([[0] * 5 + [1] * 3])), apart)


def alike(one: Tensor, other: Tensor) -> bool:
    """Say whether numbers that were computed in two ways are the same."""
    return torch.allclose(one, other, atol=TOLERANCE * other.abs().max().item())


def dynamic_cache(config: Any) -> Callable[[], Any]:
    """Return what makes a cache of keys and values for a model of this config."""
    from transformers import DynamicCache

    return lambda: DynamicCache(config=config)
