"""A user's package: an engine whose probabilities are not those of the policy."""

from dataclasses import replace

from rlrun.collectors.writing import write


def warm(policy, prompts, language, *, sampling, generator, device):
    """Write at another temperature, and say so."""
    other = replace(sampling, temperature=1.5 * sampling.temperature)
    return write(policy, prompts, language, sampling=other, generator=generator, device=device)


def silent(policy, prompts, language, *, sampling, generator, device):
    """Say no probabilities."""
    written = warm(policy, prompts, language, sampling=sampling, generator=generator, device=device)
    return replace(written, logp=written.logp * float("nan"))
