"""Small changes to texts that tasks make before they are put into patterns."""

from __future__ import annotations

import string

# Quotation marks and en dashes; each becomes one character, so that offsets stay valid.
_PUNCTUATION = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-"})


def standardize(text: str) -> str:
    """`text` with typographic quotation marks and en dashes as ASCII characters."""
    return text.translate(_PUNCTUATION)


def strip_punctuation(text: str) -> str:
    """`text` without the ASCII punctuation at its end."""
    return text.rstrip(string.punctuation)


def lower_first(text: str) -> str:
    """`text` with a lower-case first character."""
    return text[:1].lower() + text[1:]
