"""`rlrun compare`, from words to files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import made_run, seeds, write_run

PNG = b"\x89PNG"


def leave(runs, root="outputs"):
    """Leave the files of runs in directories of their own."""
    return [str(write_run(run, Path(root) / Path(run.source).name)) for run in runs]


@pytest.fixture
def outputs(empty_directory):
    """Two methods on two tasks under outputs/."""
    leave(
        [
            *(*seeds("ppo", [10, 20, 30]), *seeds("sac", [90, 91, 92])),
            *(*seeds("ppo", [1, 2, 3], "walker2d"), *seeds("sac", [2, 3, 4], "walker2d")),
        ]
    )
    return empty_directory / "outputs"


def one_line(answer):
    """Check that a command ended in one line on stderr, and return it."""
    code, out, err = answer
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    return err


def test_a_sweep_is_a_table(rlrun, outputs):
    code, out, err = rlrun("compare", "outputs")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["sac", "91", "±", "1", "3", "±", "1"] in lines
    row = "Hopper-v5 sac 3 91 ± 1 91 [90, 92] 91 45.5 3,800 0 of 3 – –"
    assert row.split() in lines
    assert "Normalised scores over 2 tasks" in out
    assert "Probability of improvement" in out
    assert "Bold: the whole interval" in out
    assert "…" not in out


def test_runs_patterns_and_archives(rlrun, outputs):
    whole = rlrun("compare", "outputs", "--csv")[1]
    assert len(whole.splitlines()) == 5
    assert rlrun("compare", "outputs/*", "--csv")[1] == whole
    assert rlrun("compare", "outputs", "outputs/ppo_hopper_s0", "--csv")[1] == whole  # each once
    few = rlrun("compare", "outputs/*_hopper_s[01]", "--csv")[1].splitlines()
    assert len(few) == 3
    Path("archive.json").write_text(rlrun("compare", "outputs", "--json")[1])
    outputs.rename("elsewhere")
    assert rlrun("compare", "archive.json", "--csv")[1] == whole
    assert rlrun("compare", "arch*.json", "--csv")[1] == whole
    alone = rlrun("compare", "elsewhere/ppo_hopper_s0", "--csv")[1].splitlines()
    assert len(alone) == 2


def test_what_the_shell_makes_of_a_pattern_may_have_other_files(rlrun, outputs):
    (outputs / "sweep.jsonl").write_text("{}\n")
    (outputs / "run.log").write_text("")
    whole = rlrun("compare", "outputs", "--csv")
    assert whole[0] == 0
    assert rlrun("compare", "outputs/*", "--csv") == whole
    assert rlrun("compare", *sorted(map(str, outputs.iterdir())), "--csv") == whole
    assert "no runs among" in one_line(rlrun("compare", "outputs/run.log"))


def test_markdown_latex_csv_and_json(rlrun, outputs):
    _, text, err = rlrun("compare", "outputs", "--markdown")
    assert err == ""
    assert "| sac | **91 ± 1** | 3 ± 1 |" in text
    _, text, err = rlrun("compare", "outputs", "--latex")
    assert text.count(r"\begin{tabular}") == 4
    assert r"\textbf{91 $\pm$ 1}" in text
    _, text, err = rlrun("compare", "outputs", "--csv")
    assert text.startswith("task,method,n,steps_min,")
    _, text, err = rlrun("compare", "outputs", "--json")
    content = json.loads(text)
    assert content["command"] == "rlrun compare outputs --json"
    assert len(content["runs"]) == 12
    assert [row["mean"] for row in content["figures"]] == [20.0, 91.0, 2.0, 3.0]
    assert content["figures"][0]["finals"] == [10.0, 20.0, 30.0]
    assert content["aggregates"]["tasks"] == ["Hopper-v5", "Walker2d-v5"]
    assert content["cautions"] == []
    assert "not allowed with argument" in one_line(rlrun("compare", "outputs", "--csv", "--json"))


def test_cautions_are_where_there_is_room_for_them(rlrun, outputs):
    leave(seeds("td3", [1, 2]))
    caution = "no interval under 3 seeds: td3 on Hopper-v5 (2)"
    for form in ([], ["--markdown"], ["--json"]):
        code, out, err = rlrun("compare", "outputs", *form)
        assert (code, err) == (0, "")
        assert caution in out
    for form in ("--csv", "--latex"):
        code, out, err = rlrun("compare", "outputs", form)
        assert caution not in out
        assert f"warning: {caution}\n" in err


def test_output_is_a_directory_of_files(rlrun, outputs):
    code, out, err = rlrun("compare", "outputs", "--output", "a/b", "--smooth", "2")
    assert code == 0
    assert "wrote a/b/report.html" in err
    names = {path.name for path in Path("a/b").iterdir()}
    pictures = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    assert names == {
        *pictures,
        "report.html",
        "archive.json",
        "table.md",
        "table.tex",
        "figures.csv",
    }
    assert all(Path("a/b", f"{name}.png").read_bytes().startswith(PNG) for name in PICTURES)
    page = Path("a/b/report.html").read_text()
    assert "rlrun compare outputs --output a/b --smooth 2" in page
    assert "smoothed over 2 evaluations" in page or "smoothed" in Path("a/b/curves.svg").read_text()
    again = rlrun("compare", "a/b/archive.json", "--output", "a/b")
    assert again[0] == 0
    assert again[1] == out


PICTURES = ("finals", "curves", "profile", "improvement")


def test_the_output_is_refused_where_it_cannot_be_written(rlrun, outputs):
    Path("file").write_text("")
    code, _, err = rlrun("compare", "outputs", "--csv", "--output", "file/x")
    assert code == 2
    assert err.startswith("rlrun: --output file/x cannot be written to: ")
    assert "--smooth is of pictures" in one_line(rlrun("compare", "outputs", "--smooth", "2"))


def test_options_are_those_of_the_comparison(rlrun, outputs):
    out = rlrun("compare", "outputs", "--by", "algo,env", "--csv")[1]
    assert "Hopper-v5,ppo env=hopper,3," in out
    out = rlrun("compare", "outputs", "--steps", "500", "--csv")[1]
    assert "Hopper-v5,sac,3,500,500,45.5," in out
    out = rlrun("compare", "outputs", "--threshold", "hopper=15,Walker2d-v5=2", "--csv")[1]
    assert "15.0,2,1000.0" in out
    Path("mine.yaml").write_text("scores: {hopper: {min: 0, max: 2}, walker2d: {min: 0, max: 2}}")
    out = rlrun("compare", "outputs", "--normalize", "mine.yaml")[1]
    assert re.search(r"sac +23\.500 \[", out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required"),
        ("nowhere", "no runs at 'nowhere'"),
        ("output", "no runs at 'output'; did you mean 'outputs'?"),
        ("empty", "no runs under 'empty'"),
        ("'outputs/*_nothing'", "no runs at 'outputs/*_nothing'"),
        ("outputs/ppo_hopper_s0/run.json", "is neither a run's directory nor an archive"),
        ("outputs --by advantag", "--by advantag: no such choice or setting"),
        ("outputs --by algo.gama", "did you mean 'algo.gamma'?"),
        ("outputs --by algo,,env", "expected names with commas between them"),
        ("outputs --steps -5", "expected a positive whole number, got '-5'"),
        ("outputs --steps 0", "expected a positive whole number, got '0'"),
        ("outputs --steps 5000", "is not as long as 5,000 steps"),
        (
            "outputs --threshold hoper=3",
            "--threshold hoper: no run is of it; did you mean 'hopper'?",
        ),
        ("outputs --threshold hopper=x", "expected a number, got 'x' in 'hopper=x'"),
        ("outputs --threshold nan", "expected a number, got 'nan'"),
        ("outputs --normalize no.yaml", "no.yaml cannot be read"),
        ("outputs --smooth 0", "expected a positive whole number, got '0'"),
        ("outputs --outptu x", "unrecognized arguments: --outptu x"),
        ("wandb:a", "expected wandb:entity/project"),
        ("outputs --to wand", "expected wandb or wandb:ENTITY/PROJECT, got 'wand'"),
        ("outputs --to wandb:/b", "expected wandb or wandb:ENTITY/PROJECT, got 'wandb:/b'"),
        ("outputs --to wandb", "--to wandb:PROJECT has to say which; projects of these runs: none"),
        ("apart", "nothing to compare: no two methods have a task in common"),
        ("early", "has no evaluation in the last tenth of its 1,000 steps"),
        ("stopped", "none of 1 runs can be compared: stopped/ppo_hopper_s0 is interrupted"),
        ("broken", "broken/ppo_hopper_s0 is not a run that can be read: metrics.jsonl, line 2: "),
    ],
)
def test_a_mistake_is_one_line(rlrun, outputs, words, message):
    Path("empty").mkdir()
    leave([made_run(), made_run("sac", "walker2d")], "apart")
    leave([made_run(status="interrupted")], "stopped")
    curve = made_run().evaluations
    leave([made_run(evaluations=curve.first(2))], "early")
    leave([made_run()], "broken")
    path = Path("broken/ppo_hopper_s0/metrics.jsonl")
    path.write_text(path.read_text().replace("}\n", "\n", 2).replace("\n", "}\n", 1))
    assert message in one_line(rlrun("compare", *words.replace("'", "").split()))


def test_a_torn_last_line_is_fine(rlrun, outputs):
    path = outputs / "ppo_hopper_s0" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 20')
    assert rlrun("compare", "outputs")[0] == 0


def test_a_terminal_obeys_nothing_that_a_run_says(rlrun, empty_directory):
    hostile = "a\x1b[2Jb"
    leave([made_run(hostile, seed=n, settings={hostile: hostile}) for n in range(2)])
    leave([made_run("ppo", seed=9, status="failed")])
    for form in ([], ["--markdown"], ["--latex"]):
        code, out, err = rlrun("compare", "outputs", *form)
        assert code == 0
        assert "\x1b" not in out + err
        assert r"a\x1b[2Jb" in out or r"textbackslash" in out


def test_it_needs_no_torch(outputs):
    code = (
        "import sys; sys.argv = ['rlrun', *sys.argv[1:]]\n"
        "from rlrun.cli.main import dispatch\n"
        "dispatch(sys.argv[1:])\n"
        "assert not {'torch', 'wandb', 'hydra', 'omegaconf'} & set(sys.modules), 'imported'"
    )
    for words in (["compare", "outputs", "--output", "x"], ["list"], ["list", "--group"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_it_stands_in_the_help(rlrun):
    assert "rlrun compare RUN" in rlrun("--help")[1]
    text = rlrun("compare", "--help")[1]
    assert re.search(r"--steps N\s+compare at so many environment steps", text)


def test_nobody_reads_to_the_end(outputs):
    process = subprocess.Popen(
        [sys.executable, "-m", "rlrun", "compare", "outputs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ},
    )
    process.stdout.close()
    assert process.wait(60) in (0, 1)
    assert b"Traceback" not in process.stderr.read()
