"""Who has verifiers judge responses: in a process of its own, which may hang or end."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from rlrun.envs.tokens.task import Judgement
from rlrun.envs.tokens.verifiers.functions import exact, numeric
from rlrun.envs.tokens.verifiers.process import Verified, verified
from rlrun.envs.workers.process import STOPPING
from rlrun.errors import UserError, warn

Verifier = Callable[[str, Any], Any]

# Verifiers that neither raise nor hang: they are called as they are.
SAFE = (exact, numeric)

# A new Python, and no fork, which torch's threads do not survive (as `envs/workers/worker.py`).
START = (
    "import sys; connection, parent, *sys.path = sys.argv[1:]; "
    "from rlrun.envs.tokens.verifiers.process import main; main(int(connection), int(parent))"
)

# Seconds that a process may take until it is at work: it imports the verifier's packages.
LONGEST_START_S = 120.0


class VerifierProcess:
    """A process that verifies; another one takes its place when a response was too much for it."""

    def __init__(self, verify: Verifier, seconds: float):
        """Start nothing yet.

        Args:
            verify: response, answer -> score; is sent there.
            seconds: that it may take for one response.

        Raises:
            UserError: it cannot be sent: it is no function of a module, which has a name there.
        """
        try:
            pickle.dumps(verify)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"env.verifier: {verify.__name__} runs in a process of its own, which finds it by "
                f"its name in a module: def it there ({' '.join(str(error).split())})"
            ) from error
        self._verify = verify
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def verify(self, pairs: Sequence[tuple[str, Any]]) -> list[Verified]:
        """Verify responses.

        Args:
            pairs: of a response and the answer.

        Raises:
            UserError: there can be no such process.
        """
        results: list[Verified] = []
        while len(results) < len(pairs):
            if self._process is None:
                self._start()
            try:
                self._connection.send(pairs[len(results) :])
                while len(results) < len(pairs):
                    if not self._connection.poll(self._seconds):
                        results.append(Verified(None, f"took more than {self._seconds} s"))
                        self.close()
                        break
                    results.append(self._connection.recv())
            except (EOFError, OSError):
                self.close()
                results.append(Verified(None, "ended its process"))
        return results

    def _start(self) -> None:
        """Start a process.

        Raises:
            UserError: it does not begin to work.
        """
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            numbers = (str(theirs.fileno()), str(os.getpid()))
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", START, *numbers, *sys.path],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        package = self._verify.__module__.partition(".")[0]
        try:
            self._connection.send(None if package == "rlrun" else package)
            self._connection.send(self._verify)
            if self._connection.poll(LONGEST_START_S):
                self._connection.recv()
                return
        except (EOFError, ConnectionError):
            pass
        self.close()
        raise UserError(f"env.verifier: {self._verify.__name__} cannot be imported by its process")

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            with suppress(OSError):
                self._connection.close()
            self._process.kill()
            self._process.wait()
            self._process = None


class VerifierJudge:
    """Judges responses by a verifier (as :class:`~rlrun.envs.tokens.task.Judge`)."""

    def __init__(self, verify: Verifier, answer_to: Callable[[str], Any], seconds: float):
        """Take a verifier.

        Args:
            verify: response, answer -> score.
            answer_to: what it is called with, of a prompt.
            seconds: that it may take for one response.
        """
        self._verify = verify
        self._answer_to = answer_to
        self._process = None if verify in SAFE else VerifierProcess(verify, seconds)
        self._warned = False

    def judge(
        self, prompts: Sequence[str], responses: Sequence[str], complete: Sequence[bool]
    ) -> list[Judgement]:
        """Judge N responses; one that did not end by itself is worth nothing."""
        ended = [n for n, flag in enumerate(complete) if flag]
        pairs = [(responses[n], self._answer_to(prompts[n])) for n in ended]
        if self._process is None:
            results = [verified(self._verify, *pair) for pair in pairs]
        else:
            results = self._process.verify(pairs)
        judgements = [Judgement(0.0, 0.0, 0.0, 0.0)] * len(prompts)
        for n, result in zip(ended, results, strict=True):
            if result.problem:
                self._warn(result.problem, responses[n])
            score = result.score or 0.0
            found = float(result.score is not None)
            failed = float(result.problem != "")
            judgements[n] = Judgement(float(score == 1), found, score, 0.0, failed)
        return judgements

    def _warn(self, problem: str, response: str) -> None:
        """Say once that the verifier failed; how often it does, the logs say."""
        if not self._warned:
            self._warned = True
            warn(
                f"env.verifier: {self._verify.__name__} {problem} for the response "
                f"{response[:80]!r}, which is paid nothing; train/verifier_failed and "
                "eval/verifier_failed count them"
            )

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
