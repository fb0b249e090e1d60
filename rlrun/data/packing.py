"""Several sequences in a row, so that nothing is read that means nothing."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlrun.data.sequences import Sequences

# A row has room for so many of the longest sequence: of a longer one less is left empty, and more
# is spent on looking at what each token may not see.
LONGEST_A_ROW = 4


@dataclass(frozen=True)
class Packed:
    """Sequences one behind the other, which do not see each other, and some of their steps.

    Attributes:
        tokens: [R, L] (int64).
        sequence: which one a token is of, −1 where there is none, [R, L].
        steps: places of the last tokens of the states that are asked for, r·L + l, [B].
    """

    tokens: Tensor
    sequence: Tensor
    steps: Tensor

    def to(self, device: torch.device) -> "Packed":
        """Return the same on another device."""
        return Packed(self.tokens.to(device), self.sequence.to(device), self.steps.to(device))


def pack(obs: Sequences, counts: Tensor, longest_row: float = math.inf) -> Packed:
    """Pack what leads to some steps: the prompts, and the responses up to the last of these.

    Args:
        obs: N sequences.
        counts: the steps, [T, N].
        longest_row: tokens that a row has at most, if that is not less than the longest sequence.

    Returns:
        Steps in the order of ``data/minibatches.py: all_rows``.
    """
    obs, counts = obs.to(torch.device("cpu")), counts.cpu()
    numbers = torch.arange(1, len(counts) + 1)[:, None]
    last = (numbers * counts).amax(0)  # steps that are read for, [N]
    # The last token of a response leads to no step.
    lengths = torch.where(last > 0, obs.prompt_rows - obs.blank + last - 1, 0).tolist()
    size = max(max(lengths), int(min(LONGEST_A_ROW * max(lengths), longest_row)))
    places, rows = first_fit(lengths, size)
    tokens = torch.zeros(rows * size, dtype=torch.int64)
    sequence = torch.full((rows * size,), -1)
    for n, (place, length) in enumerate(zip(places, lengths, strict=True)):
        first = int(obs.blank[n])
        tokens[place : place + length] = obs.tokens[first : first + length, n]
        sequence[place : place + length] = n
    step, column = counts.nonzero(as_tuple=True)
    ends = torch.tensor(places) + obs.prompt_rows - obs.blank - 1  # of the prompts
    return Packed(tokens.view(rows, size), sequence.view(rows, size), ends[column] + step)


def first_fit(lengths: list[int], size: int) -> tuple[list[int], int]:
    """Find a place for each length in rows of a size: the longest first, in the first with room.

    Args:
        lengths: none above the size.
        size: of a row.

    Returns:
        The place of each, row · size + its beginning there, and the number of rows.
    """
    places, filled = [0] * len(lengths), [0]
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        row = next((row for row, end in enumerate(filled) if end + lengths[n] <= size), len(filled))
        if row == len(filled):
            filled.append(0)
        places[n] = row * size + filled[row]
        filled[row] += lengths[n]
    return places, len(filled)
