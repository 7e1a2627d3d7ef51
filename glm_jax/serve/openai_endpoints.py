"""The paths of OpenAI's API."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glm_jax.chat.growing import AnswerText
from glm_jax.chat.model import FittedPrompt, fitted, form_of
from glm_jax.chat.settings import ChatSettings
from glm_jax.errors import UsageError
from glm_jax.generate.decoder import cache_size
from glm_jax.generate.fill import Filler
from glm_jax.serve.errors import JSONResponse, RequestError, server_fault, to_json
from glm_jax.serve.event_stream import SILENCE_SECONDS
from glm_jax.serve.openai_choices import Choice, EventQueue, progress_of, submitted
from glm_jax.serve.openai_messages import Conversation
from glm_jax.serve.openai_requests import GenerationRequest, parse_chat, parse_completion
from glm_jax.serve.openai_responses import Answers
from glm_jax.serve.requests import read_json
from glm_jax.serve.settings import ServeSettings
from glm_jax.serve.worker import Worker

logger = logging.getLogger(__name__)


class OpenAIEndpoints:
    """Conversations and continuations of one model.

    Attributes:
      window: maximum tokens of a prompt and its answer together.
    """

    def __init__(self, filler: Filler, worker: Worker, settings: ServeSettings, name: str) -> None:
        """Takes what the answers are made with, and what the model is called."""
        self._tokenizer = filler.tokenizer
        self._form = form_of(filler)
        self._worker = worker
        self._settings = settings
        self._name = name
        self._created = int(time.time())
        self.window = min(
            cache_size(settings.max_slots),
            filler.config.max_sequence_length,
            ChatSettings.max_length,
        )

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        body = await self._read(request)
        conversation, asked = parse_chat(body, self._settings)
        prompt = await run_in_threadpool(self._fit, conversation, asked)
        answers = Answers(self._tokenizer, self._name, asked, chat=True, note=prompt.note)
        return await self._answer(request, asked, [prompt], self._form.answer, answers)

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        body = await self._read(request)
        prompts, asked = parse_completion(body, self._settings)
        if len(prompts) * asked.n > self._settings.queue:
            message = f"prompts times n is more than the {self._settings.queue} that may wait"
            raise RequestError(400, message, field="n")
        made = await run_in_threadpool(
            lambda: [self._fit_continuation(prompt, asked) for prompt in prompts]
        )
        answers = Answers(self._tokenizer, self._name, asked, chat=False)
        return await self._answer(request, asked, made, self._form.continuation, answers)

    async def models(self, _request: Request) -> Response:
        """`GET /v1/models`."""
        return JSONResponse({"object": "list", "data": [self._facts()]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        self._check_model(request.path_params["name"])
        return JSONResponse(self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "glm-jax",
            "max_model_len": self.window,
        }

    async def _read(self, request: Request) -> dict[str, Any]:
        body = dict(await read_json(request, self._settings.max_body))
        model = body.get("model")
        if not isinstance(model, str):
            raise RequestError(400, "model must be the name of a model", field="model")
        self._check_model(model)
        return body

    def _check_model(self, name: str) -> None:
        if name != self._name:
            message = f"there is no model {name!r}; this server has {self._name!r}"
            raise RequestError(404, message, field="model", code="model_not_found")

    def _fit(self, conversation: Conversation, asked: GenerationRequest) -> FittedPrompt:
        try:
            return self._form.fit(
                conversation.history,
                conversation.query,
                window=self.window,
                max_new_tokens=asked.max_tokens,
                special_tokens=asked.settings.special_tokens,
                before=conversation.system,
            )
        except UsageError as error:
            raise _too_long(error, "messages") from error

    def _fit_continuation(self, prompt: str | list[int], asked: GenerationRequest) -> FittedPrompt:
        special = asked.settings.special_tokens
        if isinstance(prompt, str):
            made = self._form.encode(prompt, special_tokens=special)
        else:
            self._check_ids(prompt)
            made = self._form.continue_ids(prompt)
        try:
            return fitted(made, self.window, asked.max_tokens)
        except UsageError as error:
            raise _too_long(error, "prompt") from error

    def _check_ids(self, ids: Sequence[int]) -> None:
        size = self._tokenizer.vocab_size
        wrong = next((id for id in ids if not 0 <= id < size), None)
        if wrong is not None:
            message = f"prompt has the token {wrong}, but the tokens are 0 to {size - 1}"
            raise RequestError(400, message, field="prompt")

    async def _answer(
        self,
        request: Request,
        asked: GenerationRequest,
        prompts: Sequence[FittedPrompt],
        shown: AnswerText,
        answers: Answers,
    ) -> Response:
        queue = EventQueue()
        seed = asked.settings.seed
        seed = secrets.randbits(32) if seed is None else seed
        choices = [
            Choice(
                number * asked.n + sample,
                prompt,
                asked,
                shown,
                seed=seed,
                sample=sample,
                queue=queue,
            )
            for number, prompt in enumerate(prompts)
            for sample in range(asked.n)
        ]
        if asked.stream:
            return _Stream(self._worker, choices, queue, answers)
        async with submitted(self._worker, choices, queue, request.receive):
            async for _ in progress_of(self._worker, choices, queue):
                pass
        return JSONResponse(await run_in_threadpool(answers.complete, choices))


class _Stream(Response):
    """Sends answers as they grow."""

    media_type = "text/event-stream"

    def __init__(
        self, worker: Worker, choices: Sequence[Choice], queue: EventQueue, answers: Answers
    ) -> None:
        # X-Accel-Buffering: nginx would otherwise collect the events.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._worker = worker
        self._choices = choices
        self._queue = queue
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def say(body: bytes, more: bool = True) -> None:
            nonlocal started
            if not started:
                started = True
                head = {"status": 200, "headers": self.raw_headers}
                await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": body, "more_body": more})

        try:
            async with submitted(self._worker, self._choices, self._queue, receive):
                await self._send_all(say)
        except ClientDisconnect:
            return
        except Exception as error:
            if not started:
                raise
            if not isinstance(error, RequestError):
                logger.exception("a stream failed")
            fault = error if isinstance(error, RequestError) else server_fault()
            await say(_event(fault.body()), more=False)
            return
        await say(b"data: [DONE]\n\n", more=False)

    async def _send_all(self, say: Callable[..., Any]) -> None:
        answers = self._answers
        await say(_event(answers.first(self._choices)))
        updates = progress_of(self._worker, self._choices, self._queue, SILENCE_SECONDS)
        async for update in updates:
            await say(b": waiting\n\n" if update is None else _event(answers.chunk(*update)))
        await say(_event(answers.last(self._choices)))


def _event(data: dict[str, Any] | None) -> bytes:
    """One server-sent event; nothing without data."""
    return b"" if data is None else b"data: " + to_json(data) + b"\n\n"


def _too_long(error: UsageError, field: str) -> RequestError:
    return RequestError(400, str(error), field=field, code="context_length_exceeded")
