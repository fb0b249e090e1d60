"""The eleven v5 tasks, by the id that Gymnasium registers them under."""

from rlrun.envs.mujoco.tasks.ant import Ant
from rlrun.envs.mujoco.tasks.arms import Pusher, Reacher
from rlrun.envs.mujoco.tasks.humanoid import Humanoid, HumanoidStandup
from rlrun.envs.mujoco.tasks.pendulums import InvertedDoublePendulum, InvertedPendulum
from rlrun.envs.mujoco.tasks.planar import HalfCheetah, Hopper, Swimmer, Walker2d
from rlrun.envs.mujoco.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "Ant-v5": Ant,
    "HalfCheetah-v5": HalfCheetah,
    "Hopper-v5": Hopper,
    "Humanoid-v5": Humanoid,
    "HumanoidStandup-v5": HumanoidStandup,
    "InvertedDoublePendulum-v5": InvertedDoublePendulum,
    "InvertedPendulum-v5": InvertedPendulum,
    "Pusher-v5": Pusher,
    "Reacher-v5": Reacher,
    "Swimmer-v5": Swimmer,
    "Walker2d-v5": Walker2d,
}
