"""Small tasks of language, policies for them, and who writes, that several tests share."""

from typing import Any

import torch
from tiny import part_of, yaml_of

from rlrun.config import targets
from rlrun.config.load import ROOMS
from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.sequences import Sequences
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.task import TokenTask
from rlrun.models.actor import Actor
from rlrun.models.language.networks import TokenPolicy


def task_of(name: str, **changes: Any) -> TokenTask:
    """A task as its YAML file has it, with some changes."""
    values = {**yaml_of("prompts", "procedural"), **yaml_of("env", name)}
    values.pop("defaults")
    return targets.build({**values, **changes}, "env", ROOMS["env"])


def policy_of(task: TokenTask, *, seed: int = 0, **changes: Any) -> TokenPolicy:
    """A small transformer whose draws are far from uniform."""
    model = part_of("model", "transformer", **{"width": 16, "heads": 2, **changes})
    policy = model.policy(Problem.of_prompts(task), generator(seed))
    with torch.no_grad():
        policy.reader.decoder.embedding.weight.mul_(5.0)
    return policy.requires_grad_(False)


def actor_of(policy: TokenPolicy, *, seed: int = 7) -> Actor:
    """Who writes."""
    unchanged = ObservationNormalizer(1, clip=10.0, enabled=False)
    return Actor(policy, unchanged, generator(seed), torch.device("cpu"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_sequences(task: TokenTask, count: int, length: int, *, seed: int = 0) -> Sequences:
    """Prompts of different lengths and responses, all of random tokens."""
    language = task.language
    rows = language.prompt_rows + length
    tokens = torch.randint(language.size, (rows, count), generator=generator(seed))
    blank = torch.randint(language.prompt_rows, (count,), generator=generator(seed + 1))
    return Sequences(tokens, blank, language.prompt_rows)
