"""The procedure of `glm_jax.data.batches.batch` in plain Python, one example at a time.

A baseline to compare speed with, and a second telling of what the batched version computes: the
random numbers differ, the statistics do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np

from glm_jax.data.blanks.config import SPAN_COST, BlankConfig, Objective
from glm_jax.data.blanks.objectives import mask_ids
from glm_jax.data.blanks.span_lengths import span_length_distribution

Span = tuple[int, int]


class PlainBlanks:
    """Makes batches (contract C1) from lists of tokens."""

    def __init__(
        self,
        config: BlankConfig,
        special: Mapping[str, int],
        sentence_end: np.ndarray,
        sequence_length: int,
        seed: int = 0,
    ) -> None:
        self.config, self.special, self.sequence_length = config, special, sequence_length
        self.random = Random(seed)
        self.sentence_end = sentence_end.tolist()
        weights = span_length_distribution(config.mean_span_length, config.max_span_length)
        self.lengths, self.weights = range(1, config.max_span_length), weights.tolist()

    def batch(
        self, texts: Sequence[Sequence[int]], objectives: Sequence[Objective]
    ) -> dict[str, np.ndarray]:
        """One batch; every text has the length that its objective leaves room for."""
        columns: dict[str, list] = {}
        for text, objective in zip(texts, objectives, strict=True):
            for name, values in self.example(text, objective).items():
                columns.setdefault(name, []).append(values)
        types = {"loss_mask": np.float32}
        return {name: np.array(x, types.get(name, np.int32)) for name, x in columns.items()}

    def example(self, text: Sequence[int], objective: Objective) -> dict[str, list | int]:
        """One example, padded to the sequence length."""
        tail = False
        if objective == Objective.TOKEN:
            spans = self.token_spans(text)
        elif objective == Objective.SENTENCE:
            spans = self.sentence_spans(text)
        else:
            spans, tail = self.document_span(text)
        return self.build(text, spans, objective, tail)

    def token_spans(self, text: Sequence[int]) -> list[Span]:
        """Spans of drawn lengths, shared out over the documents and placed in them."""
        ratio = self.config.mask_ratio
        drawn: list[int] = []
        while sum(drawn) < max(int(ratio * len(text)), 1):
            drawn += self.random.choices(self.lengths, self.weights)
        drawn = drawn[: (self.sequence_length - len(text)) // SPAN_COST]
        self.random.shuffle(drawn)
        documents = self.documents(text)
        spans: list[Span] = []
        for number, (start, end) in enumerate(documents):
            is_longest = number == len(documents) - 1
            limit = len(text) if is_longest else int(ratio * (end - start))
            taken: list[int] = []
            while drawn and sum(taken) + drawn[0] <= limit:
                if sum(taken) + drawn[0] + len(taken) > end - start:
                    break
                taken.append(drawn.pop(0))
            spans += self.placed(taken, start, end)
        self.random.shuffle(spans)
        return spans

    def documents(self, text: Sequence[int]) -> list[Span]:
        """What blanks may cover of each document, the shortest first."""
        documents, start = [], 1
        for position, token in enumerate(text):
            if token == self.special["eos"]:
                documents.append((start, min(position, len(text) - 1)))
                start = position + 2
        if start < len(text):
            documents.append((start, len(text) - 1))
        return sorted(reversed(documents), key=lambda document: document[1] - document[0])

    def placed(self, lengths: Sequence[int], start: int, end: int) -> list[Span]:
        """The spans in random positions, in this order, with a token between each two."""
        free = end - start - sum(lengths) - len(lengths) + 1
        positions = sorted(self.random.randint(0, max(free, 0)) for _ in lengths)
        spans, used = [], 0
        for position, length in zip(positions, lengths, strict=True):
            first = start + position + used
            spans.append((first, first + length))
            used += length + 1
        return spans

    def sentence_spans(self, text: Sequence[int]) -> list[Span]:
        """Whole sentences in random order until they cover the mask ratio."""
        sentences, start = [], 1
        for position, token in enumerate(text):
            if token == self.special["eos"]:
                start = position + 2
            elif self.sentence_end[token]:
                sentences.append((start, position + 1))
                start = position + 1
        if start < len(text):
            sentences.append((start, len(text)))
        self.random.shuffle(sentences)
        spans: list[Span] = []
        covered, most = 0, (self.sequence_length - len(text)) // SPAN_COST
        for first, end in sentences:
            if len(spans) == most or covered >= int(self.config.sentence_mask_ratio * len(text)):
                break
            spans.append((first, end))
            covered += end - first
        return spans

    def document_span(self, text: Sequence[int]) -> tuple[list[Span], bool]:
        """One long span, and whether it is the tail."""
        longest = len(text) - 2
        size = self.random.randint(
            max(int(self.config.minimum_document_ratio * len(text)), 1), longest
        )
        several = self.special["eos"] in text[:-1]
        if several or self.random.random() < self.config.unidirectional_probability:
            return [(len(text) - size, len(text))], True
        start = self.random.randint(1, len(text) - 1 - size)
        return [(start, start + size)], False

    def build(
        self, text: Sequence[int], spans: Sequence[Span], objective: Objective, tail: bool
    ) -> dict[str, list | int]:
        """Part A and Part B with positions and targets, then padding."""
        special, config = self.special, self.config
        mask = mask_ids(config, special)[objective]
        hides = config.block_mask_probability if objective == Objective.TOKEN else 0
        part_a: list[int] = []
        mask_position: dict[Span, int] = {}
        cursor = 0
        for start, end in sorted(spans):
            part_a += text[cursor:start]
            mask_position[start, end] = len(part_a)
            part_a.append(mask)
            cursor = end
        part_a += text[cursor:]
        tokens, targets = list(part_a), list(part_a)
        position, block_position = list(range(len(part_a))), [0] * len(part_a)
        learned = [0] * len(part_a)
        for start, end in spans:
            body = list(text[start:end])
            shown = body
            if hides:
                shown = [special["dBLOCK"] if self.random.random() < hides else t for t in body]
            inputs = [special["sop"], *(shown[:-1] if tail else shown)]
            outputs = body if tail else [*body, special["eop"]]
            tokens += inputs
            targets += outputs
            position += [mask_position[start, end]] * len(outputs)
            block_position += range(1, len(outputs) + 1)
            learned += [int(not tail or token != special["ENC"]) for token in outputs]
        padding = [0] * (self.sequence_length - len(tokens))
        return {
            "tokens": tokens + padding,
            "targets": targets + padding,
            "loss_mask": learned + padding,
            "position_ids": [position + padding, block_position + padding],
            "prefix_length": len(part_a),
            "objective": int(objective),
        }
