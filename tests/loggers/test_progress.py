import io
import math
import time

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from rlrun.loggers.progress import Progress, Speed, duration, number


def plain_console():
    return Console(file=io.StringIO(), width=80)


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def test_without_a_terminal_evaluations_are_printed_and_iterations_are_not():
    console = plain_console()
    progress = Progress(1_000_000, 0, console)
    for step in range(1, 1001):
        progress.log({"train/return": 2_345.6}, step)
    progress.log({"eval/return": 2781.4}, 250_000)
    progress.close("finished", {"time_s": 67.4, "compile_s": 12.3})
    start, evaluation, end = console.file.getvalue().splitlines()
    assert start == "  0 %          0 of 1,000,000 steps"
    assert evaluation.startswith(" 25 %    250,000 of 1,000,000 steps · ")
    assert " steps/s · " in evaluation
    assert evaluation.endswith(" left · return 2,346 · evaluation 2,781")
    assert end.endswith(
        "finished after 1:07, compiling (0:12) apart · return 2,346 · evaluation 2,781"
    )


def test_without_a_terminal_there_is_a_line_every_ten_seconds(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = plain_console()
    progress = Progress(1_000, 0, console)
    for step in range(1, 301):  # ten a second
        clock[0] += 0.1
        progress.log({}, step)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + 2  # the start, after 10 s, after 20 s; 30 s are not quite reached
    assert lines[1].endswith("10 steps/s · 1:30 left")


def test_a_last_iteration_beyond_the_total_is_not_more_than_everything(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = plain_console()
    progress = Progress(1_000, 0, console)
    for step in (700, 1_400):
        clock[0] += 20.0
        progress.log({}, step)
    assert console.file.getvalue().splitlines()[1:] == [
        " 70 %    700 of 1,000 steps · starting",
        "100 %  1,400 of 1,000 steps · 35 steps/s · 0:00 left",
    ]


def test_a_phase_is_announced_and_timed_without_a_terminal():
    console = plain_console()
    progress = Progress(1_000, 0, console)
    with progress.status("compiling the update"):
        pass
    assert console.file.getvalue().splitlines()[1:] == ["compiling the update ...", "... took 0:00"]


def test_the_time_of_a_phase_does_not_count_for_the_speed(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = plain_console()
    progress = Progress(1_000, 0, console)
    for step in range(10, 60, 10):  # ten a second, with a minute of compiling in between
        clock[0] += 1.0
        progress.log({}, step)
        if step == 30:
            with progress.status("compiling the update"):
                clock[0] += 60.0
    progress.log({"eval/return": 1.0}, 50)
    text = console.file.getvalue()
    assert "... took 1:00" in text
    assert text.splitlines()[-1].endswith("10 steps/s · 1:35 left · evaluation 1.000")


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_display_fits_the_terminal(width):
    console = terminal(width)
    progress = Progress(1_000_000_000, 0, console)
    progress.log({"train/return": -12_345.6}, 1)
    progress.log({"eval/return": -12_345.6}, 999_999_999)
    progress.close("interrupted", {})
    lines = Text.from_ansi(console.file.getvalue()).plain.splitlines()
    assert max(cell_len(line) for line in lines) <= width
    bar, measures = lines[-2:]
    assert bar.endswith(" 99 %    999,999,999 of 1,000,000,000 steps")
    assert measures.startswith("interrupted after 0:00 · return -12,346 · evaluation -12,346")


def test_the_live_display_is_not_drawn_for_every_iteration():
    console = terminal(80)
    progress = Progress(10_000, 0, console)
    start = time.perf_counter()
    for step in range(10_000):
        progress.log({"train/return": 1.0}, step)
    seconds = time.perf_counter() - start
    progress.close("finished", {})
    frames = console.file.getvalue().count(" of 10,000 steps")
    assert frames <= 3 + seconds / 0.25
    assert seconds / 10_000 < 100e-6


def test_the_time_of_a_phase_is_drawn_while_the_main_thread_is_busy():
    console = terminal(80)
    progress = Progress(1_000, 0, console)
    with progress.status("compiling the update"):
        time.sleep(1.2)
    text = console.file.getvalue()
    progress.close("finished", {})
    assert "compiling the update  0:00" in text
    assert "compiling the update  0:01" in text


def test_the_display_survives_an_error_in_a_phase():
    console = terminal(80)
    progress = Progress(1_000, 0, console)
    with pytest.raises(RuntimeError), progress.status("compiling"):
        raise RuntimeError
    progress.message("[not markup] a path")
    progress.close("failed", {})
    lines = Text.from_ansi(console.file.getvalue()).plain.splitlines()
    assert "[not markup] a path" in lines
    assert lines[-1].startswith("failed after 0:00")


def test_a_run_that_is_killed_leaves_the_terminal_its_cursor():
    console = terminal(80)
    progress = Progress(1_000, 0, console)
    with progress.status("compiling"):
        text = console.file.getvalue()
    progress.close("finished", {})
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert text.rfind(show) > text.rfind(hide) >= 0


def test_a_value_that_is_missing_leaves_the_last_one():
    console = plain_console()
    progress = Progress(100, 0, console)
    progress.log({"train/return": 5.0}, 1)
    progress.log({"train/return": math.nan, "eval/return": 7.0}, 2)
    assert console.file.getvalue().splitlines()[-1].endswith("return 5.000 · evaluation 7.000")


def test_speed_of_a_constant_pace_is_exact_and_phases_do_not_count():
    speed = Speed()
    assert speed.steps_per_s is None
    for second in range(5):
        speed.measure(float(second), 100 * second)
    assert speed.steps_per_s == pytest.approx(100)
    speed.skip()
    speed.measure(1_000.0, 400)
    speed.measure(1_001.0, 500)
    assert speed.steps_per_s == pytest.approx(100)


def test_speed_follows_a_change():
    speed = Speed()
    for second in range(101):
        speed.measure(float(second), 100 * second)
    for second in range(1, 101):
        speed.measure(100.0 + second, 10_000 + 10 * second)
    # After 10 time constants the old pace weighs e^-10: 10 + 90 e^-10.
    assert speed.steps_per_s == pytest.approx(10 + 90 * math.exp(-10), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.01234, "0.0123"),
        (0.5, "0.5000"),
        (98.7236, "98.72"),
        (-4.5, "-4.500"),
        (2345.6, "2,346"),
        (1e6, "1,000,000"),
        (math.inf, "inf"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (12_301, "3:25:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
