"""Training loops, each a page of verbs."""

from typing import TYPE_CHECKING

from rlrun.errors import EnvironmentFailure

if TYPE_CHECKING:
    from rlrun.runs.run import Run


def on_policy(run: "Run") -> None:
    """Collect a rollout with the current policy, learn from it, discard it; and again."""
    algorithm = run.algorithm
    collector = run.make_collector()
    run.track("collector", collector)

    while run.goes_on:
        before = run.state_dict()
        collector.steps = 0
        try:
            with run.stopwatch.measure("time/collect_s"):
                rollout = algorithm.collect(collector)
        except EnvironmentFailure:
            run.rescue(before)
            raise
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.update(rollout, progress=run.progress)
            algorithm.agent.send_to_actor()
        run.log_iteration(metrics, steps=collector.steps)
        run.evaluate_if_due()
        run.save_if_due()
