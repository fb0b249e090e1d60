"""Who writes responses: ``collector.engine``.

An engine is a function (policy, prompts, language; sampling, generator, device) -> `Responses`,
with log μ as the engine computed it. One of the user's own, in one of their plugins, may have
another program write, with the policy's weights (`policy.state_dict()`). What that says of a
token's probability differs from what the policy in training says: it is measured and corrected
(`mismatch.py`).
"""

import torch

from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import Responses, Writer, write
from rlrun.envs.tokens.batch import Prompts
from rlrun.envs.tokens.vocabulary import Language


def own(
    policy: Writer,
    prompts: Prompts,
    language: Language,
    *,
    sampling: Sampling,
    generator: torch.Generator,
    device: torch.device,
) -> Responses:
    """Write by the policy itself (see :func:`~rlrun.collectors.writing.write`)."""
    return write(policy, prompts, language, sampling=sampling, generator=generator, device=device)
