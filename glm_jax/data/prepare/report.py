"""What went into a store: for people, as JSON and as a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from glm_jax.data.prepare.splits import STRETCHES
from glm_jax.data.sources.document import ReadStats
from glm_jax.data.sources.stretches import STRETCH_CHARACTERS
from glm_jax.tokenizer import Tokenizer

REPORT_FILE = "report.json"
PICTURE_FILE = "report.png"

# Lower edges of the classes of lengths: four to an octave, up to a billion tokens.
LENGTH_EDGES = np.array(sorted({round(2 ** (step / 4)) for step in range(121)}), np.int64)

_FREQUENT_TOKENS = 50
_FREQUENT_TOKENS_PRINTED = 10
_COLOUR = "#0072B2"


@dataclass(frozen=True)
class TokenCount:
    """How often one token occurs."""

    id: int
    piece: str
    count: int


@dataclass(frozen=True)
class PrepareReport:
    """What went into a store.

    ``text_bytes`` counts UTF-8, ``tokens`` include ENC and eos. ``split_by`` is "documents", or
    "stretches" where long documents were divided between the splits.
    ``length_counts`` maps the minimum length of each class, in tokens, to its number of documents.
    """

    documents: int
    tokens: int
    text_bytes: int
    bytes_per_token: float
    splits: dict[str, dict[str, int]]
    split_by: str
    duplicates: int
    incidents: ReadStats
    length_counts: dict[int, int]
    frequent_tokens: list[TokenCount]
    sources: list[str]
    validation_fraction: float
    test_fraction: float
    filter: str | None

    def lines(self) -> list[str]:
        """The report for people."""
        splits = ", ".join(
            f"{name} {counts['num_documents']:,} documents with {counts['num_tokens']:,} tokens"
            for name, counts in self.splits.items()
        )
        frequent = ", ".join(
            f"{token.piece!r} {token.count / self.tokens:.1%}"
            for token in self.frequent_tokens[:_FREQUENT_TOKENS_PRINTED]
        )
        lines = [
            f"{self.documents:,} documents, {self.text_bytes / 1e6:.1f} MB of text, "
            f"{self.tokens:,} tokens, {self.bytes_per_token:.2f} bytes a token",
            splits,
            f"tokens in a document: {self.tokens / self.documents:,.0f} on average; "
            + ", ".join(
                f"{share:.0%} have {self.length_reached_by(share):,} or more"
                for share in (0.9, 0.5, 0.1)
            ),
            f"most frequent tokens: {frequent}",
        ]
        if self.split_by == STRETCHES:
            lines.append(
                "splits: long documents are divided by stretches of some "
                f"{STRETCH_CHARACTERS:,} characters, each in one split (--split_by=stretches)"
            )
        if self.duplicates:
            lines.append(f"duplicate documents dropped: {self.duplicates:,}")
        return lines + self.incidents.lines()

    def length_reached_by(self, share: float) -> int:
        """The greatest lower edge of a class that this share of the documents reach."""
        reached = 0
        for edge in sorted(self.length_counts, reverse=True):
            reached += self.length_counts[edge]
            if reached >= share * self.documents:
                return edge
        return 0


def length_counts(counts: Int64[np.ndarray, "E"]) -> dict[int, int]:
    """Documents by the lower edge of their class of lengths; empty classes are left out."""
    return {int(LENGTH_EDGES[at]): int(counts[at]) for at in np.flatnonzero(counts)}


def frequent_tokens(counts: Int64[np.ndarray, "V"], tokenizer: Tokenizer) -> list[TokenCount]:
    """The most frequent tokens, the most frequent first; of equals the lower id."""
    order = np.lexsort((np.arange(len(counts)), -counts))[:_FREQUENT_TOKENS]
    return [
        TokenCount(int(id), tokenizer.piece(int(id)), int(counts[id])) for id in order if counts[id]
    ]


def draw_report(report: PrepareReport) -> bytes:
    """A PNG of the lengths of documents and of the most frequent tokens."""
    # Imported here because workers don't draw.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    counts = report.length_counts
    starts = np.array(sorted(counts))
    following = np.searchsorted(LENGTH_EDGES, starts, "right").clip(max=len(LENGTH_EDGES) - 1)
    left.bar(
        starts,
        [counts[start] for start in starts.tolist()],
        np.maximum(LENGTH_EDGES[following] - starts, 1),
        align="edge",
        color=_COLOUR,
        ec="white",
        lw=0.5,
    )
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left.set_xlabel("tokens in a document", fontsize=8)
    left.set_ylabel("documents", fontsize=8)

    shown = report.frequent_tokens[:_FREQUENT_TOKENS_PRINTED][::-1]
    right.barh(range(len(shown)), [token.count / report.tokens for token in shown], color=_COLOUR)
    labels = [_drawable(repr(token.piece)) for token in shown]
    right.set_yticks(range(len(shown)), labels, parse_math=False)
    right.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.set_xlabel("share of the tokens", fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    # Without the library's version, so that the same report gives the same picture.
    figure.savefig(content, dpi=120, format="png", metadata={"Software": None})
    return content.getvalue()


def _drawable(text: str) -> str:
    """``text`` with codes for the characters that the picture's font doesn't have."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    return "".join(mark if font.get_char_index(ord(mark)) else ascii(mark)[1:-1] for mark in text)
