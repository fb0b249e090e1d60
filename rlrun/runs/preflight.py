"""Whether the parts of a run fit each other, found out without making the run's environments."""

from typing import Any

from rlrun.config.experiment import Experiment
from rlrun.data.seeding import Streams
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem


class Rehearsal:
    """Sets up the algorithms of several runs, as each will when it starts, and drops them.

    That takes milliseconds a run. Environments can take seconds, so a single one is made, whose
    measures serve all runs with the same settings of it.
    """

    def __init__(self) -> None:
        """Begin without an environment."""
        self._problems: list[tuple[dict[str, Any], Problem]] = []

    def check(self, experiment: Experiment) -> None:
        """Set up a run's algorithm.

        Args:
            experiment: of the run; its algorithm is spent afterwards.

        Raises:
            UserError: the parts do not fit together, the environment cannot be made, or this
                machine lacks the device.
        """
        experiment.algo.setup(
            self._problem(experiment),
            hardware=experiment.hardware,
            streams=Streams.from_seed(experiment.seed),
            estimator=experiment.advantage,
            compiled=False,
            from_checkpoint=False,
        )

    def _problem(self, experiment: Experiment) -> Problem:
        settings = experiment.config["env"]
        for known, problem in self._problems:
            if known == settings:
                return problem
        env = ControlEnv.make(experiment.env, num_envs=1, threads=1)
        problem = Problem.of(experiment.env, env)
        env.close()
        self._problems.append((settings, problem))
        return problem
