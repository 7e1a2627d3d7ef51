"""Tokenized benchmark files -> text as it is written.

Rules: Megatron-LM's, as reference-finetune.md, section 10, lists them, and the recorded
`detokenizers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from glm_jax.seq2seq.detokenize import replace_all

_HYPHENS_AND_NUMBERS = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."))
_PUNCTUATION = tuple((f" {mark} ", f"{mark} ") for mark in ":;.!?,")
# Spaces inside of brackets and quotation marks.
_ENCLOSED = tuple(
    (re.compile(rf"\{left}\s*([^\{right}]*?)\s*\{right}"), left, right)
    for left, right in ("()", "[]", "{}", '""', "''")
)
_HEADINGS = (("= = = =", "===="), ("= = =", "==="), ("= =", "=="))
_DEGREES = ((" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),)
_LINE_ENDS = ((" \n", "\n"), ("\n ", "\n"))
_PTB = ((" n't", "n't"), (" N ", "1 "), ("$ 1", "$1"), ("# 1", "#1"))


def wikitext(text: str) -> str:
    """A file of WikiText."""
    text = replace_all(text.replace("s '", "s'"), (*_HYPHENS_AND_NUMBERS, *_PUNCTUATION))
    for pattern, left, right in _ENCLOSED:
        text = pattern.sub(rf"{left}\1{right}", text)
    text = replace_all(text, (*_HEADINGS, *_DEGREES, *_LINE_ENDS))
    return replace_all(text, ((" N ", " 1 "), (" 's", "'s")))


def ptb(text: str) -> str:
    """A file of the Penn Treebank."""
    return replace_all(text.replace(" '", "'"), (*_LINE_ENDS, *_PTB))


def unchanged(text: str) -> str:
    """The text itself, as LAMBADA and one's own texts are."""
    return text


DETOKENIZERS: Mapping[str, Callable[[str], str]] = {
    "wikitext": wikitext,
    "ptb": ptb,
    "lambada": unchanged,
}
