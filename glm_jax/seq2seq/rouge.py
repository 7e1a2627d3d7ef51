"""ROUGE of outputs, by `rouge-score` (Lin, 2004), and the original's variant of it.

Outputs and references are sentences separated by [SEP].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.seq2seq.fix_tokenization import unchanged

# Our names of the measures, the original's, and the package's.
MEASURES: Mapping[str, str] = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeLsum"}
_SEPARATOR = "[SEP]"
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_CHARACTER_TOKENS = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_HAS_CJK = re.compile(f"[{_CJK}]")
# What the original leaves out of outputs.
_MIN_WORDS = 5
_MAX_REPEATED = 0.7


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """The F-measures, 0 to 1, of every output, by the name of the measure.

    Texts in Chinese, Japanese or Korean are compared by characters, all others by stemmed words.

    Raises:
      UsageError: rouge-score is not installed.
    """
    by_characters = any(_HAS_CJK.search(reference) for reference in references)
    scorer = _scorer(_Characters() if by_characters else None)
    pairs = zip(predictions, references, strict=True)
    return _measures(scorer, ((_lines(reference), _lines(output)) for output, reference in pairs))


def original_rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    fix: Callable[[str], str] = unchanged,
) -> dict[str, list[float]]:
    """The same as the original computes them, for comparison with its figures.

    It leaves out sentences of outputs that are short or repeat others, and exchanges output and
    reference, which changes rouge-l (reference-finetune.md, section 9, and section 14, fault 16).

    Args:
      predictions, references: as for `rouge_scores`.
      fix: changes every sentence, one of `fix_tokenization.FIXES`.
    """
    pairs = []
    for output, reference in zip(predictions, references, strict=True):
        sentences = [fix(sentence) for sentence in output.strip().split(_SEPARATOR)]
        expected = "\n".join(fix(sentence) for sentence in reference.strip().split(_SEPARATOR))
        pairs.append(("\n".join(_kept_sentences(sentences)), expected))
    return _measures(_scorer(None), pairs)


def _kept_sentences(sentences: Sequence[str]) -> list[str]:
    kept, seen = [], set()
    for sentence in sentences:
        if len(sentence.split()) < _MIN_WORDS:
            continue
        words = set(sentence.lower().split())
        if len(words & seen) / len(words) <= _MAX_REPEATED:
            kept.append(sentence)
        seen |= words
    return kept


def _lines(text: str) -> str:
    """A sentence per line, as rougeLsum needs it."""
    return "\n".join(sentence.strip() for sentence in text.split(_SEPARATOR))


def _measures(scorer: Any, pairs: Any) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for target, prediction in pairs:
        scores = scorer.score(target, prediction)
        for name, measure in MEASURES.items():
            found[name].append(scores[measure].fmeasure)
    return found


def _scorer(tokenizer: Any) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise UsageError(
            "ROUGE needs the package rouge-score: pip install 'glm_jax[evaluation]'"
        ) from error
    return RougeScorer(list(MEASURES.values()), use_stemmer=True, tokenizer=tokenizer)


class _Characters:
    """A tokenizer of rouge-score: characters of CJK scripts, and words of all others."""

    def tokenize(self, text: str) -> list[str]:
        return _CHARACTER_TOKENS.findall(text.lower())
