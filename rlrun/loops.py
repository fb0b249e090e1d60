"""Training loops, each a page of verbs."""

from typing import TYPE_CHECKING

from rlrun.errors import EnvironmentFailure
from rlrun.normalize import RewardNormalizer
from rlrun.rollout import Collector

if TYPE_CHECKING:
    from rlrun.run import Run


def on_policy(run: "Run") -> None:
    """Collect a rollout with the current policy, learn from it, discard it; and again."""
    algorithm = run.algorithm
    collector = Collector(
        run.env,
        horizon=algorithm.horizon,
        observation_normalizer=run.observation_normalizer,
        reward_normalizer=RewardNormalizer(
            algorithm.num_envs,
            gamma=algorithm.gamma,
            clip=algorithm.normalizer_clip,
            enabled=algorithm.normalize_reward,
        ),
        device=algorithm.device,
    )
    collector.reset(run.streams.env)
    run.track("collector", collector)

    while run.goes_on:
        before = run.state_dict()
        try:
            with run.stopwatch.measure("time/collect_s"):
                rollout = collector.collect(algorithm)
        except EnvironmentFailure:
            run.rescue(before)
            raise
        with run.stopwatch.measure("time/update_s"):
            metrics = algorithm.update(rollout, progress=run.progress)
        run.log_iteration(metrics, steps=rollout.reward.numel())
        run.evaluate_if_due()
        run.save_if_due()
