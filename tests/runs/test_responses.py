"""Evaluation of language: pass@k by enumeration, and samples that a resumed run goes on with."""

import itertools
import json

import pytest
import torch
from languages import actor_of, policy_of, task_of

from rlrun.envs.tokens.batch import TokenEnv
from rlrun.runs.files.samples import Samples
from rlrun.runs.language.responses import AS_IT_IS, Answers, LanguageEvaluator, pass_at, repeated


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 1), (5, 2), (5, 5), (8, 3)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, right):
    samples = [True] * right + [False] * (n - right)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(samples, k))
        assert pass_at(k, n=n, right=right) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_metrics():
    answers = Answers([1.0, 0.0], [3, 5], [4, 0], 8, {"eval/outcome": 0.5}, [])
    said = answers.metrics()
    assert said["eval/return"] == 0.5
    assert said["eval/length"] == 4.0
    assert said["eval/pass@1"] == pytest.approx(0.25)
    assert said["eval/pass@8"] == 0.5
    assert said["eval/outcome"] == 0.5


def test_an_advantage_is_what_a_response_is_paid_over_those_drawn_to_its_prompt():
    task = task_of("add", samples=4, reward="fraction")
    evaluator = LanguageEvaluator(task, lambda: actor_of(policy_of(task)))
    answers = evaluator.play(6, seed=0)
    rows = {row["prompt"]: row for row in answers.transcripts}
    env, generator = TokenEnv(task, num_envs=6), torch.Generator().manual_seed(0)
    prompts = env.held_out_prompts(0)
    drawn = evaluator.write(repeated(prompts, 4), AS_IT_IS, generator)
    texts = [text for text in prompts.texts for _ in range(4)]
    paid = env.judge(texts, drawn.tokens, drawn.complete).reward.view(6, 4).mean(1)
    assert paid.std() > 0
    for prompt, mean in zip(prompts.texts, paid.tolist(), strict=True):
        row = rows[prompt]
        assert row["advantage"] == pytest.approx(row["reward"] - mean, abs=1e-6)
    rewards = [row["reward"] for row in answers.transcripts]
    assert rewards[:4] == sorted(answers.returns)[::-1][:4]
    assert rewards[4:8] == sorted(answers.returns)[:4]


def test_the_lengths_of_right_and_wrong_responses_are_apart():
    task = task_of("add", digits=1, samples=64, held_out=0.0)
    evaluator = LanguageEvaluator(task, lambda: actor_of(policy_of(task)))
    said = evaluator.play(64, seed=0).metrics()
    env, generator = TokenEnv(task, num_envs=64), torch.Generator().manual_seed(0)
    prompts = repeated(env.held_out_prompts(0), 64)
    drawn = evaluator.write(prompts, AS_IT_IS, generator)
    right = env.judge(prompts.texts, drawn.tokens, drawn.complete).outcome > 0
    assert right.any()
    for name, which in (("right", right), ("wrong", ~right)):
        expected = drawn.lengths[which].float().mean().item()
        assert said[f"eval/length_{name}"] == pytest.approx(expected)
    hard = task_of("add", digits=15, samples=2)  # whose answers nobody guesses
    never = LanguageEvaluator(hard, lambda: actor_of(policy_of(hard))).play(4, seed=0).metrics()
    assert "eval/length_wrong" in never
    assert "eval/length_right" not in never


def test_samples_of_a_part_that_is_done_again_are_not_there_twice(tmp_path):
    path = tmp_path / "samples.jsonl"
    Samples(path, -1).append([], 0)
    assert not path.exists()
    for step in (0, 10, 20):
        Samples(path, step - 1).append([{"prompt": "1+1="}, {"prompt": "2+2="}], step)
    with path.open("a") as file:
        file.write('{"step": 20, "pro')  # killed while it was written
    resumed = Samples(path, 10)
    resumed.append([{"prompt": "3+3="}], 20)
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [0, 0, 10, 10, 20]
