"""What the shell offers behind `rlrun` when the user presses Tab.

Hydra completes groups and settings; the verbs, which it does not know, are added here.
"""

import contextlib
import os
from collections.abc import Sequence


def is_query(words: Sequence[str]) -> bool:
    """Tells whether the command line is the shell's question ("-sc query=bash")."""
    options = ("-sc", "--shell-completion")
    return any(word in options for word in words) and any(w.startswith("query=") for w in words)


def complete(words: list[str], verbs: Sequence[str]) -> None:
    """Prints what can follow the line in ``COMP_LINE``, which the shell sets.

    Nothing else is printed, whatever the line looks like: it would land in the middle of what
    the user is typing.

    Args:
        words: the command line, as Hydra needs it.
        verbs: rlrun's commands.
    """
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    if line.endswith(" "):
        typed.append("")  # the word that begins here
    if len(typed) < 2:
        return  # no shell has asked
    if len(typed) == 2:
        for verb in verbs:
            if verb.startswith(typed[1]):
                print(verb)
    elif typed[1] == "train":
        os.environ["COMP_LINE"] = " ".join([typed[0], *typed[2:]])
    elif typed[1] in verbs:
        return  # runs are directories, which the shell completes by itself
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.suppress(Exception, SystemExit),  # argparse, for one, ends the process
    ):
        from rlrun.cli.train import launch

        launch(words)
