"""Pretrained models: what they say is what transformers says, and what comes of them it loads."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from languages import actor_of, generator
from pretrained import make_model, write_examples
from running import PLAIN, experiment, metrics
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rlrun.cli import commands
from rlrun.collectors.engines import own
from rlrun.collectors.generation import Generation
from rlrun.collectors.sampling import Sampling
from rlrun.data.minibatches import all_rows
from rlrun.data.normalize import ObservationNormalizer
from rlrun.data.packing import pack
from rlrun.data.sequences import Sequences
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.envs.tokens.prompts import Prompts
from rlrun.envs.tokens.verifiers.functions import exact
from rlrun.errors import UserError
from rlrun.models.huggingface.adapters import LoRA
from rlrun.models.huggingface.model import HuggingFace
from rlrun.models.reference import Reference
from rlrun.runs import api
from rlrun.runs.files.checkpoint import load
from rlrun.runs.reopen import saved_run
from rlrun.runs.setup.policies import load_policy
from rlrun.runs.setup.preflight import Preflight, too_large_steps

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

KINDS = ("llama", "gpt2", "qwen2", "gptj")
ADAPTERS = LoRA(rank=4, alpha=8, targets=None)
T = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        (directory / kind).mkdir()
        make_model(directory / kind, kind, spare=3 if kind in ("llama", "qwen2") else 0)
    return {kind: directory / kind for kind in KINDS}


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> Path:
    return write_examples(tmp_path_factory.mktemp("data") / "sums.jsonl")


def settings_of(directory: Path, lora: LoRA | None = None, **changes) -> HuggingFace:
    values = {"micro_batch": None, "precision": "float32", "init": None, **changes}
    return HuggingFace(path=str(directory), lora=lora, **values)


def task_of(file: Path, model: Path, **changes) -> Prompts:
    values = {
        "path": str(file),
        "held_out_path": None,
        "held_out": 0.1,
        "verifier": exact,
        "verifier_seconds": 5.0,
        "reward": "exact",
        "samples": 2,
        "tokenizer": str(model),
        "max_prompt_tokens": None,
        "max_response_tokens": T,
        **changes,
    }
    return Prompts(**values)


def policy_of(file: Path, model: Path, lora: LoRA | None = None, **changes):
    """A policy, its task, and its settings."""
    task, settings = task_of(file, model), settings_of(model, lora, **changes)
    policy = settings.policy(Problem.of_prompts(task), generator())
    return policy.requires_grad_(False), task, settings


def sequences(task: Prompts, count: int = 5) -> Sequences:
    """Prompts of different lengths, and responses, of random tokens."""
    rows = 7
    tokens = torch.randint(2, task.language.size, (rows + T, count), generator=generator(3))
    return Sequences(tokens, torch.tensor([0, 3, 1, 6, 2][:count]), rows)


def log_probs(policy, obs):
    return policy(obs).logits.log_softmax(-1)


def of_transformers(model: Path, obs: Sequences, size: int) -> torch.Tensor:
    """What transformers says of each sequence by itself, without padding, [T, N, V]."""
    reference = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    columns = []
    for n in range(obs.count):
        tokens = obs.tokens[int(obs.blank[n]) : -1, n]
        logits = reference(tokens[None]).logits[0, -T:, :size]
        columns.append(logits.log_softmax(-1))
    return torch.stack(columns, 1).detach()


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_transformers_says(kind, models, sums):
    """With rows above the prompts, and all at once or token by token."""
    policy, task, _ = policy_of(sums, models[kind])
    obs = sequences(task)
    expected = of_transformers(models[kind], obs, task.language.size)
    assert expected.std() > 0.1
    assert torch.allclose(log_probs(policy, obs), expected, atol=1e-5)
    # Behind the end of a response, too, there may be anything.
    longer = obs.padded(T + 2)
    assert torch.allclose(log_probs(policy, longer)[:T], expected, atol=1e-5)
    prompts, response = obs.tokens[: obs.prompt_rows], obs.tokens[obs.prompt_rows :]
    choice, cache = policy.start(prompts, obs.blank, T)
    for step in range(T):
        assert torch.allclose(choice.logits.log_softmax(-1), expected[step], atol=1e-5)
        if step == 2:  # some leave
            stay = torch.tensor([0, 3, 4])
            cache.keep(stay)
            expected, response = expected[:, stay], response[:, stay]
        choice = policy.go_on(response[step, : len(response[0])], cache)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, ADAPTERS], ids=["whole", "adapters"])
def test_packed_it_says_the_same_and_has_the_same_gradient(kind, lora, models, sums):
    policy, task, _ = policy_of(sums, models[kind], lora)
    policy.requires_grad_(True)
    obs = sequences(task)
    counts = torch.arange(T)[:, None] < torch.tensor([6, 2, 4, 1, 5])
    rows = all_rows(counts)[0]
    action = obs.tokens[obs.prompt_rows :].flatten()[rows]
    weights = [weight for weight in policy.parameters() if weight.requires_grad]

    def said_and_gradient(read):
        logp = policy(read).log_prob(action)
        return logp, torch.autograd.grad(logp.square().sum(), weights, allow_unused=True)

    packed = pack(obs, counts)
    assert (packed.sequence < 0).any()
    assert len(packed.tokens) < obs.count
    logp, gradient = said_and_gradient(packed)
    expected, wanted = said_and_gradient(obs.rows(rows))
    torch.testing.assert_close(logp, expected, atol=1e-5, rtol=0)
    for got, each in zip(gradient, wanted, strict=True):
        assert (got is None) == (each is None)
        if got is not None:
            torch.testing.assert_close(got, each, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neo"])
def test_a_row_is_no_longer_than_what_a_model_reads(kind, sums, tmp_path):
    context = 2 * (7 + T)  # room for two of the longest
    policy, task, _ = policy_of(sums, make_model(tmp_path, kind, context=context))
    decoder = policy.reader.decoder
    assert decoder.packs
    assert decoder.longest_row == context
    obs = sequences(task)
    counts = torch.ones(T, obs.count, dtype=torch.bool)
    packed = pack(obs, counts, decoder.longest_row)
    assert packed.tokens.shape[1] == context
    assert len(packed.tokens) < obs.count
    logits = policy(obs).logits.flatten(0, 1)
    torch.testing.assert_close(policy(packed).logits, logits, atol=1e-4, rtol=0)


def test_a_row_that_ends_in_nothing_may_be_longer_than_what_a_model_counts(sums, tmp_path):
    policy, task, _ = policy_of(sums, make_model(tmp_path, "gpt2", context=7 + T))
    obs = sequences(task)
    counts = torch.zeros(T, obs.count, dtype=torch.bool)
    counts[:, 0] = True
    packed = pack(obs, counts)
    assert packed.tokens.shape[1] > 2 * (7 + T)
    torch.testing.assert_close(policy(packed).logits, policy(obs).logits[:, 0])


def test_a_model_that_mixes_packed_sequences_is_refused(sums, tmp_path):
    words = ["algo=sft", "algo.packed=true", f"run_dir={tmp_path / 'run'}"]
    line = refused(words_of(sums, make_model(tmp_path, "bloom"), *words))
    assert line == "algo.packed=true: this model reads one sequence a row"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_mu_is_that_of_what_was_drawn(kind, temperature, models, sums):
    policy, task, _ = policy_of(sums, models[kind])
    sampling = Sampling(temperature=temperature, top_k=None, top_p=1.0)
    spec = Generation(
        group_size=4, sampling=sampling, engine=own, truncated_importance=None, refill=None
    )
    shape = spec.shape(Problem.of_prompts(task), 16)
    transitions = spec.open(TokenEnv(task, num_envs=16), shape, seed=1).collect(actor_of(policy))
    mu = sampling.log_probs(policy(transitions.obs).logits)
    expected = mu.gather(-1, transitions.action.unsqueeze(-1)).squeeze(-1)
    mask = transitions.mask
    assert torch.allclose(transitions.logp[mask], expected[mask], atol=1e-5)


def test_rows_of_the_embedding_behind_the_tokens_are_not_drawn(models, sums):
    policy, task, _ = policy_of(sums, models["llama"])
    rows = len(transformers.AutoTokenizer.from_pretrained(models["llama"]))
    assert task.language.size == rows
    assert policy(sequences(task)).logits.shape[-1] == rows
    assert policy.reader.decoder.body.get_input_embeddings().weight.shape[0] == rows + 3


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_change_nothing_at_first_and_are_all_that_is_trained(kind, models, sums):
    plain, task, _ = policy_of(sums, models[kind])
    policy, _, settings = policy_of(sums, models[kind], ADAPTERS)
    obs = sequences(task)
    before = log_probs(plain, obs)
    assert torch.allclose(log_probs(policy, obs), before, atol=1e-6)
    names = [name for name, _ in policy.requires_grad_(True).named_parameters()]
    assert names
    assert all("lora_" in name for name in names)
    assert set(policy.state_dict()) == {*names, "reader.decoder.body.lora_base.digest"}
    policy(obs).log_prob(obs.tokens[obs.prompt_rows :]).sum().backward()
    gradients = {name: weight.grad for name, weight in policy.named_parameters()}
    assert all(gradients[name].abs().sum() > 0 for name in names if "lora_B" in name)

    # A reference shares what is frozen, and stays when the policy moves.
    reference = settings.before_training()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1)
    assert not torch.allclose(log_probs(policy, obs), before, atol=1e-2)
    assert torch.allclose(log_probs(reference, obs), before, atol=1e-6)
    own, shared = (
        {tensor.data_ptr() for tensor in each.buffers() if tensor.numel()}
        for each in (policy, reference)
    )
    assert shared <= own
    assert not list(reference.parameters())


def test_a_layer_that_a_model_has_not_is_no_target(models, sums):
    some = LoRA(rank=2, alpha=4, targets=["q_proj", "0.mlp.down_proj"])
    policy, _, _ = policy_of(sums, models["llama"], some)
    assert {
        name.split(".lora_")[0].rpartition(".")[2] for name, _ in policy.named_parameters()
    } == {
        "q_proj",
        "down_proj",
    }
    with pytest.raises(UserError, match=r"no layer 'v_prj'; did you mean 'v_proj'\?"):
        policy_of(sums, models["llama"], LoRA(rank=2, alpha=4, targets=["q_proj", "v_prj"]))


@pytest.mark.parametrize(
    ("kind", "target", "refused"),
    [
        ("llama", "lm_head", True),
        ("gptj", "lm_head", True),
        ("gpt2", "wte", True),
        ("gpt2", "lm_head", True),
        ("llama", "embed_tokens", False),
    ],
)
def test_what_makes_the_logits_has_no_adapter(kind, target, refused, models, sums, tmp_path):
    lora = LoRA(rank=4, alpha=8, targets=[target])
    if refused:
        with pytest.raises(UserError, match=f"lora.targets: '{target}' makes the logits, and can"):
            policy_of(sums, models[kind], lora)
        return
    # An embedding of its own can: what is saved says the same.
    policy, task, _ = policy_of(sums, models[kind], lora)
    torch.manual_seed(1)  # the run's seed decides, and not the process's
    again, _, _ = policy_of(sums, models[kind], lora)
    for one, other in zip(policy.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sum(bool(weight.any()) for weight in policy.parameters()) == 1  # of A and B, one is 0
    for weight in policy.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    policy.save(tmp_path)
    obs = sequences(task)
    expected = of_transformers(tmp_path, obs, task.language.size)
    assert torch.allclose(log_probs(policy, obs), expected, atol=1e-4)


def test_adapters_of_nothing_are_refused():
    with pytest.raises(ValueError, match="targets must name layers; null: all linear ones"):
        LoRA(rank=4, alpha=8, targets=[])


def test_micro_batches_change_no_gradient(models, sums):
    gradients = []
    for micro_batch in (None, 2):
        policy, task, _ = policy_of(sums, models["llama"], micro_batch=micro_batch)
        obs = sequences(task)
        policy.requires_grad_(True)(obs).log_prob(obs.tokens[obs.prompt_rows :]).mean().backward()
        gradients.append([weight.grad for weight in policy.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


# ---------------------------------------------------------------------- runs

SMALL = (*PLAIN, "env=prompts", "algo.num_envs=16", "collector.group_size=4", "total_steps=300")
LORA = "model.lora={rank: 4, alpha: 8, targets: null}"


def newest(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((run / "checkpoints").glob("step-*"))


def words_of(sums: Path, model: Path, *words: str) -> list[str]:
    of_model = ["model=huggingface", f"model.path={model}"]
    return [*SMALL, f"env.path={sums}", "env.max_response_tokens=4", *of_model, *words]


@pytest.fixture(scope="module")
def run(models, sums, tmp_path_factory) -> Path:
    """Adapters that were trained with a reference in the loss."""
    directory = tmp_path_factory.mktemp("adapted") / "run"
    words = ["algo=grpo", LORA, f"algo.kl.reference={models['gpt2']}", "algo.kl.coefficient=0.1"]
    # Right is what a policy of random weights writes now and then.
    words += ["env.verifier=regex", f"run_dir={directory}"]
    file = write_examples(
        directory.parent / "any.jsonl", [{"prompt": f"{n}", "answer": "[0-4]"} for n in range(20)]
    )
    api.train(experiment(words_of(file, models["gpt2"], *words)))
    return directory


def test_a_run_of_adapters_keeps_them_alone(run):
    rows = [row for row in metrics(run) if "policy/reference_kl" in row]
    assert rows[0]["policy/reference_kl"] == 0.0
    assert rows[-1]["policy/reference_kl"] > 0.0
    with safe_open(newest(run) / "weights.safetensors", "pt") as opened:
        assert all("lora_" in name for name in opened.keys())  # noqa: SIM118
    reference = load(newest(run)).state["algorithm.reference"]
    assert reference["weights"] == {}


def test_adapters_are_those_of_one_model(run, sums, tmp_path):
    """The directory that they were trained with may be another model's since."""
    other = tmp_path / "other"
    other.mkdir()
    make_model(other, "gpt2", seed=1)
    with pytest.raises(UserError, match="these adapters were trained on another model"):
        Preflight().check(experiment(words_of(sums, other, "algo=grpo", LORA, f"model.init={run}")))


@pytest.mark.parametrize(
    ("lora", "rate", "usual"),
    [(False, 1e-4, None), (False, 2e-4, "1e-05"), (True, 1e-3, None), (True, 2e-3, "0.0001")],
)
def test_steps_for_networks_from_scratch_are_named(lora, rate, usual, models, sums):
    words = [f"algo.optimizer.learning_rate={rate}", *([LORA] if lora else [])]
    lines = too_large_steps(experiment(words_of(sums, models["gpt2"], "algo=grpo", *words)))
    assert len(lines) == (usual is not None)
    assert all(f"learning_rate={rate:g} is for" in line and usual in line for line in lines)


@pytest.mark.parametrize("lora", [None, ADAPTERS], ids=["whole", "adapters"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("spare_rows", [True, False])
def test_what_is_saved_says_the_same(kind, lora, spare_rows, models, sums, tmp_path):
    policy, task, _ = policy_of(sums, models[kind], lora)
    trained = [p for name, p in policy.named_parameters() if lora is None or "lora_B" in name]
    for number, parameter in enumerate(trained):
        parameter.add_(torch.randn(parameter.shape, generator=generator(number)), alpha=0.02)
    policy.reader.decoder.save(tmp_path, spare_rows=spare_rows)
    obs = sequences(task)
    expected = log_probs(policy, obs)
    saved = of_transformers(tmp_path, obs, task.language.size)
    assert torch.allclose(saved, expected, atol=1e-4)
    assert not torch.allclose(
        of_transformers(models[kind], obs, task.language.size), expected, atol=1e-3
    )
    loaded = [
        transformers.AutoModelForCausalLM.from_pretrained(each) for each in (models[kind], tmp_path)
    ]
    before, after = (len(model.get_input_embeddings().weight) for model in loaded)
    assert after == (before if spare_rows else task.language.size)


def test_what_is_saved_ends_where_responses_did(models, sums, tmp_path):
    (tmp_path / "model").mkdir()
    model = make_model(tmp_path / "model")
    (named,) = task_of(sums, model).vocabulary.encode("+")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    task = task_of(sums, model, stop=["="])
    (stop,) = task.language.stops
    settings = settings_of(model, None)
    policy = settings.policy(Problem.of_prompts(task), generator())
    (tmp_path / "saved").mkdir()
    settings.save(policy, tmp_path / "saved")
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "saved")
    assert loaded.eos_token_id == sorted([named, task.language.end, stop])


def test_what_is_exported_is_what_was_trained(run, models, sums, capsys):
    target = run.parent / "exported"
    commands.run("export", [str(run), "--to", "huggingface", "--output", str(target)])
    assert capsys.readouterr().out == f"{target}\n"
    with saved_run(run, "last", []) as (assembly, _):
        policy = assembly.algorithm.agent.actor.policy
        obs = sequences(assembly.experiment.env)
        expected = log_probs(policy, obs)
    size = assembly.experiment.env.language.size
    assert torch.allclose(of_transformers(target, obs, size), expected, atol=1e-5)
    assert not torch.allclose(of_transformers(models["gpt2"], obs, size), expected, atol=1e-3)
    assert transformers.AutoTokenizer.from_pretrained(target).eos_token == "<end>"
    with pytest.raises(UserError, match="exported exists: --output with another name, or --force"):
        commands.run("export", [str(run), "--to", "huggingface", "--output", str(target)])
    # What is no model is never replaced.
    words = [str(run), "--to", "huggingface", "--output", str(run.parent), "--force"]
    with pytest.raises(UserError, match=r"exists: --output with another name$"):
        commands.run("export", words)
    commands.run("export", [str(run), "--to", "huggingface", "--output", str(target), "--force"])


REFRESHED = "algo=grpo LORA algo.kl.coefficient=0.1 algo.kl.refresh_every=2 algo.kl.reference="


@pytest.mark.parametrize(
    "words",
    ["algo=ppo", "algo=ppo LORA", "algo=sft", "algo=rloo", f"{REFRESHED}MODEL", f"{REFRESHED}RUN"],
)
def test_resumed_it_is_the_run_that_would_have_gone_on(words, run, models, sums, tmp_path):
    model = models["gpt2" if "RUN" in words else "llama"]
    named = words.replace("MODEL", str(model)).replace("RUN", str(run))
    given = [LORA if word == "LORA" else word for word in named.split()]
    given += ["collector.group_size=1"] if "ppo" in words or "sft" in words else []
    given += ["algo.optimizer.anneal_learning_rate=false"]  # by the steps that there will be
    words = words_of(sums, model, *given)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    api.train(experiment([*words, f"run_dir={whole}"]))
    api.train(experiment([*words, f"run_dir={parts}", "total_steps=100"]))
    api.resume(parts, total_steps=300)
    one, other = (load_file(newest(each) / "weights.safetensors") for each in (parts, whole))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_reference_of_adapters_shares_what_they_adapt(run, models, sums):
    policy, task, settings = policy_of(sums, models["gpt2"], ADAPTERS)
    problem, cpu = Problem.of_prompts(task), torch.device("cpu")
    reference = load_policy(str(run), cpu, problem=problem, learner=settings)
    obs = sequences(task)
    with saved_run(run, "last", ()) as (assembly, _):
        expected = log_probs(assembly.algorithm.agent.networks.policy, obs)
    assert torch.allclose(log_probs(reference.policy, obs), expected, atol=1e-5)
    assert not torch.allclose(log_probs(policy, obs), expected, atol=1e-4)
    own, other = dict(policy.named_buffers()), dict(reference.policy.named_buffers())
    frozen = [name for name in own if name.endswith("weight")]
    assert len(frozen) > 10
    assert all(own[name].data_ptr() == other[name].data_ptr() for name in frozen)
    # As the policy is now, from whatever it was.
    for weight in policy.parameters():
        weight.add_(0.1)
    reference.become(policy, reference_normalizer(problem))
    now = log_probs(policy, obs)
    for weight in policy.parameters():
        weight.add_(0.1)
    assert torch.equal(log_probs(reference.policy, obs), now)
    again = Reference(problem, cpu, settings)
    again.load_state_dict(reference.state_dict())
    assert torch.equal(log_probs(again.policy, obs), now)
    assert again.policy.reader.decoder.head.data_ptr() == policy.reader.decoder.head.data_ptr()


def reference_normalizer(problem: Problem) -> ObservationNormalizer:
    return ObservationNormalizer(problem.obs_size, clip=10.0, enabled=False)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"micro_batch": 2, "init": "/somewhere"}, True),
        ({"path": "/elsewhere"}, False),
        ({"precision": "bfloat16"}, False),
        ({"_target_": "mine.HuggingFace"}, False),
        ({"lora": None}, False),
        ({"lora": {"rank": 8, "alpha": 8, "targets": None}}, False),
    ],
)
def test_adapters_of_another_model_share_nothing(changes, same, models):
    settings = settings_of(models["llama"], ADAPTERS)
    target = f"{HuggingFace.__module__}.{HuggingFace.__name__}"
    node = {"_target_": target, **asdict(settings), **changes}
    assert settings.differs_by_adapters(node) is same
    assert not settings_of(models["llama"]).differs_by_adapters(node)


def test_a_reference_is_another_model_of_the_same_tokens(models, sums, tmp_path):
    other = make_model(tmp_path, "llama", seed=5)
    directory = tmp_path / "run"
    words = ["algo=distill", f"algo.reference={other}", f"run_dir={directory}"]
    api.train(experiment(words_of(sums, models["gpt2"], *words)))
    assert metrics(directory)[1]["policy/reference_kl"] > 0.0
    api.resume(directory, total_steps=600)


def test_a_run_begins_as_another_ones_policy(run, models, sums, tmp_path):
    directory = tmp_path / "run"
    words = ["algo=grpo", LORA, f"model.init={run}", f"algo.kl.reference={run}"]
    words += ["algo.kl.coefficient=0.1", f"run_dir={directory}"]
    api.train(experiment(words_of(sums, models["gpt2"], *words)))
    first = next(row for row in metrics(directory) if "policy/reference_kl" in row)
    assert first["policy/reference_kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_prompt_is_asked_by_the_chat_template(sums, tmp_path):
    (tmp_path / "model").mkdir()
    model = make_model(tmp_path / "model", chat=True)
    file = write_examples(
        tmp_path / "x.jsonl",
        [
            {"prompt": "1+1=", "answer": "2", "system": "add"},
            {"prompt": "2+2=", "answer": "4"},
        ],
    )
    task = task_of(file, model, held_out=0.0)
    shown = {
        text: "".join(task.language.tokens[token] for token in task.encode_prompt(text))
        for text in ("add\n1+1=", "2+2=", "3+3=")
    }
    assert shown == {
        "add\n1+1=": "<system>add<user>1+1=<a>",
        "2+2=": "<user>2+2=<a>",
        "3+3=": "<user>3+3=<a>",  # of somebody's own
    }
    assert task.encoded_answer(task.encode_prompt("add\n1+1=")) == task.vocabulary.encode("2")


def test_what_else_ends_a_models_responses_is_told(sums, tmp_path):
    (tmp_path / "model").mkdir()
    model = make_model(tmp_path / "model")
    said, task = model / "generation_config.json", task_of(sums, model)
    with pytest.raises(UserError, match=r"env.stop: 'Ω' is not one token of env.tokenizer="):
        TokenEnv(task_of(sums, model, stop=["Ω"]), num_envs=1).prompts([0])
    (number,) = task.vocabulary.encode("=")
    other = task.language.tokens[number]
    said.write_text(json.dumps({"eos_token_id": [task.language.end, number, 10**6]}))
    (remark,) = task.remarks()
    assert f'without env.stop=["{other}"]' in remark
    asked = task_of(sums, model, stop=[other])
    assert not asked.remarks()
    assert asked.language.ends == (asked.language.end, number)
    for text in ("[]", "{", '{"eos_token_id": "x"}', '{"eos_token_id": 1}'):
        said.write_text(text)
        assert not task.remarks()


# ---------------------------------------------------------------------- bad input


def broken(directory: Path, how: str) -> None:
    """Make a model's directory into one that is none."""
    weights, config = directory / "model.safetensors", directory / "config.json"
    match how:
        case "no config":
            config.unlink()
        case "no weights":
            weights.unlink()
        case "pickle":
            weights.rename(directory / "pytorch_model.bin")
        case "no tokeniser":
            (directory / "tokenizer.json").unlink()
        case "part of the weights":
            tensors = load_file(weights)
            tensors.pop("model.layers.1.mlp.up_proj.weight")
            save_file(tensors, weights, metadata={"format": "pt"})
        case "other weights":
            weights.write_bytes(b"nothing")
        case "other sizes":
            values = json.loads(config.read_text())
            config.write_text(json.dumps({**values, "intermediate_size": 32}))
        case "of its own code":
            values = {**json.loads(config.read_text()), "model_type": "mine"}
            code = {"AutoConfig": "mine.Mine", "AutoModelForCausalLM": "mine.Mine"}
            config.write_text(json.dumps({**values, "auto_map": code}))
            (directory / "mine.py").write_text("raise SystemExit('code was run')\n")
        case "adapter":
            (directory / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "is no model: it has no config.json"),
        ("no weights", "has no weights: no model.safetensors nor model.safetensors.index.json"),
        ("pickle", "; pytorch_model.bin may be code, and is not read"),
        ("no tokeniser", "has no tokeniser: none of tokenizer.json,"),
        ("part of the weights", "is not whole: its weights lack model.layers.1.mlp.up_proj.weight"),
        ("other weights", "cannot be read: "),
        ("other sizes", "cannot be read: its weights are not of the sizes that config.json says"),
        ("of its own code", "cannot be read: "),
        ("adapter", "an adapter is no model by itself"),
    ],
)
def test_a_directory_that_is_no_whole_model_is_one_line(how, message, sums, tmp_path):
    (tmp_path / "model").mkdir()
    model = make_model(tmp_path / "model")
    broken(model, how)
    with pytest.raises(UserError) as caught:
        api.train(experiment(words_of(sums, model, "algo=grpo", f"run_dir={tmp_path}/run")))
    line = str(caught.value)
    assert message in line
    assert f"={model}" in line
    assert "\n" not in line
    assert not (tmp_path / "run").exists()


def refused(words: list[str]) -> str:
    with pytest.raises(UserError) as caught:
        api.train(experiment(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_a_model_is_one_line(models, sums, tmp_path):
    llama = models["llama"]
    (tmp_path / "endless").mkdir()
    endless = make_model(tmp_path / "endless", end=False)
    assert "its tokeniser has no end token" in refused(words_of(sums, endless, "algo=grpo"))
    (tmp_path / "short").mkdir()
    short = make_model(tmp_path / "short", context=7)
    line = refused(words_of(sums, short, "algo=grpo"))
    assert "reads 7 tokens, and the longest prompt of sums (4) with a response (4) is 8" in line
    line = refused(words_of(sums, llama, "algo=grpo", "env.max_prompt_tokens=3"))
    assert "line 1: the prompt has 4 tokens, more than env.max_prompt_tokens=3" in line
    assert "model.path=/nowhere: no such directory" in refused(
        words_of(sums, Path("/nowhere"), "algo=grpo", f"env.tokenizer={llama}")
    )
    assert "has a tokeniser of its own, and add other tokens: env=prompts" in refused(
        [*PLAIN, "algo=grpo", "env=add", "model=huggingface", f"model.path={llama}"]
    )
    assert "CartPole-v1 shows numbers: model=mlp" in refused(
        [*PLAIN, "algo=ppo", "env=cartpole", "model=huggingface", f"model.path={llama}"]
    )
    other = "algo=grpo", "algo.kl.coefficient=0.1"
    (tmp_path / "other").mkdir()
    reference = make_model(tmp_path / "other")
    tokenizer = json.loads((reference / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["!"] = vocabulary.pop("z")
    (reference / "tokenizer.json").write_text(json.dumps(tokenizer))
    line = refused(words_of(sums, llama, *other, f"algo.kl.reference={reference}"))
    assert f"algo.kl.reference={reference} has a tokeniser of its own, and sums other" in line
    assert "is a pretrained model: model=huggingface" in refused(
        [*PLAIN, "env=prompts", f"env.path={sums}", *other, f"algo.kl.reference={llama}"]
    )
    assert "model.lora.targets: " in refused(
        words_of(sums, llama, "algo=grpo", "model.lora={rank: 4, alpha: 8, targets: [nothing]}")
    )
    for algo in ("dqn", "sac", "actor_critic_q", "trpo"):
        words = [word for word in words_of(sums, llama) if not word.startswith("algo.num_envs")]
        refused([word for word in words if "group_size" not in word] + [f"algo={algo}"])
