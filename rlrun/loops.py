"""Training loops, each a page of verbs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlrun.runs.run import Run


def on_policy(run: "Run") -> None:
    """Collect a rollout with the current policy, learn from it, discard it; and again."""
    algorithm, collector = run.algorithm, run.open_collector()
    run.evaluate_if_due()

    while run.goes_on:
        with run.stopwatch.measure("time/collect_s"):
            transitions = collector.collect(algorithm.agent.actor)
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.update(transitions, progress=run.progress)
            algorithm.agent.publish()
        run.advance(steps=transitions.steps, updates=int(metrics["updates"]))
        run.log({**metrics, **transitions.metrics})
        run.evaluate_if_due()
        run.save_if_due()
