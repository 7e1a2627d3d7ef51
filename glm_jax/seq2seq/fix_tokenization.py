"""Decoded text of lower-case vocabularies -> the tokenization of reference texts.

Rules: reference-finetune.md, section 9, and the recorded `text_functions`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence

from glm_jax.seq2seq.detokenize import replace_all

_SQUAD_WORDS = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"\ba \. m \.\b", "a.m."),
        (r"\ba \. m\b", "a.m"),
        (r"\bp \. m \.\b", "p.m."),
        (r"\bp \. m\b", "p.m"),
        (r"\b' s\b", "'s"),
        (r"\bu \. s \.\b", "u.s."),
        (r"\bu \. s\b", "u.s"),
    )
)
_BLANK_LM = (
    ("` `", "``"),
    ("' '", "''"),
    ("n ' t", "n't"),
    ("' s", "'s"),
    ("' m", "'m"),
    ("' re", "'re"),
    (". . .", "..."),
    (" . .", " .."),
    ("- -", "--"),
    ("u . s .", "u.s."),
    ("u . k .", "u.k."),
    ("e . g .", "e.g."),
)

# Words that a rule looks at, at most.
_LONGEST_RULE = 3
# A rule looks at the words that are done and those that are left. It returns how many of the latter
# it used, 0 if it does not apply, and may change the former.
_Rule = Callable[[list[str], Sequence[str]], int]


def fix_cnn_dm(text: str) -> str:
    """Joins what a word-piece vocabulary took apart; quotation marks become `` and ''."""
    words = text.split()
    done: list[str] = []
    rules = (_Alternating('"', "``", "''"), _contraction, _Alternating("'", "`", "'"))
    rules = (*rules, _ellipsis, _number, _initials)
    after_hyphen = False
    index = 0
    while index < len(words):
        left = words[index : index + _LONGEST_RULE]
        hyphen = False
        used = next((used for rule in rules if (used := rule(done, left))), 0)
        if not used and left[0] == "-":
            used, hyphen = _hyphen(done, left)
        elif not used and after_hyphen and left[0][0] not in string.punctuation:
            done[-1] += left[0]
            used = 1
        elif not used:
            done.append(left[0])
            used = 1
        index += used
        after_hyphen = hyphen
    return " ".join(done)


def fix_gigaword(text: str) -> str:
    """Unknown words as Gigaword has them."""
    return text.replace("[UNK]", "UNK")


def fix_squad(text: str) -> str:
    """Hyphens, numbers and a few abbreviations as passages have them."""
    text = replace_all(text, ((" - ", "-"), (" \u2013 ", "\u2013")))
    for pattern, word in _SQUAD_WORDS:
        text = pattern.sub(word, text)
    done: list[str] = []
    words = text.split()
    index = 0
    while index < len(words):
        if done and index + 1 < len(words) and _in_number(done[-1], words[index], words[index + 1]):
            done[-1] += words[index] + words[index + 1]
            index += 2
        else:
            done.append(words[index])
            index += 1
    return " ".join(done)


def fix_blanks(text: str) -> str:
    """Contractions and a few abbreviations of filled texts."""
    return replace_all(text, _BLANK_LM)


def unchanged(text: str) -> str:
    """The text itself."""
    return text


# By the name of the variant in the original.
FIXES: Mapping[str, Callable[[str], str]] = {
    "cnn_dm": fix_cnn_dm,
    "gigaword": fix_gigaword,
    "cnn_dm_org": unchanged,
}


class _Alternating:
    """A mark that opens at every odd occurrence and closes at every even one."""

    def __init__(self, mark: str, opening: str, closing: str):
        self._mark, self._next = mark, (opening, closing)

    def __call__(self, done: list[str], left: Sequence[str]) -> int:
        if left[0] != self._mark:
            return 0
        done.append(self._next[0])
        self._next = self._next[::-1]
        return 1


def _contraction(done: list[str], left: Sequence[str]) -> int:
    """don ' t -> do n't, it ' s -> it 's."""
    if left[0] != "'" or len(left) < 2:
        return 0
    if left[1] == "t" and done and done[-1].endswith("n"):
        done[-1] = done[-1][:-1]
        done.append("n't")
        return 2
    if left[1] in ("s", "d", "ll"):
        done.append("'" + left[1])
        return 2
    return 0


def _ellipsis(done: list[str], left: Sequence[str]) -> int:
    if list(left[:3]) != [".", ".", "."]:
        return 0
    done.append("...")
    return 3


def _number(done: list[str], left: Sequence[str]) -> int:
    """3 , 000 -> 3,000, and 3 . 5 -> 3.5."""
    if not done or len(left) < 2:
        return 0
    thousands = left[0] == "," and _is_number(done[-1]) and _is_number(left[1])
    decimal = left[0] == "." and done[-1].isdigit() and left[1].isdigit()
    if not thousands and not decimal:
        return 0
    done[-1] += left[0] + left[1]
    return 2


def _is_number(word: str) -> bool:
    return all(char.isdigit() or char == "," for char in word)


def _initials(done: list[str], left: Sequence[str]) -> int:
    """u . s . -> u.s., two letters and never more, as in the original."""
    single = done and _is_letter(done[-1]) and len(left) > 2 and _is_letter(left[1])
    if not single or left[0] != "." or left[2] != ".":
        return 0
    done[-1] += "".join(left[:3])
    return 3


def _is_letter(word: str) -> bool:
    return len(word) == 1 and word.isalpha()


def _hyphen(done: list[str], left: Sequence[str]) -> tuple[int, bool]:
    """The words that a hyphen used, and whether the next one is joined to it."""
    if len(left) > 1 and left[1] == "-":
        done.append("--")
        return 2, False
    # A substring test, as in the original: ")" and "()" are punctuation, ")." is not.
    joins = bool(done) and len(left) > 1 and done[-1] not in string.punctuation
    if joins and left[1][0] not in string.punctuation:
        done[-1] += "-"
        return 1, True
    done.append("-")
    return 1, False


def _in_number(before: str, mark: str, after: str) -> bool:
    """Whether a mark between two words is one within a number."""
    if mark not in (",", ".", ":") or not (before[-1].isdigit() and after[0].isdigit()):
        return False
    return mark != "," or len(after) <= 3
