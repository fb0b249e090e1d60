"""Prompts of the user's own: what is read, what is held out, and who judges."""

import importlib.util
import json
import time
from functools import partial

import numpy as np
import own_verifiers
import pytest
import torch
from languages import policy_of
from pretrained import SUMS, make_tokenizer, write_examples
from running import PLAIN, experiment, metrics

from rlrun.collectors.sampling import Sampling
from rlrun.collectors.writing import write
from rlrun.config import targets
from rlrun.config.load import ROOMS
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.envs.tokens.gymnasium_form import TokenTaskEnv
from rlrun.envs.tokens.prompts import Prompts
from rlrun.envs.tokens.verifiers.functions import boxed, exact, numeric, regex
from rlrun.envs.tokens.verifiers.judge import VerifierJudge
from rlrun.envs.tokens.verifiers.reading import boxed_answer, last_number
from rlrun.errors import UserError
from rlrun.runs import api
from rlrun.runs.reports.film import Film

VALUES = {
    "_target_": "rlrun.envs.tokens.prompts.Prompts",
    "held_out_path": None,
    "held_out": 0.1,
    "verifier": "exact",
    "verifier_seconds": 5.0,
    "reward": "exact",
    "samples": 2,
    "tokenizer": "characters",
    "max_prompt_tokens": None,
    "max_response_tokens": 8,
}


@pytest.fixture
def make(tmp_path):
    """Builds a task as a config does, of a file with these examples."""

    def build(examples=SUMS, plugins=(), **changes) -> Prompts:
        path = write_examples(tmp_path / "data.jsonl", examples)
        node = {**VALUES, "path": str(path), **changes}
        return targets.build(node, "env", ROOMS["env"], plugins)

    return build


def drawn(task: Prompts, held_out: bool, count: int = 400) -> set[str]:
    env = TokenEnv(task, num_envs=count)
    return set((env.held_out_prompts(0) if held_out else env.prompts(range(count))).texts)


# ---------------------------------------------------------------------- prompts


def test_a_prompt_is_drawn_once_for_all_of_its_group(make, monkeypatch):
    env, calls = TokenEnv(make(), num_envs=8), []
    draw = env.task.prompt
    monkeypatch.setattr(env.task, "prompt", lambda generator: calls.append(1) or draw(generator))
    assert len(set(env.prompts([3] * 4 + [4] * 4).texts)) == len(calls) == 2


def test_an_evaluation_asks_each_prompt_once_before_one_comes_twice(make):
    task = make(held_out=0.2)
    alone = sorted(task.held_out_prompts(20, seed=3))
    assert len(set(alone)) == 20
    assert sorted(task.held_out_prompts(60, seed=4)) == sorted(3 * alone)
    some = task.held_out_prompts(8, seed=5)
    assert len(set(some)) == 8
    assert some == task.held_out_prompts(8, seed=5) != task.held_out_prompts(8, seed=6)


SYSTEMS = [
    {"prompt": f"{n}=", "answer": "1" if system == "A" else "2", "system": system}
    for n in range(9)
    for system in ("A", "B")
]


def test_a_prompt_of_somebody_is_asked_under_the_system_text_of_the_examples(make):
    alike = make([each for each in SYSTEMS if each["system"] == "A"], tokenizer="bytes")
    known = alike.encode_prompt("A\n7=")
    # With and without it, in the file and not.
    assert alike.encode_prompt("7=") == known
    new = alike.encode_prompt("7+=")
    assert new == alike.encode_prompt("A\n7+=") == alike.vocabulary.encode_prompt("7+=", "A")
    several = make(SYSTEMS, tokenizer="bytes")
    assert several.encode_prompt("B\n7+=") == several.vocabulary.encode_prompt("7+=", "B")
    with pytest.raises(UserError, match=r"put one in a line before it, as 'A'"):
        several.encode_prompt("7+=")
    nested = make([{**each, "system": each["system"].replace("B", "A\nB")} for each in SYSTEMS])
    assert nested.encode_prompt("A\nB\n0=1") == nested.vocabulary.encode_prompt("0=1", "A\nB")
    some = make([*SYSTEMS, {"prompt": "0=", "answer": "3"}], tokenizer="bytes")
    assert some.encode_prompt("7+=") == some.vocabulary.encode_prompt("7+=", None)


def test_prompts_that_a_tokeniser_does_not_tell_apart_are_named(make, tmp_path):
    pytest.importorskip("transformers")
    make_tokenizer(tmp_path)  # which has small letters alone
    examples = [{"prompt": f"{letter}=", "answer": n} for letter, n in ("A1", "b2", "C1")]
    task = make(examples, tokenizer=str(tmp_path))
    assert task.prompt_rows == 2  # A and C are told apart by nothing, and their answers are alike
    task = make([*examples, {"prompt": "D=", "answer": "2"}], tokenizer=str(tmp_path))
    with pytest.raises(UserError, match=r"line 4 is told by no token from line 1 of env\.path="):
        len(TokenEnv(task, num_envs=1).prompts([0]).texts)


def test_what_is_held_out_is_never_trained_on(make):
    task = make(held_out=0.2)
    trained, apart = drawn(task, False), drawn(task, True)
    assert len(apart) == 20
    assert not trained & apart
    assert trained | apart <= {example["prompt"] for example in SUMS}
    # The same ones, whatever the order of the file, and twice the same line is one.
    assert drawn(make([*reversed(SUMS), SUMS[0]], held_out=0.2), True) == apart
    everything = make(held_out=0.0)
    assert drawn(everything, True) & drawn(everything, False)


def test_a_file_of_its_own_is_held_out(make, tmp_path):
    apart = write_examples(tmp_path / "apart.jsonl", [{"prompt": "a+b=", "answer": "c"}])
    task = make(held_out_path=str(apart))
    assert drawn(task, True) == {"a+b="}
    assert len(drawn(task, False, 2000)) == len(SUMS)
    assert task.answer("a+b=") == "c"
    apart = write_examples(tmp_path / "apart.jsonl", ["", SUMS[3]])
    with pytest.raises(UserError, match=r"apart.jsonl: line 2 is line 4 of .*data.jsonl: training"):
        make(held_out_path=str(apart)).language  # noqa: B018


def test_what_has_the_tokens_of_held_out_prompts_is_not_trained_on(make, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "letters").mkdir()
    make_tokenizer(tmp_path / "letters")  # which has small letters alone
    settings = {"tokenizer": str(tmp_path / "letters")}
    examples = [{"prompt": f"{letter}=", "answer": n} for letter, n in ("A1", "b2", "c3")]
    apart = write_examples(tmp_path / "apart.jsonl", [{"prompt": "B=", "answer": "1"}])
    settings["held_out_path"] = str(apart)
    task = make(examples, **settings)
    assert drawn(task, True) == {"B="}
    assert drawn(task, False) == {"b=", "c="}
    assert task.is_held_out("A=")
    assert any("1 prompts have the tokens of prompts that are held" in it for it in task.remarks())
    with pytest.raises(UserError, match="all its prompts have the tokens of prompts that are held"):
        make(examples[:1], **settings).language  # noqa: B018


def test_prompts_are_characters_or_bytes(make):
    examples = [
        {"prompt": "1+1=", "answer": 2, "system": "Größe"},
        {"prompt": "1+1=", "answer": "2"},
    ]
    for tokenizer in ("characters", "bytes"):
        task = make(examples, tokenizer=tokenizer, held_out=0.5)
        language, decode = task.language, task.vocabulary.decode
        assert task.answer("1+1=") == task.answer("Größe\n1+1=") == "2"
        for text in ("1+1=", "Größe\n1+1="):
            tokens = task.encode_prompt(text)
            assert decode(tokens) == text
            assert decode([*tokens, language.end, 0, 1]) == text
            assert task.encoded_answer(tokens) == task.vocabulary.encode("2")
            assert len(tokens) <= language.prompt_rows
        assert language.size == (len(set("Größe\n1+=2")) + 1 if tokenizer == "characters" else 257)
    assert task.vocabulary.decode([0xC3]) == "�"
    assert len(task.encode_prompt("Größe\n1+1=")) == language.prompt_rows == 12


def test_further_tokens_end_a_response(make):
    task = make(stop=["=", "+"])
    language, encode = task.language, task.vocabulary.encode
    assert language.ends == (language.end, *encode("=+"))
    env = TokenEnv(task, num_envs=200)
    prompts = env.prompts(range(200))
    responses = write(
        policy_of(task),
        prompts,
        language,
        sampling=Sampling(temperature=1.0, top_k=None, top_p=1.0),
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
    )
    ends = torch.isin(responses.tokens, torch.tensor(language.ends)) & responses.mask
    last = responses.tokens.gather(0, responses.lengths.unsqueeze(0) - 1)[0]
    assert {*last[responses.complete].tolist()} == {*language.ends}
    assert torch.equal(ends.sum(0), responses.complete.long())  # the last one, and no other
    # What ends a response is no part of it, whether it is written whole or token by token.
    (text,) = prompts.texts[:1]
    written = torch.tensor(encode(f"{task.answer(text)}=7"))
    verdict = env.judge([text], written.unsqueeze(1), torch.tensor([True]))
    assert verdict.texts == [task.answer(text)]
    assert verdict.outcome.tolist() == [1.0]
    steps = TokenTaskEnv(task)
    steps.reset(seed=0)
    answer = task.answer(steps._prompt)
    taken = [steps.step(np.int64(token)) for token in encode(f"{answer}=")]
    *before, (_, reward, terminated, truncated, _) = taken
    assert not any(done for _, _, done, _, _ in before)
    assert (reward, terminated, truncated) == (1.0, True, False)


def test_what_ends_a_response_must_be_a_token_that_no_answer_has(make):
    with pytest.raises(UserError, match=r"env.stop: '==' is not one token of env.tokenizer=char"):
        TokenEnv(make(stop=["=="]), num_envs=1).prompts([0])
    with pytest.raises(UserError, match=r"env.stop: '!' is not one token of env.tokenizer=char"):
        TokenEnv(make(stop=["!"]), num_envs=1).prompts([0])
    examples = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "0-1=", "answer": "-1"}]
    with pytest.raises(UserError, match=r"line 2: env.stop ends the answer before its end"):
        TokenEnv(make(examples, stop=["-"]), num_envs=1).prompts([0])


BAD = {
    "{}": "line 2 has no prompt",
    '{"prompt": "1", "anwser": "2"}': "line 2 has no answer; did you mean 'answer' by 'anwser'?",
    '{"prompt": "1", "answer": ': "line 2 is no JSON in UTF-8: Expecting value (column",
    "[1, 2]": "line 2 is no object with prompt and answer",
    '{"prompt": "\\ud83dx", "answer": "1"}': "line 2: prompt is no text: surrogates not allowed",
    '{"prompt": "", "answer": "2"}': 'line 2: prompt must be a text that is not empty, got ""',
    '{"prompt": "1", "answer": null}': "line 2: answer must be a text that is not empty, got null",
    '{"prompt": "1", "answer": true}': "line 2: answer must be a text that is not empty, got true",
    '{"prompt": "0+0=", "answer": "5"}': "line 2 has the prompt of line 1, and another answer",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_named(make, line):
    with pytest.raises(UserError) as caught:
        make([SUMS[0], line]).language  # noqa: B018
    assert BAD[line] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_is_the_text_that_it_is_written_as(make):
    lines = ['{"prompt": "a", "answer": 1.50}', '{"prompt": "b", "answer": 1e3}']
    task = make(lines, held_out=0.0)
    assert task.answer("a") == "1.50"
    assert task.answer("b") == "1e3"


def test_a_prompt_that_makes_all_slow_is_named(make):
    assert make().remarks() == []
    long = {"prompt": "1+" * 100 + "1=", "answer": "101"}
    (remark,) = make([*SUMS, long]).remarks()
    assert "data.jsonl: line 101 has a prompt of 202 tokens, where half of all have 4" in remark


def test_what_cannot_be_used_is_one_line(make, tmp_path):
    def refused(*arguments, **changes):
        with pytest.raises(UserError) as caught:
            make(*arguments, **changes).language  # noqa: B018
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is empty: it has no prompts" in refused([""])
    assert "env.held_out=0.1: 1 prompts are too few to hold some out" in refused([SUMS[0]])
    assert f"no such file; did you mean '{tmp_path}/data.jsonl'?" in refused(
        path=f"{tmp_path}/dat.jsonl"
    )
    assert refused(path=f"{tmp_path}/missing.jsonl").endswith("no such file")
    assert "no such file in /" in refused(path="missing.jsonl")
    assert refused(path=str(tmp_path)).endswith("is a directory")
    assert "line 1: the prompt has 4 tokens, more than env.max_prompt_tokens=3" in refused(
        max_prompt_tokens=3
    )
    assert "line 96: the answer has 3 tokens with its end, more than env.max_response_" in refused(
        [*([""] * 95), SUMS[99], SUMS[0]], max_response_tokens=2
    )
    words = [{"prompt": "a", "answer": "b"}, {"prompt": "c", "answer": "1"}]
    assert "line 1: env.verifier=numeric cannot read the answer: 'b' is no number" in refused(
        words, verifier="numeric"
    )
    for answer, reason in (
        (r"\boxed{2", "has a box that does not end"),
        (r"\boxed{}", "it is empty"),
        ("$", "it is empty"),
    ):
        line = refused([{"prompt": "a", "answer": answer}, words[1]], verifier="boxed")
        assert "line 1: env.verifier=boxed cannot read the answer: " in line
        assert line.endswith(reason)
    assert "line 2: env.verifier=regex cannot read the answer: '[' is no regular" in refused(
        [words[0], {"prompt": "c", "answer": "["}], verifier="regex"
    )
    assert "env.tokenizer=/nowhere: no such directory" in refused(tokenizer="/nowhere")
    with pytest.raises(UserError, match=r"no 'boxd' in .*; did you mean 'boxed'"):
        make(verifier="boxd")
    with pytest.raises(UserError, match="several are right here"):
        make(reward="prefix")


# ---------------------------------------------------------------------- verifiers


def test_numbers_are_read():
    texts = {
        "it is 12": 12.0,
        "from 3-5": 5.0,
        "x=-7.5": -7.5,
        "$1,234,567.5": 1234567.5,
        "3/4": 0.75,
        "50%": 50.0,
        "so 5.": 5.0,
        "1e3 m": 1000.0,
        "−2": -2.0,
        "none": None,
        "1/0": None,
        "9" * 5000: None,
    }
    assert {text: last_number(text) for text in texts} == texts
    assert boxed_answer(r"\boxed{1}, so \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert boxed_answer(r"\boxed{1") is None


@pytest.mark.parametrize(
    ("verify", "response", "answer", "expected"),
    [
        (exact, " 12\n", "12", True),
        (exact, "12.", "12", False),
        (exact, " ", "12", None),
        (numeric, "3+4=7, so 7.0", "7", True),
        (numeric, "7 or 8", "7", False),
        (numeric, "seven", "7", None),
        (boxed, r"it is \boxed{ 7 }", "7", True),
        (boxed, r"it is \boxed{7.0}", r"\boxed{7}", True),
        (boxed, r"it is \boxed{8}, not 7", "7", False),
        (boxed, "it is 7", "7", None),
        (boxed, r"it is \boxed{7}, no, \fbox{8}", "8", True),
        (regex, "it is 7!", r"\b7\b", True),
        (regex, "it is 77", r"\b7\b", False),
        (regex, "", "7", None),
    ],
)
def test_verifiers(verify, response, answer, expected):
    assert verify(response, answer) is expected


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="needs math-verify")
def test_boxed_mathematics():
    assert boxed(r"\boxed{\frac{1}{2}}", "0.5") is True
    assert boxed(r"\boxed{x+1}", "1+x") is True
    assert boxed(r"\boxed{x+2}", "1+x") is False


def test_a_verifier_of_the_users_own(make, monkeypatch):
    with pytest.raises(UserError, match=r"allow it with plugins=\[own_verifiers\]"):
        make(verifier="own_verifiers.generous")
    with pytest.raises(UserError, match=r"env.verifier must take a response and an answer, and of"):
        make(verifier="own_verifiers.of_three", plugins=["own_verifiers"])
    with pytest.raises(UserError, match="inner runs in a process of its own, which finds"):
        TokenEnv(make(verifier="own_verifiers.no_name", plugins=["own_verifiers"]), num_envs=1)
    make(verifier="own_verifiers.with_options", plugins=["own_verifiers"])
    task = make(verifier="own_verifiers.generous", plugins=["own_verifiers"], reward="fraction")
    env = TokenEnv(task, num_envs=5)
    texts = ["7+2="] * 5
    rows = [[*task.vocabulary.encode(text), *[task.language.end] * 3] for text in ("9", "8", "81")]
    rows += [[task.language.end] * 4, task.vocabulary.encode("9999")]
    response = torch.tensor([row[:4] + [0] * (4 - len(row)) for row in rows]).T
    verdict = env.judge(texts, response, torch.tensor([True] * 4 + [False]))
    env.close()
    assert verdict.reward.tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]
    assert verdict.outcome.tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert [judgement.form for judgement in verdict.judgements] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_verifier_that_fails_costs_that_response_alone(capsys):
    responses = ["7", "raise", "7", "hang", "8", "exit", "much", "0.5", "list", "7"]
    judge = VerifierJudge(own_verifiers.troubled, lambda prompt: "7", 0.5)
    begun = time.monotonic()
    judgements = judge.judge(["p"] * 10, responses, [True] * 10)
    assert time.monotonic() - begun < 30
    assert [judgement.outcome for judgement in judgements] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    assert [judgement.failed for judgement in judgements] == [0, 1, 0, 1, 0, 1, 1, 1, 1, 0]
    # Said once; it goes on.
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "troubled raised KeyError: 'nothing there' for the response 'raise'" in lines[0]
    assert [each.outcome for each in judge.judge(["p"], ["7"], [True])] == [1]
    judge.close()


# ---------------------------------------------------------------------- runs

SMALL = (*PLAIN, "env=prompts", "model.width=8", "model.heads=2", "algo.num_envs=16")


def test_a_run_with_a_verifier_that_hangs_now_and_then_ends(tmp_path):
    data = write_examples(tmp_path / "data.jsonl")
    directory = tmp_path / "run"
    words = [*SMALL, "algo=grpo", f"env.path={data}", "total_steps=200", "plugins=[moody_verifier]"]
    words += ["env.verifier=moody_verifier.moody", "env.verifier_seconds=0.3"]
    api.train(experiment([*words, "env.max_response_tokens=4", f"run_dir={directory}"]))
    rows = [row for row in metrics(directory) if "train/verifier_failed" in row]
    assert sum(row["train/verifier_failed"] for row in rows) > 0
    assert all(row["train/verifier_failed"] < 1 for row in rows)


def test_answers_of_a_file_are_learned(tmp_path):
    data = write_examples(tmp_path / "data.jsonl", SUMS[:4])
    directory = tmp_path / "run"
    words = [*PLAIN, "env=prompts", "algo=sft", f"env.path={data}", "env.held_out=0"]
    words += ["algo.num_envs=16", "model.width=32", "total_steps=2000", "env.verifier=numeric"]
    api.train(experiment([*words, "algo.optimizer.learning_rate=1e-2", f"run_dir={directory}"]))
    assert metrics(directory)[-1]["eval/outcome"] == 1.0
    samples = (directory / "samples.jsonl").read_text().splitlines()
    assert json.loads(samples[-1])["outcome"] == 1.0


def test_a_group_of_one_has_no_baseline(tmp_path):
    data = write_examples(tmp_path / "data.jsonl")
    words = [*SMALL, f"env.path={data}", "collector.group_size=1"]
    for algo in ("grpo", "rloo"):
        with pytest.raises(UserError, match="group"):
            api.train(experiment([*words, f"algo={algo}"]))


def test_a_regular_expression_is_no_answer_to_imitate(tmp_path):
    data = write_examples(tmp_path / "data.jsonl")
    words = [*SMALL, "algo=sft", f"env.path={data}", "env.verifier=regex"]
    with pytest.raises(UserError, match="sft learns from answers, which this environment has not"):
        api.train(experiment(words))


def test_both_forms_of_the_task_draw_the_same_prompts(make):
    task = make()
    env = task.make_single(render_mode=None)
    texts = TokenEnv(task, num_envs=10).prompts(range(10)).texts
    for seed in range(10):
        obs, _ = env.reset(seed=seed)
        shown = obs[obs != task.language.size]
        assert task.vocabulary.decode(shown.tolist()) == texts[seed]
    assert np.isin(texts, [example["prompt"] for example in SUMS]).all()
    env.close()


def test_a_run_whose_tokens_have_changed_is_named(tmp_path, capsys):
    data = write_examples(tmp_path / "sums.jsonl")
    run = tmp_path / "run"
    words = [*PLAIN, "algo=sft", "env=prompts", f"env.path={data}", "algo.num_envs=16"]
    words += ["model.width=8", "model.heads=2", "total_steps=100", f"run_dir={run}"]
    api.train(experiment(words))
    assert "--checkpoint best --samples" in capsys.readouterr().out
    evaluated = [row for row in metrics(run) if "eval/outcome" in row][-1]
    assert {"eval/format", "eval/fraction", "eval/verifier_failed"} <= evaluated.keys()
    as_it_was = data.read_text()
    data.write_text(as_it_was.replace("0", "A"))  # as many characters, in another order
    for look in (
        partial(api.resume, run, total_steps=200),
        partial(api.evaluate_run, run, episodes=2, seed=0, checkpoint="last"),
    ):
        with pytest.raises(UserError, match="sums has other tokens than when this was saved"):
            look()
    data.write_text(as_it_was)
    api.resume(run, total_steps=200)
    with pytest.raises(UserError, match="no video: a response is text, which --samples shows"):
        api.evaluate_run(run, episodes=2, seed=0, checkpoint="last", film=Film(tmp_path / "a.mp4"))
