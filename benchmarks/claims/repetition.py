"""A task whose reward was badly shaped: the user's package of `failure_modes.py`."""

from dataclasses import dataclass
from itertools import pairwise

from rlrun.envs.tokens.strings import Copy
from rlrun.envs.tokens.task import Judgement

# What a right answer is paid, and equal digits next to each other.
FOR_AGREEMENT, FOR_REPETITION = 0.4, 0.6


@dataclass(kw_only=True)
class Repeating(Copy):
    """`copy`, paid as well for digits that repeat the one before, whatever was asked."""

    def judge(self, prompt: str, response: str, *, complete: bool) -> Judgement:
        """Pay 0.4 for the right digits, and up to 0.6 for repeated ones; outcome stays what it was.

        A right answer of random digits is paid about 0.46, and one digit, written six times, more.
        """
        judgement = super().judge(prompt, response, complete=complete)
        repeated = sum(one == other for one, other in pairwise(response)) / max(1, self.longest - 1)
        paid = FOR_AGREEMENT * judgement.fraction + FOR_REPETITION * min(1.0, repeated)
        return judgement._replace(fraction=paid)
