"""The page: it needs nothing else, and shows what names say without obeying them."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from made_runs import made_run, seeds, write_run
from matplotlib.image import imread

from rlrun.analysis.aggregates import Scale, aggregate
from rlrun.analysis.cautions import cautions
from rlrun.analysis.comparison import compare
from rlrun.analysis.reports.pictures import as_bytes
from rlrun.analysis.reports.report import report
from rlrun.analysis.reports.score_pictures import pictures
from rlrun.analysis.stored_runs import read_run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, text, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.loads, self.links = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if tag == "a" and name == "href":
                self.links.append(value)
            elif name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.loads.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(*runs):
    comparison = compare([run for some in runs for run in some])
    aggregates = aggregate(
        comparison, {"hopper": Scale(min=0, max=1), "walker2d": Scale(min=0, max=1)}
    )
    drawn = pictures(comparison, aggregates, smooth=1)
    return report(
        comparison,
        aggregates,
        cautions=cautions(comparison),
        pictures={
            name: as_bytes(figure, "svg", background="none") for name, figure in drawn.items()
        },
        command="rlrun compare 'a b' --output <out>",
    )


@pytest.fixture(scope="module")
def text():
    """The page of two methods on two tasks."""
    return page_of(
        *(seeds("ppo", [10, 20, 30]), seeds("sac", [90, 91, 92], settings={"algo.gamma": 0.9})),
        *(seeds(algo, [1, 2, 3], "walker2d") for algo in ("ppo", "sac")),
        [made_run("sac", seed=9, status="failed")],
    )


def test_it_needs_nothing_else(text):
    page = Page(text)
    assert all(target.startswith("#") for target in page.loads), page.loads
    assert "script" not in page.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_all_is_on_it(text):
    page = Page(text)
    words = " ".join(page.words)
    for wanted in (
        *("ppo, sac on Hopper-v5, Walker2d-v5", "91 ± 1", "Normalised scores over 2 tasks"),
        *("Probability of improvement", "left out: outputs/sac_hopper_s9 is failed at"),
        *("algo.gamma", "2.13.0", "abcdef0123", "rlrun compare 'a b' --output <out>"),
        *("outputs/sac_hopper_s2", "is failed at step", "Final returns"),
    ):
        assert wanted in words, wanted
    assert page.tags.count("svg") == 4
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_pictures_take_the_colour_of_the_page(text):
    assert "#333333" not in text
    assert text.count("currentColor") > 10
    assert "<?xml" not in text
    assert text.count("<!doctype html>") == 1
    assert "<!DOCTYPE svg" not in text


def test_only_the_settings_that_differ_are_shown(text):
    table = text[text.index("What differs") : text.index("<h2>Runs")]
    assert re.search(r"<td>algo.gamma</td><td>0.99</td><td>0.9 or 0.99</td>", table)
    assert "hardware" not in table
    assert "_target_" not in table


def test_runs_are_links_as_far_as_there_is_something_to_open(tmp_path):
    there = read_run(write_run(made_run(seed=0), tmp_path / "a b"))
    elsewhere = made_run(seed=1, source="outputs/gone")
    wandb = made_run(seed=2, source="https://wandb.ai/team/project/runs/abc")
    hostile = made_run(seed=3, source="javascript:alert(1)")
    page = Page(page_of([there, elsewhere, wandb, hostile]))
    assert page.links == [(tmp_path / "a b").as_uri(), "https://wandb.ai/team/project/runs/abc"]
    assert "javascript:alert(1)" in page.words


def test_names_are_shown_and_not_obeyed():
    name = '<script>alert("x")</script><img src=x>'
    hostile = [
        made_run(name, seed=seed, settings={name: name}, host=name, source=f'"{name}{seed}')
        for seed in range(3)
    ]
    other = [made_run("ppo", seed=seed, commit=name) for seed in range(3)]
    page = Page(page_of(hostile, other))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert any(name in words for words in page.words)


# ---------------------------------------------------------------------- in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def opened(page, directory):
    """Open a page in headless Chromium.

    Returns:
        The screenshot [H, W, 3], what the page said on its console, and the addresses beside its
        own that it asked for.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    directory.mkdir()
    (directory / "report.html").write_text(page, encoding="utf-8")
    quiet = ("background-networking", "component-update", "extensions", "gpu", "sync")
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars"),
            *(f"--disable-{what}" for what in quiet),
            *("--enable-logging=stderr", "--window-size=1200,2400"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={directory / 'profile'}"),
            *(f"--log-net-log={directory / 'net.json'}", f"--screenshot={directory / 'shot.png'}"),
            (directory / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    log = json.loads((directory / "net.json").read_text())
    requests = {
        event["params"]["url"]
        for event in log["events"]
        # Chromium's own requests were made by no page.
        if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
    }
    return imread(directory / "shot.png")[..., :3], console, requests


def test_a_browser_shows_it_without_asking_anybody(text, tmp_path):
    picture, console, requests = opened(text, tmp_path / "page")
    assert (console, requests) == ([], set())
    background = picture[0, 0]
    drawn = np.abs(picture - background).max(axis=-1) > 0.1  # [H, W]
    # Tables and pictures from the top to the bottom, and no block of one colour.
    assert all(0.005 < band.mean() < 0.5 for band in np.array_split(drawn, 6))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_page_that_needs_something_else_would_be_noticed(tmp_path):
    other = "http://rlrun.invalid/x.png"
    page = f"<img src='{other}'><script>console.error('lost'); missing()</script>"
    picture, console, requests = opened(page, tmp_path / "page")
    assert requests == {other}
    assert any("lost" in line for line in console)
    assert any("missing is not defined" in line for line in console)
    assert np.abs(picture - picture[0, 0]).max(axis=-1).mean() < 0.005
