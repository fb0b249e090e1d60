"""Language on the command line: one line for what does not fit, and answers to prompts."""

import json

import pytest
from pretrained import SUMS, write_examples
from running import PLAIN, experiment, metrics

from rlrun.cli import commands
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.language.answers import answer_prompts, write_samples

SMALL = (*PLAIN, "model.width=8", "model.heads=2", "algo.num_envs=8", "total_steps=64")

STOPS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sft") / "run"
    api.train(experiment(["algo=sft", "env=add", *SMALL, f"run_dir={directory}"]))
    return directory


def refused(*words: str) -> str:
    """The line in which a run ends before it begins."""
    with pytest.raises(UserError) as caught:
        api.train(experiment([*words, *SMALL]))
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("algo=trpo env=add", "trpo takes derivatives of derivatives"),
        (
            "algo=grpo env=add model=mlp",
            "this model reads no tokens: model=transformer",
        ),
        ("algo=ppo env=cartpole model=transformer", "CartPole-v1 shows numbers: model=mlp"),
        ("algo=sft env=cartpole", "CartPole-v1 has no prompts: env=mod_add, say"),
        ("algo=dpo env=add", "dpo needs another policy: algo.reference=RUN, or model.init=RUN"),
        ("algo=grpo env=add model.init=/nowhere", "model.init=/nowhere: no such directory"),
        ("algo=grpo env=add algo.normalization.observation=true", "must be false: a token is no"),
        ("algo=reinforce env=add advantage=baseline_optimal", "takes each state by itself"),
        (
            "algo=actor_critic_q env=add",
            "has no Q(s, a): this algorithm, or its",
        ),
        ("algo=grpo env=brackets env.held_out=0.2", "too few prompts to hold some out"),
    ],
)
def test_what_does_not_fit_is_one_line(words, message):
    given = words.split()
    settings = SMALL
    if "model=mlp" in words:
        settings = tuple(word for word in SMALL if not word.startswith("model."))
    with pytest.raises(UserError) as caught:
        api.train(experiment([*given, *settings]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algo", ["value_iteration", "q_learning"])
def test_methods_on_tables_take_no_tokens(algo):
    with pytest.raises(UserError, match="env=mod_add needs a collector, which this algo has not"):
        experiment([f"algo={algo}", "env=mod_add"])


@pytest.mark.parametrize("algo", ["dqn", "sac"])
def test_methods_with_a_replay_buffer_take_no_tokens(algo):
    with pytest.raises(UserError, match="or its advantage estimator, cannot take tokens"):
        api.train(experiment([f"algo={algo}", "env=mod_add", "total_steps=64"]))


def test_a_policy_of_other_tokens_or_sizes_is_refused(run):
    assert "has other tokens than copy: it is of add" in refused(
        "algo=grpo", "env=copy", f"model.init={run}"
    )
    assert "is a network of other sizes than model=" in refused(
        "algo=grpo", "env=add", f"model.init={run}", "model.layers=1"
    )


@pytest.mark.parametrize("algo", ["dpo", "ipo", "rft", "distill", "grpo", "ppo"])
def test_a_run_begins_as_another_ones_policy(algo, run, tmp_path):
    directory = tmp_path / "run"
    words = [f"algo={algo}", "env=add", *SMALL, f"model.init={run}", f"run_dir={directory}"]
    if algo in ("dpo", "ipo", "rft", "distill"):
        words += [f"algo.reference={run}"]
    if algo == "grpo":
        words += [f"algo.kl.reference={run}", "algo.kl.coefficient=0.1"]
    words += ["collector.group_size=4", "env.reward=fraction"]
    api.train(experiment(words))
    rows = metrics(directory)
    assert rows[0]["eval/return"] >= 0
    if algo == "grpo":
        first = next(row for row in rows if "policy/reference_kl" in row)
        assert first["policy/reference_kl"] == pytest.approx(0.0, abs=1e-6)


def test_answers_to_prompts(run, capsys):
    (pair,) = answer_prompts(run, ["12+7="], "last")
    assert pair[0] == "12+7="
    commands.run("eval", [str(run), "--prompt", "12+7=", "--prompt", "1+1="])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "".join(pair)
    assert len(lines) == 2
    commands.run("eval", [str(run), "--prompt", "12+7=", "--json"])
    assert json.loads(capsys.readouterr().out) == {"prompt": "12+7=", "response": pair[1]}
    with pytest.raises(UserError, match=r"^--prompt plays no episodes for --samples"):
        commands.run("eval", [str(run), "--prompt", "12+7=", "--samples"])
    with pytest.raises(UserError, match=r"^--samples plays no episodes for --wandb"):
        commands.run("eval", [str(run), "--samples", "--wandb"])
    with pytest.raises(UserError, match="prompt 'a': add has no character 'a'"):
        answer_prompts(run, ["a"], "last")


def test_an_answer_is_shown_as_far_as_the_token_that_ends_it(tmp_path):
    directory, data = tmp_path / "run", write_examples(tmp_path / "sums.jsonl")
    words = ["algo=grpo", "env=prompts", f"env.path={data}", "env.max_response_tokens=8", *SMALL]
    # Among 257 bytes, a policy of random weights writes some of these soon, and no end.
    words += ["env.tokenizer=bytes", f"env.stop=[{','.join(STOPS)}]", f"run_dir={directory}"]
    api.train(experiment(words))
    prompts = [example["prompt"] for example in SUMS]
    texts = dict(answer_prompts(directory, prompts, "last"))
    assert len(set(map(len, texts.values()))) > 1
    assert not {*STOPS, "\0"} & {*"".join(texts.values())}
    judged = write_samples(directory, episodes=10, seed=0, checkpoint="last")
    assert all(texts[row["prompt"]] == row["response"] for row in judged)


def test_what_was_written_can_be_read(run):
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    evaluated = [row["step"] for row in metrics(run) if "eval/return" in row]
    assert sorted({row["step"] for row in rows}) == evaluated
    assert {row["which"] for row in rows} == {"best", "worst", "random"}
    assert {"prompt", "response", "reward", "outcome", "form"} <= rows[0].keys()


def test_an_evaluation_says_how_often_one_of_several_is_right(run, capsys):
    commands.run("eval", [str(run), "--episodes", "10", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert {"return", "outcome", "pass@1", "pass@8", "truncated", "distinct"} <= figures.keys()


def test_what_a_policy_writes_is_a_page(run, capsys):
    commands.run("eval", [str(run), "--samples", "--episodes", "6", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["which"] for row in rows] == ["best"] * 4 + ["worst"] * 4 + ["random"] * 6
    assert len({row["prompt"] for row in rows}) <= 6
    commands.run("eval", [str(run), "--samples", "--episodes", "6"])
    page = capsys.readouterr().out
    assert [word for word in page.split() if word in ("best", "worst", "random")] == [
        "best",
        "worst",
        "random",
    ]
    for row in rows:
        assert row["prompt"] in page
        assert f"{row['advantage']:.2f}" in page


def test_a_policy_that_acts_has_no_page(tmp_path):
    directory = tmp_path / "run"
    words = ("algo=ppo", "env=cartpole", "total_steps=64", *PLAIN, f"run_dir={directory}")
    api.train(experiment(list(words)))
    with pytest.raises(UserError, match=r"^--samples: .* was trained to act, not to write$"):
        commands.run("eval", [str(directory), "--samples"])
