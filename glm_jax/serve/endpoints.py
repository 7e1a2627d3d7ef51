"""What each path answers."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from glm_jax.errors import UsageError
from glm_jax.generate.decoder import cache_size
from glm_jax.generate.engine import ActiveFill, slots_needed
from glm_jax.generate.fill import FilledText, Filler
from glm_jax.generate.prompt import MASK_NAMES
from glm_jax.generate.score import AnswerScore, check_answers
from glm_jax.generate.settings import Sampling
from glm_jax.serve.errors import JSONResponse, RequestError
from glm_jax.serve.event_stream import EventStream, result_of
from glm_jax.serve.jobs import BlockingJob, FillJob, Mailbox
from glm_jax.serve.metrics import Metrics
from glm_jax.serve.openai_endpoints import OpenAIEndpoints
from glm_jax.serve.page import Page
from glm_jax.serve.requests import FillRequest, ScoreRequest, parse_fill, parse_score, read_json
from glm_jax.serve.responses import StreamedText, filled_answer, scored_answer, searched_answer
from glm_jax.serve.settings import ServeSettings
from glm_jax.serve.worker import Worker


class Endpoints:
    """The paths of one server."""

    def __init__(
        self, filler: Filler, worker: Worker, metrics: Metrics, settings: ServeSettings, name: str
    ):
        """Takes what the answers are made with, and what the model is called."""
        self._filler = filler
        self._worker = worker
        self._metrics = metrics
        self._settings = settings
        self._num_slots = cache_size(settings.max_slots)
        self._page = Page("page.html")
        self._chat_page = Page("chat.html")
        self.openai = OpenAIEndpoints(filler, worker, settings, name)
        self.facts = facts_of(filler, settings, name)

    async def fill(self, request: Request) -> Response:
        """`POST /v1/fill`."""
        body = await read_json(request, self._settings.max_body)
        asked = await run_in_threadpool(parse_fill, body, self._settings, self._filler.sampling)
        in_windows = await run_in_threadpool(self._is_in_windows, asked)
        ids, fills = await run_in_threadpool(self._prepare, asked)
        mailbox = Mailbox()
        if asked.sampling.beams > 1 or in_windows:
            job = BlockingJob(mailbox.put, partial(self._search, asked))
            finish = partial(searched_answer, self._filler, ids)
        else:
            job = FillJob(mailbox.put, fills, asked.stream)
            finish = partial(filled_answer, self._filler, ids, top=asked.top)
        if asked.stream:
            text = StreamedText(self._filler, ids, len(fills))
            return EventStream(self._worker, job, mailbox, text, finish)
        result = await result_of(self._worker, job, mailbox, request.receive)
        return JSONResponse(await run_in_threadpool(finish, result))

    async def score(self, request: Request) -> Response:
        """`POST /v1/score`."""
        asked = parse_score(await read_json(request, self._settings.max_body), self._settings)
        await run_in_threadpool(self._check_answers, asked)
        mailbox = Mailbox()
        job = BlockingJob(mailbox.put, partial(self._score, asked))
        scores = await result_of(self._worker, job, mailbox, request.receive)
        return JSONResponse(await run_in_threadpool(scored_answer, self._filler.tokenizer, scores))

    async def model(self, _request: Request) -> Response:
        """`GET /v1/model`."""
        return JSONResponse(self.facts)

    async def health(self, _request: Request) -> Response:
        """`GET /health`."""
        if self._worker.alive:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "stopping"}, 503)

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def page(self, _request: Request) -> Response:
        """`GET /`."""
        return self._page.response()

    async def chat_page(self, _request: Request) -> Response:
        """`GET /chat`."""
        return self._chat_page.response()

    def _is_in_windows(self, asked: FillRequest) -> bool:
        """Whether a text is read in windows; refused where that excludes what is asked for."""
        if not self._filler.is_read_in_windows(asked.text):
            return False
        for name, value in (("stream", asked.stream), ("top", asked.top)):
            if value:
                message = f"{name} is not for passages, which are read in windows"
                raise RequestError(400, message, field=name)
        return True

    def _search(self, asked: FillRequest) -> FilledText:
        return self._filler.fill([asked.text], asked.sampling)[0]

    def _score(self, asked: ScoreRequest) -> list[AnswerScore]:
        return self._filler.score([asked.text], [asked.answers])[0]

    def _prepare(self, asked: FillRequest) -> tuple[list[int], list[ActiveFill]]:
        """The ids of a text, and its samples; refused if they do not fit."""
        ids, fills = self._start(asked.text, asked.sampling)
        longest = fills[0].sampling.max_blank_length
        self._check_slots(slots_needed(fills[0].prompt, longest), "text")
        return ids, fills

    def _check_answers(self, asked: ScoreRequest) -> None:
        """Refuses answers that do not fit the text or the server."""
        _, [active] = self._start(asked.text, Sampling())
        prompt = active.prompt
        try:
            [answers] = check_answers([asked.text], [asked.answers], [len(prompt.masks)])
        except UsageError as error:
            raise RequestError(400, str(error), field="answers") from error
        encode = self._filler.tokenizer.encode_text
        longest = max(sum(len(encode(blank)) + 1 for blank in answer) for answer in answers)
        self._check_slots(len(prompt.ids) + longest, "answers")

    def _start(self, text: str, sampling: Sampling) -> tuple[list[int], list[ActiveFill]]:
        try:
            return self._filler.start(text, sampling)
        except UsageError as error:
            raise RequestError(400, str(error), field="text") from error

    def _check_slots(self, needed: int, field: str) -> None:
        if needed > self._num_slots:
            message = (
                f"the text and its blanks need up to {needed} slots, but this server has "
                f"{self._num_slots}: fewer or shorter blanks, or a shorter text, would fit"
            )
            raise RequestError(400, message, field=field)


def facts_of(filler: Filler, settings: ServeSettings, name: str) -> dict[str, Any]:
    """What clients may want to know of the model and the server."""
    decode, special = filler.tokenizer.decode, filler.tokenizer.special
    limits = dataclasses.asdict(settings) | {"max_slots": cache_size(settings.max_slots)}
    return {
        "checkpoint": name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(filler.decoder.params)),
        "masks": [decode([special[mask]]) for mask in MASK_NAMES if mask in special],
        "max_blank_length": filler.config.max_sequence_length,
        "trained_for": filler.trained_for,
        "limits": limits,
    }
