"""The command `rlrun`: sends the verbs to argparse and everything else to Hydra.

A bare first word is never one of Hydra's (``key=value`` or an option), so the two cannot meet.
What a command does not need is not imported: help and completion answer without torch.
"""

import os
import sys

from rlrun import __version__
from rlrun.cli.help import completion, overview
from rlrun.errors import (
    FAILED,
    MISTAKEN,
    Interrupted,
    UserError,
    did_you_mean,
    report,
    say,
    silence,
)

VERBS = ("train", "tune", "eval", "export", "resume", "list", "compare")


def main() -> None:
    """Runs the command line and exits: 0, 1 for a failed run, 2 for a mistake, 128 + signal.

    A command whose answer nobody reads to its end (`rlrun --help | head -3`) exits with 1, too.
    """
    try:
        try:
            dispatch(sys.argv[1:])
        finally:
            print(end="", flush=True)  # here, where it can fail, and not when the process ends
    except BrokenPipeError:
        silence(sys.stdout)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        say("rlrun: interrupted", sys.stderr)
        sys.exit(130)
    except Interrupted as error:
        sys.exit(128 + error.signal)
    except Exception as error:
        report(error, with_traceback=os.environ.get("HYDRA_FULL_ERROR") == "1")
        sys.exit(MISTAKEN if isinstance(error, UserError) else FAILED)


def dispatch(words: list[str]) -> None:
    """Does what the command line asks for.

    Args:
        words: the command line behind the command's name.
    """
    verb = words[0] if words else ""
    if verb in VERBS and verb != "train":
        from rlrun.cli import commands

        commands.run(verb, words[1:])
    elif completion.is_query(words):
        completion.complete(words, VERBS)
    elif "--version" in words:
        print(f"rlrun {__version__}")
    elif "--help" in words or "-h" in words:
        show_help(words)
    elif verb and verb[0] not in "-+~" and "=" not in verb and verb != "train":
        raise UserError(
            f"no command '{verb}'{did_you_mean(verb, VERBS)} (settings are written name=value)"
        )
    else:
        from rlrun.cli.train import launch

        if verb == "train":
            del sys.argv[1]  # Hydra reads sys.argv and knows no verbs
        launch(sys.argv[1:])


def show_help(words: list[str]) -> None:
    """Prints the help, or what there is to say of the settings that are named beside --help.

    Args:
        words: the command line.

    Raises:
        UserError: there is no such setting.
    """
    from rlrun.config.files import conf_directory

    directories = [*overview.users_directory(words), conf_directory()]
    overrides, settings = overview.asked_for(words)
    if not settings:
        print(overview.text(directories[::-1]))
        return

    from rlrun.cli.help import setting

    print("\n\n".join(setting.text(name, overrides, directories) for name in settings))
