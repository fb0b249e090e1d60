"""Training loops, each a page of verbs."""

from functools import partial
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rlrun.algos.contract import (
        OffPolicyAlgorithm,
        OnlineAlgorithm,
        OnPolicyAlgorithm,
        PlanningAlgorithm,
        SupervisedAlgorithm,
    )
    from rlrun.runs.run import Run


def on_policy(run: "Run") -> None:
    """Collect a rollout with the current policy, learn from it, discard it; and again."""
    algorithm, collector = cast("OnPolicyAlgorithm", run.algorithm), run.assembly.open_collector()
    run.evaluate_if_due()

    while run.goes_on:
        transitions = run.collect(collector, algorithm.agent.actor)
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.update(transitions, progress=run.progress)
            algorithm.agent.publish()
        run.advance(steps=transitions.steps, updates=int(metrics["updates"]))
        run.log({**metrics, **transitions.metrics})
        run.evaluate_if_due()
        run.save_if_due()


def off_policy(run: "Run") -> None:
    """Act, and learn from what a replay buffer holds of earlier steps; and again.

    The updates of an iteration go on beside its environment steps, which they do not learn from:
    what is learned is the same when one comes after the other.
    """
    algorithm, collector = cast("OffPolicyAlgorithm", run.algorithm), run.assembly.open_collector()
    run.open_buffer(algorithm.buffer)
    run.evaluate_if_due()

    while run.goes_on:
        algorithm.explore(run.progress)
        transitions, metrics = run.collect_and_update(
            partial(collector.collect, algorithm.agent.actor),
            partial(algorithm.update, run.progress),
        )
        algorithm.buffer.append(transitions)
        algorithm.agent.publish()
        run.advance(steps=transitions.steps, updates=int(metrics["updates"]))
        run.log({**metrics, **transitions.metrics})
        run.evaluate_if_due()
        run.save_if_due()


def supervised(run: "Run") -> None:
    """Learn from what an author does, who need not be the policy that learns; and again."""
    algorithm, collector = cast("SupervisedAlgorithm", run.algorithm), run.assembly.open_collector()
    run.evaluate_if_due()

    while run.goes_on:
        examples = run.collect(collector, algorithm.author)
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.update(examples, progress=run.progress)
            algorithm.agent.publish()
        run.advance(steps=examples.steps, updates=int(metrics["updates"]))
        run.log({**metrics, **examples.metrics})
        run.evaluate_if_due()
        run.save_if_due()


def planning(run: "Run") -> None:
    """Sweep over the states of a known model until their values stand still; a step is a sweep."""
    algorithm = cast("PlanningAlgorithm", run.algorithm)
    run.evaluate_if_due()

    while run.goes_on:
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.sweep()
        run.advance(steps=1, updates=1, converged=algorithm.plan.converged)
        run.log(metrics)
        run.evaluate_if_due()
        run.save_if_due()
    run.draw_table(algorithm.agent)


def online(run: "Run") -> None:
    """Act, learn from the step, forget it; and again."""
    algorithm, env = cast("OnlineAlgorithm", run.algorithm), run.assembly.open_env()
    if env.restarted:  # a resumed run could not go on in the middle of its episode
        algorithm.forget_episode()
    run.evaluate_if_due()

    while run.goes_on:
        obs = env.obs
        action = algorithm.act(obs, run.progress)
        step = env.step(action)
        metrics = algorithm.learn(obs, action, step, progress=run.progress)
        run.advance(steps=env.num_envs, updates=1)
        run.log(metrics)
        run.evaluate_if_due()
        run.save_if_due()
    run.draw_table(algorithm.agent)
