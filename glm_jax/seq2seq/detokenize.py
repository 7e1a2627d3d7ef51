"""Published files of tokenized text -> text as it is written, for each dataset.

Source: reference-finetune.md, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence

Replacements = Sequence[tuple[str, str]]

_BRACKETS: Replacements = (
    ("-lrb-", "("),
    ("-rrb-", ")"),
    ("-lsb-", "["),
    ("-rsb-", "]"),
    ("-lcb-", "{"),
    ("-rcb-", "}"),
)
_UPPER_BRACKETS: Replacements = tuple((name.upper(), sign) for name, sign in _BRACKETS)
_QUOTES: Replacements = (("''", '"'), ("``", '"'), ("`", "'"))
_CONTRACTIONS: Replacements = tuple((" " + end, end) for end in ("n't", "'s", "'d", "'ll"))
_CNN_DM: Replacements = (*_UPPER_BRACKETS, *_QUOTES, *_CONTRACTIONS)
_GIGAWORD: Replacements = (
    ("UNK", "[UNK]"),
    ("<unk>", "[UNK]"),
    *_BRACKETS,
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
)
_BLANKS: Replacements = (("_UNK", "[UNK]"), ("<blank>", "[MASK]"))
# Between the sentences of CNN/DailyMail.
_SENTENCE_SEPARATOR = "<S_SEP>"


def cnn_dm_source(text: str) -> str:
    """An article of CNN/DailyMail."""
    return replace_all(text, ((_SENTENCE_SEPARATOR, ""), *_CNN_DM))


def cnn_dm_target(text: str) -> str:
    """A summary of CNN/DailyMail, its sentences separated by [SEP]."""
    return replace_all(text, ((_SENTENCE_SEPARATOR, "[SEP]"), *_CNN_DM))


def gigaword(text: str) -> str:
    """A sentence, or a headline, of Gigaword."""
    return replace_all(text, _GIGAWORD)


def blanks(text: str) -> str:
    """A line of the blank-filling files."""
    return replace_all(text, _BLANKS)


def replace_all(text: str, replacements: Replacements) -> str:
    """`text` with one replacement after another."""
    for old, new in replacements:
        text = text.replace(old, new)
    return text
