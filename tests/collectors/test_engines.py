"""Another engine writes: what it gives its tokens otherwise is measured, and weighed."""

import importlib.util
import os
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import own_engine
import pytest
import torch
from languages import generator, policy_of, task_of
from pretrained import make_model, write_examples
from running import PLAIN, experiment, metrics
from test_generation import AS_IT_IS, collect

from rlrun.collectors.engines import own, vllm
from rlrun.collectors.vllm_engine import as_responses
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.setup.assembly import Assembly
from rlrun.runs.setup.preflight import Preflight

COUNT = 4096
VLLM_IS_THERE = importlib.util.find_spec("vllm") is not None


def test_weighed_samples_of_another_engine_are_those_of_the_policy():
    """E over μ_engine of (μ/μ_engine) f is E over μ of f: here the probabilities of the tokens."""
    task = task_of("mod_add", modulus=3, held_out=0.0)
    policy = policy_of(task)
    transitions, _ = collect(task, policy, engine=own_engine.warm, bound=None, count=COUNT)
    engine_logp = transitions.logp
    weighed, _ = collect(task, policy, engine=own_engine.warm, bound=1e6, count=COUNT)
    assert torch.equal(weighed.action, transitions.action)
    log_probs = AS_IT_IS.log_probs(policy(weighed.obs).logits)
    expected = log_probs.exp().mean((0, 1))
    own_logp = log_probs.gather(-1, weighed.action.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(weighed.logp, own_logp, atol=1e-5)
    assert torch.allclose(weighed.importance, (own_logp - engine_logp).exp(), atol=1e-4)
    share = torch.zeros(len(expected)).index_add_(
        0, weighed.action.flatten(), weighed.importance.flatten() / COUNT
    )
    plain = torch.bincount(weighed.action.flatten(), minlength=len(expected)) / COUNT
    assert (share - expected).abs().max() < 0.02
    assert (plain - expected).abs().max() > 0.04


SHARPER = [
    replace(AS_IT_IS, temperature=0.6),
    replace(AS_IT_IS, top_k=3),
    replace(AS_IT_IS, top_p=0.5),
]


@pytest.mark.parametrize("sampling", SHARPER)
def test_tokens_that_are_drawn_otherwise_than_the_policy_says_are_weighed(sampling):
    task = task_of("mod_add", modulus=3, held_out=0.0)
    policy = policy_of(task)
    drawn, _ = collect(task, policy, sampling=sampling, bound=None)
    assert drawn.importance is None
    weighed, _ = collect(task, policy, sampling=sampling, bound=1e6)
    assert torch.equal(weighed.action, drawn.action)
    own_logp = policy(weighed.obs).log_prob(weighed.action)
    assert torch.allclose(weighed.logp, own_logp, atol=1e-5)  # a surrogate's ratio is 1 at first
    assert torch.allclose(weighed.importance, (own_logp - drawn.logp).exp(), atol=1e-4)
    assert not torch.allclose(weighed.importance, torch.ones(()), atol=1e-2)
    cut, _ = collect(task, policy, sampling=sampling, bound=0.5)
    assert cut.importance.max() == 0.5
    assert cut.metrics["engine/truncated_weights"] > 0
    assert "engine/kl" not in cut.metrics


@pytest.mark.parametrize("algo", ["grpo", "ppo"])
def test_the_first_ratios_are_one_whatever_is_drawn(algo, tmp_path):
    words = [f"algo={algo}", "collector.sampling={temperature: 0.5, top_k: 5, top_p: 0.9}"]
    words += ["algo.epochs=1", "algo.optimizer.learning_rate=1e-9", f"run_dir={tmp_path}/run"]
    api.train(experiment([*SMALL, *words]))
    rows = [row for row in metrics(tmp_path / "run") if "policy/ratio_mean" in row]
    assert rows
    for row in rows:
        assert row["policy/clip_fraction"] == 0
        assert row["policy/ratio_mean"] == pytest.approx(1, abs=1e-4)


def test_answers_of_others_are_taken_as_they_are(tmp_path):
    words = ["algo=sft", "collector.sampling.temperature=0.5", f"run_dir={tmp_path}/run"]
    api.train(experiment([*SMALL, *words]))
    rows = metrics(tmp_path / "run")
    assert not any(name.startswith("engine/") for row in rows for name in row)


LEARNERS = ["grpo", "rloo", "gspo", "cispo", "dapo", "reinforce", "a2c", "ppo", "ppo_kl"]


def moved(algo: str, *, equal_pay: bool, importance: float | None) -> float:
    """By how far an update moves a policy that standardises Ψ, if it can.

    Args:
        algo: the algorithm.
        equal_pay: whether all responses are paid 1.
        importance: weight of all tokens; None: they differ.
    """
    scaled = "algo.normalize_advantage=true"
    words = [scaled] if algo in ("reinforce", "a2c", "ppo", "ppo_kl") else []
    # Ψ of methods with critics is equal where their values are.
    critics = ["advantage=reward_to_go"] if words else []
    words += ["algo.entropy_coefficient=0", "algo.gamma=1", *critics, "collector.refill=null"]
    words += ["env.reward=fraction"]
    # Adam makes a step of the noise of a KL to oneself.
    words += ["algo.kl.coefficient=0", "algo.kl.target=null"] if algo == "ppo_kl" else []
    assembly = Assembly(experiment([f"algo={algo}", *SMALL, *words]), None)
    algorithm, collector = assembly.algorithm, assembly.open_collector()
    found = collector.collect(algorithm.agent.actor)
    weight = torch.linspace(0.5, 1.5, found.mask.numel()).view(found.mask.shape)
    if importance is not None:
        weight = torch.full_like(weight, importance)
    reward = found.terminated.float() if equal_pay else found.reward
    before = algorithm.agent.weights()
    algorithm.update(replace(found, reward=reward, importance=weight), progress=0.0)
    after = algorithm.agent.weights()
    return max(float((after[name] - before[name]).abs().max()) for name in before)


@pytest.mark.parametrize("algo", LEARNERS)
def test_weights_are_of_gradients_and_teach_nothing_by_themselves(algo):
    assert moved(algo, equal_pay=False, importance=1.0) > 1e-5
    assert moved(algo, equal_pay=False, importance=0.0) == 0
    assert moved(algo, equal_pay=True, importance=None) < 1e-6


def test_what_is_measured():
    task = task_of("add")
    policy = policy_of(task)
    weighed, _ = collect(task, policy, engine=own_engine.warm, bound=1.1, group_size=4)
    mask = weighed.mask
    assert weighed.importance[mask].max() <= 1.1
    assert (weighed.importance[~mask] == 1).all()
    assert 0 < weighed.metrics["engine/truncated_weights"] < 1
    assert weighed.metrics["engine/logp_difference"] > 0.01
    assert weighed.metrics["engine/kl"] > 0
    alone, _ = collect(task, policy, engine=own)
    assert alone.importance is None
    assert not any(name.startswith("engine/") for name in alone.metrics)

    def same():
        return own()

    agreed, _ = collect(task, policy, engine=same)
    assert agreed.metrics["engine/logp_difference"] < 1e-5
    assert torch.allclose(agreed.importance, torch.ones_like(agreed.importance), atol=1e-4)


SMALL = (*PLAIN, "env=add", "model.width=8", "model.heads=2", "algo.num_envs=16", "total_steps=200")
PLUGIN = "plugins=[own_engine]"


@pytest.mark.parametrize("words", ["algo=grpo", "algo=ppo", "algo=grpo collector.refill=REFILL"])
def test_a_run_with_an_engine_of_the_users_own(words, tmp_path):
    given = words.replace("REFILL", "{max_refills: 1, spread_tolerance: 0.0}").split(" ", 1)
    given += ["env.reward=fraction", "collector.engine=own_engine.warm", PLUGIN]
    api.train(experiment([*SMALL, *given, f"run_dir={tmp_path}/run"]))
    rows = [row for row in metrics(tmp_path / "run") if "train/episodes" in row]
    assert all(row["engine/logp_difference"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["collector.engine=vlm"], "collector.engine: no 'vlm' in rlrun.collectors.engines"),
        (["collector.engine=own_engine.warm"], r"allow it with plugins=\[own_engine\]"),
        (["collector.engine=own_engine.silent", PLUGIN], "log-probabilities are not finite"),
        (
            ["collector.engine=own_engine.broken", PLUGIN],
            r"broken\(\) is to return what writes .*int",
        ),
        (["collector.engine=own_engine.write_warm", PLUGIN], "a function without arguments"),
    ],
)
def test_mistakes(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        api.train(experiment([*SMALL, "algo=grpo", *words, f"run_dir={tmp_path}/run"]))


def test_what_another_program_wrote_as_columns():
    language = task_of("add").language  # ends by a token
    end = language.end
    found = as_responses(
        [[3, 4, end], [5, end], [6, 7, 8]], [[-1.0, -2, -3], [-4, -5], [-6] * 3], language
    )
    assert found.tokens.T.tolist() == [[3, 4, end], [5, end, 0], [6, 7, 8]]
    assert found.logp.T.tolist() == [[-1, -2, -3], [-4, -5, 0], [-6, -6, -6]]
    assert found.mask.T.tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert found.complete.tolist() == [True, True, False]
    further = replace(language, stops=(8,))
    found = as_responses([[3, 8], [6, 7]], [[-1.0, -2], [-1, -2]], further)
    assert found.complete.tolist() == [True, False]
    # Where all answers have one length, it needs no end.
    found = as_responses([[3], [4]], [[-1.0], [-2.0]], task_of("mod_add").language)
    assert found.complete.tolist() == [True, True]


class Opened:
    """Stands for vLLM, which few machines have: it keeps what it is asked, and writes 3, end."""

    def __init__(self, **arguments):
        self.arguments, self.calls = arguments, []

    def collective_rpc(self, name):
        self.calls.append(name)

    def reset_prefix_cache(self):
        self.calls.append("reset_prefix_cache")

    def generate(self, prompts, sampling, *, use_tqdm):
        self.calls.append((prompts, sampling))
        said = [SimpleNamespace(logprob=-0.5)] * 2
        end = sampling[0]["stop_token_ids"][0]
        answer = SimpleNamespace(token_ids=(3, end), logprobs=[{3: said[0]}, {end: said[1]}])
        return [SimpleNamespace(outputs=[answer])] * len(prompts)


class Saved:
    """A policy that counts how many times it was saved."""

    times = 0

    def save(self, directory):
        self.times += 1
        (directory / "saved").write_text(str(self.times))


def test_what_vllm_is_asked(monkeypatch):
    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = Opened, dict
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    engine, policy, task = vllm(), Saved(), task_of("add")
    assert os.environ["VLLM_LOGGING_LEVEL"] == "ERROR"
    language = replace(task.language, stops=(5,))
    prompts = TokenEnv(task, num_envs=2).encoded(["1+2=", "12+34="])
    sampling = replace(AS_IT_IS, temperature=0.5, top_k=3)
    given = {"sampling": sampling, "generator": generator(), "device": torch.device("cpu")}
    responses = engine(policy, prompts, language, **given)
    opened = engine._llm
    assert opened.arguments["max_model_len"] == 6 + task.language.response_rows
    assert opened.arguments["logprobs_mode"] == "processed_logprobs"
    asked, how = opened.calls.pop()
    encoded = [task.encode_prompt(text) for text in ("1+2=", "12+34=")]
    assert [each["prompt_token_ids"] for each in asked] == encoded
    assert [each["temperature"] for each in how] == [0.5] * 2
    assert all(each["top_k"] == 3 and each["ignore_eos"] for each in how)
    assert all(each["stop_token_ids"] == [language.end, 5] for each in how)
    assert how[0]["seed"] != how[1]["seed"]
    assert responses.tokens.T.tolist() == [[3, task.language.end]] * 2
    assert responses.logp.T.tolist() == [[-0.5, -0.5]] * 2
    # The next responses are by new weights, and are others.
    engine(policy, prompts, language, **given)
    assert policy.times == 2
    *reloaded, (_, later) = opened.calls
    assert reloaded == ["reload_weights", "reset_prefix_cache"]
    assert later[0]["seed"] not in [each["seed"] for each in how]


@pytest.mark.skipif(VLLM_IS_THERE, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_one_line(tmp_path):
    words = ["algo=grpo", "collector.engine=vllm", f"run_dir={tmp_path}/run"]
    with pytest.raises(UserError, match=r"^collector\.engine=vllm is for model=huggingface$"):
        api.train(experiment([*SMALL, *words]))
    directory, data = make_model(tmp_path / "model"), write_examples(tmp_path / "sums.jsonl")
    words += ["env=prompts", f"env.path={data}", "model=huggingface", f"model.path={directory}"]
    with pytest.raises(UserError, match="=vllm needs vLLM, which is not installed"):
        api.train(experiment([*PLAIN, *words]))
    assert not (tmp_path / "run").exists()
    # A sweep is told so, whichever run of it asks for vLLM.
    preflight = Preflight()
    preflight.check(experiment([*SMALL, "algo=grpo"]))
    with pytest.raises(UserError, match="is for model=huggingface"):
        preflight.check(experiment([*SMALL, "algo=grpo", "collector.engine=vllm"]))


@pytest.mark.skipif(VLLM_IS_THERE, reason="vLLM is installed")
def test_a_run_of_vllms_can_be_looked_at_without_it(tmp_path):
    directory, data = make_model(tmp_path / "model"), write_examples(tmp_path / "sums.jsonl")
    words = ["algo=grpo", "env=prompts", f"env.path={data}", f"run_dir={tmp_path}/run"]
    words += ["model=huggingface", f"model.path={directory}", "env.max_response_tokens=4"]
    api.train(experiment([*PLAIN, *words, "algo.num_envs=16", "total_steps=64"]))
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("engine: own", "engine: vllm"))
    assert "engine: vllm" in config.read_text()
    result = api.evaluate_run(tmp_path / "run", episodes=2, seed=0, checkpoint="last")
    assert result["episodes"] == 2
    with pytest.raises(UserError, match="=vllm needs vLLM, which is not installed"):
        api.resume(tmp_path / "run", total_steps=128)


@pytest.mark.skipif(not VLLM_IS_THERE, reason="vLLM is not installed")
def test_vllm_writes_with_the_policys_weights(tmp_path):
    """Two iterations, so that it has to read new weights; as likely as the policy says."""
    directory = make_model(tmp_path / "model", width=128, spare=3)  # heads as vLLM has kernels for
    data = write_examples(tmp_path / "sums.jsonl")
    words = [
        *PLAIN,
        *("algo=grpo", "env=prompts", f"env.path={data}", "model=huggingface"),
        *(f"model.path={directory}", "collector.engine=vllm", "env.max_response_tokens=4"),
        *("algo.num_envs=16", "algo.optimizer.learning_rate=1e-2", "total_steps=200"),
        f"run_dir={tmp_path}/run",
    ]
    api.train(experiment(words))
    rows = [row for row in metrics(tmp_path / "run") if "engine/kl" in row]
    assert len(rows) >= 2
    differences = [row["engine/logp_difference"] for row in rows]
    assert max(differences) < 0.03, differences  # it computes in bfloat16
    # An own transformer is none that it could read.
    with pytest.raises(UserError, match="model=huggingface"):
        api.train(
            experiment([*SMALL, "algo=grpo", "collector.engine=vllm", f"run_dir={tmp_path}/own"])
        )
