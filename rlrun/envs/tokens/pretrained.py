"""The tokeniser of a pretrained model, from its directory; nothing in it is run."""

import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from rlrun.errors import UserError, near_path

# What a directory has one of, if it has a tokeniser.
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

# Of a model: how it usually writes.
GENERATION = "generation_config.json"


def require_transformers(setting: str) -> None:
    """Refuse what needs the package transformers, where it is not installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{setting} needs transformers: pip install 'rlrun[transformers]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from saying what rlrun says, or finds out, itself."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class PretrainedTokenizer:
    """A tokeniser of the package transformers (as :class:`~.vocabulary.Tokenizer`).

    Attributes:
        tokens: what each token stands for.
    """

    def __init__(self, directory: str, setting: str):
        """Read it.

        Args:
            directory: of a model.
            setting: that names it, for messages.

        Raises:
            UserError: there is none, or it cannot end a response.
        """
        place = f"{setting}={directory}"
        require_transformers(place)
        path = Path(directory)
        if not path.is_dir():
            raise UserError(f"{place}: no such directory{near_path(path)}")
        if not any((path / name).is_file() for name in FILES):
            raise UserError(f"{place} has no tokeniser: none of {', '.join(FILES)}")
        self._place, self._path = place, path
        self._tokenizer: Any = read(path, place)
        if self._tokenizer.eos_token_id is None:
            raise UserError(
                f"{place}: its tokeniser has no end token (eos_token in tokenizer_config.json), "
                "by which a response ends"
            )

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """What each token stands for."""
        return tuple(map(str, self._tokenizer.convert_ids_to_tokens(list(range(len(self))))))

    def __len__(self) -> int:
        """V, added tokens among them."""
        return len(self._tokenizer)

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return self._tokenizer.eos_token_id

    def ends_of_model(self) -> list[int]:
        """Return the tokens that end a response by what the model's directory says of it."""
        try:
            said = json.loads((self._path / GENERATION).read_text()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):  # it says nothing that can be read
            return []
        ends = said if isinstance(said, list) else [said]
        return [end for end in ends if isinstance(end, int) and 0 <= end < len(self)]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, and no others."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def encode_prompt(self, prompt: str, system: str | None) -> list[int]:
        """Return the tokens of a prompt: by the chat template, if there is one.

        Without one, the system's text stands above the prompt, and before both what the tokeniser
        begins texts with.

        Raises:
            UserError: the template has no place for a system text, or fails.
        """
        if self._tokenizer.chat_template is None:
            text = prompt if system is None else f"{system}\n{prompt}"
            tokens = self._tokenizer.encode(text, add_special_tokens=True)
            return tokens[:-1] if tokens[-1:] == [self.end] else tokens
        roles = {"system": system, "user": prompt}
        messages = [{"role": role, "content": text} for role, text in roles.items() if text]
        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # whatever a template raises
            reason = " ".join(str(error).split())
            raise UserError(f"{self._place}: its chat template fails: {reason}") from error
        return self.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, up to the end of the response, without special tokens."""
        found = list(tokens)
        end = found.index(self.end) if self.end in found else len(found)
        return self._tokenizer.decode(
            found[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def save(self, directory: Path) -> None:
        """Write it beside a model."""
        self._tokenizer.save_pretrained(directory)


def read(path: Path, place: str) -> Any:
    """Read a tokeniser of the package transformers.

    Args:
        path: its directory.
        place: how the user named it.

    Raises:
        UserError: it cannot be read.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # of many kinds, by the tokeniser's
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{place}: its tokeniser cannot be read: {reason}") from error
