"""The KL to a reference policy: what it does to a policy, and that it goes on with a run."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from running import assert_same_run, experiment, metrics, small
from tiny import Corridor, PointMass, control, learn, problem_of, rollout_of, set_up, small_model
from torch import Tensor

from rlrun.data.rollout import Rollout, Transitions
from rlrun.envs.control import ControlEnv
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.files.checkpoint import CheckpointStore
from rlrun.runs.setup.policies import load_policy, unread_policy

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")
GROUPS = ["rloo", "grpo", "gspo", "cispo"]
every_penalised = pytest.mark.parametrize("algo", GROUPS)
every_method = pytest.mark.parametrize("algo", [*GROUPS, "ppo", "reinforce"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """PPO on CartPole for eight iterations."""
    directory = tmp_path_factory.mktemp("reference") / "run"
    words = ("total_steps=512", "model.hidden_sizes=[8,8]", f"run_dir={directory}")
    api.train(experiment(small("cartpole", *words)))
    return directory


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """That run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy", symlinks=True))


def grouped(algo: str, *words: str) -> list[str]:
    """Words of a command line for a short run on groups of two."""
    return small("cartpole", "env.max_episode_steps=20", *words, algo=algo)


# ---------------------------------------------------------------------- what it does


def tiny_run(directory: Path, algorithm) -> str:
    """Write down an algorithm's policy as a run does, and return where."""
    config = {
        "algo": {"normalization": vars(algorithm.normalization)},
        "env": {"action_units": "raw"},
        "model": {"_target_": "rlrun.models.mlp.MLP", **vars(small_model())},
    }
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "run.json").write_text(json.dumps({"env_id": "Tiny-v0"}))
    normalizer = algorithm.agent.observation_normalizer.state_dict()
    CheckpointStore(directory / "checkpoints", keep=1).save(
        1,
        weights=algorithm.agent.weights(),
        state={"algorithm.observation_normalizer": normalizer},
        info={},
    )
    return str(directory)


def penalised(env: ControlEnv, algo: str, *, group_size: int = 2, **settings):
    """An algorithm that can read policies for these environments, and its collector."""
    read = partial(load_policy, problem=problem_of(env))
    return set_up(env, algo, group_size=group_size, load_policy=read, **settings)


def collected(algorithm, collector) -> tuple[Transitions, Rollout]:
    """What is collected next, and the rollout that the update makes of it."""
    transitions = collector.collect(algorithm.agent.actor)
    return transitions, rollout_of(algorithm, transitions)


def no_signal(rollout: Rollout, *, gamma: float) -> tuple[Tensor, Tensor]:
    """An estimator to which all actions are alike."""
    return torch.zeros_like(rollout.reward), rollout.reward


def moved_policy(make_env, tmp_path: Path, **settings) -> str:
    """A reference policy far from a new one."""
    algorithm, collector = set_up(control(make_env, 4), "grpo", seed=5, group_size=2, **settings)
    algorithm.agent.rollout(collector.collect(algorithm.agent.actor))
    theta = algorithm.body.policy.parameters.vector
    theta.add_(0.3 * torch.randn(len(theta), generator=torch.Generator().manual_seed(0)))
    return tiny_run(tmp_path / "moved", algorithm)


@every_penalised
@pytest.mark.parametrize("make_env", [Corridor, PointMass])
def test_the_kl_to_oneself_is_zero_and_then_grows(algo, make_env, tmp_path):
    env = control(make_env, 4)
    settings = {"normalization.observation": False, "learning_rate": 1e-2}
    algorithm, _ = set_up(env, algo, group_size=2, **settings)
    path = tiny_run(tmp_path / "itself", algorithm)
    algorithm, collector = penalised(env, algo, reference=path, **settings)
    first, second = learn(algorithm, collector, iterations=2)
    assert first["policy/reference_kl"] == pytest.approx(0.0, abs=1e-6)
    assert second["policy/reference_kl"] > 1e-5
    assert first["schedule/kl_coefficient"] == 0


def test_the_kl_is_the_exact_one_of_the_steps_that_count(tmp_path):
    path = moved_policy(Corridor, tmp_path)
    algorithm, collector = penalised(control(Corridor, 4), "grpo", reference=path)
    _, rollout = collected(algorithm, collector)
    assert not rollout.mask.all()
    reference = load_policy(path, CPU, problem=problem_of(collector.env))
    policy = algorithm.agent.networks.policy(rollout.obs).logits.softmax(-1)
    other = reference(rollout.raw_obs).logits.softmax(-1)
    each = (policy * (policy / other).log()).sum(-1)
    expected = torch.stack([each[t, i] for t, i in rollout.mask.nonzero().tolist()]).mean()
    torch.testing.assert_close(
        algorithm.body.penalty(rollout).metrics["policy/reference_kl"], expected
    )
    assert expected > 0.01


ESTIMATES = {
    "k1": lambda x: x,
    "k2": lambda x: x**2 / 2,
    "k3": lambda x: (-x).exp() - 1 + x,
}


@pytest.mark.parametrize("estimator", ESTIMATES)
def test_in_the_reward_it_is_taken_from_each_step_that_counts(estimator, tmp_path):
    settings = {
        "reference": moved_policy(Corridor, tmp_path),
        "coefficient": 0.5,
        "kl.estimator": estimator,
        "place": "reward",
    }
    algorithm, collector = penalised(control(Corridor, 4), "rloo", **settings)
    _, rollout = collected(algorithm, collector)
    result = algorithm.body.penalty(rollout)
    fine = 0.5 * ESTIMATES[estimator](rollout.logp - result.reference_logp) * rollout.mask
    assert fine.abs().max() > 0.01
    torch.testing.assert_close(result.rollout.reward, rollout.reward - fine)
    assert torch.equal(result.rollout.raw_reward, rollout.raw_reward)
    assert algorithm.kl.in_loss(fine).abs().max() == 0  # not twice


@every_penalised
def test_in_the_loss_it_is_weighed_like_the_step_it_belongs_to(algo, tmp_path):
    settings = {
        "reference": moved_policy(Corridor, tmp_path),
        "coefficient": 0.5,
        "kl.estimator": "k2",
        "place": "loss",
        "epochs": 1,
        "episodes_per_minibatch": 4,
        "epsilon": 1.0,
        "learning_rate": 1.0,
        "max_grad_norm": float("inf"),
    }
    env = control(Corridor, 4)
    algorithm, collector = penalised(env, algo, estimator=no_signal, **settings)
    transitions, rollout = collected(algorithm, collector)
    reference_logp = algorithm.body.penalty(rollout).reference_logp
    assert torch.equal(algorithm.body.penalty(rollout).rollout.reward, rollout.reward)
    lengths = rollout.mask.sum(0)
    learner = algorithm.body.policy

    theta = learner.parameters.vector.clone().requires_grad_(True)
    named = learner.parameters.unflatten(theta)
    logits = torch.func.functional_call(learner.network, named, (rollout.obs,)).logits
    logp = torch.distributions.Categorical(logits=logits).log_prob(rollout.action.clone())
    loss = torch.zeros(())
    for i in range(4):
        terms = [(logp[t, i] - reference_logp[t, i]) ** 2 / 2 for t in range(lengths[i])]
        loss += 0.5 * sum(terms) / {"rloo": 4, "cispo": lengths.sum()}.get(algo, 4 * lengths[i])
    (gradient,) = torch.autograd.grad(loss, theta)
    assert gradient.norm() > 0.01

    expected = theta.detach() - gradient / (gradient.abs() + 1.0)  # Adam's first step
    algorithm.update(transitions, progress=0.0)
    torch.testing.assert_close(learner.parameters.vector, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make_env", [Corridor, PointMass])
@pytest.mark.parametrize(
    ("algo", "estimator", "place"),
    [
        ("grpo", "k3", "loss"),
        ("gspo", "k2", "loss"),
        ("rloo", "k1", "reward"),
        ("grpo", "k1", "reward"),
    ],
)
def test_it_pulls_a_policy_to_the_reference(make_env, algo, estimator, place, tmp_path):
    settings = {
        "reference": moved_policy(make_env, tmp_path, **{"normalization.observation": False}),
        "normalization.observation": False,
        "coefficient": 10.0 if place == "reward" else 1.0,
        "kl.estimator": estimator,
        "place": place,
        "learning_rate": 1e-2,
        "episodes_per_minibatch": 8,
        "gamma": 1.0,
    }
    # Rewards are of no interest where the estimator does not see them, or next to a large penalty.
    signal = {"estimator": no_signal} if place == "loss" else {}
    env = control(make_env, 32)
    algorithm, collector = penalised(env, algo, group_size=8, **signal, **settings)
    divergence = [m["policy/reference_kl"].item() for m in learn(algorithm, collector, 20)]
    assert divergence[0] > 0.02
    assert divergence[-1] < 0.3 * divergence[0]


@pytest.mark.parametrize("normalized", [True, False])
def test_a_refreshed_reference_is_the_policy_of_that_iteration(normalized, tmp_path):
    settings = {
        "reference": moved_policy(Corridor, tmp_path),
        "refresh_every": 2,
        "learning_rate": 1e-2,
        "normalization.observation": normalized,
    }
    algorithm, collector = penalised(control(Corridor, 4), "grpo", **settings)
    saved, divergence = [], []
    for _ in range(5):
        saved.append({name: part.state_dict() for name, part in algorithm.parts.items()})
        divergence.append(learn(algorithm, collector, 1)[0]["policy/reference_kl"].item())
    assert min(divergence[:2]) > 0.01
    assert divergence[2] == pytest.approx(0.0, abs=1e-6)  # after two iterations, and again
    assert divergence[3] > 1e-5
    assert divergence[4] == pytest.approx(0.0, abs=1e-6)
    ages = [state["reference_age"]["iterations"] for state in saved]
    assert ages == [0, 1, 0, 1, 0]
    # A state stays what it was.
    first, second, third = (state["reference"]["weights"] for state in saved[:3])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(second[name], third[name]) for name in first)


def test_a_reference_of_another_size_cannot_be_replaced(tmp_path):
    path = moved_policy(Corridor, tmp_path)
    wide = small_model(hidden_sizes=[16])
    message = r"^algo\.kl\.refresh_every: .*/moved is a network of other sizes than model=…"
    with pytest.raises(UserError, match=message):
        penalised(control(Corridor, 4), "grpo", reference=path, refresh_every=2, model=wide)


def test_an_adapted_coefficient_follows_the_kl(tmp_path):
    path = moved_policy(Corridor, tmp_path)
    for target, grows in ((1e-6, True), (10.0, False)):
        settings = {"coefficient": 0.1, "target": target, "kl.horizon": 4}
        env = control(Corridor, 4)
        algorithm, collector = penalised(env, "grpo", reference=path, **settings)
        values = [m["schedule/kl_coefficient"].item() for m in learn(algorithm, collector, 3)]
        # Four episodes each time: by a fifth, from the second iteration on.
        factor = 1.2 if grows else 0.8
        assert values == pytest.approx([0.1, 0.1 * factor, 0.1 * factor**2])


# ---------------------------------------------------------------------- what is said of it


def said(capsys, algo: str, *, resumed: bool = False, **settings) -> str:
    """What setting an algorithm up says on stderr."""
    env = control(Corridor, 4)
    read = partial(unread_policy if resumed else load_policy, problem=problem_of(env))
    set_up(env, algo, group_size=2, load_policy=read, resumed=resumed, **settings)
    return capsys.readouterr().err


@pytest.mark.parametrize("algo", ["grpo", "gspo"])
def test_a_penalty_that_may_be_divided_by_the_spread_is_pointed_out(algo, capsys, tmp_path):
    reference = moved_policy(Corridor, tmp_path)
    settings = {"reference": reference, "coefficient": 0.1}
    warning = said(capsys, algo, place="reward", **settings)
    assert warning.startswith("warning: algo.kl.place=reward: ")
    assert "advantage=rloo does not" in warning
    assert warning.count("\n") == 1
    assert said(capsys, algo, place="reward", resumed=True, **settings) == ""
    assert said(capsys, algo, place="loss", **{"kl.estimator": "k3"}, **settings) == ""
    assert said(capsys, algo, place="reward") == ""
    assert said(capsys, "rloo", place="reward", **settings) == ""


def test_a_reference_without_a_weight_is_pointed_out(capsys, tmp_path):
    settings = {"reference": moved_policy(Corridor, tmp_path)}
    warning = "warning: algo.kl.reference keeps the policy near nothing: algo.kl.coefficient is 0\n"
    assert said(capsys, "grpo", **settings) == warning
    assert said(capsys, "grpo", resumed=True, **settings) == ""
    assert said(capsys, "grpo", coefficient=0.1, **settings) == ""
    assert said(capsys, "grpo") == ""


# ---------------------------------------------------------------------- going on


# Both halves of a run of 480 steps end with an evaluation, and nothing depends on its end.
STEADY = ("algo.optimizer.anneal_learning_rate=false", "evaluation.every_steps=240")


@every_method
def test_a_run_goes_on_when_its_reference_is_gone(algo, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    penalty = (f"algo.kl.reference={copied.name}", "algo.kl.coefficient=0.1", "algo.kl.target=0.01")
    words = grouped(algo, *STEADY, *penalty)
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    api.train(experiment([*words, "total_steps=480", f"run_dir={whole}"]))
    api.train(experiment([*words, "total_steps=240", f"run_dir={halved}"]))

    shutil.rmtree(copied)
    go_elsewhere(tmp_path, monkeypatch)
    api.resume(halved, total_steps=480)
    assert_same_run(halved, whole)

    rows = [row for row in metrics(whole) if "policy/reference_kl" in row]
    assert len({row["schedule/kl_coefficient"] for row in rows}) == len(rows) >= 8
    assert all(row["policy/reference_kl"] > 0 for row in rows)


@pytest.mark.parametrize("algo", ["ppo", "reinforce"])
def test_a_run_from_before_there_was_a_penalty_goes_on(algo, tmp_path):
    directory = tmp_path / "run"
    api.train(experiment(grouped(algo, "total_steps=160", f"run_dir={directory}")))
    config = yaml.safe_load((directory / "config.yaml").read_text())
    del config["algo"]["kl"]
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    api.resume(directory, total_steps=320)


@every_method
def test_a_run_is_evaluated_when_its_reference_is_gone(algo, copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "run"
    penalty = (f"algo.kl.reference={copied.name}", "algo.kl.coefficient=0.1")
    words = grouped(algo, *STEADY, *penalty, "total_steps=160", f"run_dir={directory}")
    api.train(experiment(words))
    before = api.evaluate_run(directory, episodes=3, seed=1, checkpoint="last")

    shutil.rmtree(copied)
    go_elsewhere(tmp_path, monkeypatch)
    assert api.evaluate_run(directory, episodes=3, seed=1, checkpoint="last") == before


def go_elsewhere(tmp_path: Path, monkeypatch) -> None:
    """Work in another directory, where relative paths mean something else."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def test_a_reference_that_learns_on_does_not_move_the_run(copied, tmp_path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    words = grouped("grpo", *STEADY, f"algo.kl.reference={copied}", "algo.kl.coefficient=0.1")
    api.train(experiment([*words, "total_steps=480", f"run_dir={whole}"]))
    api.train(experiment([*words, "total_steps=240", f"run_dir={halved}"]))
    api.resume(copied, total_steps=576)
    api.resume(halved, total_steps=480)
    assert_same_run(halved, whole)


def test_without_a_checkpoint_a_run_begins_again_and_reads_its_reference_again(copied, tmp_path):
    directory = tmp_path / "run"
    words = grouped("grpo", *STEADY, f"algo.kl.reference={copied}", "total_steps=160")
    api.train(experiment([*words, f"run_dir={directory}"]))
    rows = metrics(directory)
    shutil.rmtree(directory / "checkpoints")
    api.resume(directory, total_steps=None)
    assert metrics(directory) == rows

    shutil.rmtree(directory / "checkpoints")
    shutil.rmtree(copied)
    with pytest.raises(UserError, match=rf"^algo\.kl\.reference={copied}: no such directory"):
        api.resume(directory, total_steps=None)
    assert metrics(directory) == rows
