"""Another engine writes: what it gives its tokens otherwise is measured, and weighed."""

import own_engine
import pytest
import torch
from languages import policy_of, task_of
from running import PLAIN, experiment, metrics
from test_generation import AS_IT_IS, collect

from rlrun.collectors.engines import own
from rlrun.errors import UserError
from rlrun.runs import api

COUNT = 4096


def test_weighed_samples_of_another_engine_are_those_of_the_policy():
    """E over μ_engine of (μ/μ_engine) f is E over μ of f: here the probabilities of the tokens."""
    task = task_of("mod_add", modulus=3, held_out=0.0)
    policy = policy_of(task)
    transitions, _ = collect(task, policy, engine=own_engine.warm, bound=None, count=COUNT)
    engine_logp = transitions.logp
    weighed, _ = collect(task, policy, engine=own_engine.warm, bound=1e6, count=COUNT)
    assert torch.equal(weighed.action, transitions.action)
    log_probs = AS_IT_IS.log_probs(policy(weighed.obs).logits)
    expected = log_probs.exp().mean((0, 1))
    own_logp = log_probs.gather(-1, weighed.action.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(weighed.logp, own_logp, atol=1e-5)
    assert torch.allclose(weighed.importance, (own_logp - engine_logp).exp(), atol=1e-4)
    share = torch.zeros(len(expected)).index_add_(
        0, weighed.action.flatten(), weighed.importance.flatten() / COUNT
    )
    plain = torch.bincount(weighed.action.flatten(), minlength=len(expected)) / COUNT
    assert (share - expected).abs().max() < 0.02
    assert (plain - expected).abs().max() > 0.04


def test_what_is_measured():
    task = task_of("add")
    policy = policy_of(task)
    weighed, _ = collect(task, policy, engine=own_engine.warm, bound=1.1, group_size=4)
    mask = weighed.mask
    assert weighed.importance[mask].max() <= 1.1
    assert (weighed.importance[~mask] == 1).all()
    assert 0 < weighed.metrics["engine/truncated_weights"] < 1
    assert weighed.metrics["engine/logp_difference"] > 0.01
    assert weighed.metrics["engine/kl"] > 0
    alone, _ = collect(task, policy, engine=own)
    assert alone.importance is None
    assert not any(name.startswith("engine/") for name in alone.metrics)

    def same(*arguments, **keywords):
        return own(*arguments, **keywords)

    agreed, _ = collect(task, policy, engine=same)
    assert agreed.metrics["engine/logp_difference"] < 1e-5
    assert torch.allclose(agreed.importance, torch.ones_like(agreed.importance), atol=1e-4)


SMALL = (*PLAIN, "env=add", "model.width=8", "model.heads=2", "algo.num_envs=16", "total_steps=200")
PLUGIN = "plugins=[own_engine]"


@pytest.mark.parametrize("words", ["algo=grpo", "algo=ppo", "algo=grpo collector.refill=REFILL"])
def test_a_run_with_an_engine_of_the_users_own(words, tmp_path):
    given = words.replace("REFILL", "{max_refills: 1, spread_tolerance: 0.0}").split(" ", 1)
    given += ["env.reward=fraction", "collector.engine=own_engine.warm", PLUGIN]
    api.train(experiment([*SMALL, *given, f"run_dir={tmp_path}/run"]))
    rows = [row for row in metrics(tmp_path / "run") if "train/episodes" in row]
    assert all(row["engine/logp_difference"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["collector.engine=vllm"], "collector.engine: no 'vllm' in rlrun.collectors.engines"),
        (["collector.engine=own_engine.warm"], r"allow it with plugins=\[own_engine\]"),
        (["collector.engine=own_engine.silent", PLUGIN], "log-probabilities are not finite"),
    ],
)
def test_mistakes(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        api.train(experiment([*SMALL, "algo=grpo", *words, f"run_dir={tmp_path}/run"]))
