"""What every path answers, compared with the library."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest

from glm_jax.generate.settings import Sampling
from tests.conftest import HANG_SECONDS
from tests.serve.running import Running, read_events, serving, wait_until

TEXT = "The [MASK] of the [sMASK]."


@pytest.fixture(scope="module")
def server(filler):
    with serving(filler) as running:
        yield running


def assert_same_text(answer, expected) -> None:
    assert answer["text"] == expected.text
    assert answer["log_prob"] == pytest.approx(expected.log_prob, abs=1e-3)
    for found, blank, span in zip(answer["blanks"], expected.blanks, expected.spans, strict=True):
        assert found["ids"] == blank.ids and found["text"] == blank.text
        assert found["log_probs"] == pytest.approx(blank.log_probs, abs=1e-4)
        assert found["end_log_prob"] == (
            blank.end_log_prob and pytest.approx(blank.end_log_prob, abs=1e-4)
        )
        assert answer["text"][slice(*found["span"])] == "".join(found["tokens"])
        assert tuple(found["span"]) == span


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"min_blank_length": 4, "no_repeat_ngram": 2, "repeat_scope": "text"},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 5},
    ],
)
def test_fill_is_what_the_library_gives(server: Running, filler, fields: dict[str, Any]):
    answer = server.fill(TEXT, max_blank_length=9, **fields)
    [expected] = filler.fill([TEXT], Sampling(max_blank_length=9, **fields))
    assert_same_text(answer, expected)
    assert answer["samples"] == []


def test_samples_come_in_their_order_and_the_best_is_the_answer(server: Running, filler):
    # More than there are free rows at some moment: they begin in parts.
    fields: dict[str, Any] = {"max_blank_length": 7, "samples": 4, "seed": 2}
    answer = server.fill(TEXT, **fields)
    [expected] = filler.fill([TEXT], Sampling(**fields))
    assert_same_text(answer, expected)
    for sample, other in zip(answer["samples"], expected.samples, strict=True):
        assert_same_text(sample, other)
    assert len({sample["text"] for sample in answer["samples"]}) > 1


def test_top_tokens_stand_at_every_place_with_probabilities_in_order(server: Running):
    answer = server.fill(TEXT, max_blank_length=9, top=3)
    for blank in answer["blanks"]:
        assert len(blank["top"]) == len(blank["ids"]) + (blank["end_log_prob"] is not None)
        for tokens, id, log_prob in zip(
            blank["top"], blank["ids"], blank["log_probs"], strict=False
        ):
            values = [token["log_prob"] for token in tokens]
            assert len(tokens) == 3 and values == sorted(values, reverse=True)
            assert tokens[0]["id"] == id and values[0] == pytest.approx(log_prob, abs=1e-5)
            assert sum(map(math.exp, values)) <= 1
            assert not tokens[0]["ends"]
    assert "top" not in server.fill(TEXT, max_blank_length=9)["blanks"][0]


def test_beams_find_what_the_library_finds(server: Running, filler):
    fields: dict[str, Any] = {"max_blank_length": 4, "beams": 2, "length_penalty": 1.0}
    answer = server.fill("The [MASK] of", **fields)
    [expected] = filler.fill(["The [MASK] of"], Sampling(**fields))
    assert_same_text(answer, expected)
    [blank], [found] = expected.blanks, answer["blanks"]
    assert found["score"] == pytest.approx(blank.score, abs=1e-4)
    assert [other["ids"] for other in found["alternatives"]] == [
        other.ids for other in blank.alternatives
    ]


def test_score_is_what_the_library_gives(server: Running, filler):
    answers = [["ab", "ü"], ["", "u"]]
    response = server.post("/v1/score", {"text": TEXT, "answers": answers})
    assert response.status_code == 200, response.text
    [expected] = filler.score([TEXT], [answers])
    for found, score in zip(response.json()["answers"], expected, strict=True):
        assert found["log_prob"] == pytest.approx(score.log_prob, abs=1e-3)
        for blank, other in zip(found["blanks"], score.blanks, strict=True):
            assert blank["ids"] == other.ids
            assert blank["log_probs"] == pytest.approx(other.log_probs, abs=1e-4)
            assert blank["end_log_prob"] == pytest.approx(other.end_log_prob, abs=1e-4)
    assert response.json()["answers"][0]["blanks"][1]["tokens"] == ["", "ü"]
    [one] = server.post("/v1/score", {"text": "a [MASK]", "answers": ["bc"]}).json()["answers"]
    assert one["blanks"][0]["ids"] == [*b"bc"]


def test_a_stream_tells_every_token_and_ends_with_the_answer(server: Running):
    fields = {"text": TEXT, "max_blank_length": 9, "samples": 2, "temperature": 1.5, "top": 1}
    url = server.url + "/v1/fill"
    with httpx2.stream(
        "POST", url, json={**fields, "stream": True}, timeout=HANG_SECONDS
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        (first, start), *middle, (last, answer) = read_events(response.iter_lines())
    assert first == "start" and start["parts"] == ["The", " of the", "."]
    assert {name for name, _ in middle} == {"token"}
    assert last == "done" and answer == server.fill(**fields)
    for number, sample in enumerate(answer["samples"]):
        for place, blank in enumerate(sample["blanks"]):
            told = [
                data for _, data in middle if (data["sample"], data["blank"]) == (number, place)
            ]
            tokens = [data for data in told if data["id"] is not None]
            assert [data["id"] for data in tokens] == blank["ids"]
            assert [data["log_prob"] for data in tokens] == blank["log_probs"]
            assert [data["closes"] for data in told] == [False] * (len(told) - 1) + [True]
            assert told[-1]["text"] == blank["text"]
            assert told[-1]["in_place"] == "".join(blank["tokens"])


def test_a_text_without_a_blank_is_written_on(server: Running, filler):
    [expected] = filler.fill(["go on "], Sampling(max_blank_length=5))
    assert_same_text(server.fill("go on ", max_blank_length=5), expected)


def test_health_and_facts(server: Running):
    assert server.get("/health").json() == {"status": "ok"}
    facts = server.get("/v1/model").json()
    assert facts["checkpoint"] == "tiny" and facts["parameters"] > 0
    assert facts["masks"] == ["[MASK]", "[sMASK]", "[gMASK]"]
    assert facts["limits"]["rows"] == 4 and facts["limits"]["max_slots"] == 1024


def test_metrics_count_what_happened(server: Running):
    def tokens() -> float:
        return server.metric("glm_tokens_generated_total")

    def metrics() -> str:
        return server.get("/metrics").text

    name = 'glm_requests_total{path="/v1/fill",status="200"}'
    server.fill("a [MASK]", max_blank_length=1)
    wait_until(lambda: name in metrics())
    before, requests = tokens(), server.metric(name)
    answer = server.fill("b [MASK]", max_blank_length=6, samples=2)
    generated = sum(len(sample["blanks"][0]["ids"]) for sample in answer["samples"])
    assert tokens() - before == generated
    wait_until(lambda: server.metric(name) == requests + 1)
    server.get("/no/such/path")
    wait_until(lambda: 'glm_requests_total{path="other",status="404"}' in metrics())
    assert "/no/such/path" not in metrics()
    assert server.metric("glm_rows") == 4
    assert server.metric("glm_rows_in_use") == server.metric("glm_queue_length") == 0
    assert server.metric("glm_time_to_first_token_seconds_count") > 0
    assert server.metric("glm_step_seconds_count") > 0


def test_every_request_is_a_line_in_the_log(server: Running):
    server.get("/nothing%0ahere")
    wait_until(lambda: " GET /nothing%0Ahere 404 " in server.log.getvalue())
    server.fill("a [MASK]", max_blank_length=1)
    wait_until(lambda: server.log.getvalue().count("POST /v1/fill 200 ") > 0)
    assert all(" 127.0.0.1 " in line for line in server.log.getvalue().splitlines())


def test_the_page_may_load_nothing_but_itself(server: Running):
    page = server.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in page.text and "https://" not in page.text
    assert "innerHTML" not in page.text
