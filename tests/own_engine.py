"""A user's package: an engine whose probabilities are not those of the policy."""

from dataclasses import replace

from rlrun.collectors.writing import write


def warm():
    """Write at another temperature, and say so."""
    return write_warm


def silent():
    """Say no probabilities."""
    return write_silently


def broken():
    """Open nothing."""
    return 7


def write_warm(policy, prompts, language, *, sampling, generator, device):
    other = replace(sampling, temperature=1.5 * sampling.temperature)
    return write(policy, prompts, language, sampling=other, generator=generator, device=device)


def write_silently(policy, prompts, language, *, sampling, generator, device):
    written = write_warm(
        policy, prompts, language, sampling=sampling, generator=generator, device=device
    )
    return replace(written, logp=written.logp * float("nan"))
