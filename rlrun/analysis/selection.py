"""Which runs can be compared, and how far: to their own ends or to a common budget."""

from dataclasses import replace

import numpy as np

from rlrun.analysis.stored_runs import StoredRun

# A run's evaluations come at the end of an iteration, a little after the step at which they are
# due: the first one behind a common budget still belongs to it, if it is so near.
BEHIND = 1.05


def why_left_out(run: StoredRun, steps: int | None) -> str | None:
    """Say why a run cannot be compared; None if it can.

    Args:
        run: any.
        steps: the common budget, which a run that has not ended may have reached, too.
    """
    curve = run.evaluations
    if steps is None and run.status != "finished":
        return f"is {run.status} at step {run.step:,} of {run.total_steps:,}"
    if steps is not None and (len(curve) == 0 or curve.steps[-1] < steps):
        if run.lost_its_end and run.step >= steps:
            return f"is finished, but its metrics end before {steps:,} steps"
        return f"is not as long as {steps:,} steps"
    within = slice(None) if steps is None else slice(until(run, steps))
    if not np.isfinite(curve.returns[within]).all():
        return "has an evaluation that is not finite"
    return None


def until(run: StoredRun, steps: int) -> int:
    """Count the evaluations that a run would have had if it had been stopped at a step."""
    at = run.evaluations.steps
    before = int(np.searchsorted(at, steps))
    return before + int(before < len(at) and at[before] <= BEHIND * steps)


def cut(run: StoredRun, steps: int) -> StoredRun:
    """Return a run as if it had been stopped at a step, which it has reached."""
    evaluations = run.evaluations.first(until(run, steps))
    return replace(
        run,
        status="finished",
        total_steps=steps,
        step=steps,
        time_s=float(evaluations.seconds[-1]),
        evaluations=evaluations,
    )
