"""Who writes responses: ``collector.engine``.

A choice is a function that opens an engine, once in a run; one of the user's own is in one of their
plugins. What another program than the policy says of a token's probability differs from what the
policy in training says: it is measured and corrected (`mismatch.py`).
"""

from typing import Any, Protocol

import torch

from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import Responses, write
from rlrun.envs.tokens.batch import Prompts
from rlrun.envs.tokens.vocabulary import Language


class Engine(Protocol):
    """Writes responses to prompts."""

    def __call__(
        self,
        policy: Any,
        prompts: Prompts,
        language: Language,
        *,
        sampling: Sampling,
        generator: torch.Generator,
        device: torch.device,
    ) -> Responses:
        """Write a response to each prompt, with log μ as the engine computed it.

        Args:
            policy: in training (``models/language/networks.py: TokenPolicy``); another program
                takes its weights by ``state_dict()``, or from a directory, by ``save(directory)``.
            prompts: N of them.
            language: says what ends a response.
            sampling: how tokens are drawn.
            generator: source of the draws (CPU).
            device: where the policy is.

        Returns:
            On the CPU.
        """
        ...


def own() -> Engine:
    """Let the policy itself write."""
    return write


def vllm() -> Engine:
    """Let vLLM write, which has to be installed, with ``model=huggingface``."""
    from rlrun.collectors.vllm_engine import VLLM

    return VLLM()
