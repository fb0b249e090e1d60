import json
import math
import signal
import subprocess
import sys

import pytest

from rlrun.loggers.jsonl import JsonlLogger, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_rows_come_back_as_logged(path):
    logger = JsonlLogger(path, None)
    logger.log({"update": 320, "time_s": 0.4, "train/return": 1 / 3}, 2048)
    logger.log({"eval/return": -1e-30}, 2048)
    # Before close: a line is there when log returns.
    assert read_metrics(path) == [
        {"step": 2048, "update": 320, "time_s": 0.4, "train/return": 1 / 3},
        {"step": 2048, "eval/return": -1e-30},
    ]
    logger.close("finished", {})


def test_what_is_not_finite_is_null_in_the_file_and_nan_when_read(path):
    logger = JsonlLogger(path, None)
    logger.log({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, 1)
    logger.close("finished", {})
    row = json.loads(path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a": None, "b": None, "c": None, "d": 1.0}
    (row,) = read_metrics(path)
    assert [name for name in row if math.isnan(row[name])] == ["a", "b", "c"]


def test_resume_drops_what_was_logged_after_the_checkpoint(path):
    logger = JsonlLogger(path, None)
    logger.log({"x": 1.0}, 1)
    state = logger.state_dict()
    logger.log({"x": 2.0}, 2)
    logger.close("interrupted", {})

    resumed = JsonlLogger(path, state["offset"])
    assert resumed.state_dict() == state
    resumed.log({"x": 3.0}, 2)
    assert resumed.state_dict() == {"offset": path.stat().st_size}
    resumed.close("finished", {})
    assert read_metrics(path) == [{"step": 1, "x": 1.0}, {"step": 2, "x": 3.0}]


def test_a_run_without_a_checkpoint_starts_its_record_again(path):
    path.write_text('{"step": 1}\n')
    JsonlLogger(path, None).close("finished", {})
    assert path.read_bytes() == b""


def test_a_file_shorter_than_the_offset_is_not_filled_with_zeros(path):
    path.write_text('{"step": 1}\n')
    logger = JsonlLogger(path, 10_000)
    logger.log({}, 2)
    logger.close("finished", {})
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_torn_last_line_is_left_out(path):
    path.write_text('{"step": 1}\n{"step": 2, "tr')
    assert read_metrics(path) == [{"step": 1}]


def test_a_damaged_line_is_named(path):
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_kill_9_loses_no_line_that_was_logged(path):
    program = (
        "import sys; from pathlib import Path; from rlrun.loggers.jsonl import JsonlLogger\n"
        "logger, step = JsonlLogger(Path(sys.argv[1]), None), 0\n"
        "while True:\n"
        "    step += 1\n"
        "    logger.log({'train/return': 1.0 * step}, step)\n"
        "    print(step, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True
    )
    for _ in range(200):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    acknowledged = 200 + len(child.communicate()[0].splitlines())
    rows = read_metrics(path)
    assert rows == [{"step": n, "train/return": float(n)} for n in range(1, len(rows) + 1)]
    # At most the step that the kill came in the middle of.
    assert acknowledged <= len(rows) <= acknowledged + 1
