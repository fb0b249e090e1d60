"""Attention is softmax(Q Kᵀ / √d) V, whichever way it is computed."""

import math

import pytest
import torch
from torch import Tensor

from rlrun.models.language.attention import MOST_KEYS, attention

# Newest tokens and all tokens: short, alone, with a prompt before them, longer than the products'.
LENGTHS = [(5, 5), (1, 7), (1, MOST_KEYS + 9), (4, 9), (MOST_KEYS + 2, MOST_KEYS + 2), (3, 70)]


def by_loops(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Vaswani et al. 2017, eq. 1, one query after the other."""
    result = torch.zeros_like(queries)
    for n, h, t in torch.cartesian_prod(*(torch.arange(size) for size in queries.shape[:3])):
        seen = visible[n, 0, t]
        scores = keys[n, h, seen] @ queries[n, h, t] / math.sqrt(queries.shape[-1])
        result[n, h, t] = scores.softmax(0) @ values[n, h, seen]
    return result


def drawn(newest: int, rows: int) -> list[Tensor]:
    """Return queries, keys and values of 2 sequences, 3 heads of 8."""
    generator = torch.Generator().manual_seed(newest + rows)
    sizes = (newest, rows, rows)
    return [torch.randn(2, 3, size, 8, generator=generator) for size in sizes]


@pytest.mark.parametrize(("newest", "rows"), LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_formula(newest, rows, masked):
    parts = [part.requires_grad_() for part in drawn(newest, rows)]
    visible = torch.ones(newest, rows, dtype=torch.bool).tril(rows - newest)
    visible = visible.expand(2, 1, newest, rows).clone()
    if masked:  # a blank above the second sequence, which sees itself
        visible[1, :, :, 0] = False
        visible[1, 0, 0, 0] = newest == rows
    found = attention(*parts, visible if masked else None)
    expected = by_loops(*parts, visible)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, parts, direction),
        torch.autograd.grad(expected, parts, direction),
    )


def test_both_ways_agree(monkeypatch):
    parts = drawn(6, 11)
    short = attention(*parts, None)
    monkeypatch.setattr("rlrun.models.language.attention.MOST_KEYS", 0)
    torch.testing.assert_close(short, attention(*parts, None))


def test_torch_has_its_own_way_in_bfloat16_and_for_an_export(monkeypatch):
    """Of bfloat16 it adds in float32, and an export is for any machine."""
    parts = drawn(6, 11)

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("rlrun.models.language.attention.by_products", never)
    with pytest.raises(AssertionError):
        attention(*parts, None)
    with torch.autocast("cpu", torch.bfloat16):
        attention(*parts, None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    attention(*parts, None)
