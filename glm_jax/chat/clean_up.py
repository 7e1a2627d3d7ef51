"""The clean-up of spaces on text that still grows."""

from __future__ import annotations

import re

from glm_jax.tokenizer.chatglm import CLEANED, cleaned
from glm_jax.tokenizer.streaming import shared_length

# What may follow a text and change how its end is cleaned: the ends of all patterns, also with the
# apostrophe as the clean-up of " ' " makes it.
_PROBES = sorted(
    {"", "x"}
    | {
        form[start:]
        for pattern, _ in CLEANED
        for form in (pattern, pattern.replace("'", " ' "))
        for start in range(len(form))
    }
)
# No pattern crosses the end of a run of characters as long as the longest pattern that has neither
# space nor apostrophe.
_APART = re.compile(r"[^ ']{4}")
_LOOK_BACK = 12


def settled_clean_up(text: str) -> str:
    """The part of `cleaned(text)` that nothing that follows the text can change."""
    if _APART.fullmatch(text, max(0, len(text) - 4)):
        return cleaned(text)  # no pattern reaches beyond the end
    start = _split(text)
    fixed, tail = cleaned(text[:start]), text[start:]
    endings = [cleaned(tail + probe) for probe in _PROBES]
    return fixed + endings[0][: min(shared_length(endings[0], other) for other in endings)]


def _split(text: str) -> int:
    """A position before the end of a text that no pattern crosses, not far from the end."""
    for window in (_LOOK_BACK, 8 * _LOOK_BACK, len(text)):
        ends = [found.end() for found in _APART.finditer(text, max(0, len(text) - window))]
        if ends:
            return ends[-1]
    return 0
