"""Answers in OpenAI's format."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from glm_jax.generate.engine import TopToken
from glm_jax.serve.openai_choices import Choice, Progress
from glm_jax.serve.openai_requests import GenerationRequest
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.streaming import INCOMPLETE, text_in_place


class Answers:
    """Makes the objects of one request's answers.

    Attributes:
      note: what is said about turns that were left out; None where none were.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: str,
        asked: GenerationRequest,
        *,
        chat: bool,
        note: str | None = None,
    ) -> None:
        """Takes what the request asked for, and whether it is a conversation."""
        self._tokenizer = tokenizer
        self._asked = asked
        self._chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self.note = note

    def complete(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer as one object."""
        made = []
        for choice in choices:
            content: dict[str, Any] = {"text": choice.text}
            if self._chat:
                message = {"role": "assistant", "content": choice.text, "refusal": None}
                content = {"message": message}
            tokens = range(len(choice.ids))
            made.append(
                {
                    "index": choice.index,
                    **content,
                    "logprobs": self._logprobs(choice, tokens),
                    "finish_reason": choice.finish,
                }
            )
        return self._object(made, "chat.completion") | {"usage": usage(choices)}

    def first(self, choices: Sequence[Choice]) -> dict[str, Any] | None:
        """What a stream starts with; None for completions, which start with their text."""
        if not self._chat:
            return None
        delta = {"role": "assistant", "content": "", "refusal": None}
        made = [
            {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
            for choice in choices
        ]
        return self._object(made, "chat.completion.chunk")

    def chunk(self, choice: Choice, progress: Progress) -> dict[str, Any]:
        """One step of one answer in a stream."""
        content: dict[str, Any] = {"text": progress.text}
        if self._chat:
            content = {"delta": {"content": progress.text} if progress.text else {}}
        made = {
            "index": choice.index,
            **content,
            "logprobs": self._logprobs(choice, progress.tokens),
            "finish_reason": progress.finish,
        }
        return self._object([made], "chat.completion.chunk")

    def last(self, choices: Sequence[Choice]) -> dict[str, Any] | None:
        """The counts at the end of a stream; None where they are not asked for."""
        if not self._asked.include_usage:
            return None
        return self._object([], "chat.completion.chunk") | {"usage": usage(choices)}

    def _object(self, choices: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        made = {**self._head, "object": kind if self._chat else "text_completion"}
        note = {} if self.note is None else {"note": self.note}
        return {**made, "choices": choices, **note}

    def _logprobs(self, choice: Choice, tokens: range) -> dict[str, Any] | None:
        if not self._asked.logprobs:
            return None
        blank = choice.blank
        rows = []
        for index in tokens:
            before = blank.ids[:index]
            top = blank.top[index][: self._asked.top] if self._asked.top else []
            chosen = TopToken(blank.ids[index], blank.log_probs[index])
            rows.append((self._token(before, chosen), [self._token(before, one) for one in top]))
        if self._chat:
            content = [{**token, "top_logprobs": top} for token, top in rows]
            return {"content": content, "refusal": None}
        offsets = [0]
        for token, _ in rows:
            offsets.append(offsets[-1] + len(token["token"]))
        return {
            "tokens": [token["token"] for token, _ in rows],
            "token_logprobs": [token["logprob"] for token, _ in rows],
            "top_logprobs": [{one["token"]: one["logprob"] for one in top} for _, top in rows],
            "text_offset": offsets[:-1],
        }

    def _token(self, before: Sequence[int], token: TopToken) -> dict[str, Any]:
        """A token in its place; one that is a part of a character as its vocabulary writes it."""
        text = text_in_place(self._tokenizer, before, [token.id])
        if not text or INCOMPLETE in text:
            piece = self._tokenizer.piece(token.id)
            return {"token": piece, "logprob": token.log_prob, "bytes": None}
        return {"token": text, "logprob": token.log_prob, "bytes": list(text.encode())}


def usage(choices: Sequence[Choice]) -> dict[str, int]:
    """Counted tokens: a prompt counts once for all its answers, and an answer's end not at all."""
    prompts = {id(choice.fitted): choice.fitted.num_tokens for choice in choices}
    prompt, completion = sum(prompts.values()), sum(len(choice.ids) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
