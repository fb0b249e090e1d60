"""Evaluation of language: one greedy response to each prompt, and several that are drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import Responses, write
from rlrun.envs.tokens.batch import Prompts, TokenEnv, Verdict
from rlrun.envs.tokens.task import TokenTask
from rlrun.models.actor import Actor
from rlrun.models.language.networks import TokenPolicy
from rlrun.runs.evaluate import unwatched

# From the policy itself.
AS_IT_IS = Sampling(temperature=1.0, top_k=None, top_p=1.0)

# Responses of each kind that are kept for people to read.
SHOWN = 4


@dataclass(frozen=True)
class Answers:
    """What a policy answered to N prompts.

    Attributes:
        returns: what the greedy responses were paid.
        lengths: their tokens.
        right: how many of the drawn responses to each prompt are right.
        samples: how many were drawn for each prompt.
        others: what else there is to say, for the logs.
        transcripts: some of the greedy responses, for people to read.
    """

    returns: list[float]
    lengths: list[int]
    right: list[int]
    samples: int
    others: dict[str, float]
    transcripts: list[dict[str, Any]]

    def metrics(self) -> dict[str, float]:
        """Summarise for the logs."""
        right = np.array(self.right)
        passed = {
            f"eval/pass@{k}": float(np.mean([pass_at(k, n=self.samples, right=c) for c in right]))
            for k in dict.fromkeys([1, self.samples])
        }
        return {
            "eval/return": float(np.mean(self.returns)),
            "eval/return_std": float(np.std(self.returns)),
            "eval/length": float(np.mean(self.lengths)),
            **passed,
            **self.others,
        }


def pass_at(k: int, *, n: int, right: int) -> float:
    """Estimate the chance that one of k responses is right, without bias.

    1 − C(n − c, k) / C(n, k) (Chen et al. 2021, "Evaluating Large Language Models Trained on Code",
    eq. 1).

    Args:
        k: responses that count, at most n.
        n: responses that were drawn.
        right: c of them.
    """
    if n - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - right + 1, n + 1)))


class LanguageEvaluator:
    """Has a run's policy answer prompts that training never sees."""

    def __init__(self, task: TokenTask, actor: Callable[[], Actor]):
        """Ask nothing yet.

        Args:
            task: whose prompts they are.
            actor: returns who answers.
        """
        self._task = task
        self._actor = actor
        self._env: TokenEnv | None = None

    def play(
        self, episodes: int, *, seed: int, watch: Callable[[int], None] = unwatched
    ) -> Answers:
        """Have prompts answered (as :meth:`~rlrun.runs.evaluate.Evaluator.play`).

        Args:
            episodes: prompts.
            seed: of the first one, and of the draws.
            watch: is told how many are answered.

        Raises:
            UserError: there are no such prompts.
        """
        return self.play_in(self.make(episodes), seed=seed, watch=watch)

    def play_in(
        self, env: TokenEnv, *, seed: int, watch: Callable[[int], None] = unwatched
    ) -> Answers:
        """Have the prompts of an environment answered, as `play` does."""
        episodes, samples = env.num_envs, self._task.samples
        prompts = env.held_out_prompts(seed)
        greedy = self.write(prompts)
        verdict = env.judge(prompts.texts, greedy.tokens, greedy.complete)
        drawn = repeated(prompts, samples)
        generator = torch.Generator().manual_seed(seed)
        responses = self.write(drawn, AS_IT_IS, generator)
        tried = env.judge(drawn.texts, responses.tokens, responses.complete)
        right = tried.outcome.view(episodes, samples).sum(1).int().tolist()
        distinct = [set(tried.texts[n * samples : (n + 1) * samples]) for n in range(episodes)]
        watch(episodes)
        parts = verdict.metrics("eval", self._task.without)
        others = {
            **{name: float(mean) for name, mean in parts.items()},
            "eval/truncated": 1.0 - float(greedy.complete.float().mean()),
            "eval/distinct": float(np.mean([len(texts) for texts in distinct]) / samples),
        }
        for name, which in (("right", tried.outcome > 0), ("wrong", tried.outcome == 0)):
            if which.any():
                others[f"eval/length_{name}"] = float(responses.lengths[which].float().mean())
        advantage = verdict.reward - tried.reward.view(episodes, samples).mean(1)
        transcripts = transcribed(prompts, greedy, verdict, advantage)
        return Answers(
            verdict.reward.tolist(), greedy.lengths.tolist(), right, samples, others, transcripts
        )

    def make(self, episodes: int) -> TokenEnv:
        """Return an environment of so many prompts: the same again, whose judge is at work."""
        if self._env is None or self._env.num_envs != episodes:
            self.close()
            self._env = TokenEnv(self._task, num_envs=episodes)
        return self._env

    def write(
        self,
        prompts: Prompts,
        sampling: Sampling | None = None,
        generator: torch.Generator | None = None,
    ) -> Responses:
        """Write responses to prompts.

        Args:
            prompts: N of them.
            sampling: how tokens are drawn; None: the most probable one is taken.
            generator: source of the draws.
        """
        actor = self._actor()
        assert isinstance(actor.policy, TokenPolicy)
        return write(
            actor.policy,
            prompts,
            self._task.language,
            sampling=sampling,
            generator=generator or torch.Generator(),
            device=actor.device,
        )

    def close(self) -> None:
        """Let the judge go."""
        if self._env is not None:
            self._env.close()


def transcribed(
    prompts: Prompts, responses: Responses, verdict: Verdict, advantage: Tensor
) -> list[dict[str, Any]]:
    """Return some responses for people to read: the best, the worst, and others as they come.

    Args:
        prompts: N of them.
        responses: to each.
        verdict: on them.
        advantage: what each is paid more than is usual for its prompt, [N].
    """
    order = sorted(range(len(prompts.texts)), key=lambda n: -verdict.reward[n].item())
    chosen = {
        "best": order[:SHOWN],
        "worst": order[::-1][:SHOWN],
        "random": range(min(2 * SHOWN, len(order))),
    }
    return [
        {
            "which": which,
            "prompt": prompts.texts[n],
            "response": verdict.texts[n],
            "tokens": int(responses.lengths[n]),
            "complete": bool(responses.complete[n]),
            "reward": verdict.reward[n].item(),
            "advantage": advantage[n].item(),
            **verdict.judgements[n]._asdict(),
        }
        for which, numbers in chosen.items()
        for n in numbers
    ]


def repeated(prompts: Prompts, times: int) -> Prompts:
    """Return each prompt several times, side by side."""
    texts = [text for text in prompts.texts for _ in range(times)]
    tokens = prompts.tokens.repeat_interleave(times, 1)
    return Prompts(tokens, prompts.blank.repeat_interleave(times), texts)
