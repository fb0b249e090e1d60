"""The run: its state, its loop's verbs, its files.

``rlrun.runs("outputs")`` calls this package: it returns the runs under a directory, a list of
:class:`~rlrun.runs.saved.SavedRun`.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlrun.runs.saved import SavedRun


class CallablePackage(ModuleType):
    """This package, which is a function as well: both are called ``rlrun.runs``."""

    def __call__(self, root: str | Path = "outputs") -> "list[SavedRun]":
        """Return the runs under a directory (see :func:`~rlrun.runs.saved.saved_runs`)."""
        from rlrun.runs.saved import saved_runs

        return saved_runs(root)


sys.modules[__name__].__class__ = CallablePackage
