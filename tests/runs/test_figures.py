import math
import subprocess
import sys

from rlrun.runs.figures import evaluations, final_return, headline, with_spread


def test_figure_of_a_run_is_the_mean_of_the_evaluations_in_its_last_tenth():
    curve = [(500, 900.0), (899, 800.0), (900, 1.0), (950, 2.0), (1010, 6.0)]
    assert final_return(curve, total_steps=1000) == 3.0


def test_without_an_evaluation_in_the_last_tenth_there_is_no_figure():
    assert math.isnan(final_return([(500, 900.0), (899, 800.0)], total_steps=1000))


def test_evaluations_are_some_of_the_rows():
    rows = [{"step": 0, "eval/return": 1.5}, {"step": 64, "train/return": 2.0}]
    assert evaluations(rows) == [(0, 1.5)]


def test_the_spread_stands_beside_the_headline():
    assert headline(0.3, 0.954, 10) == "0.30 ± 0.95 over 10 episodes"
    assert headline(-3163.25, 538.61, 1) == "-3,163.2 ± 538.6 over 1 episode"
    assert with_spread(12.34, math.nan) == "12.3"


def test_the_figure_needs_no_torch():
    code = "import rlrun.runs.figures, sys; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
