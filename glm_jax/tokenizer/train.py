"""Train a SentencePiece tokenizer on any text, in seconds and always with the same result."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from os import PathLike

import sentencepiece

from glm_jax.errors import RunError, UsageError
from glm_jax.tokenizer.held_out import Sample
from glm_jax.tokenizer.load import make_tokenizer
from glm_jax.tokenizer.protocol import SENTENCE_END_CHARACTERS, Tokenizer
from glm_jax.tokenizer.special import SpecialTokenOptions

_MAXIMUM_LINE_CHARACTERS = 4096

# SentencePiece counts in 32 bits.
MAX_VOCABULARY = 2**31 - 1


def train_sentencepiece(
    texts: Iterable[str],
    folder: str | PathLike[str],
    *,
    vocab_size: int,
    sample_lines: int = 500_000,
) -> Tokenizer:
    """Train a tokenizer with all mask tokens and dBLOCK, and save it in ``folder``.

    The pieces are byte-pair merges with bytes as the last resort, so nothing is ever unknown. Text
    is not normalised at all: every space counts and a newline is a token of its own. The same texts
    give the same tokenizer.

    Args:
      texts: documents, read once.
      folder: where the tokenizer is saved; made if need be.
      vocab_size: number of pieces of text, before the special tokens.
      sample_lines: at most this many lines, drawn evenly from all texts, are trained on.

    Raises:
      UsageError: no text, or ``vocab_size`` is more than the text gives or less than it needs.
    """
    if not 0 < vocab_size <= MAX_VOCABULARY:
        raise UsageError(f"vocab_size is {vocab_size}; expected 1 to {MAX_VOCABULARY}")
    sample = Sample(sample_lines)
    for line in _lines(texts):
        sample.add(line)
    if not sample.items:
        raise UsageError("there is no text to train a tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sample.items),
            model_writer=model,
            # BPE rather than unigram: a tenth of the time to train for the same bytes per token.
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            # Always pieces of their own or parts of pieces, never bytes: sentence ends are found
            # by the text of single tokens.
            required_chars="".join(sorted(SENTENCE_END_CHARACTERS - {"\n"})),
            character_coverage=0.9999,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            max_sentence_length=4 * _MAXIMUM_LINE_CHARACTERS,  # in bytes
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(error, vocab_size) from error
    options = SpecialTokenOptions(task_mask=True, decoder_mask=True)
    tokenizer = make_tokenizer("sentencepiece", [model.getvalue()], options)
    tokenizer.save(folder)
    return tokenizer


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.split("\n"):
            if not line.isspace():
                for start in range(0, len(line), _MAXIMUM_LINE_CHARACTERS):
                    yield line[start : start + _MAXIMUM_LINE_CHARACTERS]


def _explained(error: RuntimeError, vocab_size: int) -> UsageError | RunError:
    """The trainer's failure as one sentence."""
    message = str(error)
    if too_high := re.search(r"Vocabulary size too high.*<= (\d+)", message):
        return UsageError(
            f"vocab_size is {vocab_size}, but this text gives at most {too_high[1]} pieces"
        )
    if too_low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UsageError(
            f"vocab_size is {vocab_size}, but the bytes and characters of this text alone "
            f"need {too_low[1]} pieces"
        )
    return RunError(f"SentencePiece could not train a tokenizer: {message}")
