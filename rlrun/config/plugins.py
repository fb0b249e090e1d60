"""Imports the packages that the user names as plugins, also from the working directory.

The working directory is not put on ``sys.path``, where a file of the user's that is called
``torch.py`` would take the place of torch: a plugin is looked for there by its own name alone, and
after everything that is installed.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from rlrun.config import targets
from rlrun.errors import UserError


class InWorkingDirectory:
    """Finds one package in the working directory; one of Python's meta path finders."""

    def __init__(self, package: str):
        """Find this top-level package."""
        self._package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is; None for every other than the package."""
        return PathFinder.find_spec(name, [os.getcwd()]) if name == self._package else None


def import_plugin(name: str) -> None:
    """Imports a package that the user has named.

    Args:
        name: its dotted name; installed, on PYTHONPATH, or in the working directory.

    Raises:
        UserError: it is not there, or needs a module that is not there.
    """
    finder = InWorkingDirectory(name.partition(".")[0])
    sys.meta_path.append(finder)
    try:
        targets.import_module(name, "plugins")
    except UserError as error:
        missing = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
        beside = missing and missing != name and PathFinder.find_spec(missing, [os.getcwd()])
        if not beside:
            raise
        raise UserError(
            f"plugins: {name} needs '{missing}', which is beside it: plugins=[{missing},{name}]"
        ) from error
    finally:
        sys.meta_path.remove(finder)
