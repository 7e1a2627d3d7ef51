"""GLM's tokenizers for `transformers`: a tokenizer.json, and the inputs of blanks.

The ids are those of the original: whitespace to the left of a mask is dropped, and a text of
nothing but whitespace has no tokens.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerFast

from .choices_glm import choice_row
from .normalizer_glm import split_normalizers

SOP, EOP = "<|startofpiece|>", "<|endofpiece|>"
MASK, SENTENCE_MASK, GENERATION_MASK = "[MASK]", "[sMASK]", "[gMASK]"
IGNORED_LABEL = -100
DESCRIPTION_FILE = "glm_tokenizer.json"


class GLMTokenizer(PreTrainedTokenizerFast):
    """A fast tokenizer with GLM's special tokens.

    `aliases` in tokenizer_config.json maps texts of special tokens to the text that the vocabulary
    has for the same id.
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "right"
    truncation_side = "left"
    slow_tokenizer_class = None
    # So that saving copies this file, and so in the other classes.
    _auto_class = "AutoTokenizer"

    @property
    def sop_token(self) -> str:
        """The token that starts a blank."""
        return SOP

    @property
    def sop_token_id(self) -> int:
        """Its id."""
        return self._special_id(SOP)

    @property
    def eop_token(self) -> str:
        """The token that ends a blank."""
        return EOP

    @property
    def eop_token_id(self) -> int:
        """Its id."""
        return self._special_id(EOP)

    @property
    def smask_token_id(self) -> int:
        """The id of the mask of sentences."""
        return self._special_id(SENTENCE_MASK)

    @property
    def gmask_token_id(self) -> int:
        """The id of the mask at the end of a text that is to be continued."""
        return self._special_id(GENERATION_MASK)

    @property
    def mask_token_ids(self) -> list[int]:
        """The ids of all masks that the vocabulary has."""
        return [self._special_id(mask) for mask in self._masks()]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Ids of tokens; special tokens may have either of their texts."""
        aliases = self.init_kwargs.get("aliases") or {}
        if isinstance(tokens, str) or tokens is None:
            return super().convert_tokens_to_ids(aliases.get(tokens, tokens))
        return super().convert_tokens_to_ids([aliases.get(token, token) for token in tokens])

    def build_inputs_for_generation(
        self,
        model_input: BatchEncoding,
        max_gen_length: int = 512,
        targets: str | Sequence[str] | None = None,
        padding: bool = False,
    ) -> BatchEncoding:
        """Inputs for `generate`, or with targets for training, to fill each text's first mask.

        Arguments:
            model_input: encoded texts of one length, as tensors.
            max_gen_length: positions of the blank.
            targets: what fills the blank of each text; longer ones lose their end.
            padding: whether targets are padded to `max_gen_length`, and not to the longest.

        Returns:
            input_ids, position_ids, and generation_attention_mask for `generate`; with targets
            attention_mask and labels instead.

        Raises:
            ValueError: a text has no mask.
        """
        ids, seen = model_input["input_ids"], model_input["attention_mask"].bool()
        batch, length = ids.shape
        blanks = None
        if targets is not None:
            blanks = self._targets(targets, batch, max_gen_length)
            if not padding:
                max_gen_length = max(map(len, blanks))
        masks = torch.isin(ids, torch.tensor(self.mask_token_ids, device=ids.device)) & seen
        if not masks.any(dim=1).all():
            raise ValueError("a text has no mask token to be replaced by a blank")
        mask_position = masks.long().argmax(dim=1, keepdim=True)
        seen = seen & ~self._end_after_generation_mask(ids)
        text = torch.arange(length, device=ids.device).expand(batch, length)
        inside = torch.arange(1, max_gen_length + 1, device=ids.device).expand(batch, -1)
        positions = torch.cat([text, mask_position.expand_as(inside)], dim=1)
        blocks = torch.cat([torch.zeros_like(text), inside], dim=1)
        total = length + max_gen_length
        blank_mask = torch.ones(total, max_gen_length, device=ids.device).tril(-length) > 0
        visible = torch.cat(
            [seen[:, None].expand(-1, total, -1), blank_mask.expand(batch, -1, -1)], dim=2
        )[:, None].long()
        result = {"position_ids": torch.stack([positions, blocks], dim=1)}
        if blanks is None:
            start = ids.new_full((batch, 1), self.sop_token_id)
            result["input_ids"] = torch.cat([ids, start], dim=1)
            result["generation_attention_mask"] = visible
        else:
            read, labels = self._padded_targets(blanks, max_gen_length, ids)
            result["input_ids"] = torch.cat([ids, read], dim=1)
            result["attention_mask"] = visible
            unused = ids.new_full((batch, length), IGNORED_LABEL)
            result["labels"] = torch.cat([unused, labels], dim=1)
        return BatchEncoding(result)

    def build_inputs_for_multiple_choice(
        self,
        model_input: BatchEncoding,
        choices: Sequence[Sequence[str]],
        max_length: int | None = None,
    ) -> BatchEncoding:
        """Inputs of `GLMForMultipleChoice`: all choices of a text follow it, unseen by each other.

        Arguments:
            model_input: encoded texts of one length, each with a mask, as tensors.
            choices: of each text.
            max_length: of the result; None for the longest.
        """
        rows = [
            choice_row(self, model_input["input_ids"][row], model_input["attention_mask"][row], own)
            for row, own in enumerate(choices)
        ]
        longest = max(len(row["input_ids"]) for row in rows) if max_length is None else max_length
        for row in rows:
            missing = longest - len(row["input_ids"])
            pad = torch.nn.functional.pad
            padding = row["input_ids"].new_full((missing,), self.pad_token_id)
            row["input_ids"] = torch.cat([row["input_ids"], padding])
            row["position_ids"] = pad(row["position_ids"], (0, missing))
            row["attention_mask"] = pad(row["attention_mask"], (0, missing, 0, missing))[None]
        batch: dict[str, Any] = {
            name: torch.stack([row[name] for row in rows])
            for name in ("input_ids", "position_ids", "attention_mask")
        }
        for name in ("choice_ids", "choice_indices"):
            batch[name] = [row[name] for row in rows]
        return BatchEncoding(batch)

    def _targets(self, targets: Any, batch: int, longest: int) -> list[list[int]]:
        """The tokens of each target and the end of the blank."""
        texts = [targets] if isinstance(targets, str) else list(targets)
        if len(texts) != batch:
            raise ValueError(f"{len(texts)} targets are given for {batch} texts")
        encoded = self(texts, add_special_tokens=False)["input_ids"]
        return [[*target, self.eop_token_id][:longest] for target in encoded]

    def _padded_targets(
        self, targets: list[list[int]], length: int, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a network reads of each blank, and the labels."""
        read = [[self.sop_token_id, *target[:-1]] for target in targets]
        padded = [row + [self.pad_token_id] * (length - len(row)) for row in read]
        labels = [target + [IGNORED_LABEL] * (length - len(target)) for target in targets]
        return like.new_tensor(padded), like.new_tensor(labels)

    def _end_after_generation_mask(self, ids: Tensor) -> Tensor:
        """Where a text that ends in the generation mask has an eos, as the original doesn't."""
        if GENERATION_MASK not in self._masks():
            return torch.zeros_like(ids, dtype=torch.bool)
        after_mask = torch.zeros_like(ids, dtype=torch.bool)
        after_mask[:, 1:] = ids[:, :-1] == self.gmask_token_id
        return after_mask & (ids == self.eos_token_id)

    def _special_id(self, token: str) -> int:
        return self.convert_tokens_to_ids(token)

    def _masks(self) -> list[str]:
        vocabulary = self.backend_tokenizer
        masks = (MASK, SENTENCE_MASK, GENERATION_MASK)
        return [mask for mask in masks if vocabulary.token_to_id(mask) is not None]

    # What the backend does not do to a text, and saving it with all that it does.

    if hasattr(PreTrainedTokenizerFast, "_batch_encode_plus"):  # until 5.0, for single texts too

        def _batch_encode_plus(
            self, batch_text_or_text_pairs: Any, *args: Any, **kwargs: Any
        ) -> Any:
            prepared = self._prepared(batch_text_or_text_pairs)
            return super()._batch_encode_plus(prepared, *args, **kwargs)

    else:

        def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
            return super()._encode_plus(self._prepared(text), self._prepared(text_pair), **kwargs)

    def _save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        self._copy_vocabulary(str(save_directory))
        complete = getattr(self, "_complete_normalizer", None)
        if complete is None:
            return super()._save_pretrained(save_directory, *args, **kwargs)
        reduced = self.backend_tokenizer.normalizer
        self.backend_tokenizer.normalizer = complete
        try:
            return super()._save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.backend_tokenizer.normalizer = reduced

    def _copy_vocabulary(self, folder: str) -> None:
        """Copies the files that glm_jax makes its own tokenizer of, where they are at hand."""
        source = self.init_kwargs.get("name_or_path") or self.name_or_path
        description = os.path.join(source, DESCRIPTION_FILE)
        if not os.path.isfile(description) or os.path.realpath(source) == os.path.realpath(folder):
            return
        with open(description, encoding="utf-8") as file:
            names = json.load(file)["files"]
        for name in (*map(os.path.basename, names), DESCRIPTION_FILE):
            shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))

    def _prepared(self, text: Any) -> Any:
        """Texts as the backend is given them."""
        if isinstance(text, (list, tuple)):
            return type(text)(self._prepared(part) for part in text)
        if not isinstance(text, str):
            return text
        if text.isspace():
            return ""
        text = text.encode(errors="replace").decode()
        masks = "|".join(map(re.escape, self._masks()))
        text = re.sub(rf"\s+(?={masks})", "", text) if masks else text
        for alias, token in (self.init_kwargs.get("aliases") or {}).items():
            text = text.replace(alias, token)
        return self._normalized(text)

    def _normalized(self, text: str) -> str:
        """The text as SentencePiece normalizes it, special tokens left out."""
        if not hasattr(self, "_normalizers"):
            self._take_normalizers()
        if not self._normalizers:
            return text
        pattern = "|".join(map(re.escape, self.all_special_tokens))
        parts = re.split(f"({pattern})", text)
        for index in range(0, len(parts), 2):
            for normalize in self._normalizers:
                parts[index] = normalize(parts[index])
        return "".join(parts)

    def _take_normalizers(self) -> None:
        """Takes what is done here out of the backend."""
        description = json.loads(self.backend_tokenizer.to_str())
        steps = (description["normalizer"] or {}).get("normalizers", [])
        self._normalizers, remaining = split_normalizers(steps)
        if self._normalizers:
            description["normalizer"]["normalizers"] = remaining
            self._complete_normalizer = self.backend_tokenizer.normalizer
            reduced = Tokenizer.from_str(json.dumps(description)).normalizer
            self.backend_tokenizer.normalizer = reduced
