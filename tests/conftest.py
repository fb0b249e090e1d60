"""One thread of torch in each of pytest's processes, of which there is one a core.

And each YAML file is parsed once in them: composing a config reads a dozen files, whose parser is
written in Python, and hundreds of tests compose one.
"""

import copy
from pathlib import Path

import torch
from omegaconf import OmegaConf

torch.set_num_threads(1)

_parse = OmegaConf.load
_parsed = {}


def _parse_once(file):
    """OmegaConf.load; of a text that it has seen, it returns a copy of what it returned then."""
    if isinstance(file, str | Path):
        with open(file, encoding="utf-8") as opened:
            return _parse_once(opened)
    start = file.tell()
    text = file.read()
    if text not in _parsed:
        file.seek(start)
        _parsed[text] = _parse(file)  # raises what it raises, with the file's name
    return copy.deepcopy(_parsed[text])


OmegaConf.load = staticmethod(_parse_once)
