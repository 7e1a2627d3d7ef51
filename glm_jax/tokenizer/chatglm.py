"""ChatGLM-6B's tokenizer: equal to the published one, and one that reads no text as special.

Source: the published tokenizer on transformers 4.30.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike

import numpy as np
from jaxtyping import Bool

from glm_jax.errors import UsageError
from glm_jax.io.files import write_files
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer.chatglm_pieces import MODEL_FILE, OLD_NUM_IMAGE_TOKENS, ChatGLMPieces
from glm_jax.tokenizer.glm_tokenizer import DESCRIPTION_FILE, fingerprint_of
from glm_jax.tokenizer.protocol import SENTENCE_END_CHARACTERS

KIND = "chatglm"
# The original's name of every special token, and its piece; eos is what ends an answer.
SPECIAL_PIECES: Mapping[str, str] = {
    "pad": "<pad>",
    "eos": "<eop>",
    "unk": "<unk>",
    "ENC": "<ENC>",
    "MASK": "[MASK]",
    "gMASK": "[gMASK]",
    "sMASK": "[sMASK]",
    "sop": "<sop>",
    "eop": "<eop>",
    "dBLOCK": "<dBLOCK>",
}
# What the published tokenizer takes for a special token inside a text; of the others' text it makes
# pieces like of any other.
SPECIAL_IN_TEXT = ("[MASK]", "<sop>", "<eop>", "<pad>", "<unk>")
# Rows of the published word embedding that have no piece.
PADDING_ROWS = 184
# What transformers' clean-up of spaces replaces, in its order.
CLEANED: tuple[tuple[str, str], ...] = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


class ChatGLMTokenizer:
    """Encodes text for ChatGLM-6B, and decodes its answers."""

    def __init__(self, model: bytes, num_image_tokens: int | None = None) -> None:
        """Makes the tokenizer.

        Args:
          model: the content of an ice_text.model.
          num_image_tokens: ids before those of the pieces; None as the file's release has them,
            20,000 in the first and 0 in the second.

        Raises:
          UsageError: ``model`` is not ChatGLM's, or ``num_image_tokens`` is negative.
        """
        self._pieces = ChatGLMPieces(model)
        if num_image_tokens is None:
            num_image_tokens = OLD_NUM_IMAGE_TOKENS if self._pieces.is_old_release else 0
        if num_image_tokens < 0:
            raise UsageError(f"num_image_tokens is {num_image_tokens}, but must be 0 or more")
        self.num_image_tokens = num_image_tokens
        self._special = {
            name: self._pieces.id_of(piece) + num_image_tokens
            for name, piece in SPECIAL_PIECES.items()
        }
        self._special_in_text = {
            piece: self._pieces.id_of(piece) + num_image_tokens for piece in SPECIAL_IN_TEXT
        }
        self._special_pattern = re.compile("|".join(map(re.escape, SPECIAL_IN_TEXT)))
        self._skipped = frozenset(self._special_in_text.values())
        self._fingerprint = fingerprint_of({MODEL_FILE: model}, self._special)
        self._sentence_end: np.ndarray | None = None

    @property
    def special(self) -> Mapping[str, int]:
        """Ids by the original's names; eos and eop are one token, and there is no sep."""
        return self._special

    @property
    def vocab_size(self) -> int:
        """Image tokens plus pieces."""
        return self.num_image_tokens + self._pieces.size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embedding: 130,528 in the second release, 150,528 in the first."""
        return self.vocab_size + PADDING_ROWS

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the vocabulary and the special ids."""
        return self._fingerprint

    @property
    def sentence_end(self) -> Bool[np.ndarray, "V"]:
        """True where the token's text contains a sentence end."""
        if self._sentence_end is None:
            ends = np.zeros(self.padded_vocab_size, dtype=bool)
            special = set(self._special.values())
            for id in range(self._pieces.size):
                shown = "\n" if self._pieces.piece(id) == "<n>" else self._pieces.piece(id)
                is_text = id + self.num_image_tokens not in special and not self._pieces.is_byte(id)
                ends[id + self.num_image_tokens] = is_text and any(
                    character in SENTENCE_END_CHARACTERS for character in shown
                )
            ends.setflags(write=False)
            self._sentence_end = ends
        return self._sentence_end

    def encode(self, text: str) -> list[int]:
        """Ids of ``text`` in which `SPECIAL_IN_TEXT` are special tokens, without spaces around.

        What starts an answer is not included, see `encode_prompt`.
        """
        ids: list[int] = []
        for part in self._parts(text):
            ids += [part] if isinstance(part, int) else self.encode_text(part)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` taken literally: "<sop>" in it is five characters, not a token."""
        return [id + self.num_image_tokens for id in self._pieces.encode(text)]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """``encode`` of every text."""
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str, answer: str | None = None) -> list[int]:
        """The published encoding of one text, or of a text and its answer.

        It is `text [gMASK] sop`, followed by `answer eop` where there is one.
        """
        ids = self.encode(text) + self.prompt_end
        return ids if answer is None else [*ids, *self.encode(answer), self._special["eop"]]

    @property
    def prompt_end(self) -> list[int]:
        """The tokens after every prompt: gMASK and sop."""
        return [self._special["gMASK"], self._special["sop"]]

    def decode(
        self, ids: Sequence[int], *, skip_special: bool = False, clean_up: bool = True
    ) -> str:
        """The text of ``ids``; control pieces and pads add nothing.

        Args:
          ids: tokens; those of the padding rows of the word embedding are left out.
          skip_special: leave out `SPECIAL_IN_TEXT`, of which only unk is shown otherwise.
          clean_up: remove spaces before punctuation and English contractions, as the published
            tokenizer does since May 2023.

        Raises:
          UsageError: an id is negative or beyond the padded vocabulary.
        """
        pad = self._special["pad"]
        dropped = self._skipped if skip_special else frozenset({pad})
        kept = [self._checked(id) for id in ids if id not in dropped]
        texts: list[str] = []
        run: list[int] = []
        for id in kept:
            if self.num_image_tokens <= id < self.vocab_size:
                run.append(id - self.num_image_tokens)
            elif id < self.num_image_tokens:
                texts += [self._pieces.decode(run), self.piece(id)]
                run = []
        text = "".join([*texts, self._pieces.decode(run)])
        return cleaned(text) if clean_up else text

    def piece(self, id: int) -> str:
        """The token as its vocabulary writes it."""
        id = self._checked(id)
        if id < self.num_image_tokens:
            return f"<image_{id}>"
        return (
            self._pieces.piece(id - self.num_image_tokens)
            if id < self.vocab_size
            else f"<unused {id}>"
        )

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes the model file and, last, the description that makes it a tokenizer."""
        folder = resolve_path(folder, "the tokenizer's folder")
        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "kind": KIND,
            "num_image_tokens": self.num_image_tokens,
            "files": [MODEL_FILE],
            "vocab_size": self.vocab_size,
            "special": self._special,
            "fingerprint": self.fingerprint,
        }
        content = json.dumps(description, indent=2).encode()
        write_files(folder, {MODEL_FILE: self._pieces.file, DESCRIPTION_FILE: content})

    def _parts(self, text: str) -> Iterator[str | int]:
        """Stretches of plain text and, between them, ids of special tokens.

        Spaces next to a special token are dropped, but not those at the ends of the text.
        """
        position = 0
        for match in self._special_pattern.finditer(text):
            before = text[position : match.start()].rstrip()
            yield before.lstrip() if position else before
            yield self._special_in_text[match[0]]
            position = match.end()
        rest = text[position:]
        yield rest.lstrip() if position else rest

    def _checked(self, id: int) -> int:
        if not 0 <= id < self.padded_vocab_size:
            raise UsageError(
                f"token id {id} is outside the padded vocabulary of {self.padded_vocab_size}"
            )
        return int(id)


def cleaned(text: str) -> str:
    """A text without spaces before punctuation and English contractions."""
    for spaced, joined in CLEANED:
        text = text.replace(spaced, joined)
    return text
