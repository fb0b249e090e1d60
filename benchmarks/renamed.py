"""Settings of rlrun whose name was another when a benchmark wrote its results."""

from collections.abc import Iterable

# As it was -> as it is. With a value where the value has another name, too.
RENAMED: dict[str, str] = {}


def in_present_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return words of an older command line (``name=value``) as they are written now."""
    return tuple(map(_present, words))


def _present(word: str) -> str:
    name, equals, value = word.partition("=")
    return RENAMED.get(word) or f"{RENAMED.get(name, name)}{equals}{value}"
