"""`rlrun tune` by the command, whose trials are runs of their own."""

import os
import pickle
import re
import shlex
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from running import Process, metrics, record, small

from rlrun.cli import commands, hydra_bridge
from rlrun.config.files import read_yaml
from rlrun.errors import UserError
from rlrun.loggers.progress import number
from rlrun.tuning.space import as_words, rounded
from rlrun.tuning.study import make_sampler

PATHS = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, PATHS))}
SEARCH_ONLY = ("--final-seeds", "none", "--validate", "none")
WORTH = "+env.options.worth=int(interval(0,9))"


def words(*own: str) -> list[str]:
    """A study of a tiny task whose return is twice its worth, and no other setting matters."""
    task = ["env.id=Payoff-v0", "plugins=[payoff]", "+env.options.pause=0"]
    short = ["total_steps=320", "evaluation.every_steps=32"]
    return ["tune", *small("gym", *task, *short), *own]


def run(directory: Path, *line: str) -> tuple[int, str]:
    """Run a command to its end; return exit code and output."""
    process = Process(list(line), directory, ENVIRONMENT)
    return process.wait(180), process.output()


def trials(study: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study, as Optuna reads them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(study / "journal.log")))
    return optuna.load_study(study_name="tune", storage=storage).trials


def states(study: Path) -> list[str]:
    return [trial.state.name for trial in trials(study)]


def runs(study: Path) -> dict[str, Path]:
    """The runs of the trials by their place in the study."""
    paths = sorted(path.parent for path in study.glob("trial_*/*/run.json"))
    return {str(path.relative_to(study)): path for path in paths}


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_best_values_are_written_and_proved(tmp_path, monkeypatch):
    line = words(WORTH, "--trials", "5", "--seeds", "7,8", "--validate", "1,2,3", "--dir", "study")
    line += ["--pruner", "none", "--final-seeds", "9"]
    code, output = run(tmp_path, *line)
    assert code == 0, output
    study = tmp_path / "study"
    found = trials(study)
    best = max((trial for trial in found if trial.value is not None), key=lambda t: t.value)
    worth = best.params["+env.options.worth"]
    # The first one has the usual values of what has some.
    first = found[0].params
    assert (first["algo.gamma"], first["advantage.lam"], first["algo.clip"]) == (
        "0.99",
        "0.95",
        "0.2",
    )
    # A trial is worth the mean over its seeds, which are ordinary runs.
    assert best.value == 2 * worth
    assert best.user_attrs["returns"] == [2 * worth] * 2
    trained = runs(study)
    assert [f"trial_{best.number:03d}/ppo_Payoff-v0_s{seed}" for seed in (7, 8)] == [
        name for name in trained if name.startswith(f"trial_{best.number:03d}")
    ]
    assert f"The best of 5 trials, {number(2.0 * worth)}:\n" in output
    assert f"\n  +env.options.worth={worth}\n" in output

    # The file makes the run of the trial again.
    use = re.search(r"They are in study/tuned/best_study.yaml. Next:\n  rlrun (.*)\n", output)[1]
    code, said = run(tmp_path, *shlex.split(use), "seed=7", "run_dir=again")
    assert code == 0, said
    again = read_yaml(tmp_path / "again" / "config.yaml")
    trial = read_yaml(trained[f"trial_{best.number:03d}/ppo_Payoff-v0_s7"] / "config.yaml")
    # As do the trial's own runs: its seeds are no fresh ones.
    assert again["tuned_on"] == trial["tuned_on"] == [7, 8, 9]
    beside = {"run_dir": None, "tuned_on": [], "hardware": {}}
    assert again | beside == trial | beside
    assert metrics(tmp_path / "again") == metrics(
        trained[f"trial_{best.number:03d}/ppo_Payoff-v0_s7"]
    )

    # The three best were trained on one seed more.
    ranked = sorted(found, key=lambda trial: -trial.value)
    assert {path.name for path in (study / "finals").iterdir() if path.is_dir()} == {
        f"ppo_Payoff-v0_group=trial_{trial.number:03d}_s9" for trial in ranked[:3]
    }

    # Fresh seeds, on which the usual worth is 1.
    place = f"study/validation_{best.number:03d}"
    proof = {path.parent.name for path in tmp_path.glob(f"{place}/*/run.json")}
    assert proof == {
        f"ppo_Payoff-v0_group={group}_s{seed}" for group in ("usual", "best") for seed in (1, 2, 3)
    }
    assert {record(path.parent)["sweep"] for path in tmp_path.glob(f"{place}/*/run.json")} == {
        place
    }
    gain = number(2.0 * worth - 2)
    assert f"The best values gain +{gain} on 3 fresh seeds, 95 % interval" in output
    assert f"[+{gain}, +{gain}]: they are better\n" in output
    assert f"rlrun compare {place} --by group --output report\n" in output
    for name in ("importance.png", "parallel.png"):
        assert (study / name).read_bytes()[:4] == b"\x89PNG"

    # Once more, with one seed more: nothing is trained twice.
    before = {path: path.read_bytes() for path in study.glob("*/*/run.json")}
    line[line.index("1,2,3")] = "1,2,3,4"
    code, output = run(tmp_path, *line)
    assert code == 0, output
    assert f"8 of 8 runs finished in {place}, 6 of them earlier" in output
    assert (
        before.items() <= {path: path.read_bytes() for path in study.glob("*/*/run.json")}.items()
    )
    assert len(trials(study)) == 5

    # Another question is another study.
    line[line.index("7,8")] = "5"
    message = r"^study is a study with other seeds: \[7, 8\]; choose another directory with --dir$"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PATHS[0])
    with pytest.raises(UserError, match=message):
        commands.run("tune", line[1:])


def test_where_the_usual_values_are_the_best_there_is_nothing_to_prove(tmp_path):
    # No entropy bonus is the end of its logarithmic range, which stands for it.
    line = words("--trials", "1", "--seeds", "7", "--dir", "study")
    code, output = run(tmp_path, *line)
    assert code == 0, output
    assert output.endswith("The usual values are the best of 1 trials, 2.000.\n")
    assert not list((tmp_path / "study").glob("validation*"))


def test_a_trial_below_the_median_ends_before_its_time(tmp_path):
    worth = "+env.options.worth=choice(4,3,2,1,0)"  # of which 3, 3, 4, 1, 2, 4 are drawn
    line = words(worth, "--trials", "6", "--seeds", "7,8", *SEARCH_ONLY, "--dir", "study")
    line += ["hardware.jobs=1", "--sampler", "random"]
    line[line.index("+env.options.pause=0")] = "+env.options.pause=0.003"  # time to be stopped
    code, output = run(tmp_path, *line)
    assert code == 0, output
    found = trials(tmp_path / "study")
    pruned = [trial for trial in found if trial.state.name == "PRUNED"]
    complete = [trial for trial in found if trial.state.name == "COMPLETE"]
    assert [trial.number for trial in pruned] == [4]  # 2 is below the median of 3, 3, 4, 1
    assert len(complete) == 5
    for trial in pruned:
        earlier = sorted(t.value for t in complete if t.number < trial.number)
        assert trial.last_step >= 10 // 3  # evaluations of its first run: a third are its own
        assert trial.intermediate_values[trial.last_step] <= earlier[len(earlier) // 2]
        statuses = [
            record(path)["status"]
            for name, path in runs(tmp_path / "study").items()
            if name.startswith(f"trial_{trial.number:03d}")
        ]
        assert statuses != ["finished", "finished"]
        assert f"trial {trial.number}: pruned\n" in output


def test_a_trial_that_fails_is_recorded_and_harms_no_other(tmp_path):
    worth = "+env.options.worth=choice(-1,1,2)"
    line = words(worth, "algo.minibatch_size=choice(32,1000000)", *SEARCH_ONLY)
    line.remove("algo.minibatch_size=32")
    line += ["--trials", "8", "--seeds", "7", "--sampler", "cmaes", "--pruner", "halving"]
    code, output = run(tmp_path, *line, "--dir", "study")
    assert code == 0, output
    found = trials(tmp_path / "study")
    failed = [trial for trial in found if trial.state.name == "FAIL"]
    raised = [trial for trial in failed if "nothing is worth" in trial.user_attrs["error"]]
    refused = [trial for trial in failed if "minibatch_size" in trial.user_attrs["error"]]
    assert {trial.number for trial in failed} == {t.number for t in (*raised, *refused)}
    assert raised
    assert refused
    for trial in found:
        values = trial.params
        assert (trial in refused) == (values["algo.minibatch_size"] == "1000000")
        if trial not in refused:
            assert (trial in raised) == (values["+env.options.worth"] == "-1")
    for trial in raised:
        assert re.search(rf"^trial {trial.number}: failed: environment \d .*raised", output, re.M)
    for trial in refused:
        assert re.search(rf"^trial {trial.number}: .*minibatch_size", output, re.M)


def slow(*own: str) -> list[str]:
    """A study whose runs take some seconds."""
    line = words(WORTH, *own, *SEARCH_ONLY, "--dir", "study", "--pruner", "none")
    line[line.index("+env.options.pause=0")] = "+env.options.pause=0.004"
    return line


def rows(study: Path) -> int:
    return sum(len(metrics(path)) for path in runs(study).values())


def test_a_study_that_is_killed_goes_on_shared_by_two_processes(tmp_path):
    study = tmp_path / "study"
    line = slow("--trials", "5", "--seeds", "7", "checkpoint.every_seconds=0.1", "hardware.jobs=2")
    process = Process(line, tmp_path, ENVIRONMENT)
    wait_until(lambda: "COMPLETE" in (states(study) if study.exists() and rows(study) else []))
    wait_until(lambda: any(record(path)["status"] == "running" for path in runs(study).values()))
    done = {name: record(path) for name, path in runs(study).items()}
    process.send(signal.SIGKILL)
    process.wait()
    done = {name: said for name, said in done.items() if said["status"] == "finished"}
    assert done
    line[line.index("hardware.jobs=2")] = "hardware.jobs=1"  # is no other question
    processes = [Process(line, tmp_path, ENVIRONMENT) for _ in range(2)]
    codes = [each.wait(180) for each in processes]
    assert codes == [0, 0], [each.output() for each in processes]
    assert states(study) == ["COMPLETE"] * 5
    said = {name: record(path) for name, path in runs(study).items()}
    assert {name: said[name] for name in done} == done
    for name, one in said.items():
        assert one["status"] == "finished"
        assert len(one.get("earlier", [])) <= 1, name
    assert len(said) == 5  # a trial is one process's at a time


def test_ctrl_c_saves_the_runs_and_the_same_words_go_on(tmp_path):
    study = tmp_path / "study"
    line = slow("--trials", "2", "--seeds", "7", "checkpoint.every_seconds=.inf")
    process = Process(line, tmp_path, ENVIRONMENT)
    wait_until(lambda: study.exists() and len(runs(study)) == 2 and rows(study) > 4)
    process.send(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert f"To go on: rlrun {' '.join(line[:4])}" in process.output()
    assert states(study) == ["RUNNING", "RUNNING"]
    before = {name: record(path) for name, path in runs(study).items()}
    assert "interrupted" in {said["status"] for said in before.values()}
    code, output = run(tmp_path, *line)
    assert code == 0, output
    assert states(study) == ["COMPLETE", "COMPLETE"]
    for name, path in runs(study).items():
        assert len(record(path).get("earlier", [])) == (before[name]["status"] == "interrupted")


MISTAKES = {
    "no algorithm": (["algo=ppoo"], "algo=ppoo: no such algo; did you mean 'ppo'?"),
    "seed": (["seed=3"], "seed=…: --seeds has those that are searched on"),
    "swept seed": (["seed=3,4"], "seed=…: --seeds has those"),
    "run_dir": (["run_dir=x"], "run_dir=…: --dir names the study's directory"),
    "unknown": (
        ["algo.clipp=interval(0.1,0.2)"],
        "algo.clipp: no such setting to search; did you mean 'algo.clip'?",
    ),
    "group": (["model=mlp,mlp_256"], "model=…: one value; what is searched is a setting of algo, "),
    "task": (["env.id=choice(a,b)"], "env.id=…: one value"),
    "budget": (["total_steps=1_000,2_000"], "total_steps=…: one value"),
    "infinite": (["algo.clip=interval(0,inf)"], "the ends of a range are finite"),
    "tag": (["algo.clip=tag(lgo,interval(0.1,1))"], "there is one tag, log"),
    "shuffle": (["algo.clip=shuffle(0.1,0.2)"], "without shuffle"),
    "empty": (["algo.clip=interval(0.2,0.1)"], "algo.clip=interval(0.2,0.1): "),
    "no range": (["algo=value_iteration", "env=taxi"], "nothing to search: no tune/value_iter"),
    "sampler": (["--sampler", "tp"], "invalid choice: 'tp'"),
    "no seeds": (["--seeds", "none"], "expected at least one seed"),
    "seeds": (["--seeds", "1,x"], "expected a whole number from 0, got 'x'"),
    "twice": (["--seeds", "1,1"], "a seed is there twice: '1,1'"),
    "final": (["--seeds", "1,102"], "--final-seeds has seeds of --seeds: [102]"),
    "shared": (
        ["--seeds", "1,2", "--validate", "2,3"],
        "--validate has seeds that values are chosen on",
    ),
    "trials": (["--trials", "0"], "expected a positive whole number, got '0'"),
    "config": (["--config-dir", "nowhere"], "no directory 'nowhere'"),
    "parts": (["advantage=rloo"], "compares episodes from one start"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, message = MISTAKES[name]
    with pytest.raises(UserError, match=r"^[^\n]*$") as raised:
        commands.run("tune", ["algo=ppo", "env=cartpole", *own][2 * (name == "no range") :])
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_study_is_one_line(tmp_path):
    line = words(WORTH, "--trials", "1", "--seeds", "7", "--dir", "study", *SEARCH_ONLY)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{")
    code, output = run(tmp_path, *line)
    assert (code, output.count("\n")) == (2, 1)
    assert "study/study.json is no study that can be read" in output
    assert "'study' is a study: the words" in run(tmp_path, "resume", "study")[1]
    (tmp_path / "study" / "study.json").unlink()
    (tmp_path / "study" / "journal.log").write_text("not Optuna's\n")
    code, output = run(tmp_path, *line)
    assert (code, output.count("\n")) == (2, 1)
    assert "study/journal.log is no journal of a study" in output
    (tmp_path / "study" / "study.json").rename(tmp_path / "study" / "sweep.json")
    code, output = run(tmp_path, *line)
    assert (code, output.count("\n")) == (2, 1)
    assert "study is the directory of a sweep: a study needs another one" in output


def test_the_best_values_stand_beside_those_of_the_tuned_pair(tmp_path):
    task, study = "inverted_double_pendulum", tmp_path / "ppo_pendulum"  # as a pair of rlrun's own
    line = ["tune", *small(task, "total_steps=64", "algo.clip=interval(0.1,0.3)")]
    line.remove("algo.horizon=32")  # which the collector's is
    line += ["--trials", "1", "--seeds", "7", *SEARCH_ONLY, "--dir", "ppo_pendulum"]
    code, output = run(tmp_path, *line)
    assert code == 0, output
    found = as_words(rounded(trials(study)[0].params))
    words = shlex.split(re.search(r"Next:\n  rlrun (.*)\n", output)[1])
    assert words[:2] == ["--config-dir", "ppo_pendulum"]
    for own in ([], ["algo.horizon=64"]):
        there = compose_plain([*words[2:], *own, "seed=7"], [study])
        trial = compose_plain([*line[1:-10], *found, *own, "seed=7"], [])
        assert there == {**trial, "tuned_on": [*trial["tuned_on"], 7]}  # of the pair, and of both
        assert there["algo"]["normalization"]["observation"] is False  # the pair's


def compose_plain(words: list[str], own: list[Path]) -> dict:
    return hydra_bridge.compose([w for w in words if "interval" not in w], Path(), own).config


FOREIGN = {
    "setting": {"plugins": CategoricalDistribution(["[evil]"])},
    "choice": {
        "+env.options.worth": CategoricalDistribution(["${oc.env:HOME}", "1\nplugins: [x]"])
    },
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_journal_of_somebody_else_gives_no_words(name, tmp_path):
    line = words(WORTH, "--trials", "1", "--seeds", "7", "--dir", "study", *SEARCH_ONLY)
    (tmp_path / "study").mkdir()
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study" / "journal.log")))
    foreign = optuna.create_study(storage=storage, study_name="tune", direction="maximize")
    params = {key: kind.choices[0] for key, kind in FOREIGN[name].items()}
    foreign.add_trial(
        optuna.trial.create_trial(params=params, distributions=FOREIGN[name], value=1.0)
    )
    code, output = run(tmp_path, *line)
    assert (code, output) == (2, "rlrun: trial 0 of study is of another space\n")


def test_nothing_of_a_journal_is_unpickled(tmp_path, monkeypatch):
    sampler = make_sampler("cmaes", 1, 1)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.create_study(storage=storage, direction="maximize", sampler=sampler)
    space = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
    for _ in range(2):
        trial = optuna.trial.create_trial(
            params={"a": 0.5, "b": 0.5},
            distributions=space,
            value=1.0,
            system_attrs={"cma:optimizer:0": pickle.dumps(Bomb(tmp_path / "ran")).hex()},
        )
        study.add_trial(trial)
    for _ in range(12):  # CMA-ES goes on with its own
        drawn = study.ask(space)
        study.tell(drawn, -((drawn.params["a"] - 0.3) ** 2) - (drawn.params["b"] - 0.3) ** 2)
    assert not (tmp_path / "ran").exists()
    assert any("cma:optimizer:0" in trial.system_attrs for trial in study.trials[2:])


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))
