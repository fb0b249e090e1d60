"""The benchmark's copies of a run are runs of as many methods and tasks as it says."""

from made_runs import made_run, write_run
from many_runs import CLIPS, EVALUATIONS, TASKS, TOTAL_STEPS, make_runs, measure

from rlrun.analysis.grouping import group
from rlrun.analysis.sources import read_runs


def test_the_copies_are_runs_that_can_be_compared(tmp_path):
    run = write_run(made_run(settings={"algo.clip": 0.2}), tmp_path / "run")
    size = make_runs(run, tmp_path / "runs", seeds=2)
    assert size == sum(path.stat().st_size for path in tmp_path.glob("runs/*/metrics.jsonl"))
    runs = read_runs([str(tmp_path / "runs")])
    grouping = group(runs)
    assert grouping.tasks == list(TASKS)
    assert grouping.methods == [f"ppo clip={clip:g}" for clip in CLIPS]
    assert all(len(members) == 2 for members in grouping.runs.values())
    assert {len(run.evaluations) for run in runs} == {EVALUATIONS + 1}
    assert not any(run.lost_its_end for run in runs)
    assert all(run.evaluations.steps[-1] == TOTAL_STEPS for run in runs)


def test_a_process_is_measured(tmp_path):
    (tmp_path / "here").mkdir()
    row = measure(["--version"], tmp_path / "here")
    assert 0 < row["user_s"] < row["wall_s"] * 2
    assert 5 < row["memory_mib"] < 5000
