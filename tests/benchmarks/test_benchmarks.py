import json
import math
import os
import sys
from dataclasses import replace

import gae_lambda
import gradient_variance
import numpy as np
import pytest
import yaml
from breakdown import UPDATES, Stopwatches, measure
from jobs import run_all, words_for
from made_runs import made_run
from measure import (
    MODULES,
    peak_memory,
    recent_return,
    run_process,
    settings,
    split_time,
)
from peers import OFF_POLICY
from published import RESULTS, Level, best_mean, budgets, environments, level, published
from random_returns import random_returns
from returns import make_jobs
from returns_report import by_env, common_curve, retable, verdict, write_report
from returns_verify import Verified, verify
from running import experiment, small
from throughput import compare, find_peers, make_table, summarize

from rlrun.analysis.aggregates import published_file, read_scales
from rlrun.analysis.sources import archive_text, read_archive
from rlrun.analysis.stored_runs import Evaluations, read_run
from rlrun.config.files import conf_directory
from rlrun.errors import UserError
from rlrun.hardware.cpu import processor
from rlrun.runs import api


def write_run(
    directory, *, seed, evaluations, status="finished", step=100, overrides=(), **settings
):
    """Write what a benchmark reads of a CartPole run of 100 steps."""
    directory.mkdir(parents=True)
    record = {
        "status": status,
        "algo": "ppo",
        "env": "cartpole",
        "env_id": "CartPole-v1",
        "seed": seed,
        "total_steps": 100,
        "step": step,
        "time_s": 4.0,
        "started": "2026-11-21T00:00:00+00:00",
        "git_commit": "abc",
        "versions": {},
    }
    (directory / "run.json").write_text(json.dumps(record))
    rows = [{"step": 10, "train/return": 1.0}]
    rows += [{"step": step, "eval/return": value} for step, value in evaluations]
    lines = (json.dumps(row) + "\n" for row in rows)
    (directory / "metrics.jsonl").write_text("".join(lines))
    config = {"seed": seed, "run_dir": str(directory), **settings}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))


def evaluated(steps, returns):
    """Evaluations of which nobody wrote down more."""
    nothing = np.full(len(steps), math.nan)
    return Evaluations(np.array(steps), nothing, np.array(returns), nothing)


def test_runs_that_were_evaluated_at_other_steps_have_a_common_curve():
    curves = [
        ([100.0, 210.0, 310.0], [10.0, 21.0, 31.0]),
        ([90.0, 190.0, 300.0], [0.0, 100.0, 210.0]),
    ]
    steps, returns = common_curve([made_run(evaluations=evaluated(*curve)) for curve in curves])
    assert steps.tolist() == [100, 210, 310]
    assert returns.tolist() == [[10.0, 21.0, 31.0], pytest.approx([10.0, 120.0, 210.0])]


def test_report_summarizes_the_finished_runs(tmp_path):
    root = tmp_path / "ppo"
    for seed, last in enumerate([500.0, 500.0, 497.0]):
        curve = [(50, 300.0 + seed), (95, last)]
        write_run(root / f"cartpole_s{seed}", seed=seed, evaluations=curve, gamma=0.99)
    write_run(root / "cartpole_s3", seed=3, evaluations=[(50, 0.0)], status="interrupted", step=50)

    table = write_report(root, tmp_path / "results" / "returns_ppo")

    report = json.loads((tmp_path / "results" / "returns_ppo.json").read_text())
    row = report["environments"]["cartpole"]
    assert row["seeds"] == [0, 1, 2]
    assert row["returns"] == [500.0, 500.0, 497.0]
    assert row["mean"] == pytest.approx(499.0)
    assert row["std"] == pytest.approx(math.sqrt(3.0))  # of the sample
    assert row["iqm"] == pytest.approx(499.0)  # a quarter of three seeds is none
    low, high = row["iqm_interval"]
    assert 497.0 <= low < 499.0 < high <= 500.0
    assert row["max_of_mean"] == pytest.approx(499.0)
    low, high = row["mean_interval"]
    assert 497.0 <= low < 499.0 < high <= 500.0
    assert row["target_met"] is False
    assert row["same_settings"] is True
    run = read_archive(tmp_path / "results" / "returns_ppo.json")[1]
    assert (run.evaluations.steps.tolist(), run.evaluations.returns.tolist()) == (
        [50.0, 95.0],
        [301.0, 500.0],
    )
    assert run.settings["gamma"] == 0.99
    assert "| cartpole | 100 | 3 | 499 ± 1.732 [" in table
    # Nothing is published for runs of 100 steps.
    assert table.rstrip().endswith("| 500: missed |  |  | abc |")
    assert (tmp_path / "results" / "returns_ppo.md").read_text().strip() == table
    assert (tmp_path / "results" / "returns_ppo.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_is_replaced_by_one_of_as_many_seeds(tmp_path):
    earlier, later, report = tmp_path / "a" / "ppo", tmp_path / "b" / "ppo", tmp_path / "returns"
    for seed in range(2):
        write_run(earlier / f"cartpole_s{seed}", seed=seed, evaluations=[(95, 400.0)])
    table = write_report(earlier, report)
    write_run(later / "cartpole_s5", seed=5, evaluations=[(95, 500.0)])
    assert write_report(later, report) == table
    write_run(later / "cartpole_s6", seed=6, evaluations=[(95, 500.0)])
    assert "| cartpole | 100 | 2 | 500 " in write_report(later, report)


def test_two_seeds_have_no_interval_and_mixed_settings_are_told(tmp_path):
    root = tmp_path / "mixed"
    write_run(root / "cartpole_s0", seed=0, evaluations=[(100, 500.0)], gamma=0.99)
    write_run(root / "cartpole_s1", seed=1, evaluations=[(100, 500.0)], gamma=0.9)
    table = write_report(root, tmp_path / "returns_mixed")
    row = json.loads((tmp_path / "returns_mixed.json").read_text())["environments"]["cartpole"]
    assert row["iqm_interval"] is None
    assert row["mean_interval"] is None
    assert row["target_met"] is True
    assert row["same_settings"] is False
    assert "different settings" in table


def test_every_environment_of_the_benchmark_exists():
    names = {path.stem for path in (conf_directory() / "env").glob("*.yaml")}
    assert set(budgets()) <= names
    assert environments("ppo", "ppo") == list(budgets())
    for name, rows in published()["methods"].items():
        assert set(rows) <= set(budgets()), name


def write_results(path, steps, returns):
    """Write what others read of a returns benchmark on Hopper, evaluated each tenth."""
    runs = []
    for seed, value in enumerate(returns):
        at = [steps * k / 10 + 8 for k in range(1, 11)]
        curve = evaluated(at, [value * k / 10 for k in range(1, 11)])
        runs.append(made_run(seed=seed, total_steps=steps, evaluations=curve))
    path.write_text(archive_text(runs))


def test_a_method_is_compared_with_another_at_equal_steps(tmp_path):
    def known(name, steps):
        return level(name, name, "hopper", total_steps=steps, results=tmp_path)

    assert known("grpo", 1000) == Level(None, "", None)  # there is nothing to compare with yet
    write_results(tmp_path / "returns_ppo.json", 1000, [90.0, 110.0])
    whole, half = known("grpo", 1000), known("grpo", 500)
    assert whole.target is None
    assert whole.published == "rlrun's PPO 95 ± 13.44 (n = 2)"
    assert half.published == "rlrun's PPO 50 ± 7.071 (n = 2)"
    assert (whole.best, half.best) == (pytest.approx(95), pytest.approx(50))
    assert known("ppo_kl", 1000).target == pytest.approx(0.9 * 95)  # within 10 %
    assert known("trpo", 1000).target == 3000
    assert level("mine", "ppo", "hopper", total_steps=1, results=tmp_path).target == 2750
    assert level("mine", "unknown", "hopper", total_steps=1, results=tmp_path) is None


def test_the_best_published_figure_took_no_more_steps_than_ours(tmp_path):
    def known(name, env, steps):
        return level(name, name, env, total_steps=steps, results=tmp_path)

    assert known("ppo", "hopper", 10**6).best == 2757
    assert known("ppo", "hopper", 10**5).best is None
    assert known("ppo", "pendulum", 10**5).best == -172
    with_critic = known("reinforce_value", "hopper", 10**6)
    assert with_critic.best == 391  # 815 took 3 M steps
    assert with_critic.published.endswith("; SU v3 815 ± 136 (3 M, VPG with critic)")
    assert known("trpo", "halfcheetah", 10**6).published.endswith("; TS v3 4471 ± 805 (peak)")


@pytest.mark.parametrize(
    ("mean", "interval", "best", "says"),
    [
        (10.0, (9.0, 11.0), 8.0, "above"),
        (10.0, (9.0, 11.0), 9.0, "above"),
        (10.0, (9.0, 11.0), 10.5, "within"),
        (10.0, (9.0, 11.0), 9.5, "within"),
        (10.0, (9.0, 11.0), 12.5, "20 % short"),
        (-100.0, (-110.0, -90.0), -80.0, "25 % short"),
        (10.0, None, 10.0, "above"),
        (9.0, None, 10.0, "10 % short"),
    ],
)
def test_what_is_reached_is_said_of_the_interval(mean, interval, best, says):
    assert verdict(mean, interval, best) == says


def test_a_table_is_written_anew_from_its_json(tmp_path):
    root = tmp_path / "ppo"
    for seed in range(3):
        write_run(root / f"cartpole_s{seed}", seed=seed, evaluations=[(95, 400.0 + seed)])
    table = write_report(root, tmp_path / "returns_ppo")
    path = tmp_path / "returns_ppo.json"
    before = path.read_text()
    assert retable(path) == table
    assert path.read_text() == before


SHORT_RUN = (
    *("algo=ppo", "env=cartpole", "seed=0", "algo.num_envs=4", "algo.horizon=16"),
    *("total_steps=100_000", "evaluation.every_steps=64", "evaluation.episodes=1"),
    *("hardware.compile=off", "hardware.threads=1", "logger=none"),
)


def test_a_row_is_trained_again_up_to_its_first_evaluations(tmp_path):
    first = small_run_of_table(tmp_path / "run")
    choices = {**first.choices, "env": "hopper"}
    words = [*SHORT_RUN, "algo.no_such=1", "run_dir=x"]
    wrong = replace(first, choices=choices, overrides=words)
    path = tmp_path / "returns_ppo.json"
    path.write_text(archive_text([first, wrong]))

    same, failed = verify([path], envs=None, evaluations=2, parallel=2)

    assert same.same, same
    assert [step for step, _ in same.now] == [64, 128]
    assert str(same).startswith("same     ppo cartpole, seed 0: ")
    assert not failed.same
    assert "no_such" in str(failed)
    assert not list(verify([path], envs=["walker2d"], evaluations=1, parallel=1))


@pytest.mark.parametrize("now", [(), ((64, 20.0),), ((64, 20.0), (128, 30.001))])
def test_returns_that_are_not_those_of_the_table_are_told(now):
    then = ((64, 20.0), (128, 30.0))
    for cpu, remark in ((processor(), False), ("Another", True), (None, True)):
        answer = Verified("ppo", "cartpole", 0, then, now, cpu)
        assert not answer.same
        said = str(answer)
        assert said.startswith("DIFFERS  ppo cartpole, seed 0: 20 at step 64, 30 at step 128 in")
        assert ("perhaps by the processor" in said) == remark


def small_run_of_table(directory):
    """What a table has of a short run, which was stopped after its third evaluation."""
    words = [*SHORT_RUN, "total_steps=192", f"run_dir={directory}"]
    # The learning rate falls with the share of the steps: it is not to fall here.
    api.train(experiment([*words, "algo.optimizer.anneal_learning_rate=false"]))
    overrides = [*SHORT_RUN, "algo.optimizer.anneal_learning_rate=false", f"run_dir={directory}"]
    return replace(read_run(directory), overrides=overrides)


def test_the_committed_results_are_archives_of_the_methods_that_are_published():
    for name in published()["methods"]:
        runs = read_archive(RESULTS / f"returns_{name}.json")
        row = json.loads((RESULTS / f"returns_{name}.json").read_text())["environments"]
        for env, of_env in by_env(runs).items():
            finals = [run.final_return for run in of_env]
            assert row[env]["returns"] == pytest.approx(finals, rel=1e-12)


def test_scales_of_normalised_scores_end_at_the_best_published_mean():
    scales = read_scales(published_file())
    ids = {env: made_env_id(env) for env in budgets()}
    assert list(scales) == list(ids.values())
    for env, env_id in ids.items():
        assert scales[env_id].max == best_mean(env)
        assert scales[env_id].min < scales[env_id].max


def made_env_id(env):
    return yaml.safe_load((conf_directory() / "env" / f"{env}.yaml").read_text())["id"]


def test_acting_at_random_returns_what_it_does():
    returns = random_returns("CartPole-v1", episodes=20)
    assert returns.tolist() == random_returns("CartPole-v1", episodes=20).tolist()
    assert 15 < returns.mean() < 35


def test_jobs_are_ordered_by_environment_and_have_its_budget(tmp_path):
    jobs = make_jobs(
        tmp_path,
        algo="ppo",
        envs=["hopper", "cartpole"],
        seeds=[0, 1],
        total_steps=None,
        overrides=["algo.gamma=0.9"],
    )
    assert [job.name for job in jobs] == ["hopper_s0", "hopper_s1", "cartpole_s0", "cartpole_s1"]
    assert f"total_steps={budgets()['cartpole']}" in jobs[2].overrides
    assert jobs[2].overrides[-1] == "algo.gamma=0.9"

    # A method that is published with fewer steps has as many.
    (job,) = make_jobs(
        tmp_path, algo="dqn", envs=["acrobot"], seeds=[0], total_steps=None, overrides=[]
    )
    assert "total_steps=100000" in job.overrides


@pytest.fixture
def job(tmp_path):
    jobs = make_jobs(
        tmp_path, algo="ppo", envs=["cartpole"], seeds=[0], total_steps=100, overrides=[]
    )
    return jobs[0]


def test_a_job_is_started_resumed_or_skipped(job):
    assert words_for(job) == list(job.overrides)

    job.directory.mkdir()
    (job.directory / "config.yaml").touch()  # killed before its first step
    assert words_for(job) == list(job.overrides)
    assert not job.directory.exists()

    write_run(
        job.directory,
        seed=0,
        evaluations=[],
        status="running",
        step=50,
        overrides=job.overrides,
    )
    assert words_for(job) == ["resume", str(job.directory)]

    record = job.directory / "run.json"
    finished = json.loads(record.read_text()) | {"status": "finished", "step": 128}
    record.write_text(json.dumps(finished))
    assert words_for(job) is None


def test_a_run_with_other_settings_is_not_taken_for_the_job(job):
    write_run(job.directory, seed=0, evaluations=[], overrides=["algo=ppo", "algo.gamma=0.5"])
    with pytest.raises(UserError, match=r"algo\.gamma=0\.5: choose another --name"):
        words_for(job)


def test_a_failing_job_does_not_stop_the_others(tmp_path):
    jobs = make_jobs(
        tmp_path,
        algo="ppo",
        envs=["nonsense", "cartpole"],
        seeds=[0],
        total_steps=64,
        overrides=["algo.num_envs=4", "algo.horizon=16", "evaluation.episodes=1"],
    )
    report = tmp_path / "returns_test"
    failures = run_all(jobs, parallel=2, finished=lambda job: write_report(tmp_path, report))
    assert len(failures) == 1
    assert failures[0].startswith("nonsense_s0: exit code 2: rlrun: env=nonsense")
    assert list(json.loads(report.with_suffix(".json").read_text())["environments"]) == ["cartpole"]


# Three iterations of 100 steps; an evaluation inside the window, and one after it.
ROWS = [
    {"step": 100, "time_s": 9.0, "time/collect_s": 5.0, "time/update_s": 4.0},
    {"step": 200, "time_s": 10.0, "time/collect_s": 0.4, "time/update_s": 0.5},
    {"step": 200, "time_s": 10.3, "eval/return": 1.0, "time/evaluate_s": 0.3},
    {"step": 300, "time_s": 11.6, "time/collect_s": 0.6, "time/update_s": 0.5},
    {"step": 300, "time_s": 99.0, "eval/return": 1.0, "time/evaluate_s": 80.0},
]


def test_time_is_split_from_the_first_iterations_end_to_the_lasts():
    split = split_time(ROWS)
    assert split.pop("collect") == pytest.approx(1.0 / 200 * 1e6)
    assert split.pop("update") == pytest.approx(1.0 / 200 * 1e6)
    assert split.pop("evaluate") == pytest.approx(0.3 / 200 * 1e6)
    (rest,) = split.values()
    assert rest == pytest.approx(0.3 / 200 * 1e6)


def test_recent_return_is_that_of_the_last_episodes():
    rows = [
        {"train/return": 1000.0, "train/episodes": 50},
        {"train/return": 10.0, "train/episodes": 1},
        {"train/return": 20.0, "train/episodes": 3},
        {"eval/return": 0.0},
    ]
    assert recent_return(rows, episodes=4) == pytest.approx((10.0 + 3 * 20.0) / 4)


def test_ratios_are_taken_within_a_round():
    speeds = {"rlrun": iter([1000.0, 500.0, 900.0]), "peer": iter([100.0, 100.0, 100.0])}
    order = []

    def contender(name):
        def measure():
            order.append(name)
            measured = {"steps_per_s": next(speeds[name]), "return": 1.0, "peak_mib": 100.0}
            return {**measured, "compile_s": 30.0 / len(order)} if name == "rlrun" else measured

        return measure

    rounds = compare({name: contender(name) for name in speeds}, rounds=3)
    assert order == ["rlrun", "peer", "peer", "rlrun", "rlrun", "peer"]
    summary = summarize(rounds)
    ratio = summary["peer"]["rlrun_is_times"]
    assert ratio == {"median": 9.0, "lowest": 5.0, "highest": 10.0}
    # The first round compiles, the others find it in the cache: 30 s; 30/4 and 30/5.
    assert summary["rlrun"]["compile_s"] == {"first": 30.0, "later": 6.75}
    assert summary["peer"]["compile_s"] is None
    table = make_table(summary, len(rounds))
    assert "| peer | 100 (100 to 100) | 9.0 (5.0 to 10.0) |  | 1 | 100 |" in table
    assert "(1.0 to 1.0) | 30, then 7 | 1 | 100 |" in table
    assert table.endswith("Medians of 3 rounds; ratios within a round.")


def test_peers_that_are_not_there_are_left_out(tmp_path, capsys):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$2" in *sbx*) exit 1;; esac\n')
    python.chmod(0o755)
    assert find_peers(str(python), MODULES["ppo"]) == ["sb3"]
    assert "sbx: left out" in capsys.readouterr().err


@pytest.mark.parametrize("algo", MODULES)
def test_rlrun_accepts_the_settings_of_its_peers(algo):
    num_envs = 1 if algo in OFF_POLICY else 16
    assert experiment([*settings(algo), "env=hopper"]).algo.num_envs == num_envs


def test_a_process_is_watched_to_its_end():
    code = "import time; x = bytearray(200 << 20); time.sleep(0.5); print('done')"
    finished = run_process([sys.executable, "-c", code])
    assert finished.output == "done\n"
    assert 200 < finished.peak_mib < 300
    assert peak_memory(os.getpid()) > 10
    with pytest.raises(RuntimeError, match="no such luck"):
        run_process([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_a_stopwatch_leaves_out_the_watched_calls_inside(monkeypatch):
    now = 0.0

    class Parts:
        def inner(self):
            nonlocal now
            now += 2.0

        def outer(self):
            nonlocal now
            now += 1.0
            self.inner()
            self.inner()

    monkeypatch.setattr("breakdown.time.perf_counter", lambda: now)
    parts, watches = Parts(), Stopwatches()
    watches.watch(parts, "inner", "inner")
    watches.watch(parts, "outer", "outer")
    parts.outer()
    watches.reset()
    parts.outer()
    assert watches.seconds == {"inner": 4.0, "outer": 1.0}


@pytest.mark.parametrize(("algo", "env"), [("ppo", "hopper"), ("grpo", "cartpole")])
def test_a_run_is_taken_apart(tmp_path, algo, env):
    directory = tmp_path / "run"
    words = small(env, "total_steps=128", f"run_dir={directory}", algo=algo)
    api.train(experiment(words))
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    parts = measure(directory, iterations=3)
    assert all(us > 0 for us in parts["us_per_step"].values())
    physics = {"hopper": "physics", "cartpole": "Gymnasium's environments"}[env]
    assert {physics, "policy", "advantages", UPDATES} <= parts["us_per_step"].keys()
    if algo == "ppo":
        # 2 epochs of minibatches of 32 rows: a step is in 1/16 of a minibatch update.
        us_per_step = parts["us_per_step"][UPDATES]
        assert parts["us_per_minibatch"] == pytest.approx(16 * us_per_step)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_moments_of_gae_are_those_that_the_algebra_says():
    generator = np.random.default_rng(1)
    process = gae_lambda.make_process(generator)
    # The advantages of a policy have mean 0 in every state.
    np.testing.assert_allclose((process.policy * process.advantage).sum(1), 0, atol=1e-9)
    critic = process.value + generator.normal(size=gae_lambda.STATES)
    steps = gae_lambda.FORGOTTEN + 300
    rollout, states = gae_lambda.sample_rollout(process, generator, steps=steps, columns=400)
    for lam in (0.0, 0.7):
        exact = gae_lambda.exact_moments(process, critic, lam)
        measured = gae_lambda.measured_moments(process, rollout, states, critic, lam)
        np.testing.assert_allclose(measured, exact, rtol=0.05)
    # With λ = 1 a wrong critic is a baseline, and a right one makes no λ biased.
    assert gae_lambda.exact_moments(process, critic, 1.0).action_bias == pytest.approx(0, abs=1e-9)
    assert gae_lambda.exact_moments(process, process.value, 0.5).bias == pytest.approx(0, abs=1e-9)


def test_noise_of_a_gradient_does_not_depend_on_its_scale():
    generator = np.random.default_rng(0)
    gradient = 3.0 + generator.normal(size=(200, 5))  # ‖E g‖² = 45, tr Cov = 5
    result = gradient_variance.statistics(gradient, gradient)
    assert result["trace"] == pytest.approx(gradient.var(axis=0, ddof=1).sum())
    assert result["along_reference"] == pytest.approx(math.sqrt(45), rel=0.05)
    low, high = result["noise_interval"]
    assert low < 5 / 45 < high
    assert gradient_variance.statistics(7 * gradient, gradient)["noise"] == pytest.approx(
        result["noise"]
    )


def test_every_estimator_of_the_study_exists():
    files = {path.stem for path in (conf_directory() / "advantage").glob("*.yaml")}
    assert {name for _, name, _ in gradient_variance.ESTIMATORS.values()} <= files
