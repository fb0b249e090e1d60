"""What often goes wrong where language is learned from rewards, noticed in a run's own numbers."""

from collections import deque
from collections.abc import Mapping

from rlrun.errors import warn

# Rows of metrics that are compared: their means, as single rows are noisy.
ROWS = 5

# Share of the first entropy below which hardly anything else is tried, unless so many are right.
COLLAPSED, NEARLY_ALL_RIGHT = 0.05, 0.9

# Factor by which responses grow or shrink, and by how much more of them are right if that is why.
DRIFTED, LEARNED = 2.0, 0.05

# What the reward gains and the outcome loses, at least, where one rises while the other falls.
GAINED, LOST = 0.02, 0.05

REMEDY = "(an easier task, a finer env.reward, algo=sft first)"

# Who learns from rewards says by how much the policy has moved.
ENTROPY, LENGTH, REWARD, OUTCOME, TIED, MOVED = (
    "policy/entropy",
    "train/length",
    "train/return",
    "train/outcome",
    "groups/without_spread",
    "policy/kl",
)
WATCHED = (ENTROPY, LENGTH, REWARD, OUTCOME, TIED, MOVED)


class Alarms:
    """Warns of each of five failures once, with the numbers."""

    def __init__(self) -> None:
        """Begin with no rows."""
        self._recent: deque[dict[str, float]] = deque(maxlen=ROWS)
        self._first: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._said: list[str] = []

    def look(self, row: Mapping[str, float], *, updates: int) -> None:
        """Look at a row of metrics, and warn if there is a reason.

        Args:
            row: what iterations have said; one without an outcome is passed over.
            updates: of the run so far.
        """
        if OUTCOME not in row:
            return
        self._recent.append({name: row[name] for name in WATCHED if name in row})
        if len(self._recent) < ROWS:
            return
        now = self._means()
        if not self._first:
            self._first = self._best = now
        for name, reason in (
            ("entropy", self._entropy_collapsed(now)),
            ("length", self._length_drifted(now)),
            ("updates", self._no_step_was_taken(now, updates)),
            ("spread", self._nothing_differs(now)),
            ("reward", self._reward_left_the_outcome(now)),
        ):
            if reason is not None and name not in self._said:
                self._said.append(name)
                warn(reason)
        if now[OUTCOME] >= self._best[OUTCOME]:
            self._best = now

    def _means(self) -> dict[str, float]:
        """Return the mean of each number that all of the last rows have."""
        common = [name for name in WATCHED if all(name in row for row in self._recent)]
        return {name: sum(row[name] for row in self._recent) / ROWS for name in common}

    def _entropy_collapsed(self, now: dict[str, float]) -> str | None:
        """The policy has stopped to try others before most of its answers are right."""
        if ENTROPY not in now or ENTROPY not in self._first:
            return None
        if now[ENTROPY] >= COLLAPSED * self._first[ENTROPY] or now[OUTCOME] >= NEARLY_ALL_RIGHT:
            return None
        return (
            f"entropy collapse: {ENTROPY} is {now[ENTROPY]:.3g}, at first "
            f"{self._first[ENTROPY]:.3g}, and {now[OUTCOME]:.0%} of the answers are right: what "
            "else could be right is hardly tried (algo.entropy_coefficient, a smaller step, KL)"
        )

    def _length_drifted(self, now: dict[str, float]) -> str | None:
        """Responses have become much longer or shorter, and no more of them are right."""
        if LENGTH not in now or LENGTH not in self._first:
            return None
        factor = now[LENGTH] / self._first[LENGTH]
        if 1 / DRIFTED < factor < DRIFTED or now[OUTCOME] > self._first[OUTCOME] + LEARNED:
            return None
        return (
            f"length drift: {LENGTH} is {now[LENGTH]:.1f}, at first {self._first[LENGTH]:.1f}, and "
            f"{now[OUTCOME]:.0%} of the answers are right, at first {self._first[OUTCOME]:.0%}"
        )

    def _no_step_was_taken(self, now: dict[str, float], updates: int) -> str | None:
        """Of nothing that was written there is anything to learn."""
        if updates:
            return None
        return (
            f"no update in {ROWS} rows, with {now[OUTCOME]:.0%} of the answers right: none is "
            f"right, or none is better than another {REMEDY}"
        )

    def _nothing_differs(self, now: dict[str, float]) -> str | None:
        """Nothing, or all of a group alike, is paid, so that nothing is learned."""
        if TIED not in now and MOVED in now and now.get(REWARD) == 0:
            return f"nothing is paid: {REWARD} is 0 in {ROWS} rows {REMEDY}"
        if now.get(TIED, 0.0) < 1.0 or now[OUTCOME] >= NEARLY_ALL_RIGHT:
            return None
        return (
            f"no group with a spread: {TIED} is 1 in {ROWS} rows, with {now[OUTCOME]:.0%} of the "
            f"answers right: nothing is learned {REMEDY}"
        )

    def _reward_left_the_outcome(self, now: dict[str, float]) -> str | None:
        """More is paid, and less is right, than when most was right."""
        if REWARD not in now or REWARD not in self._best:
            return None
        best = self._best
        if now[OUTCOME] > best[OUTCOME] - LOST or now[REWARD] < best[REWARD] + GAINED:
            return None
        return (
            f"the reward is not what the task is about: {REWARD} rose from {best[REWARD]:.3g} to "
            f"{now[REWARD]:.3g} while {OUTCOME} fell from {best[OUTCOME]:.3g} to {now[OUTCOME]:.3g}"
        )

    def state_dict(self) -> dict:
        """Return what has been seen and said."""
        return {
            "recent": [dict(row) for row in self._recent],
            "first": dict(self._first),
            "best": dict(self._best),
            "said": list(self._said),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from it."""
        self._recent = deque(state["recent"], maxlen=ROWS)
        self._first, self._best = dict(state["first"]), dict(state["best"])
        self._said = list(state["said"])
