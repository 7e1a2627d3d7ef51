"""Response bodies of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glm_jax.generate.engine import ActiveFill, FilledBlank, TopToken
from glm_jax.generate.fill import Blank, FilledText, Filler
from glm_jax.generate.prompt import mask_ids, stretches
from glm_jax.generate.score import AnswerScore
from glm_jax.serve.jobs import Token
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.streaming import text_in_place, texts_in_place, without_incomplete


def filled_answer(
    filler: Filler, ids: Sequence[int], fills: Sequence[ActiveFill], top: int
) -> dict[str, Any]:
    """The answer to a request whose samples are complete.

    Args:
      filler: the model.
      ids: the text with its masks.
      fills: the samples.
      top: number of most probable tokens reported at every position.
    """
    samples = [filler.filled(ids, active.blanks) for active in fills]
    answers = [
        _text_answer(filler, ids, sample, active.blanks if top else [], top)
        for sample, active in zip(samples, fills, strict=True)
    ]
    number = max(range(len(samples)), key=lambda number: samples[number].log_prob)
    return {**answers[number], "samples": answers if len(answers) > 1 else []}


def searched_answer(filler: Filler, ids: Sequence[int], filled: FilledText) -> dict[str, Any]:
    """The answer to a request that was searched with beams."""
    return {**_text_answer(filler, ids, filled, [], 0), "samples": []}


def scored_answer(tokenizer: Tokenizer, scores: Sequence[AnswerScore]) -> dict[str, Any]:
    """The answer to a request to score."""
    answers = []
    for score in scores:
        blanks = [
            {
                "ids": blank.ids,
                "tokens": texts_in_place(tokenizer, [], blank.ids),
                "log_probs": blank.log_probs,
                "end_log_prob": blank.end_log_prob,
                "log_prob": blank.log_prob,
            }
            for blank in score.blanks
        ]
        answers.append({"log_prob": score.log_prob, "blanks": blanks})
    return {"answers": answers}


class StreamedText:
    """The events of a text that is being filled."""

    def __init__(self, filler: Filler, ids: Sequence[int], num_samples: int):
        """Takes the text with its masks."""
        self._tokenizer = filler.tokenizer
        self._stretches = list(stretches(ids, mask_ids(filler.tokenizer.special)))
        self._samples: list[list[list[int]]] = [[] for _ in range(num_samples)]

    def start(self) -> dict[str, Any]:
        """The text around the blanks, in as many parts as there are blanks, and one."""
        first, *others = self._stretches
        mask = [self._tokenizer.special["MASK"]]
        parts = [text_in_place(self._tokenizer, [], first)]
        parts += [text_in_place(self._tokenizer, mask, other) for other in others]
        return {"parts": parts}

    def token(self, token: Token) -> dict[str, Any]:
        """One token, with the text of its blank so far."""
        blanks = self._samples[token.sample]
        while len(blanks) <= token.blank:
            blanks.append([])
        ids = blanks[token.blank]
        if token.id is not None:
            ids.append(token.id)
        text = self._tokenizer.decode(ids)
        in_place = text_in_place(self._tokenizer, self._before(blanks, token.blank), ids)
        return {
            "sample": token.sample,
            "blank": token.blank,
            "id": token.id,
            "log_prob": token.log_prob,
            "text": text if token.closes else without_incomplete(text),
            "in_place": in_place if token.closes else without_incomplete(in_place),
            "closes": token.closes,
        }

    def _before(self, blanks: Sequence[Sequence[int]], blank: int) -> list[int]:
        """The ids before a blank, with those in earlier blanks."""
        before = list(self._stretches[0])
        for number in range(blank):
            before += [*blanks[number], *self._stretches[number + 1]]
        return before


def _text_answer(
    filler: Filler,
    ids: Sequence[int],
    filled: FilledText,
    with_top: Sequence[FilledBlank],
    top: int,
) -> dict[str, Any]:
    """One filled text.

    Args:
      filler: the model.
      ids: the text with its masks.
      filled: the text.
      with_top: the same blanks with the most probable tokens at every position; empty if they
        are not reported.
      top: number of tokens reported at every position.
    """
    tokenizer = filler.tokenizer
    first, *others = stretches(ids, mask_ids(tokenizer.special))
    before, blanks = list(first), []
    for number, (blank, span) in enumerate(zip(filled.blanks, filled.spans, strict=True)):
        answer = _blank_answer(tokenizer, before, blank) | {"span": list(span)}
        if with_top:
            answer["top"] = [
                _top_tokens(filler, [*before, *blank.ids[:index]], tokens[:top])
                for index, tokens in enumerate(with_top[number].top)
            ]
        blanks.append(answer)
        before += [*blank.ids, *others[number]]
    return {"text": filled.text, "log_prob": filled.log_prob, "blanks": blanks}


def _blank_answer(tokenizer: Tokenizer, before: Sequence[int], blank: Blank) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "text": blank.text,
        "ids": blank.ids,
        "tokens": texts_in_place(tokenizer, before, blank.ids),
        "log_probs": blank.log_probs,
        "end_log_prob": blank.end_log_prob,
        "log_prob": blank.log_prob,
    }
    if blank.score is not None:
        answer["score"] = blank.score
        answer["alternatives"] = [
            _blank_answer(tokenizer, before, other) for other in blank.alternatives
        ]
    return answer


def _top_tokens(
    filler: Filler, before: Sequence[int], tokens: Sequence[TopToken]
) -> list[dict[str, Any]]:
    return [
        {
            "id": token.id,
            "text": text_in_place(filler.tokenizer, before, [token.id]),
            "log_prob": token.log_prob,
            "ends": token.id in filler.decoder.ends,
        }
        for token in tokens
    ]
