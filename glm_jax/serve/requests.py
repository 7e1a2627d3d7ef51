"""The bodies of requests: read within limits, and checked field by field."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

from starlette.requests import Request

from glm_jax.errors import UsageError
from glm_jax.generate.settings import Sampling
from glm_jax.io.encodings import LONE_SURROGATE
from glm_jax.serve.errors import RequestError
from glm_jax.serve.settings import ServeSettings

# Time limit for receiving a body.
BODY_SECONDS = 30.0
SAMPLING_FIELDS = frozenset(field.name for field in dataclasses.fields(Sampling))


# (text, the settings of a request) -> these, completed by the defaults for such a text.
SamplingOf = Callable[[str, Mapping[str, Any]], Sampling]


def given_sampling(_text: str, given: Mapping[str, Any]) -> Sampling:
    """The settings of a request, completed by the same defaults for every text."""
    return Sampling(**given)


@dataclasses.dataclass(frozen=True)
class FillRequest:
    """A text to fill.

    Attributes:
      text: with its masks.
      sampling: how to fill it.
      stream: whether every token is sent when it is generated.
      top: number of most probable tokens reported at every position.
    """

    text: str
    sampling: Sampling
    stream: bool
    top: int


@dataclasses.dataclass(frozen=True)
class ScoreRequest:
    """Answers to score: each a text where there is one blank, else one for each."""

    text: str
    answers: list[str | list[str]]


async def read_json(request: Request, max_body: int) -> Mapping[str, Any]:
    """The JSON object in the body of a request.

    Raises:
      RequestError: the body is something else, too large or too slow.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RequestError(
            415, "the body must be JSON, with the header Content-Type: application/json"
        )
    body = await _read_body(request, max_body)
    try:
        content = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(400, f"the body is not UTF-8: {error}") from error
    except RecursionError as error:
        raise RequestError(
            400, "the body is not JSON that can be read: too deeply nested"
        ) from error
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(400, "the body must be a JSON object")
    return content


async def _read_body(request: Request, max_body: int) -> bytes:
    # Connection: close, because the rest of the body is not read.
    too_large = RequestError(
        413, f"the body has more than {max_body} bytes", headers={"Connection": "close"}
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_body:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(
            408,
            f"the body did not come within {BODY_SECONDS:g} seconds",
            headers={"Connection": "close"},
        ) from error
    return bytes(body)


def parse_fill(
    body: Mapping[str, Any], settings: ServeSettings, sampling_of: SamplingOf = given_sampling
) -> FillRequest:
    """A request to fill a text.

    Args:
      body: of the request.
      settings: of the server.
      sampling_of: completes the request's settings.

    Raises:
      RequestError: a field is unknown, missing, of the wrong type or out of its range.
    """
    _check_fields(body, {"text", "input", "stream", "top"} | SAMPLING_FIELDS)
    text = _text_or_input(body)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise RequestError(400, f"stream is {stream!r}, but must be true or false", field="stream")
    sampling = _sampling(body, text, sampling_of)
    top = body.get("top", 0)
    if isinstance(top, bool) or not isinstance(top, int) or not 0 <= top <= settings.top:
        expected = f"an integer from 0 to {settings.top}"
        raise RequestError(400, f"top is {top!r}, but must be {expected}", field="top")
    for field, limit in (("samples", settings.rows), ("beams", settings.max_beams)):
        if getattr(sampling, field) > limit:
            value = getattr(sampling, field)
            raise RequestError(
                400, f"{field} is {value}, but this server allows {limit}", field=field
            )
    if sampling.beams > 1:
        asked = [name for name, value in (("stream", stream), ("top", top)) if value]
        if asked:
            message = f"beams is {sampling.beams}, but {asked[0]} is only for one beam"
            raise RequestError(400, message, field=asked[0])
    return FillRequest(text, sampling, stream, top)


def parse_score(body: Mapping[str, Any], settings: ServeSettings) -> ScoreRequest:
    """A request to score answers.

    Raises:
      RequestError: a field is unknown, missing or of the wrong type.
    """
    _check_fields(body, {"text", "answers"})
    text = _text(body)
    answers = body.get("answers")
    if not isinstance(answers, list) or not all(map(_is_answer, answers)) or not answers:
        expected = "a list of answers, each a string or, for several blanks, a list of strings"
        raise RequestError(400, f"answers must be {expected}", field="answers")
    if len(answers) > settings.max_answers:
        message = f"there are {len(answers)} answers, but this server allows {settings.max_answers}"
        raise RequestError(400, message, field="answers")
    for answer in answers:
        for blank in [answer] if isinstance(answer, str) else answer:
            _refuse_surrogates(blank, "answers")
    return ScoreRequest(text, answers)


def field_of(error: UsageError) -> str | None:
    """The field of a request that an error of the settings is about: its first word."""
    word = str(error).partition(" ")[0]
    return word if word in SAMPLING_FIELDS else None


def _sampling(body: Mapping[str, Any], text: str, sampling_of: SamplingOf) -> Sampling:
    given = {name: body[name] for name in SAMPLING_FIELDS & body.keys()}
    try:
        return sampling_of(text, given)
    except UsageError as error:
        raise RequestError(400, str(error), field=field_of(error)) from error


def _text_or_input(body: Mapping[str, Any]) -> str:
    """The text, or the JSON object that a task of several inputs reads, as text."""
    if "input" not in body:
        return _text(body)
    if "text" in body:
        raise RequestError(400, "text and input exclude each other", field="input")
    if not isinstance(body["input"], dict):
        raise RequestError(400, "input must be a JSON object with texts", field="input")
    text = json.dumps(body["input"], ensure_ascii=False)
    _refuse_surrogates(text, "input")
    return text


def _text(body: Mapping[str, Any]) -> str:
    if "text" not in body:
        raise RequestError(400, "the field text is missing", field="text")
    if not isinstance(body["text"], str):
        raise RequestError(400, f"text is {body['text']!r}, but must be a string", field="text")
    _refuse_surrogates(body["text"], "text")
    return body["text"]


def _refuse_surrogates(text: str, field: str) -> None:
    r"""Half of a character, as "\ud800" in JSON makes it, is no text that could be encoded."""
    if LONE_SURROGATE.search(text):
        raise RequestError(400, f"{field} has a lone surrogate, half of a character", field=field)


def _check_fields(body: Mapping[str, Any], known: Collection[str]) -> None:
    for field in body:
        if field not in known:
            message = f"there is no field {field!r}; known are {', '.join(sorted(known))}"
            raise RequestError(400, message, field=field[:100])


def _is_answer(answer: object) -> bool:
    if isinstance(answer, list):
        return all(isinstance(blank, str) for blank in answer)
    return isinstance(answer, str)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
