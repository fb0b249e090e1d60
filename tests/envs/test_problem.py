import gymnasium as gym
import numpy as np

from rlrun.envs.control import ControlEnv
from rlrun.envs.gym_env import GymEnv
from rlrun.envs.problem import Problem


def test_its_measures_are_those_of_the_environment():
    spec = GymEnv(
        id="Pendulum-v1",
        max_episode_steps=70,
        options={},
        action_units="box",
        fresh_each_episode=False,
    )
    env = ControlEnv.make(spec, num_envs=2, threads=1)
    problem = Problem.of(spec, env)
    assert (problem.env_id, problem.obs_size, problem.time_limit) == ("Pendulum-v1", 3, 70)
    # In the units of the policy: the torques are -2 to 2.
    assert problem.action_space == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert not problem.discrete
    env.close()
