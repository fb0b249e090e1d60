"""Reading command lines with argparse."""

import argparse
from typing import NoReturn

from rlrun.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line, like those of the rest of rlrun."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (see {self.prog} --help)")

    def long_options(self) -> list[str]:
        """Returns the long names of the options."""
        names = [name for action in self._actions for name in action.option_strings]
        return [name for name in names if name.startswith("--")]

    def takes_value(self, option: str) -> bool:
        """Tells whether the word behind an option is its value."""
        return any(
            option in action.option_strings and action.nargs != 0 for action in self._actions
        )

    def choices(self, option: str) -> list[str]:
        """Returns what may stand behind an option, as far as it is one of a few words."""
        return [
            str(choice)
            for action in self._actions
            if option in action.option_strings
            for choice in action.choices or ()
        ]
