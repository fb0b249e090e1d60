"""Writing responses to prompts, token by token: who writes, how, and what is written."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rlrun.collectors.sampling import Sampling
from rlrun.data.draws import draw
from rlrun.envs.tokens.batch import Prompts
from rlrun.envs.tokens.vocabulary import Language

# Responses that have ended leave the batch once so few are left: to copy what was read of the
# others takes time, too.
SHARE_LEFT = 0.75


class NextToken(Protocol):
    """The choice of the next token (``models/language/token_distributions.py``)."""

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities, [n, V]."""
        ...


class Writer(Protocol):
    """A policy that writes (``models/language/networks.py``)."""

    def start(self, prompts: Tensor, blank: Tensor, rows: int) -> tuple[NextToken, Any]:
        """Read prompts [P, N]; return the choice of the first token, and what was read."""
        ...

    def go_on(self, token: Tensor, cache: Any) -> NextToken:
        """Read one more token of each sequence, [n]; return the choice of the next."""
        ...


class WritingActor(Protocol):
    """Who acts: a policy that writes (``models/actor.py``).

    Attributes:
        version: of the policy's weights.
        generator: source of the draws.
        device: where the policy is.
        in_training: whether it is the one that learns; what others write is learned from as it is.
    """

    in_training: ClassVar[bool]
    version: int
    generator: torch.Generator
    device: torch.device

    @property
    def policy(self) -> Writer:
        """Who writes."""
        ...


@dataclass(frozen=True)
class Responses:
    """N responses to prompts.

    Attributes:
        tokens: [T, N]; 0 behind the end.
        logp: log μ of each, [T, N].
        mask: tokens that were written, [T, N].
        complete: whether a response ended by itself, and not by the limit, [N].
    """

    tokens: Tensor
    logp: Tensor
    mask: Tensor
    complete: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens of each, with the one that ended it, [N]."""
        return self.mask.sum(0)


@torch.no_grad()
def write(
    policy: Writer,
    prompts: Prompts,
    language: Language,
    *,
    sampling: Sampling | None,
    generator: torch.Generator,
    device: torch.device,
) -> Responses:
    """Write a response to each prompt.

    A response is drawn with a number for each of its places, whichever others have ended.

    Args:
        policy: who writes.
        prompts: N of them.
        language: says what ends a response.
        sampling: how tokens are drawn; None: the most probable one is taken.
        generator: source of the draws (CPU).
        device: where the policy is.

    Returns:
        On the CPU.
    """
    count, limit = prompts.tokens.shape[1], language.response_rows
    tokens = torch.zeros(limit, count, dtype=torch.int64, device=device)
    logp = torch.zeros(limit, count, device=device)
    mask = torch.zeros(limit, count, dtype=torch.bool, device=device)
    complete = torch.zeros(count, dtype=torch.bool, device=device)
    running = torch.arange(count, device=device)  # the sequences in the batch
    goes_on = torch.ones(count, dtype=torch.bool, device=device)  # those of them that are written
    ends = torch.tensor(language.ends, device=device)
    choice, cache = policy.start(prompts.tokens.to(device), prompts.blank.to(device), limit)
    for step in range(limit):
        if sampling is None:
            log_probs = choice.logits.log_softmax(-1)
            token = log_probs.argmax(-1)
        else:
            uniform = torch.rand(count, generator=generator).to(device)[running]
            log_probs = sampling.log_probs(choice.logits)
            token = draw(log_probs, uniform)
        written = running[goes_on]
        tokens[step, written] = token[goes_on]
        logp[step, written] = log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1)[goes_on]
        mask[step, written] = True
        ended = goes_on & (torch.isin(token, ends) | (step + 1 == language.answer_rows))
        complete[running[ended]] = True
        goes_on = goes_on & ~ended
        left = int(goes_on.sum())
        if left == 0 or step + 1 == limit:
            break
        if left <= SHARE_LEFT * len(running):
            stay = goes_on.nonzero().squeeze(-1)
            cache.keep(stay)
            running, token, goes_on = running[stay], token[stay], goes_on[stay]
        choice = policy.go_on(token, cache)
    rows = slice(0, step + 1)
    columns = (tokens[rows], logp[rows], mask[rows], complete)
    return Responses(*(column.cpu() for column in columns))
