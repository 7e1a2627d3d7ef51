"""The analysis and the pictures of a report, for made-up results."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from glm_jax.sweeps.report.analysis import best_by_size, fit_power_law, importances
from glm_jax.sweeps.report.page import report_page
from glm_jax.sweeps.report.pictures import THEMES, draw_pictures
from glm_jax.sweeps.report.results import Result, Results, seconds_per_flop
from tests.serve.browser import browsing, find_chromium


def made_up(folder: Path, *, layers=(1, 2, 4), rates=(1e-3, 1e-2), seeds=(1, 2)) -> Results:
    """A sweep in which the loss follows a power law of the size, and a rate's and seed's share."""
    trials = []
    for number in layers:
        for rate in rates:
            for seed in seeds:
                value = 4 * number**-0.1 + 0.3 * (rate == 1e-3) + 0.001 * seed
                point = {"model.num_layers": number, "optimizer.learning_rate": rate}
                name = f"num_layers={number},learning_rate={rate:g},seed={seed}"
                write_run(folder / "trials" / name, value)
                trials.append(
                    Result(
                        name=name,
                        point=point,
                        seed=seed,
                        settings=point,
                        status="done",
                        value=value,
                        final={"validation/loss": value},
                        best=value,
                        best_step=40,
                        steps=40,
                        train_seconds=20.0,
                        num_parameters=100_000 * number,
                        flops=1e12 * number,
                        message="",
                        run_folder=str(folder / "trials" / name),
                    )
                )
    trials.sort(key=lambda trial: trial.value or 0)
    names = ("validation/loss", "minimize", "final", "train.run_folder")
    return Results(str(folder), "sizes <&>", "pretrain", *names, len(trials), tuple(trials))


def write_run(folder: Path, value: float) -> None:
    """The metrics of a run that ends with some loss."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"train": {"num_steps": 40}}))
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(10, 50, 10):
            loss = value + 20 / step - 0.5
            train = {"step": step, "kind": "train", "loss": loss, "step_seconds": 0.5}
            file.write(json.dumps(train) + "\n")
            file.write(json.dumps({"step": step, "kind": "validation", "loss": loss}) + "\n")


def test_importance_is_the_share_of_the_variance(tmp_path):
    shares = importances(made_up(tmp_path))
    assert list(shares) == ["model.num_layers", "optimizer.learning_rate", "seed"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    # By hand: the variance of 4 n^-0.1 over 1, 2, 4 is 0.0452, that of the rates 0.0225.
    assert shares["model.num_layers"] == pytest.approx(0.0452 / 0.0677, abs=0.005)


def test_what_differs_between_all_trials_has_no_importance(tmp_path):
    shares = importances(made_up(tmp_path, rates=(1e-2,), seeds=(1,)))
    assert "model.num_layers" not in shares


def test_the_speed_is_that_of_the_trial_in_the_middle(tmp_path):
    # 20 s for 1, 2 and 4 TFLOP.
    assert seconds_per_flop(made_up(tmp_path)) == pytest.approx(20 / 2e12)


def test_a_power_law_is_found_again(tmp_path):
    results = made_up(tmp_path, rates=(1e-2,), seeds=(0,))
    law = fit_power_law(*best_by_size(results, "num_parameters"))
    assert law is not None and law.exponent == pytest.approx(-0.1)
    assert fit_power_law([1, 2], [1, 2]) is None
    assert fit_power_law([1, 2, 3], [1, 0, 2]) is None


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_every_picture_is_drawn(theme, tmp_path):
    drawn = {name: image for name, _, image in draw_pictures(made_up(tmp_path), theme)}
    assert set(drawn) == {"configurations", "curves", "heat_map", "importance", "scaling"}
    for image in drawn.values():
        ElementTree.fromstring(image)
    assert b"seconds of training" in drawn["curves"] and b"training FLOP" in drawn["curves"]
    for name in ("configurations", "curves"):
        assert b"num_layers=4,learning_rate=0.01" in drawn[name]
        assert b"seed=" not in drawn[name]


def test_nothing_is_drawn_of_nothing(tmp_path):
    results = made_up(tmp_path, layers=(1,), rates=(1e-2,), seeds=(1,))
    assert [name for name, _, _ in draw_pictures(results, THEMES[0])] == ["curves"]


class Addresses(HTMLParser):
    """Collects ids, and what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.ids: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href") and not (value or "").startswith(
                ("#", "data:")
            ):
                self.fetched.append(value or "")


def test_the_page_fetches_nothing_and_escapes(tmp_path):
    page = report_page(made_up(tmp_path), "optimizer.learning_rate = 0.01 # <b>\n")
    parsed = Addresses()
    parsed.feed(page)
    assert parsed.fetched == []
    assert len(set(parsed.ids)) == len(parsed.ids) > 0
    assert "<title>Sweep sizes &lt;&amp;&gt;</title>" in page
    assert "# &lt;b&gt;" in page
    assert page.count('class="light"') == page.count('class="dark"') == 5
    assert page.count("<!DOCTYPE") == 0 and page.count("<!doctype html>") == 1


@pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")
def test_the_page_shows_one_of_both_themes_in_a_browser(tmp_path):
    results = made_up(tmp_path / "sweep")
    page = tmp_path / "index.html"
    page.write_text(report_page(results, "optimizer.learning_rate = 0.01\n"))
    chromium = find_chromium()
    assert chromium is not None
    with browsing(chromium, tmp_path / "profile") as tab:
        tab.call("Network.enable")
        tab.call("Network.emulateNetworkConditions", **OFFLINE)
        tab.open(page.as_uri())
        for theme, other in (("light", "dark"), ("dark", "light")):
            tab.look(1200, 900, theme)
            assert tab.evaluate(visible(theme)) == 5
            assert tab.evaluate(visible(other)) == 0
            # Nothing is wider than the window.
            assert tab.evaluate("document.documentElement.scrollWidth") <= 1200
            tab.screenshot(tmp_path / f"{theme}.png")


OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}


def visible(theme: str) -> str:
    """How many pictures of a theme a page shows."""
    boxes = f"[...document.querySelectorAll('.{theme} svg')].map(s => s.getBoundingClientRect())"
    return f"{boxes}.filter(box => box.width > 100 && box.height > 50).length"
