"""An algorithm of the user's own, as the README shows it, from another directory."""

import ast
import re
from pathlib import Path

from running import PLAIN, Process, metrics, record

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_readmes_algorithm_trains_resumes_and_is_short(tmp_path):
    (_, code), (values,) = blocks("python"), blocks("yaml")
    tree = ast.unparse(ast.parse(code)).splitlines()
    assert len([line for line in tree if line.strip()]) <= 40
    (tmp_path / "awr.py").write_text(code)
    (tmp_path / "my_conf" / "algo").mkdir(parents=True)
    (tmp_path / "my_conf" / "algo" / "awr.yaml").write_text(values)
    (command,) = re.findall(r"    rlrun (--config-dir my_conf .*)", README)
    run = tmp_path / "run"
    short = ("env=cartpole", "total_steps=4_096", f"run_dir={run}", *PLAIN)
    process = Process([*command.split(), *short], tmp_path)
    assert process.wait() == 0, process.output()
    assert record(run)["algo"] == "awr"
    losses = [row["loss/policy"] for row in metrics(run) if "loss/policy" in row]
    assert len(losses) == 2
    words = ["resume", str(run), "total_steps=6_144", "--plugin", "awr"]
    process = Process(words, tmp_path)
    assert process.wait() == 0, process.output()
    assert record(run)["step"] == 6_144
