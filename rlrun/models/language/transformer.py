"""A decoder of tokens: the body that policies and critics of language share the shape of.

Vaswani et al. 2017, "Attention Is All You Need", as Llama has it (Touvron et al. 2023): RMSNorm
before each part (Zhang & Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer 2020),
no biases. Inside, the sequences come first: [N, S, d].
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlrun.errors import UserError
from rlrun.hardware.products import linear
from rlrun.models.language.attention import attention
from rlrun.models.language.caches import Cache, DecoderShape, Prefix, distinct
from rlrun.models.mlp import Linear

# Standard deviation of the first logits.
FIRST_LOGIT = 0.15

# Sequences to a prompt, on average, from which on prompts are read apart from their responses.
LEAST_SHARING = 2


class Rotary(nn.Module):
    """Turns queries and keys by an angle that grows with their place (Su et al. 2021)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, size: int, context: int, base: float = 10_000.0):
        """Compute the angles of S places, for heads of a size; of more when they are asked for."""
        super().__init__()
        self._frequency = base ** (-torch.arange(0, size, 2) / size)
        cos, sin = self._angles(context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def _angles(self, context: int) -> tuple[Tensor, Tensor]:
        """Return (cos θ, cos θ) and (−sin θ, sin θ) at S places, [S, 1, 1, d/H] each."""
        angle = torch.outer(torch.arange(context), self._frequency)
        cos, sin = angle.cos().repeat(1, 2), torch.cat([-angle.sin(), angle.sin()], 1)
        return cos[:, None, None], sin[:, None, None]

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Turn x [N, s, …, H, d/H], whose first token is at a place.

        (x₁, x₂) becomes (x₁ cos θ − x₂ sin θ, x₂ cos θ + x₁ sin θ).
        """
        end = start + x.shape[1]
        if end > len(self.cos):  # of packed sequences
            self.cos, self.sin = (table.to(self.cos.device) for table in self._angles(end))
        one, other = x.chunk(2, -1)
        swapped = torch.cat([other, one], -1)
        return (x * self.cos[start:end] + swapped * self.sin[start:end]).to(x.dtype)


class Matrix(Linear):
    """A layer without a bias, multiplied by what is fastest on this machine."""

    def __init__(self, inputs: int, outputs: int):
        """Leave the weights to who draws them."""
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x · Wᵀ."""
        return linear(x, self.weight)


class Block(nn.Module):
    """Attention and a perceptron, each added to what comes in."""

    def __init__(self, shape: DecoderShape):
        """Make the layers; their weights are the decoder's matter."""
        super().__init__()
        self.heads = shape.heads
        self.attention_norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.query_key_value = Matrix(shape.width, 3 * shape.width)
        self.attention_out = Matrix(shape.width, shape.width)
        self.perceptron_norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.gate_up = Matrix(shape.width, 2 * shape.hidden)
        self.perceptron_out = Matrix(shape.hidden, shape.width)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        visible: Tensor | None,
        cache: Cache | Prefix | None,
        layer: int,
    ) -> Tensor:
        """Return what comes out, [N, s, d].

        Args:
            x: tokens in a row, the newest, [N, s, d].
            rotary: of queries and keys.
            visible: which token each may look at, [N, 1, s, S]; None: itself and those before it.
            cache: of the tokens before them; None: there are none.
            layer: number of this block.
        """
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        to_turn, values = parts.split([2, 1], 2)
        turned = rotary(to_turn, 0 if cache is None else cache.length)
        queries, keys = (part.transpose(1, 2) for part in turned.unbind(2))
        values = values.squeeze(2).transpose(1, 2)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)
        seen = attention(queries, keys, values, visible)
        x = x + self.attention_out(seen.transpose(1, 2).flatten(2))
        # Two products: what one of both would leave lies apart, which silu is slow at.
        normed = self.perceptron_norm(x)
        gate, up = (linear(normed, weight) for weight in self.gate_up.weight.chunk(2))
        return x + self.perceptron_out(functional.silu(gate) * up)


class Decoder(nn.Module):
    """Tokens -> a vector of each, that says all of it and of those before it."""

    packs = True
    longest_row = math.inf

    def __init__(self, shape: DecoderShape, generator: torch.Generator):
        """Draw the weights.

        N(0, 1/inputs) for the matrices, of which those that add to the stream are smaller by
        √(2 · layers), as GPT-2's are: it then keeps its size (Radford et al. 2019). A token is so
        short a vector that a new policy draws all tokens nearly alike.

        Args:
            shape: sizes.
            generator: source of the weights.
        """
        super().__init__()
        self.shape = shape
        self.embedding = nn.utils.skip_init(nn.Embedding, shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.rotary = Rotary(shape.width // shape.heads, shape.context)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                continue  # of a norm: ones
            std = 1 / math.sqrt(weight.shape[1])
            if weight is self.embedding.weight:
                std = FIRST_LOGIT * std  # it makes the logits, too
            if name.endswith("_out.weight"):
                std /= math.sqrt(2 * shape.layers)
            nn.init.normal_(weight, std=std, generator=generator)

    @property
    def width(self) -> int:
        """D, numbers that are said of a token."""
        return self.shape.width

    @property
    def head(self) -> Tensor:
        """The matrix that embeds tokens makes logits, too (tied), [V, d]."""
        return self.embedding.weight

    def save(self, directory: Path) -> None:
        """Refuse: transformers has no model of this kind."""
        raise UserError("model=transformer is no model of the package transformers")

    def forward(self, tokens: Tensor, blank: Tensor) -> Tensor:
        """Read whole sequences.

        Args:
            tokens: [N, S].
            blank: tokens at the beginning of each that are none, [N].

        Returns:
            [N, S, d].
        """
        return self._read(tokens, self.visible(blank, tokens.shape[1], tokens.shape[1]), None)

    def states(self, tokens: Tensor, blank: Tensor) -> Tensor:
        """Say what each sequence is, by its last token, [N, d].

        As `forward`, but without a look at the numbers, so that it can be exported.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        visible = causal(places >= blank.unsqueeze(1), tokens.shape[1])
        return self._read(tokens, visible, None)[:, -1]

    def responses(self, tokens: Tensor, blank: Tensor, prompt_rows: int) -> Tensor:
        """Read prompts with the responses to them; prompts that are alike are read once.

        Args:
            tokens: [N, S].
            blank: tokens at the beginning of each that are none, [N].
            prompt_rows: P, tokens of a prompt with those.

        Returns:
            What is said of each prompt, and of each token after it, [N, S − P + 1, d].
        """
        first, place = distinct(tokens[:, :prompt_rows], blank)
        if len(first) * LEAST_SHARING > len(tokens):
            return self(tokens, blank)[:, prompt_rows - 1 :]
        prefix = Prefix()
        prompts, above = tokens[first, :prompt_rows], blank[first]
        visible = self.visible(above, prompt_rows, prompt_rows)
        # The gradient of [place] would be summed in another order each time, by several threads.
        said = self._read(prompts, visible, prefix)[:, -1:].index_select(0, place)
        if tokens.shape[1] == prompt_rows:
            return said
        prefix.spread(place, prompt_rows)
        newest = tokens[:, prompt_rows:]
        visible = self.visible(blank, tokens.shape[1], newest.shape[1])
        return torch.cat([said, self._read(newest, visible, prefix)], 1)

    def packed(self, tokens: Tensor, sequence: Tensor) -> Tensor:
        """Read several sequences in each row.

        Their places are counted on through a row: only differences of places matter.

        Args:
            tokens: [R, L].
            sequence: which one each token is of, [R, L].

        Returns:
            [R, L, d].
        """
        alike = sequence.unsqueeze(2) == sequence.unsqueeze(1)
        return self._read(tokens, alike.tril().unsqueeze(1), None)

    def cache(self, blank: Tensor, rows: int) -> Cache:
        """Make room to read sequences of S tokens piece by piece (see :class:`Cache`)."""
        return Cache(self.shape, blank, rows, self.embedding.weight)

    def read(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read the next tokens of sequences, [N, s]; return what is said of them, [N, s, d]."""
        visible = None
        if cache.visible is not None:
            end = cache.length + tokens.shape[1]
            visible = causal(cache.visible[:, :end], tokens.shape[1])
        hidden = self._read(tokens, visible, cache)
        cache.length += tokens.shape[1]
        return hidden

    @staticmethod
    def visible(blank: Tensor, rows: int, newest: int) -> Tensor | None:
        """Say which token the newest may look at, [N, 1, s, S]; None: itself and all before it."""
        if not bool(blank.any()):
            return None
        places = torch.arange(rows, device=blank.device)
        return causal(places >= blank.unsqueeze(1), newest)

    def _read(self, tokens: Tensor, visible: Tensor | None, cache: Cache | Prefix | None) -> Tensor:
        x = self.embedding(tokens)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.rotary, visible, cache, layer)
        return self.norm(x)


def causal(there: Tensor, newest: int) -> Tensor:
    """Say which token the newest of each sequence may look at, [N, 1, s, S].

    Itself, and those before it that are there.

    Args:
        there: whether a token is one, and not blank, [N, S].
        newest: s, tokens at the end that look.
    """
    rows = there.shape[1]
    places = torch.arange(rows, device=there.device)
    looking = places[rows - newest :, None]
    # A blank sees itself: a softmax over nothing would be NaN.
    return ((places <= looking) & there[:, None, :] | (places == looking)).unsqueeze(1)
