"""`rlrun list`: its options, on files as runs leave them."""

import json
from pathlib import Path

import pytest
from made_runs import made_run, seeds, write_run


@pytest.fixture
def outputs(empty_directory):
    """Four finished runs, one that was interrupted, and one that cannot be read."""
    runs = [
        *(*seeds("ppo", [10, 20]), *seeds("sac", [90], settings={"algo.gamma": 0.9})),
        made_run("ppo", "walker2d", returns=(0.0, 7.0), time_s=500.0, started="2026-12-01"),
        made_run("ppo", seed=7, status="interrupted", step=400, returns=(1.0,)),
    ]
    for run in runs:
        write_run(run, empty_directory / "outputs" / Path(run.source).name)
    (empty_directory / "outputs" / "unreadable").mkdir()
    (empty_directory / "outputs" / "unreadable" / "run.json").write_text("{")
    return empty_directory / "outputs"


NAMES = [
    *("ppo_hopper_s0", "ppo_hopper_s1", "ppo_hopper_s7", "ppo_walker2d_s0", "sac_hopper_s0"),
    "unreadable",
]


def listed(rlrun, *words):
    """The names of the runs that are listed, in their order."""
    code, out, err = rlrun("list", *words, "--json")
    assert (code, err) == (0, "")
    return [run["run"] for run in json.loads(out)]


def test_the_spread_stands_beside_the_return(rlrun, outputs):
    fallen = made_run("td3", returns=(0.0, 90.0, 80.0))
    write_run(fallen, outputs / "td3_hopper_s0")
    lines = {
        line.split()[0]: line.split() for line in rlrun("list")[1].splitlines() if line.strip()
    }
    # The last evaluation, the best one, and the mean of those at the end.
    assert lines["ppo_hopper_s1"][-8:-1] == ["20.0", "±", "5.0", "20.0", "±", "5.0", "20.0"]
    # Of an earlier one it is not known.
    assert lines["td3_hopper_s0"][-6:-1] == ["80.0", "±", "5.0", "90.0", "80.0"]


def test_json_has_the_numbers(rlrun, outputs):
    code, out, err = rlrun("list", "--json")
    assert (code, err) == (0, "")
    runs = {run["run"]: run for run in json.loads(out)}
    assert runs["unreadable"] == {"run": "unreadable", "status": "unreadable"}
    assert runs["ppo_hopper_s1"] == {
        **{"run": "ppo_hopper_s1", "status": "finished", "algo": "ppo", "env": "hopper"},
        **{"env_id": "Hopper-v5", "advantage": None, "collector": None, "model": "mlp"},
        **{"seed": 1, "started": "2026-11-22T00:00:00+00:00", "step": 1000, "total_steps": 1000},
        **{"return": 20.0, "return_std": 5.0, "best_return": 20.0, "final_return": 20.0},
        **{"time_s": 30.0, "error": None},
    }


@pytest.mark.parametrize(
    ("key", "first", "last"),
    [
        ("name", "ppo_hopper_s0", "unreadable"),
        ("return", "sac_hopper_s0", "unreadable"),
        ("time", "ppo_walker2d_s0", "unreadable"),
        ("started", "ppo_walker2d_s0", "unreadable"),
    ],
)
def test_sorting(rlrun, outputs, key, first, last):
    names = listed(rlrun, "--sort", key)
    assert sorted(names) == NAMES
    assert (names[0], names[-1]) == (first, last)


def test_sorting_by_steps(rlrun, outputs):
    assert listed(rlrun, "--sort", "steps")[-2:] == ["ppo_hopper_s7", "unreadable"]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("algo=sac", ["sac_hopper_s0"]),
        ("algo=ppo,env=hopper", ["ppo_hopper_s0", "ppo_hopper_s1", "ppo_hopper_s7"]),
        ("status=interrupted", ["ppo_hopper_s7"]),
        ("seed=1", ["ppo_hopper_s1"]),
        ("algo.gamma=0.90", ["sac_hopper_s0"]),
        ("algo.gamma=0.99,env=walker2d", ["ppo_walker2d_s0"]),
        ("evaluation.every_steps=null,algo=sac", ["sac_hopper_s0"]),
        ("algo=nothing", []),
    ],
)
def test_where(rlrun, outputs, where, names):
    assert listed(rlrun, "--where", where) == names


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("env=hoper", "has env=hoper; did you mean 'hopper'?"),
        ("algo=sac,env=walker", "has env=walker; did you mean 'walker2d'?"),
        ("status=failed", "has status=failed; there is finished, interrupted"),
        ("algo.gamma=0.95", "has algo.gamma=0.95; the nearest is 0.99"),
        ("algo=sac,env=walker2d", "has algo=sac and env=walker2d"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--group"]])
def test_where_no_run_matches_the_nearest_value_is_named(rlrun, outputs, where, reason, form):
    code, out, err = rlrun("list", "--where", where, *form)
    assert (code, err) == (0, "")
    assert out == f"none of 6 runs under outputs {reason}\n"


def test_methods(rlrun, outputs):
    code, out, err = rlrun("list", "--group", "--json")
    assert code == 0
    assert "unreadable is not a run that can be read" in err
    rows = {(row["task"], row["method"]): row for row in json.loads(out)}
    assert list(rows) == [("Hopper-v5", "ppo"), ("Walker2d-v5", "ppo"), ("Hopper-v5", "sac")]
    row = rows["Hopper-v5", "ppo"]
    assert (row["n"], row["final_return"], row["others"]) == (2, 15.0, {"interrupted": 1})
    assert row["std"] == pytest.approx(50**0.5)
    out = rlrun("list", "--group", "--where", "algo=ppo")[1]
    (line,) = [line for line in out.splitlines() if "Hopper-v5" in line]
    assert line.split() == ["Hopper-v5", "ppo", "2", "15.0", "±", "7.1", "1", "interrupted"]


def test_a_torn_end_of_a_finished_run_is_said_of_its_group(rlrun, outputs):
    path = outputs / "ppo_hopper_s1" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    code, _, err = rlrun("list", "--group", "--where", "algo=ppo")
    assert code == 0
    assert err == (
        "warning: outputs/ppo_hopper_s1: finished, but the evaluation at the end is missing in "
        "metrics.jsonl\n"
    )


def test_no_runs_are_an_empty_list(rlrun, empty_directory):
    (empty_directory / "outputs").mkdir()
    assert listed(rlrun) == []
    assert rlrun("list", "--group", "--json")[1] == "[]\n"
    assert rlrun("list", "--group")[1] == "no runs under outputs\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--where ago=ppo", "--where ago: no run has it; did you mean 'algo'?"),
        ("--where algo.gama=1", "--where algo.gama: no run has it; did you mean 'algo.gamma'?"),
        ("--where algo", "expected NAME=VALUE, got 'algo'"),
        ("--where algo=ppo,", "expected names with commas between them"),
        ("--sort size", "invalid choice: 'size'"),
        ("--group --sort time", "--sort is for runs: leave it out beside --group"),
        ("outptus", "no directory 'outptus' to list; did you mean 'outputs'?"),
    ],
)
def test_a_mistake_is_one_line(rlrun, outputs, words, message):
    code, out, err = rlrun("list", *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
