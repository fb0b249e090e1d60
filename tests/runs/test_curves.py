import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from rlrun.runs.reports.curves import (
    EVAL_COLOR,
    MAX_POINTS,
    TRAIN_COLOR,
    columns,
    draw_curves,
    thinned,
)


def run_metrics(rows, evaluate_every):
    metrics = []
    for n in range(1, rows + 1):
        axes = {"step": 2048 * n, "time_s": 0.1 * n}
        metrics.append({**axes, "train/return": 10.0 * n})
        if n % evaluate_every == 0:
            metrics.append({**axes, "eval/return": 12.0 * n, "eval/return_std": 30.0})
    return metrics


def is_png(content):
    width, height = struct.unpack(">II", content[16:24])
    complete = content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    return complete and (width, height) == (1000, 400)


def pixels(path, color):
    return int((abs(imread(path)[..., :3] - np.array(to_rgb(color))) < 0.01).all(axis=-1).sum())


def test_both_curves_are_drawn_in_both_panels(tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(run_metrics(50, 10), path, "PPO on Hopper-v5, seed 0")
    assert is_png(path.read_bytes())
    image = imread(path)
    for panel in (image[:, :500], image[:, 500:]):
        for color in (TRAIN_COLOR, EVAL_COLOR):
            assert (abs(panel[..., :3] - np.array(to_rgb(color))) < 0.01).all(axis=-1).sum() > 50


def test_nothing_logged_yet(tmp_path, recwarn):
    path = tmp_path / "curves.png"
    draw_curves([], path, "a run")
    assert is_png(path.read_bytes())
    assert pixels(path, EVAL_COLOR) == 0
    draw_curves([{"step": 1.0, "time_s": 0.1, "train/return": float("nan")}], path, "a run")
    assert pixels(path, TRAIN_COLOR) == 0
    draw_curves([{"step": 1.0, "time_s": 0.1, "eval/return": 1.0}], path, "no std")
    assert pixels(path, EVAL_COLOR) > 0
    assert not recwarn.list


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "curves.png"
    metrics = run_metrics(20, 5)
    draw_curves(metrics, path, "a run")
    with ThreadPoolExecutor(1) as pool:
        drawings = [pool.submit(draw_curves, metrics, path, "a run") for _ in range(6)]
        while not all(drawing.done() for drawing in drawings):
            assert is_png(path.read_bytes())
            time.sleep(0.001)
    for drawing in drawings:
        drawing.result()
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "curves.png"
    path.mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match="curves"):
        draw_curves([], path, "a run")
    assert list(tmp_path.iterdir()) == [path]


def test_columns_take_the_rows_that_have_the_first_value():
    rows = [{"a": 1.0, "b": 2.0}, {"b": 3.0}, {"a": float("nan"), "b": 4.0}, {"a": 5.0}]
    np.testing.assert_array_equal(columns(rows, ["a", "b"]), [[1.0, 5.0], [2.0, np.nan]])
    assert columns([], ["a", "b"]).shape == (2, 0)


def test_thinned_averages_neighbours():
    short = np.arange(2.0 * MAX_POINTS).reshape(2, MAX_POINTS)
    assert thinned(short) is short
    # Pairs (0, 1), (2, 3) ...: averages 0.5, 2.5 ...
    long = np.arange(2.0 * MAX_POINTS)[None]
    np.testing.assert_array_equal(thinned(long)[0], 0.5 + 2 * np.arange(MAX_POINTS))
    # Groups of unequal size still cover every point once.
    odd = np.ones((1, MAX_POINTS + 7))
    np.testing.assert_array_equal(thinned(odd), np.ones((1, MAX_POINTS)))
