"""A task whose reward says nothing: the user's package of `token_returns.py`."""

from dataclasses import dataclass

from rlrun.envs.tokens.procedural import share_of
from rlrun.envs.tokens.strings import Copy
from rlrun.envs.tokens.task import Judgement


@dataclass(kw_only=True)
class PaidByChance(Copy):
    """`copy`, paid a number in [0, 1] that is drawn by a hash of the prompt and the response."""

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Pay by chance; whether the answer is right stays what it was."""
        judgement = super().judge(prompt, response, complete=complete)
        return judgement._replace(fraction=share_of(f"paid for {prompt}{response}"))
