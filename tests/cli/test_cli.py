"""The command line: what a user types, reads and gets back as an exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml

from rlrun import __version__
from rlrun.cli.help import overview
from rlrun.cli.sweep import give_back, hold_back
from rlrun.config.files import conf_directory
from rlrun.loggers.progress import duration
from rlrun.runs.files.directory import lock

RLRUN = Path(sys.executable).with_name("rlrun")

# A run of a second: 256 environment steps of CartPole.
TINY = [
    "env=cartpole",
    "total_steps=256",
    "algo.num_envs=2",
    "algo.horizon=64",
    "algo.epochs=1",
    "evaluation.episodes=2",
    "hardware.compile=off",
]


def run_directories(root: str = "outputs") -> list[Path]:
    return sorted(path.parent for path in Path(root).rglob("run.json"))


# ---------------------------------------------------------------------- mistakes


@pytest.fixture
def users_conf(tmp_path):
    """A user's own groups, some of them with a mistake inside."""
    files = {
        "algo/broken.yaml": "a: [1\nb: 2\n",
        "algo/typo.yaml": "defaults:\n  - ppo\n  - _self_\nepoch: 3\n",
        "algo/no_class.yaml": "_target_: rlrun.algos.policy_gradient.ppo.PPOO\n",
        "algo/foreign.yaml": "_target_: os.system\ncommand: ls\n",
        "algo/no_choice.yaml": "defaults:\n  - /advantage@_global_.advantage: gaee\n",
        "algo/no_estimator.yaml": "_target_: rlrun.algos.policy_gradient.ppo.PPO\n",
        "env/no_target.yaml": "# Mine\nid: CartPole-v1\n",
        "env/empty.yaml": "",
        "env/list.yaml": "- a\n",
        "hardware/empty.yaml": "",
        "logger/no_target.yaml": "mine:\n  path: here\n",
        "tuned/ppo_cartpole.yaml": "# @package _global_\nalgo:\n  gamma: 0.5\n",
    }
    for name, text in files.items():
        path = tmp_path / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / "conf")


MISTAKES = {
    "advantage=rloo": "compares episodes from one start: collector=groups; got collector=segments",
    "algo=grpo collector.group_size=1": "compares episodes from one start",
    "algo=dapo collector.group_size=1": "drops groups without a spread: collector.group_size=8",
    "algo=dapo advantage=gae": "advantage: it needs a critic V(s), which this algorithm has not",
    "collector=groups collector.group_size=3": "num_envs=16 is not a multiple of collector.group_",
    "collector.group_size=2": "collector.group_size: no such setting; there is horizon\n",
    "model.hidden_size=3": "model.hidden_size: no such setting; did you mean 'model.hidden_sizes'?",
    "collector=[groups,segments]": "a run has one collector",
    "algo=grpo collector=segments": "collector.horizon comes from algo.horizon, which this algo has"
    " not: another collector, or collector.horizon=…\n",
    "algo=a2c algo.horizon=null": "algo.horizon: expected a whole number, got null",
    "algo=reinforce env=blackjack": "Blackjack-v1 has no time limit, which whole episodes need",
    "algo=actor_critic_q advantage=advantage_q advantage.baseline=policy_mean": "discrete ones",
    "algo=grpo algo.kl.coefficient=0.1": "coefficient must be 0 without a policy to stay near",
    "algo=grpo algo.kl.reference=nowhere": "algo.kl.reference=nowhere: no such directory",
    "algo=ppoo": "algo=ppoo: no such algo; did you mean 'ppo'?",
    "env=hoper": "env=hoper: no such env; did you mean 'hopper'?",
    "env=Maze-v0": "env=Maze-v0: no such env; rlrun --help env lists them; any other is env=gym",
    "env=cartpole env.wrappers=[FrameStack]": "did you mean 'FrameStackObservation'?",
    "env=cartpole env.wrappers=[{name:FrameStackObservation,size:4}]": "no argument 'size'",
    "env=cartpole env.workers=two": "env.workers: expected a whole number, got 'two'",
    "env=cartpole env.worker=2": "env.worker: no such setting; did you mean 'env.workers'?",
    "logger=wandbb": "logger=wandbb: no such logger; did you mean 'wandb'?",
    "algo=dqn algo.noisy.sigma=1": "algo.noisy is null here: give it whole, algo.noisy={…}",
    "algo=sac advantage=gae": "advantage: this algo has no advantage to choose",
    "algo=q_learning env=taxi advantage=td": "advantage: this algo has no advantage to choose",
    "algoo=ppo": "algoo: no such setting; did you mean 'algo'?",
    "algo.lrr=1": "algo.lrr: no such setting; did you mean 'algo.optimizer.learning_rate'?",
    "+algo.optimizer.lrr=1": "no such setting; did you mean 'algo.optimizer.learning_rate'?",
    "++algo.epoch=1": "algo.epoch: no such setting; did you mean 'algo.epochs'?",
    "advantage.n=3": "advantage.n: no such setting; there is lam\n",
    "algo.lr=abc": "algo.lr: no such setting; did you mean 'algo.optimizer.learning_rate'?",
    "algo.optimizer.learning_rate=abc": "learning_rate: expected a number, got 'abc'",
    "algo.gamma=1.5": "rlrun: algo.gamma must be in [0, 1], got 1.5",
    "advantage.lam=1.5": "rlrun: advantage.lam must be in [0, 1], got 1.5",
    "advantage=nstep advantage.n=0": "rlrun: advantage.n must be at least 1, got 0",
    "algo=ppo,a2c": "algo=ppo,a2c: several values for one run; for each: rlrun -m algo=ppo,a2c",
    "tags=a,b": "for each: rlrun -m tags=a,b, or tags=[a,b] for a list",
    "algo=[ppo,a2c]": "algo=[ppo,a2c]: a run has one algo; for each: rlrun -m algo=ppo,a2c",
    "hardware=[cpu,gpu]": "a run has one hardware",
    "algo=null": "algo=null: a run has one algo",
    "algo=": "algo=: a run has one algo",
    "~env": "~env: a run has one env",
    "logger=[wandb,wandbb]": "logger=wandbb: no such logger; did you mean 'wandb'?",
    "tuned=ppo_swimer": "tuned=ppo_swimer: no such tuned; did you mean 'ppo_swimmer'?",
    "-m tuned=ppo_swimmer,ppo_swimer": "tuned=ppo_swimer: no such tuned",
    "--cfg job tuned=foo": "tuned=foo: no such tuned",
    "seed=1,2": "seed=1,2: several values for one run; for each: rlrun -m seed=1,2\n",
    "algo.gamma=0.9,0.99": "for each: rlrun -m algo.gamma=0.9,0.99\n",
    "model.hidden_sizes=64,32": "or model.hidden_sizes=[64,32] for a list",
    "plugins=[no_such_package]": "plugins: no module 'no_such_package'\n",
    "env.id=Hoper-v5": "did you mean 'Hopper-v5'?",
    "env=gym": "env.id has no value: give it as env.id=…",
    "env=gym env.id=CartPol-v1": "did you mean 'CartPole-v1'?",
    "total_steps=-5": "total_steps must be at least 1, got -5",
    "total_steps=1.5": "total_steps: expected a whole number, got 1.5",
    "evaluation.every_step=3": "did you mean 'evaluation.every_steps'?",
    "seed=${sed}": "seed: Interpolation key 'sed' not found",
    "tuned=null": "tuned=null: without any it is ~tuned\n",
    "logger=null": "logger=null: without any it is logger=none\n",
    "plugins=[gymnasiumm]": "plugins: no module 'gymnasiumm'; did you mean 'gymnasium'?",
    "hardware.compile=atuo": "expected one of auto, off, on, got 'atuo'; did you mean 'auto'?",
    "evla x": "no command 'evla'; did you mean 'eval'? (settings are written name=value)\n",
    "hopper": "no command 'hopper'; there is compare, eval, export, ",
    "algo=ppo hopper": "hopper: settings are written name=value",
    "model.hidden_sizes=[64,": "model.hidden_sizes=[64,:",
    "--seed 3": "no option --seed; settings are written seed=value",
    "--multi-run seed=1,2": "no option --multi-run; did you mean --multirun?",
    "-x": "no option -x (see rlrun --help)",
    "--cfg": "argument --cfg/-c: expected one argument",
    "--cfg foo": "argument --cfg/-c: invalid choice: 'foo' (choose from 'job',",
    "seed=1 --cfg job env=cartpole": "env=cartpole: write the settings together, before or after",
    "--config-dir nowhere --help": "--config-dir: no directory 'nowhere'",
    "--config-dir nowhere": "--config-dir: no directory",
    "--config-dir CONF algo=broken": "broken.yaml, line 2: expected ',' or ']'",
    "--config-dir CONF algo=typo": "algo.epoch: no such setting; did you mean 'algo.epochs'?",
    "--config-dir CONF algo=no_class": "no 'PPOO' in rlrun.algos.policy_gradient.ppo;",
    "--config-dir CONF algo=foreign": "algo._target_: 'os.system' is not part of rlrun",
    "--config-dir CONF algo=no_choice": "gaee: no such advantage; did you mean 'gae'?",
    "--config-dir CONF algo=no_estimator advantage=td": "advantage: this algo has no advantage",
    "--config-dir CONF env=no_target": "env: its file has no _target_",
    "--config-dir CONF env=empty": "env: its file has no _target_",
    "--config-dir CONF env=list": "env: its file has no _target_",
    "--config-dir CONF hardware=empty": "hardware: its file has no _target_",
    "--config-dir CONF logger=no_target": "logger.mine: its file has no _target_",
    "-m algo=ppo,ppoo": "algo=ppoo: no such algo; did you mean 'ppo'?",
    "-m algo.gamma=0.9,1.5": "job 1 (algo.gamma=1.5): algo.gamma must be in [0, 1], got 1.5",
    "-m total_steps=1 advantage.lam=0.9,1.5": "job 1 (advantage.lam=1.5): advantage.lam must",
    "-m total_steps=1 advantage=gae,rloo": "job 1 (advantage=rloo): advantage: this estimator",
    "-m total_steps=1 algo=dapo advantage=dr_grpo,gae": "job 1 (advantage=gae): advantage: it",
    "-m total_steps=1 collector=groups collector.group_size=2,3": "job 1 (collector.group_size=3)",
    "-m total_steps=1 env=hopper,blackjack algo=reinforce": "job 1 (env=blackjack): Blackjack-v1",
    "-m seed=1,2 algo.lrr=1": "algo.lrr: no such setting",
    "-m algo.lrr=1": "algo.lrr: no such setting; did you mean 'algo.optimizer.learning_rate'?",
    "-m algo=grpo,ppo total_steps=1 algo.lrr=1": "job 0 (algo=grpo): algo.lrr: no such setting",
    "-m algo=a2c,ppo advantage.lam=[0.9,": "advantage.lam=[0.9,:",
    "-m total_steps=1 algo=a2c advantage=nstep,gae advantage.n=3": "job 1 (advantage=gae): adv",
    "-m seed=1,2 algo.gamma=interval(0.9,0.99)": "ranges are searched by `rlrun tune`",
    "-m seed=1,2 run_dir=x": "run_dir=x: several runs cannot share a directory",
    "-m hardware.device=cpu,cuda:99": "hardware.device=cuda",
    "eval": "the following arguments are required: run",
    "eval nowhere": "no run at 'nowhere'; rlrun list shows the runs",
    "eval .": "'.' is not a run",
    "eval . --episodes ten": "argument --episodes: expected a positive whole number, got 'ten'",
    "resume nowhere": "no run at 'nowhere'",
    "list nowhere": "no directory 'nowhere' to list",
}


def test_a_users_file_with_the_name_of_one_of_ours_is_named(rlrun, tmp_path):
    own = tmp_path / "mine" / "env" / "hopper.yaml"
    own.parent.mkdir(parents=True)
    ours = (conf_directory() / "env" / "hopper.yaml").read_text()
    own.write_text(ours)
    line = [
        "--config-dir",
        str(tmp_path / "mine"),
        "algo=ppo",
        "env=hopper",
        "--cfg",
        "job",
        "-p",
        "env",
    ]
    assert rlrun(*line)[0] == 0  # says the same
    own.write_text(ours.replace("Hopper", "Walker2d"))
    code, _, err = rlrun(*line)
    assert code == 2
    assert err == (
        f"rlrun: {own} has the name of a file of rlrun's own, which counts: call it otherwise\n"
    )


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(rlrun, users_conf, empty_directory, words):
    code, _, err = rlrun(*words.replace("CONF", users_conf).split())
    assert code == 2
    assert MISTAKES[words] in err
    assert err.startswith("rlrun: ")
    assert err.count("\n") == 1
    assert list(empty_directory.iterdir()) == []


def test_the_shell_sees_the_same(users_conf, empty_directory):
    for words, message in (
        (["algo=ppoo"], "did you mean 'ppo'?"),
        (["--config-dir", users_conf, "algo=broken"], "broken.yaml, line 2"),
        (["evla", "x"], "did you mean 'eval'?"),
    ):
        done = subprocess.run([RLRUN, *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""
    assert list(empty_directory.iterdir()) == []


def test_full_error_shows_the_traceback(rlrun, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    code, _, err = rlrun("algo=ppoo")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("did you mean 'ppo'?\n")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


# ---------------------------------------------------------------------- help and Hydra's options


def test_help_names_every_choice_with_its_line(rlrun):
    code, out, _ = rlrun("--help")
    assert code == 0
    for group in overview.GROUPS:
        for name, line in overview.choices(conf_directory() / group).items():
            assert re.search(rf"^    {name} +{re.escape(line)}$", out, re.MULTILINE)
    assert len(re.findall(r"^  rlrun ", out.partition("Examples:")[2], re.MULTILINE)) == 6
    assert "ydra" not in out
    assert rlrun("-h")[1] == out


def test_help_names_the_users_choices(rlrun, users_conf):
    for words in (["--config-dir", users_conf, "--help"], ["-h", f"--config-dir={users_conf}"]):
        code, out, _ = rlrun(*words)
        assert code == 0
        assert re.search(r"^    no_target +Mine$", out, re.MULTILINE)
        assert re.search(r"^    hopper +\w", out, re.MULTILINE)


def test_resume_says_what_a_larger_total_does_to_the_schedule(rlrun):
    assert "learning-rate schedule" in " ".join(rlrun("resume", "--help")[1].split())


def test_every_verb_has_its_own_help(rlrun):
    for verb in ("eval", "export", "resume", "list"):
        code, out, _ = rlrun(verb, "--help")
        assert code == 0
        assert f"usage: rlrun {verb}" in out


def test_the_examples_compose(rlrun):
    examples = overview.EXAMPLES.splitlines()[1:]
    for example in examples:
        _, *words = example.split()
        if words[0] not in ("-m", "eval"):
            code, out, err = rlrun(*words, "--cfg", "job")
            assert (code, err) == (0, "")
            assert yaml.safe_load(out)["algo"]["_target_"] == "rlrun.algos.policy_gradient.ppo.PPO"


def test_version_is_that_of_rlrun(rlrun):
    assert rlrun("--version") == (0, f"rlrun {__version__}\n", "")


def test_cfg_shows_the_composed_config(rlrun, empty_directory):
    code, out, err = rlrun("env=cartpole", "seed=3", "--cfg", "job")
    assert (code, err) == (0, "")
    config = yaml.safe_load(out)
    assert config["seed"] == 3
    assert config["env"]["id"] == "CartPole-v1"
    assert "hydra" not in config
    assert yaml.safe_load(rlrun("--cfg", "job", "-p", "evaluation")[1])["episodes"] == 10
    part = rlrun("env=cartpole", "--cfg", "job", "-p", "algo")  # the value is no setting
    assert (part[0], yaml.safe_load(part[1])) == (0, config["algo"])
    assert list(empty_directory.iterdir()) == []


def test_info_shows_the_defaults_tree():
    words = ["env=cartpole", "--info", "defaults-tree"]
    # By itself, since Hydra prints it through the logging that pytest has taken over.
    done = subprocess.run([RLRUN, *words], capture_output=True, text=True, check=True)
    assert re.search(r"algo: ppo:\s+collector: segments\s+model: mlp\s+advantage: gae", done.stdout)


def test_config_dir_adds_choices_and_tuned_pairs(rlrun, users_conf):
    words = ["--config-dir", users_conf, "--cfg", "job"]
    assert yaml.safe_load(rlrun("algo=typo", *words)[1])["algo"]["epoch"] == 3
    gamma = {
        env: yaml.safe_load(rlrun(f"env={env}", *words)[1])["algo"]["gamma"]
        for env in ("cartpole", "acrobot")
    }
    assert gamma["cartpole"] == 0.5
    assert gamma["acrobot"] != 0.5
    tuned = rlrun("env=cartpole", "algo.gamma=0.9", *words)[1]
    assert yaml.safe_load(tuned)["algo"]["gamma"] == 0.9


def test_completion_answers(empty_directory):
    install = subprocess.run([RLRUN, "-sc", "install=bash"], capture_output=True, text=True)
    assert "hydra_bash_completion rlrun" in install.stdout
    line = "rlrun env=cartp"
    query = subprocess.run(
        [RLRUN, "-sc", "query=bash"],
        capture_output=True,
        text=True,
        env={**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))},
    )
    assert query.stdout.split() == ["env=cartpole"]
    assert list(empty_directory.iterdir()) == []


COMPLETIONS = {
    "rlrun ev": ["eval", "evaluation."],
    "rlrun l": ["language", "list", "log_every_steps=", "logger.", "logger="],
    "rlrun eval out": [],
    "rlrun eval run --ch": ["--checkpoint"],
    "rlrun eval run --episodes 3 --checkpoint b": ["best"],
    "rlrun eval run --checkpoint ": ["best", "last"],
    "rlrun eval run --video fi": [],
    "rlrun resume run --": ["--help", "--plugin"],
    "rlrun list --h": ["--help"],
    "rlrun --con": ["--config-dir", "--config-name", "--config-path"],
    "rlrun train --mul": ["--multirun"],
    "rlrun env=hopper --cfg j": ["job"],
    "rlrun --config-dir CO": [],
    "rlrun env=hopper,wal": ["env=hopper,walker2d"],
    "rlrun -m seed=1,2 algo=ppo,a2c,tr": ["algo=ppo,a2c,trpo"],
    "rlrun hardware=cpu,": ["hardware=cpu,gpu"],
    "rlrun logger=[": ["logger=[none", "logger=[tensorboard", "logger=[wandb"],
    "rlrun logger=[wandb,ten": ["logger=[wandb,tensorboard"],
    "rlrun logger=wandb,w": [],
    "rlrun tags=[a,": [],
    "rlrun -x ": [],
    "rlrun --config-dir CONF env=no_t": ["env=no_target"],
    "rlrun --config-dir=CONF algo=ppo,ty": ["algo=ppo,typo"],
    "rlrun --config-dir nowhere env=hop": [],
    "rlrun list ": [],
    "rlrun resume run total": [],
    "rlrun train env=cartp": ["env=cartpole"],
    "rlrun -m env=cartp": ["env=cartpole"],
    "rlrun -x env=cartp": [],
    "rlrun --cfg foo env=cartp": [],
    "rlrun env=foo[ seed": [],
    "rlrun algo=nothing see": [],
    "rlrun": [],
    "": [],
}


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completion_answers_and_never_fails(rlrun, monkeypatch, users_conf, line):
    monkeypatch.setenv("COMP_LINE", line.replace("CONF", users_conf))
    code, out, err = rlrun("-sc", "query=bash")
    assert (code, err) == (0, "")
    assert sorted(out.split()) == COMPLETIONS[line]


def test_bash_shows_what_completion_answers():
    script = """
        eval "$(rlrun -sc install=bash)"
        for line in "rlrun logger=[wandb,ten" "rlrun env=hopper,wal" "rlrun --con"; do
            COMP_LINE=$line COMP_POINT=${#line} COMP_CWORD=1
            hydra_bash_completion
            echo "${COMPREPLY[@]}"
        done
    """
    path = f"{RLRUN.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stdout.splitlines() == [
        "logger=[wandb,tensorboard",
        "env=hopper,walker2d",
        "--config-path --config-name --config-dir",
    ]


def test_completion_without_a_shell_says_nothing(rlrun, monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert rlrun("-sc", "query=bash") == (0, "", "")


def processor_seconds(code: str, *words: str) -> float:
    """What a Python process with this code takes of the processor."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    after = os.times()
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


HEAVY = {"gymnasium", "imageio", "matplotlib", "mujoco", "numpy", "safetensors", "torch", "wandb"}


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list", "."], ["--cfg", "job"], ["-sc", "install=bash"]]
)
def test_what_needs_no_torch_answers_at_once(words):
    code = "import sys; from rlrun.cli.main import main; main(); "
    code += f"assert not {HEAVY} & set(sys.modules)"
    # Beside Hydra's own import, since the machine is as fast as other work leaves it. Composing
    # takes twice as long, importing torch ten times.
    ratios = (processor_seconds(code, *words) / processor_seconds("import hydra") for _ in range(4))
    assert any(ratio < 3 for ratio in ratios)


# ---------------------------------------------------------------------- runs


def test_train_is_an_alias_and_a_run_is_all_that_it_leaves(rlrun, empty_directory):
    code, _, err = rlrun("train", *TINY, "run_dir=mine")
    assert code == 0, err
    assert [path.name for path in empty_directory.iterdir()] == ["mine"]
    assert yaml.safe_load(Path("mine/config.yaml").read_text())["env"]["id"] == "CartPole-v1"
    assert yaml.safe_load(Path("mine/overrides.yaml").read_text()) == [*TINY, "run_dir=mine"]


def test_a_run_is_evaluated_listed_and_continued(rlrun):
    assert rlrun(*TINY)[0] == 0
    (directory,) = run_directories()
    assert re.fullmatch(r"\d\d-\d\d-\d\d-\d{6}_ppo_cartpole_s0", directory.name)

    code, out, err = rlrun("eval", str(directory), "--episodes", "2", "--checkpoint", "best")
    assert code == 0, err
    assert re.search(r"episodes\s+2\b", out)

    code, _, err = rlrun("resume", str(directory))
    assert code == 2
    assert "has done its 256 steps" in err

    code, _, err = rlrun("resume", str(directory), "total_steps=384.0")
    assert code == 0, err
    code, out, _ = rlrun("list")
    assert code == 0
    assert directory.name in out
    assert "384/384" in out

    code, _, err = rlrun("eval", str(directory.parent))
    assert code == 2
    assert f"did you mean '{directory}'?" in err
    code, _, err = rlrun("eval", f"{directory}x")
    assert code == 2
    assert f"did you mean '{directory}'?" in err


def test_resume_takes_only_the_number_of_steps(rlrun):
    Path("run").mkdir()
    Path("run/run.json").write_text("{}")
    assert "only total_steps=N can be given" in rlrun("resume", "run", "seed=3")[2]
    assert "expected a positive whole number" in rlrun("resume", "run", "total_steps=x")[2]
    # A run keeps the reference policy that it began with.
    for words in (["algo.reference=other"], ["total_steps=9", "algo.reference=other"]):
        code, _, err = rlrun("resume", "run", *words)
        assert code == 2
        assert re.fullmatch(r"rlrun: .*algo\.reference=other.*\n", err)


FAILING = """\
import gymnasium as gym

from rlrun.errors import warn


class Failing(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, fail, render_mode=None):
        self.fail = fail

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        if self.fail:
            raise ArithmeticError("the simulator broke")
        return self.observation_space.sample() * 0, 1.0, True, False, {}


class Buttons(Failing):
    action_space = gym.spaces.MultiBinary(3)


class Warning(Failing):
    def __init__(self, render_mode=None):
        super().__init__(fail=False)
        warn("an environment is made")


gym.register("Failing-v0", Failing)
gym.register("Buttons-v0", Buttons)
gym.register("Warning-v0", Warning)
"""


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Words for a user's environment, which raises in its first step if it is told to."""
    (tmp_path / "failing_package.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    return [*TINY[1:], "env=gym", "env.id=Failing-v0", "plugins=[failing_package]"]


def test_an_environment_that_raises_ends_the_run_with_its_own_error(rlrun, failing):
    code, _, err = rlrun(*failing, "+env.options.fail=true")
    assert code == 1
    assert "raise ArithmeticError" in err  # the line of the user's file
    assert re.search(r"rlrun: environment \d \(seed .*\) raised ArithmeticError: .* broke\n$", err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("+env.options.fale=true", "unexpected keyword argument 'fale'"),
        ("+env.options.fail=false env.id=Buttons-v0", "MultiBinary(3)"),
    ],
)
def test_an_environment_that_does_not_fit_leaves_nothing(rlrun, failing, words, message):
    code, _, err = rlrun(*failing, *words.split())
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_sweep_says_a_warning_once_a_job(rlrun, failing, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    words = [*failing, "env.id=Warning-v0"]
    warnings = [rlrun(*more)[2] for more in (words, ["-m", *words, "seed=1,2"])]
    alone = warnings[0].count("warning: an environment is made")
    assert alone > 0
    for seed in (1, 2):
        said = f"ppo_Warning-v0_s{seed}: an environment is made"
        assert warnings[1].count(said) == alone


@pytest.fixture
def wandb_anew():
    """W&B reads its environment once a process; here, once a test."""
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.parametrize("words", [[], ["-m", "seed=1,2"], ["-m", "logger=none,wandb"]])
def test_a_logger_that_cannot_work_leaves_nothing(
    rlrun, monkeypatch, empty_directory, wandb_anew, words
):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    code, _, err = rlrun(*words, *TINY, *([] if "logger=none,wandb" in words else ["logger=wandb"]))
    assert code == 2
    assert "logger.wandb: WANDB_API_KEY invalid" in err
    assert err.count("\n") == 1
    assert list(empty_directory.iterdir()) == []


def test_a_resumed_runs_logger_is_checked_before_its_files_change(rlrun, monkeypatch, wandb_anew):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert rlrun(*TINY, "logger=wandb", "run_dir=run")[0] == 0
    monkeypatch.delenv("WANDB_MODE")
    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "short")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, _, err = rlrun("resume", "run", "total_steps=512")
    assert code == 2
    assert "logger.wandb: WANDB_API_KEY invalid" in err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_the_closing_lines_and_the_display_have_one_clock(rlrun):
    code, out, err = rlrun(*TINY, "run_dir=run")
    assert code == 0, err
    time_s = json.loads(Path("run/run.json").read_text())["time_s"]
    clock = duration(time_s)
    assert f"finished after {clock} · " in err
    assert f"after 256 steps in {clock}: " in out


def test_a_sweep_trains_each_combination_the_first_seed_of_each_first(rlrun):
    code, _, err = rlrun("-m", *TINY, "advantage=td,gae", "seed=0,3", "hardware.jobs=1")
    assert code == 0, err
    (sweep,) = Path("outputs", "sweeps").iterdir()
    plan = json.loads((sweep / "sweep.json").read_text())
    assert list(plan["jobs"]) == [
        f"ppo_cartpole{part}_s{seed}" for seed in (0, 3) for part in ("_td", "")
    ]
    records = [json.loads((sweep / name / "run.json").read_text()) for name in plan["jobs"]]
    begun = [record["pid"] for record in records]
    assert len(set(begun)) == 4  # a process each
    assert [record["status"] for record in records] == ["finished"] * 4
    assert [(record["seed"], record["advantage"]) for record in records] == [
        (seed, part) for seed in (0, 3) for part in ("td", "gae")
    ]


@pytest.mark.parametrize(
    ("choices", "setting"),
    [
        ("algo=rloo,grpo", "algo.kl.target=null"),
        ("algo=reinforce advantage=reinforce_pp,grpo", "advantage.epsilon=0.001"),
    ],
)
def test_a_sweep_takes_a_setting_that_its_choices_have(rlrun, choices, setting):
    words = [*choices.split(), "env=cartpole", "total_steps=1", "collector.group_size=4", setting]
    code, _, err = rlrun("-m", *words, "evaluation.episodes=1", "hardware.compile=off")
    assert code == 0, err
    for directory in run_directories():
        assert setting in yaml.safe_load((directory / "overrides.yaml").read_text())
        record = json.loads((directory / "run.json").read_text())
        assert record["command"][:2] == ["rlrun", "-m"]
        assert setting in record["command"]
    (plan,) = Path("outputs").rglob("sweep.json")
    assert "held_back" not in plan.read_text()


def test_the_settings_of_a_sweeps_choices_are_held_back_and_given_back():
    words = ["algo=rloo,grpo", "algo.clip='0,1'", "+advantage.x=null", "env.id=a", "~algo.gamma"]
    held_back = hold_back([*words, "algo.reference="])
    assert held_back[1:3] == ["algo.clip=held_back,'0,1'", "+advantage.x=held_back,null"]
    assert [held_back[0], *held_back[3:5]] == [words[0], *words[3:]]
    assert [give_back(word) for word in held_back] == [*words, "algo.reference=''"]


# ---------------------------------------------------------------------- list


def test_list_tells_what_became_of_each_run(rlrun):
    record = {
        "status": "running",
        "algo": "ppo",
        "env_id": "Hopper-v5",
        "advantage": "gae",
        "step": 2_048,
        "total_steps": 1_000_000,
        "return": 12.34,
        "best_return": None,
        "final_return": None,
        "time_s": 3_661.2,
    }
    records = {
        "2026-01-01/a": record,
        "2026-01-01/b": record,
        "2026-01-01/c": record,
        "2026-01-01/d_sweep/000_e": {
            **record,
            "status": "finished",
            "return": 3.0,
            "best_return": 5.0,
            "final_return": 4.0,
            "model": "mlp",
        },
    }
    for name, content in records.items():
        (Path("outputs") / name).mkdir(parents=True)
        (Path("outputs") / name / "run.json").write_text(json.dumps(content))
    foreign = {"f": "{", "g": "{}", "h": "[1]", "i": json.dumps({**record, "time_s": None})}
    for name, text in foreign.items():
        Path(f"outputs/2026-01-01/{name}").mkdir()
        Path(f"outputs/2026-01-01/{name}/run.json").write_text(text)
    Path("outputs/2026-01-01/b/.lock").touch()  # left behind; c has none at all
    with lock(Path("outputs/2026-01-01/a")):
        code, out, err = rlrun("list")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if "2026-01-01" in line]
    names, numbers = ["ppo", "Hopper-v5", "gae"], ["2,048/1,000,000", "12.3", "1:01:01"]
    returns = ["3.0", "5.0", "4.0"]
    assert rows == [
        ["2026-01-01/a", "running", *names, *numbers],
        ["2026-01-01/b", "killed", *names, *numbers],
        ["2026-01-01/c", "killed", *names, *numbers],
        ["2026-01-01/d_sweep/000_e", "finished", *names, "mlp", numbers[0], *returns, numbers[2]],
        *([f"2026-01-01/{name}", "unreadable"] for name in foreign),
    ]
    assert "d_sweep/000_e" in rlrun("list", "outputs/2026-01-01")[1]


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([(64, {}), (4096, {})], ["4,096/10,000", "5.0", "7.0", "0:00:09"]),
        ([(64, {}), (4096, {"eval/return": 8})], ["4,096/10,000", "8.0", "8.0", "0:00:09"]),
        ([(4096, {"eval/return": 6})], ["4,096/10,000", "6.0", "7.0", "0:00:09"]),
        ([(64, {"eval/return": 99})], ["2,048/10,000", "5.0", "7.0", "0:00:01"]),
        ([(64, {})] * 5_000 + [(4096, {})], ["4,096/10,000", "5.0", "7.0", "0:00:09"]),
        ([], ["2,048/10,000", "5.0", "7.0", "0:00:01"]),
    ],
)
def test_list_knows_the_newest_rows(rlrun, rows, shown):
    record = {"status": "failed", "step": 2048, "total_steps": 10_000, "time_s": 1.0}
    Path("outputs/run").mkdir(parents=True)
    Path("outputs/run/run.json").write_text(
        json.dumps({**record, "return": 5.0, "best_return": 7.0, "final_return": None})
    )
    lines = [json.dumps({"step": step, "time_s": 9.0, **others}) + "\n" for step, others in rows]
    # Killed in the middle of a line.
    Path("outputs/run/metrics.jsonl").write_text("".join([*lines, '{"step": 51']))
    (row,) = [line for line in rlrun("list")[1].splitlines() if "failed" in line]
    assert row.split()[2:] == shown


def test_list_before_the_first_run(rlrun):
    code, _, err = rlrun("list")
    assert code == 2
    assert "no directory 'outputs' to list" in err
    Path("outputs").mkdir()
    assert rlrun("list") == (0, "no runs under outputs\n", "")
