"""The page: it needs nothing else, and shows what names say without obeying them."""

import re
from html.parser import HTMLParser

import pytest
from made_runs import made_run, seeds, write_run

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
