"""ROUGE over words of Chinese text and BLEU-4 over characters, as ChatGLM-6B's tuning reports them.

Source: the P-tuning program of ChatGLM-6B's repository, with rouge_chinese and nltk.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from glm_jax.errors import UsageError

_ROUGE_SIZES = {"rouge-1": 1, "rouge-2": 2}
# A sentence's end and what follows it; the words of two sentences are never joined.
_SENTENCE_ENDS = (
    (re.compile(r"([。！？\?])([^”’])"), r"\1\n\2"),
    (re.compile(r"(\.{6})([^”’])"), r"\1\n\2"),
    (re.compile(r"(\…{2})([^”’])"), r"\1\n\2"),
    (re.compile(r"([。！？\?][”’])([^，。！？\?])"), r"\1\n\2"),
)
_SMALL = 1e-8
_BLEU_ORDER = 4


def answer_scores(outputs: Sequence[str], references: Sequence[str]) -> Mapping[str, list[float]]:
    """Scores of every example from 0 to 100, rounded to 4 digits, by the metric's name.

    Raises:
      UsageError: jieba is not installed.
    """
    found: dict[str, list[float]] = {name: [] for name in ("bleu-4", *_ROUGE_SIZES, "rouge-l")}
    for output, reference in zip(outputs, references, strict=True):
        scores = rouge_of_words(words_of(output), words_of(reference))
        scores["bleu-4"] = bleu_of_characters(output, reference)
        for name, score in scores.items():
            found[name].append(round(100 * score, 4))
    return found


def words_of(text: str) -> list[str]:
    """The words that jieba finds, as rouge_chinese splits them again after joining them by spaces.

    Raises:
      UsageError: jieba is not installed.
    """
    try:
        import jieba
    except ImportError as error:
        raise UsageError(
            "ROUGE of Chinese words needs the package jieba: pip install 'glm_jax[evaluation]'"
        ) from error
    jieba.setLogLevel("ERROR")
    joined = " ".join(jieba.cut(text))
    for pattern, replacement in _SENTENCE_ENDS:
        joined = pattern.sub(replacement, joined)
    sentences = [sentence for sentence in joined.rstrip().split("\n") if sentence]
    return [word for sentence in sentences for word in " ".join(sentence.split()).split(" ")]


def rouge_of_words(output: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
    """F1 of different n-grams and of the longest common subsequence, each from 0 to 1.

    It is 0 where either has no words, where the original fails.
    """
    scores = {}
    for name, size in _ROUGE_SIZES.items():
        grams = [_ngrams(words, size) for words in (output, reference)]
        scores[name] = _f1(len(grams[0] & grams[1]), len(grams[0]), len(grams[1]))
    common = _longest_common_length(output, reference)
    return scores | {"rouge-l": _f1(common, len(output), len(reference))}


def bleu_of_characters(output: str, reference: str) -> float:
    """BLEU-4 of one text from 0 to 1, with n-grams that never match smoothed (NIST's geometric
    sequence: Chen and Cherry, 2014, method 3)."""
    if not output:
        return 0.0
    logs, halvings = 0.0, 0
    for size in range(1, _BLEU_ORDER + 1):
        grams = [
            Counter(text[start : start + size] for start in range(len(text) - size + 1))
            for text in (output, reference)
        ]
        matches, total = (grams[0] & grams[1]).total(), max(grams[0].total(), 1)
        if size == 1 and not matches:
            return 0.0
        if not matches:
            halvings += 1
        logs += math.log((matches or 2.0**-halvings) / total) / _BLEU_ORDER
    shortness = min(0.0, 1 - len(reference) / len(output))
    return math.exp(logs + shortness)


def _ngrams(words: Sequence[str], size: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}


def _f1(matches: int, num_output: int, num_reference: int) -> float:
    precision = matches / num_output if num_output else 0.0
    recall = matches / num_reference if num_reference else 0.0
    return 2 * precision * recall / (precision + recall + _SMALL)


def _longest_common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    numbers = {word: number for number, word in enumerate({*first, *second})}
    others = np.asarray([numbers[word] for word in second], np.int64)
    lengths = np.zeros(len(others) + 1, np.int64)
    for word in first:
        extended = np.where(others == numbers[word], lengths[:-1] + 1, lengths[1:])
        lengths[1:] = np.maximum.accumulate(np.maximum(extended, lengths[1:]))
    return int(lengths[-1])
