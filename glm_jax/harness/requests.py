"""Requests of the harness -> rows and prompts, without the harness itself.

A context is put where `{context}` is in a template with one mask, and the continuation is what
fills the blank: `{context}[gMASK]` continues it, `Question: {context} Answer: [MASK].` answers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_jax.errors import UsageError
from glm_jax.generate.prompt import mask_ids
from glm_jax.language_model.windows import WindowLayout, document_rows, part_b_row
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import Tokenizer

CONTEXT = "{context}"


@dataclass(frozen=True)
class BlankTemplate:
    """How contexts and continuations become blanks.

    Attributes:
      tokenizer: of the model.
      num_positions: L, of the longest row.
      before: ids before the context.
      after: ids after it, one of which is a mask.
    """

    tokenizer: Tokenizer
    num_positions: int
    before: tuple[int, ...]
    after: tuple[int, ...]

    def context_ids(self, context: str, reserved: int) -> list[int]:
        """Part A of a context after its first token; a long context loses its start.

        Args:
          context: text in which special tokens are text too.
          reserved: positions of Part B.

        Raises:
          UsageError: nothing of the context fits.
        """
        text = self.tokenizer.encode_text(context)
        space = self.num_positions - 1 - len(self.before) - len(self.after) - reserved
        if space < min(len(text), 1):
            raise UsageError(
                f"a continuation of {reserved} tokens leaves no position for its context; the "
                f"network has {self.num_positions}"
            )
        return [*self.before, *text[max(len(text) - space, 0) :], *self.after]

    def continuation_row(self, context: str, continuation: str) -> Row:
        """A row in which all tokens of the continuation are scored, but not its end.

        Raises:
          UsageError: the continuation is empty or too long.
        """
        ids = self.tokenizer.encode_text(continuation)
        if not ids:
            raise UsageError(f"the continuation {continuation!r} of {context!r} has no tokens")
        part_a = self.context_ids(context, len(ids))
        return part_b_row(self.tokenizer.special, part_a, ids, len(ids), self.num_positions)

    def text_rows(self, text: str, stride: int) -> list[Row]:
        """Rows in which all tokens of a text are scored once, each after those before it.

        Args:
          text: what is scored.
          stride: tokens from one window to the next.
        """
        ids = self.tokenizer.encode_text(text)
        layout = WindowLayout(self.tokenizer.special, self.num_positions - 1, stride)
        return list(document_rows(ids, layout, scores_first=True))


def make_template(template: str, tokenizer: Tokenizer, num_positions: int) -> BlankTemplate:
    """Checks and encodes a template; "" is the continuation of the context.

    Raises:
      UsageError: it has not one context and one mask that the tokenizer has.
    """
    special = tokenizer.special
    if not template:
        template = CONTEXT + ("[gMASK]" if "gMASK" in special else "[MASK]")
    parts = template.split(CONTEXT)
    if len(parts) != 2:
        raise UsageError(f"the template {template!r} needs {CONTEXT} once")
    before, after = (tokenizer.encode(part) for part in parts)
    masks = mask_ids(special)
    if sum(id in masks for id in (*before, *after)) != 1:
        names = ", ".join(f"[{name}]" for name in sorted(special) if special[name] in masks)
        raise UsageError(f"the template {template!r} needs one mask of the tokenizer: {names}")
    # As in a prompt for the decoder: what ends in a generation mask has no end of text.
    ends = [] if after[-1:] == [special.get("gMASK")] else [special["eos"]]
    return BlankTemplate(tokenizer, num_positions, tuple(before), (*after, *ends))


def stop_at(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of the stop strings."""
    found = [text.index(stop) for stop in stops if stop and stop in text]
    return text[: min(found)] if found else text
