"""Small environments, algorithms for them, and torch's optimisers, that several tests share."""

import copy
from collections.abc import Callable
from pydoc import locate
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from rlrun.advantages.columns import COLUMNS, Estimator
from rlrun.collectors.contract import CollectorSpec
from rlrun.collectors.episodes import Episodes
from rlrun.collectors.segments import Segments
from rlrun.config import targets
from rlrun.config.files import conf_directory
from rlrun.config.load import ROOMS
from rlrun.data.rollout import Rollout, Transitions
from rlrun.data.seeding import Streams
from rlrun.envs.control import ControlEnv
from rlrun.envs.problem import Problem
from rlrun.envs.serial.vector import SerialVectorEnv
from rlrun.envs.tabular import TabularModel
from rlrun.hardware.compile import Compilation
from rlrun.hardware.spec import Hardware
from rlrun.learning.contract import Context
from rlrun.learning.learner import GradientLearner
from rlrun.learning.optimizers import Adam, RMSprop
from rlrun.models.distributions import Categorical
from rlrun.models.mlp import MLP
from rlrun.models.networks import Model
from rlrun.models.reference import Reference
from rlrun.runs.evaluate import play_episodes

CPU = Hardware(device="cpu", threads=1, learner_threads=1, compile="off", products="highest")

# The sizes of a small algorithm, as far as it has them.
SMALL = {
    "num_envs": 4,
    "horizon": 8,
    "epochs": 2,
    "minibatch_size": 8,
    "episodes_per_minibatch": 2,
    "capacity": 256,
    "batch_size": 8,
    "warmup_steps": 64,
    "updates_per_step": 0.125,
}

# Of a run that an algorithm is set up for.
TOTAL_STEPS = 10_000

# No episode of the environments below is longer.
TIME_LIMIT = 15


class Counting(gym.Env):
    """Observes (environment, episode, step), so that every row says where it comes from.

    Episodes are 1 to 4 steps long, in a pattern that differs between environments, and end by
    termination or truncation, in turns over episodes and over environments. The reward is
    100·environment + 10·episode + step.

    Attributes:
        received: the actions, as they reached the environment.
    """

    def __init__(self, index: int, action_space: spaces.Space):
        self.index = index
        self.action_space = action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.episode = -1
        self.received: list[Any] = []

    @staticmethod
    def length(index: int, episode: int) -> int:
        """Steps of an episode."""
        return 1 + (index + 2 * episode) % 4

    @staticmethod
    def terminates(index: int, episode: int) -> bool:
        """Whether an episode ends in a terminal state."""
        return (index + episode) % 2 == 0

    def _obs(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.elapsed], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.elapsed = 0
        return self._obs(), {}

    def step(self, action):
        self.received.append(np.array(action))
        reward = 100 * self.index + 10 * self.episode + self.elapsed
        self.elapsed += 1
        over = self.elapsed == self.length(self.index, self.episode)
        terminates = self.terminates(self.index, self.episode)
        return self._obs(), float(reward), over and terminates, over and not terminates, {}


class Corridor(gym.Env):
    """Five places in a row: start in the first, win 1 in the last, pay 0.1 a step until then.

    The best return is 1 − 3·0.1 = 0.7; who never arrives is cut after 15 steps, at −1.5.
    """

    places, limit = 5, 15
    observation_space = spaces.Discrete(places)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.elapsed = 0, 0
        return self.place, {}

    def step(self, action):
        self.place = min(max(self.place + (1 if action == 1 else -1), 0), self.places - 1)
        self.elapsed += 1
        won = self.place == self.places - 1
        return self.place, 1.0 if won else -0.1, won, not won and self.elapsed == self.limit, {}


class PointMass(gym.Env):
    """A point in [−2, 2] that an action in [−1, 1] moves by 0.5·a; pays its squared distance from
    0 for 10 steps, then is cut."""

    observation_space = spaces.Box(-2.0, 2.0, (1,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1.0, 1.0, 1)
        self.elapsed = 0
        return self.place.copy(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.5 * action, -2.0, 2.0)
        self.elapsed += 1
        return self.place.copy(), -float(self.place[0] ** 2), False, self.elapsed == 10, {}


def control(make_env: Callable[[], gym.Env], num_envs: int) -> ControlEnv:
    """What the loops see of N of these environments."""
    return ControlEnv(SerialVectorEnv([make_env] * num_envs), action_units="raw")


def counting(num_envs: int, action_space: spaces.Space) -> tuple[ControlEnv, list[Counting]]:
    """Counting environments, together and one by one."""
    envs = [Counting(index, action_space) for index in range(num_envs)]
    vector_env = SerialVectorEnv([lambda env=env: env for env in envs])
    return ControlEnv(vector_env, action_units="raw"), envs


def bare_rollout(reward: Tensor, **columns: Any) -> Rollout:
    """A rollout in which nothing ends and all rows count, but for the columns that are given.

    Args:
        reward: [T, N]; observations and actions are empty.
        columns: of the rollout, those that networks fill in among them.
    """
    empty, never = torch.empty(*reward.shape, 0), torch.zeros(reward.shape, dtype=torch.bool)
    others: dict[str, Any] = {
        "obs": empty,
        "next_obs": empty,
        "raw_obs": empty,
        "action": empty,
        "logp": torch.zeros_like(reward),
        "raw_reward": reward,
        "terminated": never,
        "truncated": never,
        "mask": ~never,
        "whole_episodes": False,
        "group": None,
    }
    filled_in = {name: columns.pop(name) for name in COLUMNS if name in columns}
    return Rollout(reward=reward, **{**others, **columns}, columns=filled_in)


def yaml_of(group: str, name: str) -> dict[str, Any]:
    """What one of the YAML files says, with the files that it is based on."""
    values = OmegaConf.to_container(OmegaConf.load(conf_directory() / group / f"{name}.yaml"))
    for entry in values.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            values = {**yaml_of(group, entry), **values}
        elif isinstance(entry, dict):
            ((place, choice),) = entry.items()
            other, _, key = place.removeprefix("/").partition("@")
            if key.isidentifier() and not key.startswith("_"):  # a part of this one
                values[key] = yaml_of(other, choice)
                values[key].pop("defaults", None)
    return values


def part_of(group: str, name: str, **changes: Any) -> Any:
    """What a YAML file describes, built as the command line does, with some changes.

    Args:
        group: the config group.
        name: of the file.
        changes: of its settings, by the name alone where only one setting has it, in whatever
            mapping it stands; else by the path ("normalization.clip").
    """
    values = copy.deepcopy(yaml_of(group, name))
    values.pop("defaults", None)
    for path, value in changes.items():
        *above, key = path.split(".")
        node = values
        for step in above:
            node = node[step]
        nested = [inner for inner in node.values() if isinstance(inner, dict) and key in inner]
        if not above and key not in node and nested:
            assert len(nested) == 1, f"several settings are called {key}"
            node = nested[0]
        node[key] = value
    return targets.build(values, group, ROOMS[group])


def brought(algo: str, group: str) -> str | None:
    """The choice of a group that an algorithm's YAML file brings along, if it does."""
    key = f"/{group}@_global_.{group}"
    defaults = [entry for entry in yaml_of("algo", algo)["defaults"] if isinstance(entry, dict)]
    return next((entry[key] for entry in defaults if key in entry), None)


def algorithms(loop: Callable[..., None]) -> list[str]:
    """The algorithms of conf/algo that a loop trains, without those of language alone."""
    targets = {name: locate(target) for name, target in targets_of_algorithms().items()}
    alone = algorithms_of_language_alone()
    return [name for name, each in targets.items() if name not in alone and each.loop is loop]


def algorithms_of_language_alone() -> list[str]:
    """The algorithms of conf/algo that learn from responses to prompts, and from nothing else."""
    targets = targets_of_algorithms().items()
    return [name for name, target in targets if target.startswith("rlrun.algos.preference")]


def targets_of_algorithms() -> dict[str, str]:
    """The classes of the algorithms of conf/algo, by name."""
    names = sorted(path.stem for path in (conf_directory() / "algo").glob("*.yaml"))
    return {name: yaml_of("algo", name)["_target_"] for name in names}


def algorithm_of(name: str, **changes: Any) -> Any:
    """An algorithm as in its YAML file, but small; and with some changes (see `part_of`)."""
    values = yaml_of("algo", name)
    mappings = (values, values.get("critic", {}), values.get("replay", {}))
    sizes = {key: size for key, size in SMALL.items() if any(key in node for node in mappings)}
    return part_of("algo", name, **{**sizes, **changes})


def estimator_of(name: str) -> Estimator | None:
    """The estimator that an algorithm's YAML file brings along, if it does."""
    chosen = brought(name, "advantage")
    return instantiate(yaml_of("advantage", chosen)) if chosen else None


def problem_of(env: ControlEnv, *, time_limit: int | None = TIME_LIMIT) -> Problem:
    """What an algorithm is told of these environments."""
    return Problem(
        env_id="Tiny-v0",
        obs_size=env.obs_size,
        action_space=env.action_space,
        action_units="raw",
        time_limit=time_limit,
        state_sizes=env.state_sizes,
        obs_dtype=env.obs_dtype,
    )


def small_model(**changes: Any) -> MLP:
    """The usual networks, but small; and with some changes."""
    return part_of("model", "mlp", **{"hidden_sizes": [8], **changes})


def no_policy(path: str, device: torch.device) -> Reference:
    """There is no other run to read a policy from."""
    raise AssertionError(path)


def no_table() -> TabularModel:
    """There is no model of the environment."""
    raise AssertionError


def context_of(
    env: ControlEnv,
    collector: CollectorSpec,
    *,
    seed: int = 0,
    time_limit: int | None = TIME_LIMIT,
    estimator: Estimator | None = None,
    hardware: Hardware = CPU,
    model: Model | None = None,
    load_policy: Callable[[str, torch.device], Reference] = no_policy,
    resumed: bool = False,
) -> Context:
    """What an algorithm is set up with, for these environments and this collector."""
    problem = problem_of(env, time_limit=time_limit)
    return Context(
        problem=problem,
        total_steps=TOTAL_STEPS,
        collected=collector.shape(problem, env.num_envs),
        networks=model or small_model(),
        estimator=estimator,
        hardware=hardware,
        streams=Streams.from_seed(seed),
        read_table=no_table,
        load_policy=load_policy,
        resumed=resumed,
    )


def set_up(
    env: ControlEnv,
    algo: str = "ppo",
    *,
    group_size: int | None = None,
    collector: CollectorSpec | None = None,
    estimator: Estimator | None = None,
    seed: int = 0,
    time_limit: int | None = TIME_LIMIT,
    hardware: Hardware = CPU,
    model: Model | None = None,
    load_policy: Callable[[str, torch.device], Reference] = no_policy,
    resumed: bool = False,
    **changes: Any,
) -> tuple[Any, Any]:
    """A small algorithm for these environments, and what collects its data from them.

    Args:
        env: the environments.
        algo: name of the algorithm's YAML file.
        group_size: episodes from one start, a rollout being whole episodes; None: segments.
        collector: in place of the one that `group_size` means.
        estimator: of advantages; None: the one that comes with the algorithm.
        seed: of all streams.
        time_limit: steps of the longest episode.
        hardware: where it runs.
        model: builds the networks.
        load_policy: reads a reference policy.
        resumed: whether a saved state is loaded after this.
        changes: of the algorithm's settings (see `part_of`).
    """
    algorithm = algorithm_of(algo, num_envs=env.num_envs, **changes)
    if collector is None:
        collector = (
            Episodes(group_size=group_size)
            if group_size is not None
            else Segments(horizon=changes.get("horizon", SMALL["horizon"]))
        )
    context = context_of(
        env,
        collector,
        seed=seed,
        time_limit=time_limit,
        estimator=estimator or estimator_of(algo),
        hardware=hardware,
        model=model,
        load_policy=load_policy,
        resumed=resumed,
    )
    algorithm.setup(context)
    return algorithm, collector.open(env, context.shape, seed=context.streams.env)


def compile_update(algorithm: Any, hardware: Hardware) -> Compilation:
    """Compile what an algorithm learns with, as a run does, if the hardware says so."""
    functions = [f for learner in algorithm.learners.values() for f in learner.functions]
    compilation = Compilation(functions, hardware, total_steps=0)
    compilation.run()
    return compilation


def rollout_of(algorithm: Any, transitions: Transitions) -> Rollout:
    """The rollout that the next update will make of these transitions; nothing is learned.

    Args:
        algorithm: set up; its statistics and random numbers stay where they are.
        transitions: what its actor did.
    """
    agent = algorithm.agent
    states = {name: part.state_dict() for name, part in agent.parts.items()}
    generator = agent.actor.generator.get_state()
    rollout = agent.rollout(transitions)
    for name, part in agent.parts.items():
        part.load_state_dict(states[name])
    agent.actor.generator.set_state(generator)
    return rollout


def log_prob_and_entropy(policy: nn.Module, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """Log π(a|s) and the entropy of π at each step, [T, N], by torch's distributions."""
    distribution = policy(rollout.obs)
    if isinstance(distribution, Categorical):
        plain = torch.distributions.Categorical(logits=distribution.logits)
        return plain.log_prob(rollout.action), plain.entropy()
    normal = torch.distributions.Normal(distribution.mean, distribution.log_std.exp())
    return normal.log_prob(rollout.action).sum(-1), normal.entropy().sum(-1)


def learn(algorithm: Any, collector: Any, iterations: int) -> list[dict[str, Tensor]]:
    """Collect and learn, as the loop does; return the metrics of each iteration."""
    history = []
    for i in range(iterations):
        transitions = collector.collect(algorithm.agent.actor)
        history.append(algorithm.update(transitions, progress=i / iterations))
        algorithm.agent.publish()
    return history


def greedy_return(make_env: Callable[[], gym.Env], algorithm: Any) -> float:
    """The mean return of 20 episodes of the greedy policy, after training."""
    env, act = control(make_env, 20), algorithm.agent.actor.act_greedily
    return float(np.mean(play_episodes(act, env, seed=1, max_length=1000).returns))


def trained_return(
    make_env: Callable[[], gym.Env],
    algo: str = "ppo",
    *,
    iterations: int,
    num_envs: int = 8,
    estimator: Estimator | None = None,
    sign: int = 1,
    width: int = 16,
    log_std: float = 0.0,
    **settings: Any,
) -> float:
    """The greedy policy's mean return after training.

    Args:
        make_env: makes one environment.
        algo: name of the algorithm's YAML file.
        iterations: rollouts to learn from.
        num_envs: environments side by side.
        estimator: of advantages; None: the one that comes with the algorithm.
        sign: of the advantage; -1 is the classic mistake.
        width: of the hidden layer.
        log_std: natural logarithm of the policy's first standard deviation.
        settings: for `set_up`.
    """
    plain = estimator or estimator_of(algo)

    def signed(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
        advantage, target = plain(rollout, gamma=gamma)
        return sign * advantage, target

    algorithm, collector = set_up(
        control(make_env, num_envs),
        algo,
        estimator=signed,
        model=small_model(hidden_sizes=[width], log_std=log_std),
        **settings,
    )
    learn(algorithm, collector, iterations)
    return greedy_return(make_env, algorithm)


def torchs_step(
    learner: GradientLearner, loss: Callable[[nn.Module], Tensor], learning_rate: float
) -> tuple[Tensor, float]:
    """A step of torch's own optimiser from where a learner stands, which stays there.

    Args:
        learner: its weights, optimiser and state are taken.
        loss: of a network of the learner's kind, for autograd.
        learning_rate: step size.

    Returns:
        The new θ [P], and the norm of the gradient before it was clipped.
    """
    network = copy.deepcopy(learner.network).requires_grad_(True)
    optimizer = torchs_optimizer(learner.optimizer, list(network.parameters()), learning_rate)
    columns = [
        learner.parameters.unflatten(column) if column.ndim else column
        for column in learner.state.optimizer
    ]
    for name, parameter in network.named_parameters():
        values = [column[name] if isinstance(column, dict) else column for column in columns]
        optimizer.state[parameter] = torchs_state(learner.optimizer, [v.clone() for v in values])
    loss(network).backward()
    norm = clip_grad_norm_(network.parameters(), learner.optimizer.max_grad_norm)
    optimizer.step()
    return torch.cat([p.detach().flatten() for p in network.parameters()]), norm.item()


def torchs_optimizer(
    ours: Adam | RMSprop, parameters: list[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """Torch's optimiser with the constants of ours."""
    if isinstance(ours, Adam):
        betas = (ours.beta1, ours.beta2)
        return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, eps=ours.epsilon)
    return torch.optim.RMSprop(parameters, lr=learning_rate, alpha=ours.alpha, eps=ours.epsilon)


def torchs_state(ours: Adam | RMSprop, values: list[Tensor]) -> dict[str, Tensor]:
    """The state of torch's optimiser for one parameter, from the values of ours in their order."""
    if isinstance(ours, Adam):
        return dict(zip(("exp_avg", "exp_avg_sq", "step"), values, strict=True))
    return {"step": torch.zeros(()), "square_avg": values[0]}
