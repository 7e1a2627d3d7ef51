"""Requests in OpenAI's format, checked field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from glm_jax.chat.settings import ChatSettings
from glm_jax.errors import UsageError
from glm_jax.generate.settings import Sampling
from glm_jax.serve.errors import RequestError
from glm_jax.serve.openai_messages import Conversation, checked_text, parse_messages
from glm_jax.serve.settings import ServeSettings

MAX_STOPS = 4
_SHARED_FIELDS = frozenset(
    (
        "model",
        "stream",
        "stream_options",
        "n",
        "seed",
        "stop",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "special_tokens",
        "logprobs",
    )
)
CHAT_FIELDS = _SHARED_FIELDS | {"messages", "max_completion_tokens", "top_logprobs"}
COMPLETION_FIELDS = _SHARED_FIELDS | {"prompt"}
# Fields that change nothing of the answer.
IGNORED_FIELDS = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "verbosity",
        "reasoning_effort",
    )
)
# What is accepted only as OpenAI's own default, which asks for nothing.
NEUTRAL_VALUES: Mapping[str, Sequence[Any]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}


@dataclasses.dataclass(frozen=True)
class GenerationRequest:
    """What is generated, whatever for.

    Attributes:
      settings: temperature, top_p, top_k, seed and special_tokens.
      n: answers.
      max_tokens: maximum tokens of an answer; None for what the window has.
      stops: strings at which an answer ends, without them.
      stream: whether the answer is sent as it grows.
      include_usage: whether a stream ends with the counts of tokens.
      logprobs: whether probabilities are reported.
      top: number of most probable tokens reported at every position.
    """

    settings: ChatSettings
    n: int
    max_tokens: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    logprobs: bool
    top: int

    def sampling(self, max_new_tokens: int, seed: int) -> Sampling:
        """The settings of its answers."""
        return self.settings.sampling(max_new_tokens, seed)


def parse_chat(
    body: Mapping[str, Any], settings: ServeSettings
) -> tuple[Conversation, GenerationRequest]:
    """A request for the next message.

    Raises:
      RequestError: a field is unknown, missing, of the wrong type or out of its range.
    """
    body = _checked_fields(body, CHAT_FIELDS)
    asks = _boolean(body, "logprobs", False)
    top = _integer(body, "top_logprobs", 0, settings.top) or 0
    if top and not asks:
        raise RequestError(400, "top_logprobs needs logprobs to be true", field="top_logprobs")
    limit = _integer(body, "max_completion_tokens", 1)
    conversation = parse_messages(body.get("messages"))
    return conversation, _generation(body, settings, asks, top, limit)


def parse_completion(
    body: Mapping[str, Any], settings: ServeSettings
) -> tuple[list[str | list[int]], GenerationRequest]:
    """A request for continuations of one or more prompts, each a text or ids.

    Raises:
      RequestError: a field is unknown, missing, of the wrong type or out of its range.
    """
    body = _checked_fields(body, COMPLETION_FIELDS)
    top = _integer(body, "logprobs", 0, settings.top)
    prompts = _prompts(body.get("prompt"))
    if len(prompts) > settings.queue:
        message = f"there are {len(prompts)} prompts, but this server allows {settings.queue}"
        raise RequestError(400, message, field="prompt")
    return prompts, _generation(body, settings, top is not None, top or 0, None)


def _prompts(prompt: Any) -> list[str | list[int]]:
    if isinstance(prompt, str):
        return [checked_text(prompt, "prompt")]
    if isinstance(prompt, list) and prompt:
        if all(_is_integer(id) for id in prompt):
            return [prompt]
        if all(isinstance(text, str) for text in prompt):
            return [checked_text(text, "prompt") for text in prompt]
        if all(isinstance(ids, list) and ids and all(map(_is_integer, ids)) for ids in prompt):
            return list(prompt)
    expected = "a string, a list of strings, a list of token ids, or a list of such lists"
    raise RequestError(400, f"prompt must be {expected}", field="prompt")


def _generation(
    body: Mapping[str, Any],
    settings: ServeSettings,
    logprobs: bool,
    top: int,
    max_tokens: int | None,
) -> GenerationRequest:
    stream = _boolean(body, "stream", False)
    options = body.get("stream_options", {})
    if not isinstance(options, dict) or (options and not stream):
        message = "stream_options must be an object, and needs stream to be true"
        raise RequestError(400, message, field="stream_options")
    return GenerationRequest(
        settings=_chat_settings(body),
        n=_integer(body, "n", 1, settings.rows) or 1,
        max_tokens=max_tokens or _integer(body, "max_tokens", 1),
        stops=_stops(body.get("stop")),
        stream=stream,
        include_usage=_boolean(options, "include_usage", False),
        logprobs=logprobs,
        top=top,
    )


def _chat_settings(body: Mapping[str, Any]) -> ChatSettings:
    given: dict[str, Any] = {"special_tokens": _boolean(body, "special_tokens", False)}
    for name, maximum in (("temperature", 2.0), ("top_p", 1.0)):
        if name in body:
            given[name] = _number(body, name, maximum)
    top_k = _integer(body, "top_k", 0)
    seed = _integer(body, "seed", -(2**63), 2**63 - 1)
    if top_k is not None:
        given["top_k"] = top_k
    if seed is not None:
        given["seed"] = seed % 2**32
    try:
        return ChatSettings(**given)
    except UsageError as error:
        raise RequestError(400, str(error), field=str(error).partition(" ")[0]) from error


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop if stop is not None else []
    good = isinstance(stops, list) and all(isinstance(text, str) and text for text in stops)
    if not good or len(stops) > MAX_STOPS:
        expected = f"a string or a list of at most {MAX_STOPS} strings, none of them empty"
        raise RequestError(400, f"stop must be {expected}", field="stop")
    return tuple(checked_text(text, "stop") for text in stops)


def _checked_fields(body: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The known fields that are not null."""
    for field, value in body.items():
        if field in NEUTRAL_VALUES:
            if value is not None and value not in NEUTRAL_VALUES[field]:
                raise RequestError(400, f"{field} is not supported", field=field)
        elif field not in known and field not in IGNORED_FIELDS:
            raise RequestError(400, f"there is no field {field!r}", field=field[:100])
    return {field: value for field, value in body.items() if field in known and value is not None}


def _boolean(body: Mapping[str, Any], name: str, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(400, f"{name} is {value!r}, but must be true or false", field=name)
    return value


def _integer(
    body: Mapping[str, Any], name: str, minimum: int, maximum: int = 2**31 - 1
) -> int | None:
    if name not in body:
        return None
    value = body[name]
    if not _is_integer(value) or not minimum <= value <= maximum:
        expected = f"an integer from {minimum} to {maximum}"
        raise RequestError(400, f"{name} is {value!r}, but must be {expected}", field=name)
    return value


def _number(body: Mapping[str, Any], name: str, maximum: float) -> float:
    value = body[name]
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= maximum
    if not good:
        expected = f"a number from 0 to {maximum:g}"
        raise RequestError(400, f"{name} is {value!r}, but must be {expected}", field=name)
    return float(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
