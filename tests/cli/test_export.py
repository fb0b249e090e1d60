"""`rlrun export`: what it writes runs without rlrun, and what cannot be written is one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import minari
import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch
import yaml
from languages import task_of
from running import PLAIN, experiment, fragile, small

from rlrun.envs.gym_env import FreshEachEpisode
from rlrun.runs import api
from rlrun.runs.export.formats import export_policy
from rlrun.runs.trained import load_policy

FILES = {
    "onnx": ["policy.onnx"],
    "torch": ["policy.pt2"],
    "safetensors": ["policy.safetensors", "policy.json"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained") / "run"
    words = ["total_steps=320", "evaluation.every_steps=160", f"run_dir={directory}"]
    api.train(experiment(small("hopper", *words)))
    return directory


@pytest.fixture
def run(trained, empty_directory):
    """That run, where a test is."""
    return Path(shutil.copytree(trained, "run", symlinks=True))


@pytest.mark.parametrize("to", FILES)
def test_it_writes_into_the_runs_directory_and_says_where(rlrun, run, to):
    assert rlrun("export", "run", "--to", to) == (
        0,
        "".join(f"run/{name}\n" for name in FILES[to]),
        "",
    )
    assert all((run / name).is_file() for name in FILES[to])
    assert rlrun("eval", "run", "--episodes", "1")[0] == 0  # the run is still one


OBSERVED = np.random.default_rng(0).normal(size=(9, 11))

ALONE = """
import sys
import numpy as np

obs = np.load("obs.npy")
import onnxruntime
session = onnxruntime.InferenceSession("policy.onnx")
np.save("onnx.npy", session.run(["action"], {"obs": obs.astype(np.float32)})[0])
assert "torch" not in sys.modules
import torch
program = torch.export.load("policy.pt2").module()
np.save("torch.npy", program(torch.from_numpy(obs).float())["action"].numpy())
assert not [name for name in sys.modules if name.startswith("rlrun")]
"""


def test_the_files_act_without_rlrun(rlrun, run, empty_directory):
    np.save("obs.npy", OBSERVED)
    for to in ("onnx", "torch"):
        file = f"policy{'.onnx' if to == 'onnx' else '.pt2'}"
        words = ["--to", to, "--checkpoint", "best", "--output", file]
        assert rlrun("export", "run", *words) == (0, f"{file}\n", "")
    subprocess.run([sys.executable, "-c", ALONE], check=True)
    expected = load_policy(run, checkpoint="best").act(OBSERVED)
    for name in ("onnx", "torch"):
        np.testing.assert_allclose(np.load(f"{name}.npy"), expected, rtol=1e-5, atol=1e-5)


def test_every_file_says_what_it_is(rlrun, run):
    facts = load_policy(run).facts
    for to in FILES:
        assert rlrun("export", "run", "--to", to)[0] == 0
    session = onnxruntime.InferenceSession("run/policy.onnx")
    onnx = session.get_modelmeta().custom_metadata_map
    assert onnx == {name: str(value) for name, value in facts.items()}
    assert onnx["env_id"] == "Hopper-v5"
    assert onnx["step"] == "320"
    described = json.loads((run / "policy.json").read_text())
    assert {name: described[name] for name in facts} == facts
    with safetensors.safe_open("run/policy.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["rlrun.json"]) == facts
    code = (
        "import json, torch; extra = {'rlrun.json': ''}; "
        "torch.export.load('run/policy.pt2', extra_files=extra); print(extra['rlrun.json'])"
    )
    shown = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert json.loads(shown) == facts


def test_weights_have_the_normaliser_and_the_layers(rlrun, run):
    assert rlrun("export", "run", "--to", "safetensors", "--output", "weights.safetensors")[0] == 0
    tensors = safetensors.numpy.load_file("weights.safetensors")
    described = json.loads(Path("weights.json").read_text())
    assert described["inputs"][0]["shape"] == [11]
    assert tensors["normalizer.mean"].shape == (11,)
    layers = [name for name, kind in described["modules"].items() if kind == "Linear"]
    assert [tensors[f"{name}.weight"].shape for name in layers] == [(64, 11), (64, 64), (3, 64)]


def test_what_is_there_is_replaced_only_if_told_to(rlrun, run):
    for to, names in FILES.items():
        for name in names:
            (run / name).write_text("mine")
        code, out, err = rlrun("export", "run", "--to", to)
        assert (code, out) == (2, "")
        assert err == f"rlrun: run/{names[0]} exists: --output with another name, or --force\n"
        assert {(run / name).read_text() for name in names} == {"mine"}
        assert rlrun("export", "run", "--to", to, "--force")[0] == 0
        assert (run / names[0]).read_bytes() != b"mine"
    # The description alone is in the way, too.
    (run / "policy.safetensors").unlink()
    assert "policy.json exists" in rlrun("export", "run", "--to", "safetensors")[2]


MISTAKES = {
    "export --to onnx": "the following arguments are required: run",
    "export run": "the following arguments are required: --to",
    "export run --to onx": "argument --to: no format 'onx'; did you mean 'onnx'?",
    "export run --to gguf": "there is huggingface, minari, onnx, safetensors, torch",
    "export nowhere --to onnx": "no run at 'nowhere'",
    "export run --to onnx --checkpoint first": "invalid choice: 'first'",
    "export run --to onnx --episodes 3": "--episodes is of --to minari, not of --to onnx",
    "export run --to torch --seed 3": "--seed is of --to minari, not of --to torch",
    "export run --to onnx --output policy.pt": "a file of --to onnx ends in .onnx, got 'policy.pt'",
    "export run --to onnx --output no/policy.onnx": "--output: no directory 'no'",
    "export run --to onnx --output folder.onnx": "folder.onnx exists: --output with another name\n",
    "export run --to minari --output hopper": "",
    "export empty --to onnx": "empty has no checkpoint yet: `rlrun resume empty`",
    "export run --to minari --episodes 0": "expected a positive whole number, got '0'",
    "export run --to minari --output a//b-v0": "'a//b-v0' is no id of Minari's, such as hopper/",
}


@pytest.mark.parametrize("words", [words for words, message in MISTAKES.items() if message])
def test_a_mistake_is_one_line_and_leaves_nothing(rlrun, run, empty_directory, words):
    shutil.copytree(run, "empty", ignore=shutil.ignore_patterns("checkpoints"))
    Path("folder.onnx").mkdir()
    before = sorted(empty_directory.rglob("*"))
    code, out, err = rlrun(*words.split())
    assert (code, out) == (2, "")
    assert MISTAKES[words] in err
    assert err.startswith("rlrun: ")
    assert err.count("\n") == 1
    assert sorted(empty_directory.rglob("*")) == before


@pytest.mark.parametrize(
    ("to", "package", "extra"), [("onnx", "onnxscript", "onnx"), ("minari", "minari", "minari")]
)
def test_a_missing_package_names_the_extra(rlrun, run, monkeypatch, to, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = rlrun("export", "run", "--to", to)
    assert code == 2
    assert err == f"rlrun: --to {to} needs {package}: pip install 'rlrun[{extra}]'\n"


def test_a_link_in_a_run_leads_nowhere(rlrun, run, empty_directory):
    victim = empty_directory / "victim"
    victim.write_text("mine")
    (run / "policy.onnx").symlink_to(victim)
    code, _, err = rlrun("export", "run", "--to", "onnx", "--force")
    assert code == 2
    assert "is a link" in err
    assert victim.read_text() == "mine"


def test_a_plugin_is_imported_only_if_it_is_named(rlrun, tmp_path, capfd):
    words = fragile(tmp_path, "total_steps=64", "run_dir=own")
    api.train(experiment(words))
    words = ["export", "own", "--to", "safetensors"]
    capfd.readouterr()
    assert rlrun(*words)[2] == (
        "rlrun: own: it uses code of 'fragile': allow it with --plugin fragile\n"
    )
    assert rlrun(*words, "--plugin", "fragile")[0] == 0


OWN_MODEL = """
from dataclasses import dataclass

import torch
from torch import nn

from rlrun.models.mlp import MLP
from rlrun.models.networks import CategoricalPolicy


class Branching(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, obs):
        return self.network(obs) if obs.sum().item() > 0 else -self.network(obs)


@dataclass(frozen=True, kw_only=True)
class Model(MLP):
    def policy(self, problem, generator):
        return CategoricalPolicy(Branching(super().policy(problem, generator).logits))
"""


def test_a_network_that_cannot_be_traced_is_named(rlrun, empty_directory, monkeypatch):
    Path("branches.py").write_text(OWN_MODEL)
    words = ["plugins=[branches]", "model._target_=branches.Model", "run_dir=own"]
    assert rlrun(*small("cartpole", "total_steps=64", *words))[0] == 0
    for to in ("onnx", "torch"):
        code, out, err = rlrun("export", "own", "--to", to, "--plugin", "branches")
        assert (code, out) == (2, "")
        prefix = f"rlrun: the policy of ppo, a CategoricalPolicy, cannot be exported to {to}: "
        assert err.startswith(prefix)
        assert err.count("\n") == 1
    assert rlrun("export", "own", "--to", "safetensors", "--plugin", "branches")[0] == 0
    sys.modules.pop("branches")


def test_the_shell_completes_it(rlrun, monkeypatch):
    for line, found in {"rlrun exp": "export", "rlrun export run --to saf": "safetensors"}.items():
        monkeypatch.setenv("COMP_LINE", line)
        assert rlrun("-sc", "query=bash")[1].split() == [found]


# ---------------------------------------------------------------------- Minari


@pytest.fixture
def datasets(empty_directory, monkeypatch):
    """Where Minari keeps its datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(empty_directory / "minari"))
    return empty_directory / "minari"


def test_minari_loads_the_episodes_of_an_evaluation(rlrun, run, datasets):
    code, out, _ = rlrun("export", "run", "--to", "minari", "--episodes", "3", "--seed", "5")
    assert code == 0
    assert out == f"{datasets}/hopper/ppo-s0-v0: minari.load_dataset('hopper/ppo-s0-v0')\n"
    dataset = minari.load_dataset("hopper/ppo-s0-v0")
    assert len(dataset) == dataset.total_episodes == 3
    assert dataset.env_spec.id == "Hopper-v5"
    env = dataset.recover_environment()
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    metadata = dataset.storage.metadata
    assert metadata["algorithm_name"] == "ppo"
    assert metadata["rlrun_step"] == 320
    policy = load_policy(run)
    returns = []
    for index, episode in enumerate(dataset):
        steps = len(episode.rewards)
        assert episode.observations.shape == (steps + 1, 11)
        ends = episode.terminations | episode.truncations
        assert ends.tolist() == [False] * (steps - 1) + [True]
        # Played again from the seed, in the environment that the dataset says.
        (noted,) = dataset.storage.get_episode_metadata([index])
        assert noted["seed"] == 5 + index
        obs, _ = env.reset(seed=5 + index)
        for step in range(steps):
            np.testing.assert_array_equal(obs, episode.observations[step])
            np.testing.assert_array_equal(policy.act(obs), episode.actions[step])
            obs, reward, terminated, truncated, _ = env.step(episode.actions[step])
            assert reward == episode.rewards[step]
            assert terminated == episode.terminations[step]
            assert truncated == episode.truncations[step]
        np.testing.assert_array_equal(obs, episode.observations[-1])  # the true last one
        returns.append(sum(episode.rewards))
    figures = api.evaluate_run(run, episodes=3, seed=5, checkpoint="last")
    assert np.mean(returns) == pytest.approx(figures["return"], rel=1e-6)


def test_a_dataset_has_an_id_or_a_place_and_is_not_written_over(rlrun, run, datasets):
    words = ["export", "run", "--to", "minari", "--episodes", "1"]
    assert rlrun(*words, "--output", "mine/hopper-v3")[0] == 0
    assert len(minari.load_dataset("mine/hopper-v3")) == 1
    code, _, err = rlrun(*words, "--output", "mine/hopper-v3")
    assert code == 2
    assert err == f"rlrun: {datasets}/mine/hopper-v3 exists: --output with another id, or --force\n"
    again = [*words[:-1], "2", "--output", "mine/hopper-v3", "--force"]
    assert rlrun(*again)[0] == 0
    assert len(minari.load_dataset("mine/hopper-v3")) == 2
    before = dict(os.environ)
    code, out, _ = rlrun(*words, "--output", "elsewhere")
    assert code == 0
    assert os.environ == before
    assert (Path("elsewhere") / "hopper" / "ppo-s0-v0" / "data").is_dir()
    there = Path("elsewhere").resolve()
    assert out.endswith(f"('hopper/ppo-s0-v0') with MINARI_DATASETS_PATH={there}\n")


def test_episodes_end_where_evaluations_end(rlrun, datasets, empty_directory):
    words = ["algo=q_learning", "env=blackjack", "total_steps=64", "evaluation.episodes=1"]
    assert rlrun(*words, "run_dir=own")[0] == 0
    assert rlrun("export", "own", "--to", "minari", "--episodes", "4")[0] == 0
    dataset = minari.load_dataset("blackjack/q_learning-s0-v0")
    assert all(episode.terminations[-1] for episode in dataset)
    assert all(len(part) == len(dataset[0].rewards) + 1 for part in dataset[0].observations)

    words = small("cartpole", "total_steps=64", "evaluation.max_length=5", "run_dir=short")
    assert rlrun(*words)[0] == 0
    assert rlrun("export", "short", "--to", "minari", "--episodes", "2")[0] == 0
    dataset = minari.load_dataset("cartpole/ppo-s0-v0")
    assert [len(episode.rewards) for episode in dataset] == [5, 5]
    assert all(episode.truncations[-1] and not episode.terminations[-1] for episode in dataset)


def test_an_environment_that_is_made_anew_is_said_as_it_is(rlrun, datasets, empty_directory):
    words = ["env.fresh_each_episode=true", "total_steps=64", "run_dir=own"]
    assert rlrun(*small("cartpole", *words))[0] == 0
    assert rlrun("export", "own", "--to", "minari", "--episodes", "2")[0] == 0
    env = minari.load_dataset("cartpole/ppo-s0-v0").recover_environment()
    assert env.spec.id == "CartPole-v1"
    assert not isinstance(env, FreshEachEpisode)


def test_a_hostile_run_is_refused(rlrun, run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"] = {"_target_": "os.system", "command": "touch canary"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for to in (*FILES, "minari"):
        code, out, err = rlrun("export", "run", "--to", to)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert "os.system" in err
    assert not Path("canary").exists()


def test_a_policy_of_tokens_is_exported_too(tmp_path):
    directory = tmp_path / "run"
    sizes = ("algo.num_envs=8", "model.width=8", "model.heads=2", "total_steps=400")
    rate = "algo.optimizer.learning_rate=0.1"  # so that it says different things
    api.train(experiment(["algo=sft", "env=add", *PLAIN, *sizes, rate, f"run_dir={directory}"]))
    policy = load_policy(directory)
    env, prefixes = task_of("add").make_single(render_mode=None), []
    for seed in range(20):
        obs, _ = env.reset(seed=seed)
        prefixes.append(obs)
        for token in (seed % 10, 3):
            obs, *_ = env.step(token)
            prefixes.append(obs)
    expected = policy.act(np.stack(prefixes))
    assert len(set(expected.tolist())) > 1
    (onnx,), (program,), weights = (export_policy(directory, to) for to in FILES)
    session = onnxruntime.InferenceSession(onnx)
    names = [each.name for each in session.get_inputs()]
    got = session.run(["action"], dict(zip(names, [np.stack(prefixes)], strict=True)))[0]
    assert got.tolist() == expected.tolist()
    graph = torch.export.load(program).module()
    assert graph(torch.from_numpy(np.stack(prefixes)))["action"].tolist() == expected.tolist()
    described = json.loads(weights[1].read_text())
    assert any("rlrun/models/language/transformer.py" in line for line in described["computation"])
