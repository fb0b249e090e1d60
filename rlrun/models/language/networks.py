"""Policies and critics that read tokens."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlrun.data.packing import Packed
from rlrun.data.sequences import Sequences
from rlrun.envs.tokens.vocabulary import Language
from rlrun.models.language.caches import distinct
from rlrun.models.language.token_distributions import TokenCategorical

# The type in which matrices are multiplied.
Precision = Literal["float32", "bfloat16"]


class Kept(Protocol):
    """What was read of sequences, so that the next token is read alone."""

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but these, numbers [n]."""
        ...


class Decoder(Protocol):
    """A causal network that reads tokens: ours (``transformer.py``), or a pretrained one.

    Attributes:
        packs: whether it reads several sequences in a row.
        longest_row: tokens of such a row that it reads at most.
    """

    packs: bool
    longest_row: float

    @property
    def width(self) -> int:
        """D, numbers that are said of a token."""
        ...

    @property
    def head(self) -> Tensor:
        """What makes logits of them, [V, d]."""
        ...

    def states(self, tokens: Tensor, blank: Tensor) -> Tensor:
        """Say what each sequence [N, S] is, by its last token; blank rows above it [N]; [N, d]."""
        ...

    def responses(self, tokens: Tensor, blank: Tensor, prompt_rows: int) -> Tensor:
        """Say what each sequence [N, S] is from its prompt's end on, [N, S − P + 1, d]."""
        ...

    def packed(self, tokens: Tensor, sequence: Tensor) -> Tensor:
        """Read rows [R, L] of several sequences, which each token has the number of; [R, L, d]."""
        ...

    def save(self, directory: Path) -> None:
        """Write a directory that transformers loads.

        Raises:
            UserError: it is no model of transformers.
        """
        ...

    def cache(self, blank: Tensor, rows: int) -> Any:
        """Make room to read sequences of S tokens piece by piece."""
        ...

    def read(self, tokens: Tensor, cache: Any) -> Tensor:
        """Read the next tokens of sequences, [N, s]; return what is said of them, [N, s, d]."""
        ...


class Reader(nn.Module):
    """What a decoder says of the state of each step that is asked for.

    Args:
        decoder: of whole sequences.
        language: what is read.
        micro_batch: sequences that are read at once; None: all. What the decoder computes of
            others is computed anew when a gradient is asked for, so that memory holds one
            micro-batch's. The loss is of all of them, whatever their number.
        precision: in which matrices are multiplied.
    """

    def __init__(
        self, decoder: Decoder, language: Language, micro_batch: int | None, precision: Precision
    ):
        super().__init__()
        self.decoder = decoder
        self.language = language
        self.micro_batch = micro_batch
        self.precision = precision

    def read(self, obs: Sequences | Packed | Tensor) -> Tensor:
        """Return a vector for each step that is asked for: [T, N, d], or [B, d].

        Args:
            obs: whole sequences, several in a row if they are packed; or single states, as the
                Gymnasium form of a task shows them: the latest tokens of each, one-hot with a
                number for "nothing", [..., S · (V + 1)].
        """
        if isinstance(obs, Tensor):
            return self._single(obs.flatten(0, -2)).view(*obs.shape[:-1], -1)
        if isinstance(obs, Packed):
            return self._in_parts(self._packed, obs.tokens, obs.sequence).flatten(0, 1)[obs.steps]
        tokens = obs.tokens[:-1].T
        read = partial(self._states, prompt_rows=obs.prompt_rows)
        states = self._in_parts(read, tokens, obs.blank).transpose(0, 1)
        return states if obs.steps is None else states.flatten(0, 1)[obs.steps]

    def _in_parts(self, read: Callable[[Tensor, Tensor], Tensor], *columns: Tensor) -> Tensor:
        """Read some rows of columns [n, …] at a time, and what was said of them once more."""
        size = len(columns[0]) if self.micro_batch is None else self.micro_batch
        if size >= len(columns[0]):
            return read(*columns)
        pairs = zip(*(column.split(size) for column in columns), strict=True)
        return torch.cat([checkpoint(read, *pair, use_reentrant=False) for pair in pairs])

    def _packed(self, tokens: Tensor, sequence: Tensor) -> Tensor:
        """Read rows of several sequences, [R, L]; return what is said of each token, [R, L, d]."""
        with self.autocast(tokens.device):
            return self.decoder.packed(tokens, sequence)

    def _states(self, tokens: Tensor, blank: Tensor, prompt_rows: int) -> Tensor:
        """Read sequences [n, S]; return what is said from the prompt's end on, [n, T, d]."""
        with self.autocast(tokens.device):
            return self.decoder.responses(tokens, blank, prompt_rows)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Multiply matrices in the precision that was chosen."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _single(self, states: Tensor) -> Tensor:
        """Read single states, [B, S · (V + 1)]; return a vector for each, [B, d]."""
        tokens = states.unflatten(-1, (-1, self.language.size + 1)).argmax(-1)
        nothing = tokens == self.language.size
        with self.autocast(tokens.device):
            return self.decoder.states(torch.where(nothing, 0, tokens), nothing.sum(1))


class TokenPolicy(nn.Module):
    """π(a|s) over tokens; :class:`Sequences` or single states -> :class:`TokenCategorical`."""

    def __init__(self, reader: Reader):
        """Take what reads."""
        super().__init__()
        self.reader = reader

    def forward(self, obs: Sequences | Packed | Tensor) -> TokenCategorical:
        """Return the distribution of the next token at each step that is asked for."""
        return self._distribution(self.reader.read(obs))

    def start(self, prompts: Tensor, blank: Tensor, rows: int) -> tuple[TokenCategorical, Kept]:
        """Read prompts, to write responses to them token by token.

        Args:
            prompts: [P, N].
            blank: rows above each, [N].
            rows: L, tokens of the longest response.

        Returns:
            The distribution of the first token, [N], and what was read.
        """
        first, place = distinct(prompts.T, blank)
        cache = self.reader.decoder.cache(blank[first], len(prompts) + rows)
        choice = self._next(prompts.T[first], cache)
        cache.keep(place)
        return TokenCategorical(choice.hidden[place], choice.head), cache

    def go_on(self, token: Tensor, cache: Kept) -> TokenCategorical:
        """Read one more token of each sequence, [n]; return the distribution of the next."""
        return self._next(token.unsqueeze(1), cache)

    def save(self, directory: Path) -> None:
        """Write a directory that transformers loads, of the tokens there are (`Decoder.save`)."""
        self.reader.decoder.save(directory)

    def _next(self, tokens: Tensor, cache: Kept) -> TokenCategorical:
        with self.reader.autocast(tokens.device):
            return self._distribution(self.reader.decoder.read(tokens, cache)[:, -1])

    def _distribution(self, hidden: Tensor) -> TokenCategorical:
        return TokenCategorical(hidden, self.reader.decoder.head)


class TokenCritic(nn.Module):
    """V(s); :class:`Sequences` or single states -> a value for each step that is asked for."""

    def __init__(self, reader: Reader):
        """Take what reads, and add a head that says 0 at first."""
        super().__init__()
        self.reader = reader
        self.head = nn.utils.skip_init(nn.Linear, reader.decoder.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, obs: Sequences | Tensor) -> Tensor:
        """Return the value of each state, [T, N] or [B]."""
        return self.head(self.reader.read(obs).float()).squeeze(-1)
