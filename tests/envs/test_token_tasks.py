"""Tasks of language: their answers are right, and only right ones are paid in full."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from languages import task_of

from rlrun.config.files import conf_directory
from rlrun.envs.tokens.arithmetic import value_of
from rlrun.errors import UserError

NAMES = sorted(
    path.stem
    for path in (conf_directory() / "env").glob("*.yaml")
    if "/prompts@_here_: procedural" in path.read_text()
)
# Tasks with several right answers, and the rewards that they have not.
SEVERAL = {"brackets": ("fraction",), "countdown": ("fraction", "prefix")}
PAIRS = {
    "mod_add": {"7+9=": "5", "a+a=": "9", "0+0=": "0"},
    "add": {"12+7=": "91", "99+99=": "891", "0+0=": "0"},
    "copy": {"C3141=": "3141"},
    "reverse": {"R3141=": "1413", "R7=": "7"},
    "sort": {"S3141=": "1134"},
    "digit_sequence": {"1,3,5:4": "7,9,1,3", "5,4,3:2": "2,1"},
    "parity": {"000000000000=": "0", "100110000000=": "1"},
    "brackets": {"(": ")()()()"},
    "countdown": {"3,5,8>16": "3+5+8", "2,3,4>10": "2*3+4"},
}


def drawn(task, count=50):
    return [task.prompt(np.random.default_rng(seed)) for seed in range(count)]


def test_there_is_a_pair_for_each_task():
    assert set(PAIRS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_answers(name):
    task = task_of(name)
    for prompt, answer in PAIRS[name].items():
        assert task.answer(prompt) == answer
        judgement = task.judge(prompt, answer, complete=True)
        assert (judgement.outcome, judgement.form) == (1.0, 1.0)
        assert judgement.reward(task.reward) == 1.0
        assert task.judge(prompt, answer, complete=False).outcome == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_what_is_drawn_fits_and_is_answered(name):
    task = task_of(name)
    language = task.language
    for prompt in drawn(task):
        assert 0 < len(task.vocabulary.encode(prompt)) <= language.prompt_rows
        answer = task.answer(prompt)
        assert len(answer) + (language.answer_rows is None) <= language.response_rows
        assert task.judge(prompt, answer, complete=True).outcome == 1.0
        assert set(answer) <= set(task.answer_characters)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reward", ["exact", "fraction", "prefix", "format"])
def test_only_a_right_answer_is_paid_in_full(name, reward):
    if reward in SEVERAL.get(name, ()):
        with pytest.raises(UserError, match="several are right here"):
            task_of(name, reward=reward)
        return
    task = task_of(name, reward=reward)
    generator = np.random.default_rng(1)
    for prompt in drawn(task):
        length = generator.integers(task.longest_answer + 1)
        letters = [
            task.answer_characters[i]
            for i in generator.integers(len(task.answer_characters), size=length)
        ]
        response = "".join(letters)
        # Where all answers are of one length, none is left incomplete.
        for complete in (True,) if task.answer_rows else (True, False):
            judgement = task.judge(prompt, response, complete=complete)
            paid = judgement.reward(reward)
            assert 0.0 <= paid <= 1.0
            assert (paid == 1.0) == (judgement.outcome == 1.0)


def test_shares_of_an_answer():
    task = task_of("copy")
    judge = task.judge
    # Three digits and the end are four places.
    assert judge("C123=", "123", complete=True)[2:4] == (1.0, 1.0)
    assert judge("C123=", "153", complete=True)[2:4] == (0.75, 0.25)
    assert judge("C123=", "12", complete=True)[2:4] == (0.5, 0.5)
    assert judge("C123=", "123", complete=False)[2:4] == (0.75, 0.75)
    assert judge("C123=", "12345", complete=True)[2:4] == (0.5, 0.5)
    assert judge("C123=", "", complete=True)[2:4] == (0.0, 0.0)
    assert judge("C123=", "C=", complete=True).form == 0.0


def test_brackets():
    task = task_of("brackets", length=6, given=2)
    for response, right in {
        "()))": 1,
        "))()": 1,
        ")())": 1,
        ")()(": 0,
        ")))(": 0,
        "((((": 0,
    }.items():
        assert task.judge("((", response, complete=True).outcome == right, response
    # "((" ")" is fine, "(" too, and then there is no room to open another.
    assert task.judge("((", ")((()", complete=True).form == 0.0
    assert task.judge("((", ")(((", complete=True).prefix == 0.5


@pytest.mark.parametrize(
    ("expression", "value"), [("3", 3), ("3+4*2", 11), ("3*4-2*5", 2), ("12-5-4", 3)]
)
def test_the_value_of_an_expression(expression, value):
    assert value_of(expression) == value


def test_countdown_takes_each_number_once():
    judge = task_of("countdown").judge
    assert judge("3,5,8>16", "8+5+3", complete=True).outcome == 1.0
    for wrong in ("8+8", "8+5+3+0", "16", "8+5", "8+5+3+", "", "8++5+3", "8+5+03"):
        assert judge("3,5,8>16", wrong, complete=True).outcome == 0.0, wrong
    assert judge("3,5,8>16", "8+8", complete=True).form == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_gymnasium_environment(name):
    env = task_of(name).make_single(render_mode=None)
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mod_add", {"modulus": 40}, r"env.modulus must be in \[2, 36\], got 40"),
        ("add", {"held_out": 1.0}, r"env.held_out must be in \[0, 1\), got 1.0"),
        ("brackets", {"length": 7}, "env.length must be even, got 7"),
        ("brackets", {"given": 8}, "env.given must be below length=8, got 8"),
        (
            "brackets",
            {"reward": "fraction"},
            "env.reward must not be fraction, which compares with one answer",
        ),
        ("copy", {"shortest": 9}, "env.shortest must be at most longest=6, got 9"),
        ("copy", {"reward": "exakt"}, "env.reward: expected one of exact, .*did you mean 'exact'"),
    ],
)
def test_settings_that_do_not_fit(name, changes, message):
    with pytest.raises(UserError, match=message):
        task_of(name, **changes)
