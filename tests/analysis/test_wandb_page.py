"""A comparison at W&B, read back from the offline file that W&B writes."""

import json
import os
from dataclasses import replace

import pytest
import wandb
import wandb_file
from made_runs import seeds

from rlrun.analysis.reports.wandb_page import project_of, publish
from rlrun.analysis.results import examine, write_files
from rlrun.errors import UserError


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path_factory):
    """No key to be found, and none of the settings of whoever runs the tests."""
    home = str(tmp_path_factory.mktemp("home"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("NETRC", f"{home}/netrc")
    wandb.teardown()
    yield
    wandb.teardown()


def test_a_comparison_is_a_table_and_a_page_at_wandb(tmp_path, capsys):
    result = examine([*seeds("ppo", [1, 2, 3]), *seeds("sac", [90, 91])], command="rlrun compare x")
    page = write_files(result, tmp_path, smooth=1)
    publish(result, page, entity="team", project="project", directory=tmp_path)
    wandb.teardown()

    (file,) = wandb_file.run_files(tmp_path)
    assert (file.run.entity, file.run.project, file.run.job_type) == ("team", "project", "compare")
    assert file.run.display_name == "compare ppo, sac"
    assert file.config["command"] == "rlrun compare x"
    assert file.config["cautions"] == result.cautions != []
    logged = {name: value for row in file.rows for name, value in row.items()}
    kinds = {name: logged[f"{name}/_type"] for name in ("comparison", "report")}
    assert kinds == {"comparison": "table-file", "report": "html-file"}
    (directory,) = tmp_path.glob("wandb/offline-run-*/files")
    table = json.loads((directory / logged["comparison/path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["method"], row["mean"]) for row in rows] == [("ppo", 2.0), ("sac", 90.5)]
    assert (directory / logged["report/path"]).read_text() == page
    assert ("report", "comparison") in [(each.type, each.name) for each in file.artifacts]
    assert file.exit_codes == [0]
    assert f"wandb sync {tmp_path}" in capsys.readouterr().err


def test_what_wandb_refuses_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    result = examine(seeds("ppo", [1, 2, 3]), command="")
    with pytest.raises(UserError, match=r"^--to wandb: ") as caught:
        publish(result, "", entity=None, project="project", directory=tmp_path)
    assert "\n" not in str(caught.value)


def in_project(run, project, entity=None):
    settings = {"logger.wandb.project": project, "logger.wandb.entity": entity}
    return replace(run, settings={**run.settings, **settings})


def test_the_project_is_that_of_the_runs():
    runs = seeds("ppo", [1, 2])
    logged = in_project(runs[0], "walks", "team")
    assert project_of([logged, runs[1]]) == ("team", "walks")
    with pytest.raises(UserError, match="projects of these runs: none"):
        project_of(runs)
    with pytest.raises(UserError, match="projects of these runs: hops, walks"):
        project_of([logged, in_project(runs[1], "hops")])
