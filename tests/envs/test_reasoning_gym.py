"""Prompts of the package reasoning-gym."""

import numpy as np
import pytest
from pretrained import make_tokenizer
from running import PLAIN, experiment

from rlrun.envs.tokens import reasoning
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.envs.tokens.reasoning import ReasoningGym
from rlrun.errors import UserError
from rlrun.runs import api

pytest.importorskip("reasoning_gym")


def task_of(**changes) -> ReasoningGym:
    values = {
        "dataset": "chain_sum",
        "options": {"min_terms": 2, "max_terms": 3},
        "held_out": 0.3,
        "reward": "exact",
        "verifier_seconds": 5.0,
        "samples": 2,
        "tokenizer": "bytes",
        "max_prompt_tokens": 100,
        "max_response_tokens": 8,
        **changes,
    }
    return ReasoningGym(**values)


def test_its_answers_are_right_and_others_are_not():
    task = task_of()
    env = TokenEnv(task, num_envs=20)
    prompts = env.prompts(range(20))
    answers = [task.answer(text) for text in prompts.texts]
    judge = task.open_judge()
    right = judge.judge(prompts.texts, answers, [True] * 20)
    assert [each.outcome for each in right] == [1.0] * 20
    wrong = judge.judge(prompts.texts, [f"{answer}1" for answer in answers], [True] * 20)
    assert [each.outcome for each in wrong] == [0.0] * 20
    judge.close()
    tokens = prompts.tokens[prompts.blank[0] :, 0].tolist()
    assert task.vocabulary.decode(task.encoded_answer(tokens)) == answers[0]
    env = TokenEnv(task, num_envs=200)
    trained = set(env.prompts(range(200)).texts)
    apart = set(env.held_out_prompts(0).texts)
    assert trained
    assert apart
    assert not trained & apart


def test_what_was_drawn_again_is_known_the_longest(monkeypatch):
    task, draws = task_of(options={"size": 100}), 30
    monkeypatch.setattr(reasoning, "KNOWN", draws)
    env = TokenEnv(task, num_envs=draws)
    for first in range(0, 10 * draws, draws):
        prompts = env.prompts(range(first, first + draws))
        for n, text in enumerate(prompts.texts):
            tokens = prompts.tokens[prompts.blank[n] :, n].tolist()
            assert task.answer_to(text)["question"] == text
            assert task.vocabulary.decode(task.encoded_answer(tokens)) == task.answer(text)
    assert len(task.entries) <= draws
    assert len(task.texts) <= draws


def test_answers_are_found_by_the_tokens_of_a_chat_template(tmp_path):
    pytest.importorskip("transformers")
    make_tokenizer(tmp_path, chat=True)
    task = task_of(tokenizer=str(tmp_path))
    text = task.prompt(np.random.default_rng(0))
    tokens = task.encode_prompt(text)
    assert task.vocabulary.decode(tokens) != text
    assert task.vocabulary.decode(task.encoded_answer(tokens)) == task.answer(text)


def test_longer_prompts_are_not_drawn():
    task = task_of(options={"min_terms": 2, "max_terms": 6}, max_prompt_tokens=85)
    texts = TokenEnv(task, num_envs=30).prompts(range(30)).texts
    assert all(len(text) <= 85 for text in texts)
    with pytest.raises(UserError, match=r"too few prompts of at most env.max_prompt_tokens=9"):
        TokenEnv(task_of(max_prompt_tokens=9), num_envs=1).prompts([0])


def test_what_has_an_answer_that_is_too_long_is_not_drawn():
    task = task_of(max_response_tokens=4)
    env = TokenEnv(task, num_envs=30)
    assert all(len(task.answer(text)) < 4 for text in env.prompts(range(30)).texts)
    with pytest.raises(UserError, match=r"and answers of at most env.max_response_tokens=1,"):
        TokenEnv(task_of(max_response_tokens=1), num_envs=1).prompts([0])


def test_what_has_an_answer_that_ends_early_is_not_drawn():
    env = TokenEnv(task_of(stop=["7"]), num_envs=60)
    assert not any("7" in env.task.answer(text) for text in env.prompts(range(60)).texts)
    with pytest.raises(UserError, match=r"and env.stop=\['0', '1', "):
        TokenEnv(task_of(stop=[*"0123456789"]), num_envs=1).prompts([0])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("env.dataset=chain_sums", "has no such data set; did you mean 'chain_sum'?"),
        ("+env.options.terms=3", "env.options: chain_sum: .*unexpected keyword argument 'terms'"),
        ("+env.options.min_terms=0", "env.options: chain_sum: "),
        ("env.tokenizer=characters", "those of chain_sum are not known; bytes, or the directory"),
    ],
)
def test_mistakes(word, message):
    with pytest.raises(UserError, match=message):
        api.train(experiment([*PLAIN, "algo=grpo", "env=reasoning_gym", word]))
