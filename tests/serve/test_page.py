"""The page, as a person uses it in a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from glm_jax.convert.load import load_glm
from glm_jax.generate.settings import Sampling
from glm_jax.seq2seq.config import GenerationConfig, Seq2SeqConfig
from glm_jax.seq2seq.filler import TaskFiller
from glm_jax.tokenizer import load_tokenizer
from tests.serve.browser import Tab, browsing, find_chromium
from tests.serve.running import Running, serving, wait_until

CTRL = 2
TEXT = "The [MASK] of <b>the</b> [sMASK]."
SHOWN = "document.getElementById('text').textContent"
DONE = "document.getElementById('copy').hidden === false"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = find_chromium()
    if found is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return found


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory) -> Iterator[Tab]:
    with browsing(chromium, tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture(scope="module")
def server(filler) -> Iterator[Running]:
    with serving(filler, local_only=True) as running:
        yield running


@pytest.fixture
def tab(browser: Tab, server: Running) -> Iterator[Tab]:
    """The page, anew for every test, which must end without an error in it."""
    browser.errors.clear()
    browser.open(server.url + "/")
    browser.wait_for("document.querySelectorAll('#masks button').length === 3")
    yield browser
    assert browser.errors == []


def choose(tab: Tab, way: str) -> None:
    tab.click(f".ways label:has([value={way}])")
    assert tab.evaluate("form.elements.way.value") == way


def test_a_text_is_filled_and_a_token_tells_its_alternatives(tab: Tab, filler):
    tab.type_into("#input", TEXT)
    tab.type_into("[name=max_blank_length]", "6")
    tab.click("#go")
    tab.wait_for(DONE)
    [expected] = filler.fill([TEXT], Sampling(max_blank_length=6))
    marks = "[...document.querySelectorAll('.mark')].forEach((mark) => mark.remove())"
    tab.click(".blank .token:nth-child(2)")
    rows = (
        "[...document.querySelectorAll('#positions li')].map((row) => row.innerText.split('\\n'))"
    )
    found = tab.evaluate(rows)
    assert len(found) == 3 and all(row[-1].endswith("%") for row in found)
    assert tab.evaluate("document.querySelector('#positions .taken .name').textContent") == chr(
        expected.blanks[0].ids[1]
    )
    widths = "[...document.querySelectorAll('#positions .bar')].map((bar) => bar.offsetWidth)"
    bars = tab.evaluate(widths)
    assert bars == sorted(bars, reverse=True) and bars[0] > 2
    tab.press("ArrowRight", 39)
    assert tab.evaluate("document.activeElement === document.querySelectorAll('.token')[2]")
    assert tab.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    tab.evaluate(marks)
    assert tab.evaluate(SHOWN) == expected.text
    assert tab.evaluate("document.querySelectorAll('#text b').length") == 0


@pytest.mark.usefixtures("slow_steps")
def test_the_blank_is_seen_growing_and_can_be_stopped(tab: Tab, server: Running):
    tab.type_into("#input", "a [MASK]")
    tab.type_into("[name=min_blank_length]", "60")
    tab.evaluate("document.getElementById('input').focus()")
    tab.press("Enter", 13, CTRL)
    lengths = [tab.wait_for("document.querySelector('.blank.open')?.textContent.length")]
    for _ in range(2):
        tab.wait_for(f"document.querySelector('.blank').textContent.length > {lengths[-1]}")
        lengths.append(tab.evaluate("document.querySelector('.blank').textContent.length"))
    assert tab.evaluate("document.getElementById('go').disabled")
    tab.press("Escape", 27)
    tab.wait_for("document.getElementById('status').textContent === 'Stopped.'")
    wait_until(lambda: server.metric("glm_rows_in_use") == 0, 5)
    assert not tab.evaluate("document.getElementById('go').disabled")
    assert lengths[-1] < 60


def test_samples_and_beams_show_what_else_was_found(tab: Tab):
    tab.type_into("#input", "The [MASK] of")
    tab.type_into("[name=max_blank_length]", "4")
    choose(tab, "sampling")
    tab.type_into("[name=samples]", "3")
    tab.type_into("[name=temperature]", "1.5")
    tab.type_into("[name=seed]", "3")
    tab.click("#go")
    tab.wait_for(DONE)
    assert tab.evaluate("document.querySelectorAll('#others button').length") == 3
    other = "document.querySelector('#others [aria-pressed=false] span').textContent"
    text = tab.evaluate(other)
    tab.click("#others [aria-pressed=false]")
    tab.evaluate("document.querySelectorAll('.mark').forEach((mark) => mark.remove())")
    assert tab.evaluate(SHOWN) == text.replace("\n", "↵\n")
    choose(tab, "beams")
    tab.type_into("[name=beams]", "2")
    tab.click("#go")
    tab.wait_for(DONE + " && document.querySelector('#others h3') !== null")
    assert tab.evaluate("document.querySelectorAll('#others ol li').length") == 2


def test_what_is_refused_is_told(tab: Tab):
    tab.type_into("#input", "a" * 100)
    tab.click("#go")
    message = "document.getElementById('error').textContent"
    assert "positions only for 65" in tab.wait_for(message)
    assert tab.evaluate("document.querySelector('#error').getAttribute('role')") == "alert"
    tab.errors.clear()  # the browser notes every status of 400 and more


def test_the_page_asks_for_the_token_and_keeps_it_for_the_session(browser: Tab, filler):
    with serving(filler, token="secret-1") as server:
        browser.open(server.url + "/")
        browser.wait_for("document.getElementById('ask').open")
        browser.type_into("#token", "wrong")
        browser.press("Enter", 13)
        browser.wait_for("document.getElementById('ask').open && !sessionStorage.length")
        browser.type_into("#token", "secret-1")
        browser.click("#ask button")
        browser.wait_for("document.querySelectorAll('#masks button').length === 3")
        browser.open(server.url + "/")
        browser.wait_for("document.querySelectorAll('#masks button').length === 3")
        assert browser.evaluate("sessionStorage.getItem('token')") == "secret-1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [340, 1000])
def test_nothing_is_cut_off_and_text_stands_out(tab: Tab, width, scheme):
    tab.look(width, 900, scheme)
    tab.type_into("#input", TEXT)
    tab.type_into("[name=max_blank_length]", "30")
    tab.click("#go")
    tab.wait_for(DONE)
    tab.click(".blank .token")
    assert tab.evaluate("innerWidth") == width
    root = "document.documentElement"
    assert tab.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
    for selector in (".hint", "button.main", ".token", "#positions .name", "header p"):
        assert tab.evaluate(f"({CONTRAST})({selector!r})") >= 4.5, selector


def test_a_run_that_writes_texts_says_so_and_writes(browser: Tab, checkpoint):
    model, params = load_glm(checkpoint)
    settings = Seq2SeqConfig("customization", "", source_length=40, target_length=8)
    search = GenerationConfig(beams=2, no_repeat_ngram=0)
    filler = TaskFiller(model, params, load_tokenizer(checkpoint), settings, search)
    text = "the ferry left"
    (expected,) = filler.fill([text], filler.sampling(text, {}))
    with serving(filler, local_only=True) as server:
        browser.errors.clear()
        browser.open(server.url + "/")
        browser.wait_for("document.querySelectorAll('#masks button').length === 3")
        shown = browser.evaluate("document.getElementById('model').textContent")
        assert "finetuned for customization" in shown
        assert browser.evaluate("form.elements.way.value") == "trained"
        browser.type_into("#input", text)
        browser.click("#go")
        browser.wait_for(DONE)
        assert browser.evaluate(SHOWN) == expected.text
        # The run's own search is one of several.
        choose(browser, "greedy")
        assert not browser.evaluate("document.querySelector('[name=max_blank_length]').disabled")
        assert browser.errors == []


# The contrast between the letters of an element and what is behind them, as WCAG 2 counts it.
CONTRAST = r"""
(selector) => {
  const luminance = (colour) => {
    const linear = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const background = (element) => getComputedStyle(element).backgroundColor;
  const seen = [...document.querySelectorAll(selector)].filter((one) => one.offsetParent);
  let behind = seen[0];
  while (/, 0\)$/.test(background(behind))) behind = behind.parentElement;
  const [one, other] = [getComputedStyle(seen[0]).color, background(behind)].map(luminance);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}
"""
