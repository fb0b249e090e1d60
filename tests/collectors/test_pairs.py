"""Pairs from a file: what it says, each once an epoch; and lines that are none."""

import json
from dataclasses import replace

import pytest
import torch
from languages import actor_of, policy_of, task_of
from pretrained import write_examples
from running import PLAIN, experiment, metrics

from rlrun.algos.preference.pairs import best_and_worst
from rlrun.collectors.pairs import Pairs
from rlrun.envs.problem import Problem
from rlrun.envs.tokens.batch import TokenEnv
from rlrun.errors import UserError
from rlrun.runs import api

ROWS = [
    {"prompt": "1+1=", "chosen": "2", "rejected": "11"},
    {"prompt": "12+7=", "chosen": "91", "rejected": "9"},
    {"prompt": "5+6=", "chosen": "11", "rejected": "5"},
]
TASK = task_of("add")


def written(path, rows) -> str:
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return str(path)


def opened(path: str, *, count: int = 4, task=TASK, seed: int = 0):
    spec = Pairs(path=path)
    shape = spec.shape(Problem.of_prompts(task), count)
    return spec.open(TokenEnv(task, num_envs=count), shape, seed=seed), shape


def read(transitions) -> list[tuple[str, str, float]]:
    """Prompt, response and reward of each column."""
    obs, mask, decode = transitions.obs, transitions.mask, TASK.vocabulary.decode
    found = []
    for n in range(obs.count):
        prompt = decode(obs.tokens[obs.blank[n] : obs.prompt_rows, n].tolist())
        action = transitions.action[mask[:, n], n]
        assert torch.equal(obs.tokens[obs.prompt_rows :, n][mask[:, n]], action)
        assert action[-1] == TASK.vocabulary.end
        assert transitions.terminated[:, n].nonzero().item() == len(action) - 1
        found.append((prompt, decode(action.tolist()), float(transitions.reward[:, n].sum())))
    return found


def test_each_pair_comes_once_an_epoch_with_the_better_response_first(tmp_path):
    collector, shape = opened(written(tmp_path / "x.jsonl", [*ROWS[:2], "", ROWS[2]]))
    actor, seen = actor_of(policy_of(TASK)), []
    for _ in range(6):  # of two pairs: four epochs
        transitions = collector.collect(actor)
        assert transitions.steps == transitions.mask.sum()
        responses = read(transitions)
        seen += zip(responses[::2], responses[1::2], strict=True)
        chosen = best_and_worst(transitions.reward, transitions.mask, shape.group_size)
        assert chosen.tolist() == [[0, 2], [1, 3]]
    expected = {((p, c, 1.0), (p, r, 0.0)) for p, c, r in (row.values() for row in ROWS)}
    epochs = [tuple(seen[start : start + 3]) for start in range(0, 12, 3)]
    assert all(set(epoch) == expected for epoch in epochs)
    assert len(set(epochs)) > 1  # shuffled anew


def test_a_saved_state_goes_on_with_the_next_pair(tmp_path):
    path, actor = written(tmp_path / "x.jsonl", ROWS), actor_of(policy_of(TASK))
    collector, _ = opened(path)
    collector.collect(actor)
    state = collector.state_dict()
    expected = [read(collector.collect(actor)) for _ in range(4)]
    again, _ = opened(path)
    again.load_state_dict(state)
    assert [read(again.collect(actor)) for _ in range(4)] == expected


LINE = r"^collector\.path=.*x\.jsonl: line 2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", rf"{LINE} is no JSON in UTF-8: "),
        ("[" * 100_000, rf"{LINE} is no JSON in UTF-8: "),
        ("[1]", rf"{LINE} is no object with prompt, chosen, rejected$"),
        ({"prompt": "1+1=", "chosen": "2"}, rf"{LINE} has no rejected$"),
        (
            {"prompt": "1+1=", "choosen": "2", "rejected": ""},
            rf"{LINE} has no chosen; did you mean",
        ),
        ({"prompt": "1+1=", "chosen": ["2"], "rejected": ""}, rf"{LINE}: chosen must be a text, "),
        ({**ROWS[0], "chosen": "\ud83d"}, rf"{LINE}: chosen is no text: surrogates"),
        ({**ROWS[0], "rejected": "2"}, rf"{LINE}: chosen and rejected are the same$"),
        ({**ROWS[0], "prompt": "a"}, rf"{LINE}: prompt 'a': add has no character 'a'"),
        ({**ROWS[0], "prompt": "1" * 7}, rf"{LINE}: prompt '1+' has 7 tokens"),
        ({**ROWS[0], "chosen": "x"}, rf"{LINE}: chosen 'x': add has no character 'x'$"),
        (
            {**ROWS[0], "rejected": "12345"},
            rf"{LINE}: rejected '12345' has 6 tokens with its end; a response of add has at most 5",
        ),
    ],
)
def test_a_bad_line_is_named(line, message, tmp_path):
    path = written(tmp_path / "x.jsonl", [ROWS[0], line])
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_an_answer_that_ends_before_its_end_is_named(tmp_path):
    task = task_of("add")
    task.language = replace(task.language, stops=tuple(task.vocabulary.encode("=")))
    path = written(tmp_path / "x.jsonl", [{"prompt": "1+1=", "chosen": "2=1", "rejected": "1"}])
    with pytest.raises(UserError, match=r"line 1: chosen '2=1': env.stop ends it before its end"):
        opened(path, task=task)


def test_a_file_without_pairs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"x\.jsonl has no pairs$"):
        opened(written(tmp_path / "x.jsonl", [""]))
    with pytest.raises(UserError, match=r"^collector\.path=/nowhere: no such file"):
        opened("/nowhere")
    with pytest.raises(UserError, match=r"^algo\.num_envs=3 must be even"):
        opened(written(tmp_path / "x.jsonl", ROWS), count=3)


def test_what_json_allows_in_a_text_ends_no_line(tmp_path):
    rows = [{**ROWS[0], "remark": "one\u2028two\x85three"}, ROWS[1]]
    path = tmp_path / "x.jsonl"
    path.write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    opened(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a mark of byte order
    opened(path)


def test_a_system_text_belongs_to_the_prompt(tmp_path):
    sums = [{"prompt": f"{n}=", "answer": "1", "system": "Sum"} for n in range(10)]
    settings = {"path": str(write_examples(tmp_path / "sums.jsonl", sums)), "held_out": 0.5}
    settings["tokenizer"] = "characters"
    env = TokenEnv(task_of("prompts", **settings), num_envs=2)
    rows = [{**row, "chosen": "1", "rejected": "2="} for row in sums]
    read = Pairs(path=written(tmp_path / "x.jsonl", rows)).read(env)
    assert len(read.prompts.texts) == 5
    assert all(text.startswith("Sum\n") for text in read.prompts.texts)
    assert not any(env.task.is_held_out(text) for text in read.prompts.texts)
    # Without it they are the same prompts: the only system text of the task comes before them.
    bare = [{key: text for key, text in row.items() if key != "system"} for row in rows]
    without = Pairs(path=written(tmp_path / "x.jsonl", bare)).read(env)
    assert torch.equal(without.prompts.tokens, read.prompts.tokens)
    everything = TokenEnv(task_of("prompts", **settings | {"held_out": 0.0}), num_envs=2)
    assert len(Pairs(path=written(tmp_path / "x.jsonl", rows)).read(everything).prompts.texts) == 10


def test_a_path_that_no_file_can_have_is_one_line():
    with pytest.raises(UserError, match=r"^collector\.path=a+ cannot be read: File name too long$"):
        opened("a" * 300)


def test_pairs_of_held_out_prompts_are_left_out(tmp_path, capsys):
    task = task_of("add", held_out=0.5)
    prompts = [f"{a}+{b}=" for a in range(10) for b in range(10)]
    rows = [{"prompt": prompt, "chosen": "1", "rejected": "2"} for prompt in prompts]
    kept = [prompt for prompt in prompts if not task.is_held_out(prompt)]
    assert 20 < len(kept) < 80
    env = TokenEnv(task, num_envs=2)
    read = Pairs(path=str(written(tmp_path / "x.jsonl", rows))).read(env)
    assert read.prompts.texts == kept
    assert read.left_out == 100 - len(kept)
    assert capsys.readouterr().err == ""  # what else is wrong is to be said first, and alone
    problem = Problem.of_prompts(task)
    spec = Pairs(path=str(tmp_path / "x.jsonl"))
    spec.open(env, spec.shape(problem, 2), seed=0)
    assert capsys.readouterr().err.count(f"{100 - len(kept)} of 100 pairs are left out") == 1
    apart = [row for row in rows if row["prompt"] not in kept]
    with pytest.raises(UserError, match="all its prompts are held out"):
        Pairs(path=str(written(tmp_path / "y.jsonl", apart))).read(env)


def test_an_answer_of_one_token_has_no_end(tmp_path):
    task = task_of("mod_add")
    path = written(tmp_path / "x.jsonl", [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}])
    collector, _ = opened(path, count=2, task=task)
    transitions = collector.collect(actor_of(policy_of(task)))
    assert transitions.action.tolist() == [[2, 3]]
    longer = written(tmp_path / "y.jsonl", [{"prompt": "1+1=", "chosen": "2", "rejected": "33"}])
    with pytest.raises(UserError, match=r"rejected '33' has 2 tokens; an answer of mod_add has 1$"):
        opened(longer, task=task)


SMALL = (*PLAIN, "model.width=8", "model.heads=2", "algo.num_envs=8", "total_steps=400")


def words(algo: str, path: str, *others: str) -> list[str]:
    return [f"algo={algo}", "env=add", "collector=pairs", f"collector.path={path}", *SMALL, *others]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sft") / "run"
    api.train(experiment(["algo=sft", "env=add", *SMALL, f"run_dir={directory}"]))
    return directory


@pytest.mark.parametrize("algo", ["dpo", "cdpo", "ipo"])
def test_pairs_are_told_apart(algo, run, tmp_path):
    path = written(tmp_path / "x.jsonl", ROWS)
    rate = "algo.optimizer.learning_rate=1e-2"
    api.train(
        experiment(words(algo, path, f"model.init={run}", rate, f"run_dir={tmp_path / 'run'}"))
    )
    rows = [row for row in metrics(tmp_path / "run") if "pairs/accuracy" in row]
    assert rows[0]["pairs/margin"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["pairs/accuracy"] == 1
    assert rows[-1]["pairs/margin"] > 0.1
    assert rows[-1]["pairs/epoch"] > 1


@pytest.mark.parametrize("algo", ["rft", "grpo", "ppo"])
def test_others_do_not_learn_from_what_somebody_else_wrote(algo, tmp_path):
    path = written(tmp_path / "x.jsonl", ROWS)
    with pytest.raises(UserError, match=r"^collector=pairs has responses of others"):
        api.train(experiment(words(algo, path)))


def test_there_are_no_pairs_for_control(tmp_path):
    path = written(tmp_path / "x.jsonl", ROWS)
    plain = [f"algo=ppo env=cartpole collector=pairs collector.path={path}", *PLAIN]
    with pytest.raises(UserError, match=r"^collector=pairs is of responses, for which CartPole-v1"):
        api.train(experiment(" ".join(plain).split()))
