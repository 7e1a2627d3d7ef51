"""The clean-up of spaces on text that still grows."""

from __future__ import annotations

import os
import re

from glm_jax.tokenizer.chatglm import CLEANED, cleaned

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
    start = _split(text)
    fixed, tail = cleaned(text[:start]), text[start:]
    return fixed + os.path.commonprefix([cleaned(tail + probe) for probe in _PROBES])


def _split(text: str) -> int:
    """A position before the end of a text that no pattern crosses, not far from the end."""
    for window in (_LOOK_BACK, 8 * _LOOK_BACK, len(text)):
        last = None
        for last in _APART.finditer(text, max(0, len(text) - window)):
            pass
        if last is not None:
            return last.end()
    return 0
