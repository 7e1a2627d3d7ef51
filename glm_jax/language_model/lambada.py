"""LAMBADA: the last word of a passage (Paperno et al., 2016).

Source: reference-finetune.md, section 10, and section 14, fault 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.language_model.windows import part_b_row
from glm_jax.seq2seq.files import existing
from glm_jax.tasks.files import Row, json_lines, origin_of
from glm_jax.tasks.sequence import Row as TokenRow
from glm_jax.tokenizer import Tokenizer


def read_lambada(file: epath.Path) -> list[str]:
    """The passages of a file: a JSON object with `text` per line.

    Raises:
      UsageError: the file is missing, or a line has no passage of two words.
    """
    passages = passages_of(json_lines(existing(file)), "text")
    if not passages:
        raise UsageError(f"{file} has no passages")
    return passages


def passages_of(rows: Sequence[Row], field: str) -> list[str]:
    """The passages in a field of rows.

    Raises:
      UsageError: a row has no passage of two words.
    """
    passages = []
    for number, row in enumerate(rows):
        text = row.get(field)
        if not isinstance(text, str) or len(text.split()) < 2:
            raise UsageError(
                f"{origin_of(row, number)}: expected a passage of two words or more in the field "
                f"{field!r}, found {text!r}"
            )
        passages.append(text)
    return passages


def lambada_row(
    passage: str, tokenizer: Tokenizer, sequence_length: int, *, unidirectional: bool = False
) -> TokenRow:
    """A row in which the tokens of the last word are scored.

    Args:
      passage: two words or more.
      tokenizer: of the model.
      sequence_length: L; a passage that is too long loses its start.
      unidirectional: whether the passage is read from left to right.

    Returns:
      tokens, targets, loss_mask [L], position_ids [2, L], prefix_length [].

    Raises:
      UsageError: the last word alone is too long.
    """
    special = tokenizer.special
    text = passage.strip()
    last_word = text.split()[-1]
    context = tokenizer.encode(text[: len(text) - len(last_word)].strip())
    answer = tokenizer.encode(f" {last_word}")
    # Besides both: ENC, the mask, eos and sop; the answer's last token is a target only.
    space = sequence_length - 3 - len(answer)
    if space < 1:
        raise UsageError(
            f"the last word {last_word!r} of a passage needs a sequence length of "
            f"{len(answer) + 4}, more than {sequence_length}"
        )
    context = context[-space:]
    split = 1 if unidirectional else len(context)
    mask = special.get("gMASK", special["MASK"])
    return part_b_row(
        special,
        [*context[:split], mask, special["eos"]],
        [*context[split:], *answer],
        len(answer),
        sequence_length,
    )
