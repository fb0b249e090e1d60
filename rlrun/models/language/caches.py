"""What a decoder keeps of tokens that it has read."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder.

    Attributes:
        layers: blocks on each other.
        width: d, numbers of a token.
        heads: of the attention; the width is a multiple of twice their number.
        vocabulary: V.
        context: S, tokens of the longest sequence.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int

    @property
    def hidden(self) -> int:
        """Units of a block's perceptron: 8/3 d, as SwiGLU has three matrices; a multiple of 8."""
        return -(-8 * self.width // 24) * 8


class Cache:
    """Keys and values of the tokens that were read, so that the next one is read alone.

    Attributes:
        keys: of each layer, [layers, N, H, S, d/H]; filled up to `length`.
        values: likewise.
        visible: whether a token is one, and not blank, [N, S]; None: all are.
        length: tokens read.
    """

    def __init__(self, shape: DecoderShape, blank: Tensor, rows: int, like: Tensor):
        """Make room.

        Args:
            shape: of the decoder.
            blank: rows above each sequence, [N].
            rows: S, tokens that will be read.
            like: a tensor of the type and on the device of the keys.
        """
        size = (shape.layers, len(blank), shape.heads, rows, shape.width // shape.heads)
        self.keys, self.values = like.new_empty(size), like.new_empty(size)
        places = torch.arange(rows, device=blank.device)
        self.visible = places >= blank.unsqueeze(1) if bool(blank.any()) else None
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values [N, H, s, d/H] of new tokens; return those of all so far."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but these, numbers [n]."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        if self.visible is not None:
            self.visible = self.visible[rows]


class Prefix:
    """Keys and values of prompts that several sequences begin with: read once for all of them.

    Unlike of a :class:`Cache`, a gradient can be taken of it.

    Attributes:
        length: tokens of a prompt.
    """

    def __init__(self) -> None:
        """Begin before the prompts are read."""
        self.length = 0
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._place: Tensor | None = None

    def spread(self, place: Tensor, length: int) -> None:
        """Go on with sequences, of which each begins with the prompt that has this number, [N]."""
        self._place, self.length = place, length

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep those of prompts; return those of all so far, [N, H, S, d/H]."""
        if self._place is None:
            self._layers.append((keys, values))
            return keys, values
        before, before_values = (each.index_select(0, self._place) for each in self._layers[layer])
        return torch.cat([before, keys], 2), torch.cat([before_values, values], 2)


def distinct(prompts: Tensor, blank: Tensor) -> tuple[Tensor, Tensor]:
    """Find prompts that are alike.

    Args:
        prompts: [N, P].
        blank: tokens at the beginning of each that are none, [N].

    Returns:
        The number of one of each kind, [n], and of which kind each prompt is, [N].
    """
    places = torch.arange(prompts.shape[1], device=prompts.device)
    seen = torch.where(places < blank.unsqueeze(1), -1, prompts).cpu().numpy()
    # By their bytes: torch.unique compares one pair of rows after the other.
    rows = [row.tobytes() for row in seen]
    first = {row: number for number, row in reversed(list(enumerate(rows)))}
    kinds = {row: kind for kind, row in enumerate(first)}
    numbers, place = list(first.values()), [kinds[row] for row in rows]
    device = prompts.device
    return (
        torch.tensor(numbers, dtype=torch.int64, device=device),
        torch.tensor(place, dtype=torch.int64, device=device),
    )
