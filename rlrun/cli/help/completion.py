"""What the shell offers behind `rlrun` when the user presses Tab.

Hydra completes groups and settings; the rest is added here: verbs, options and their choices, and
the members of a list (`env=hopper,wal`, `logger=[wandb,ten`).
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence

from rlrun.cli.help import overview
from rlrun.cli.parser import OneLineParser

# A group, "=", the members of a list that are written already, and the beginning of the next.
LIST = re.compile(r"(\w+=)(\[?(?:[\w-]+,)*)([\w-]*)")


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
    program, *before, word = typed
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.suppress(Exception, SystemExit),  # argparse, for one, ends the process
    ):
        if not before:
            show(word, verbs)
        if before and before[0] in verbs and before[0] != "train":
            from rlrun.cli.commands import command

            complete_option(before, word, command(before[0]).parser())
            return  # runs are directories, which the shell completes by itself
        if before and before[0] == "train":
            before = before[1:]

        from rlrun.cli.train import options_parser

        if not complete_option(before, word, options_parser()):
            complete_setting(words, [program, *before], word)


def complete_option(before: Sequence[str], word: str, parser: OneLineParser) -> bool:
    """Prints the options that begin so, or the choices of the option before the word.

    Args:
        before: the words before it.
        word: what is being typed.
        parser: knows the options.

    Returns:
        Whether an option or its value is being typed.
    """
    if word.startswith("-"):
        show(word, parser.long_options())
        return True
    if before and before[-1].startswith("-") and parser.takes_value(before[-1]):
        show(word, parser.choices(before[-1]))
        return True
    return False


def complete_setting(words: list[str], before: Sequence[str], word: str) -> None:
    """Prints what Hydra knows to follow, also behind the members of a list.

    Args:
        words: the command line, as Hydra needs it.
        before: the words before the one that is being typed.
        word: what is being typed.
    """
    from rlrun.cli.train import launch

    key, members, member = "", "", ""
    found = LIST.fullmatch(word)
    if found and found[2] and found[1].removesuffix("=") in overview.GROUPS:
        key, members, member = found.groups()
        word = key + member
    os.environ["COMP_LINE"] = " ".join([*before, word])
    for directory in overview.users_directory(before):
        words = [*words, "--config-dir", str(directory)]
    sys.argv[1:] = words  # which Hydra reads
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            launch(words)
    finally:
        for choice in answer.getvalue().split():
            if not members:
                print(choice)
            elif choice.removeprefix(key) not in re.findall(r"[\w-]+", members):
                print(f"{key}{members}{choice.removeprefix(key)}")


def show(word: str, choices: Sequence[str]) -> None:
    """Prints the choices that begin with what is being typed."""
    for choice in choices:
        if choice.startswith(word):
            print(choice)
