import pytest
from running import experiment, record, small

from rlrun.hardware.spec import Hardware
from rlrun.runs import api

WHOLE_EPISODES = ["env.group_size=1", "algo.horizon=null"]


@pytest.mark.parametrize(
    ("algo", "words", "compiles"),
    [
        ("ppo", [], True),
        ("a2c", [], True),
        ("trpo", [], True),
        ("a2c", WHOLE_EPISODES, False),
        ("trpo", WHOLE_EPISODES, False),
        ("actor_critic_q", WHOLE_EPISODES, False),
        ("reinforce", [], False),
        ("grpo", [], False),
    ],
)
def test_compiling_is_announced_where_something_is_compiled(
    monkeypatch, tmp_path, capfd, algo, words, compiles
):
    compiled = []
    # What it does to a function is tested elsewhere, and takes a minute.
    monkeypatch.setattr(Hardware, "compiled", lambda self, f: compiled.append(f) or f)
    words = ["hardware.compile=on", "total_steps=16", f"run_dir={tmp_path}/run", *words]
    api.train(experiment(small("cartpole", *words, algo=algo)))
    assert bool(compiled) is compiles
    assert ("compiling the update" in capfd.readouterr().err) is compiles
    assert ("compile_s" in record(tmp_path / "run")) is compiles
