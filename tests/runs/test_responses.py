"""Evaluation of language: pass@k by enumeration, and samples that a resumed run goes on with."""

import itertools
import json

import pytest

from rlrun.runs.files.samples import Samples
from rlrun.runs.responses import Answers, pass_at


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
