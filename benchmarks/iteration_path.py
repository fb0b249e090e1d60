"""Prints which of rlrun's functions take part in one iteration; `simplicity.py` runs it.

    PYTHONPATH=<checkout> python benchmarks/iteration_path.py <checkout> algo=ppo env=cartpole …

Runs ``rlrun`` of the checkout with these words, eagerly and in one thread, and writes down each of
its functions that is entered from the moment that the loop ``on_policy`` starts until the
algorithm's ``update`` returns for the first time: what a reader opens who follows the numbers from
the loop to the optimiser's step. Left out, with all that they call, are the environment, the run
and its loggers (`OUTSIDE`). Functions inside a function belong to it. Prints one line of JSON: for
each function, in the order in which they are entered first, its file, its name, how deep it is,
whether it calls another one of them, and whether it is open when the optimiser takes its step.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

# Beginnings of file names below rlrun/: as the rooms are called, and as the files were called
# before there were rooms.
OUTSIDE = (
    *("envs/", "problem.py"),
    *("runs/", "run.py", "counters.py", "record.py"),
    "loggers/",
    *("config/", "ranges.py"),  # checks of settings
)


class Tracer:
    """Follows the calls of rlrun's functions, as `sys.setprofile` tells of them.

    Args:
        package: directory of the package, with a slash at the end.
    """

    def __init__(self, package: str):
        self.package = package
        self.path: dict[tuple[str, str], int] = {}
        self.callers: set[tuple[str, str]] = set()
        # The open calls from the loop on: each frame, and its function if it is on the path.
        self._calls: list[tuple[FrameType, tuple[str, str] | None]] = []
        self._update: FrameType | None = None
        self.chain: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take note of one event; end the process when the path is complete."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(self.package):
            return
        file, name = code.co_filename[len(self.package) :], code.co_name
        if event == "return":
            if self._calls and self._calls[-1][0] is frame:
                self._calls.pop()
            if frame is self._update:
                self.finish()
        elif self._calls or (file, name) == ("loops.py", "on_policy"):
            caller = self._calls[-1][1] if self._calls else None
            function = None
            if not file.startswith(OUTSIDE) and (caller is not None or not self._calls):
                function = (file, code.co_qualname.partition(".<locals>")[0])
                self.path.setdefault(function, len(self._calls))
                if caller not in (None, function):
                    self.callers.add(caller)
            self._calls.append((frame, function))
            if not self.chain and name == "step" and "optim" in file:
                self.chain = [function for _, function in self._calls if function is not None]
            if self._update is None and name == "update" and file.startswith("algos/"):
                self._update = frame

    def finish(self) -> None:
        """Print the path, and end the process, whose run is of no use."""
        sys.setprofile(None)
        path = [[*f, d, f in self.callers, f in self.chain] for f, d in self.path.items()]
        print(json.dumps(path), flush=True)
        os._exit(0)


def main() -> None:
    """Trace the run that the words ask for."""
    package = Path(sys.argv[1]).resolve() / "rlrun"
    in_rooms = (package / "cli" / "main.py").exists()
    command = import_module("rlrun.cli.main" if in_rooms else "rlrun.cli").main
    sys.argv = ["rlrun", *sys.argv[2:]]
    sys.setprofile(Tracer(f"{package}/"))
    command()
    sys.exit("no iteration came to its end")


if __name__ == "__main__":
    main()
