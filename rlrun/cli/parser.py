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
