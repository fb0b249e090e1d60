"""Sums behind which any number of dots may stand: the user's package of `length_bias.py`."""

from dataclasses import dataclass, field

from rlrun.envs.tokens.arithmetic import Add
from rlrun.envs.tokens.procedural import share_of
from rlrun.envs.tokens.strings import DIGITS
from rlrun.envs.tokens.task import Judgement

MOST_DOTS = 12


@dataclass(kw_only=True)
class PaddedAdd(Add):
    """``12+7=`` → ``91....``: how many dots there are changes nothing.

    The answers that are learned from have 0 to 12, by a hash of the prompt, which is to say that
    nobody can foresee how many. Whoever writes dots has written the sum, and may know how likely it
    is to be right.
    """

    characters: str = field(default=f"{DIGITS}+=.", init=False)
    answer_characters: str = field(default=f"{DIGITS}.", init=False)

    @property
    def longest_answer(self) -> int:
        """With all dots."""
        return super().longest_answer + MOST_DOTS

    def answer(self, prompt: str) -> str:
        """Add, and write some dots."""
        return self.sum_of(prompt) + "." * int((MOST_DOTS + 1) * share_of(f"dots behind {prompt}"))

    def sum_of(self, prompt: str) -> str:
        """Add."""
        return super().answer(prompt)

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Compare what stands before the dots."""
        right = float(complete and response.rstrip(".") == self.sum_of(prompt))
        form = float(complete and self.is_well_formed(response))
        return Judgement(outcome=right, form=form, fraction=right, prefix=right)
