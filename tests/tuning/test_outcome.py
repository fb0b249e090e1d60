import math

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from rlrun.tuning.outcome import ends, height, nested, verdict, write_best
from rlrun.tuning.study import make_pruner, make_sampler


def test_the_best_values_are_a_file_with_where_they_come_from(tmp_path):
    values = {"algo.gamma": 0.9, "algo.optimizer.b": 1.5e-5, "env.options.a": "a: b #", "c": None}
    values |= {"algo.n": math.inf, "algo.kind": {"x": [1, 2]}}
    ranges = {"algo.optimizer.b": "tag(log, interval(1, 2))", "env.options.a": "choice(x,y)"}
    ranges |= {"algo.kind": "choice({x:[1,2]},null)"}
    path = tmp_path / "tuned" / "study.yaml"
    assert write_best(path, "a headline", values, ranges, [3, 4]) == path
    assert path.read_text() == (
        "# @package _global_\n"
        "# a headline\n\n"
        "# Seeds that these values were chosen on: a table has others.\n"
        "tuned_on: [3, 4]\n\n"
        "algo:\n"
        "  # As the trials had it.\n"
        "  gamma: 0.9\n"
        "  optimizer:\n"
        "    # Searched in tag(log, interval(1, 2)).\n"
        "    b: 1.5e-05\n"
        "  # As the trials had it.\n"
        "  n: .inf\n"
        "  # Searched in choice({x:[1,2]},null).\n"
        "  kind: {x: [1, 2]}\n"
        "env:\n"
        "  options:\n"
        "    # Searched in choice(x,y).\n"
        "    a: 'a: b #'\n"
        "# As the trials had it.\n"
        "c: null\n"
    )
    assert OmegaConf.to_container(OmegaConf.load(path)) == {"tuned_on": [3, 4], **nested(values)}


SAID = {
    "better": ([1.0, 1.0, 1.0], [3.0, 3.0, 3.0], "interval [+2.000, +2.000]: they are better"),
    "worse": ([3.0, 3.0, 3.0], [1.0, 1.0, 1.0], "interval [-2.000, -2.000]: they are worse"),
    "nothing": ([0.0, 5.0, 10.0], [1.0, 5.0, 12.0], "]: not shown to be better"),
    "two": ([1.0, 1.0], [3.0, 3.0], "gain +2.000 on 2 fresh seeds: no interval under 3"),
}


@pytest.mark.parametrize(("before", "after", "said"), SAID.values(), ids=SAID)
def test_values_are_better_if_the_interval_of_their_gain_is(before, after, said):
    assert verdict(np.array(before), np.array(after)).endswith(said)


def test_a_place_in_a_range():
    distributions = {
        "a": CategoricalDistribution(["x", "y", "z"]),
        "b": FloatDistribution(1e-4, 1.0, log=True),
        "c": FloatDistribution(2.0, 4.0),
    }
    params = {"a": "y", "b": 1e-2, "c": 3.5}
    trial = optuna.trial.create_trial(params=params, distributions=distributions, value=0.0)
    heights = [height(trial, name) for name in distributions]
    assert heights == pytest.approx([0.5, 0.5, 0.75])
    edges = [ends(distribution) for distribution in distributions.values()]
    assert edges == [("x", "z"), ("0.0001", "1"), ("2", "4")]


def test_samplers_and_pruners_are_optunas():
    kinds = {"tpe": TPESampler, "random": RandomSampler, "cmaes": CmaEsSampler}
    for name, kind in kinds.items():
        assert isinstance(make_sampler(name, 1, 5), kind)
    pruners = {"median": MedianPruner, "halving": SuccessiveHalvingPruner, "none": NopPruner}
    for name, kind in pruners.items():
        assert type(make_pruner(name, 10)) is kind


def ended_at(study, value: float, evaluations: int) -> int:
    """After how many evaluations a trial that always has this value is pruned, or all of them."""
    trial = study.ask()
    for step in range(1, evaluations + 1):
        trial.report(value, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return step
    study.tell(trial, value)
    return evaluations


def test_halving_leaves_the_best_third_at_each_stage():
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", 9))
    assert ended_at(study, 5.0, 9) == 9  # nothing to compare it with
    assert ended_at(study, 4.0, 9) == 3  # a third of a run is every trial's
    assert ended_at(study, 3.0, 9) == 3
    assert ended_at(study, 6.0, 9) == 9
    assert ended_at(study, 5.5, 9) == 3  # one of five is left
    assert ended_at(study, 5.8, 9) == 9  # two of six are
