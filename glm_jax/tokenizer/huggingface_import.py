"""The tokenizers of Hugging Face folders of the `glm-*` family.

A folder of ours has the files of a saved tokenizer; a published one has a vocabulary, and names the
class of its own code.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils import epath

from glm_jax.errors import UsageError

CONFIG_FILE = "tokenizer_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
# The published classes, and the kind of vocabulary that each has.
_KINDS = {
    "GLMBertTokenizer": "bert",
    "GLMGPT2Tokenizer": "gpt2",
    "GLMRobertaTokenizer": "roberta",
    "GLMChineseTokenizer": "chinese",
}
# The id of [gMASK] in a Chinese vocabulary without collision.
_FIXED_GMASK_OFFSET = 9


@dataclasses.dataclass(frozen=True)
class PublishedTokenizer:
    """What to call `load_tokenizer` with.

    Attributes:
      kind: of the vocabulary, whose files are in the folder.
      options: which special tokens it has.
    """

    kind: str
    options: dict[str, bool]


def published_tokenizer(folder: epath.Path) -> PublishedTokenizer | None:
    """What a folder's own description says; None where it describes no tokenizer of GLM.

    Raises:
      UsageError: the description is no JSON object.
    """
    config = _read(folder / CONFIG_FILE)
    if config is None:
        return None
    kind = _KINDS.get(str(config.get("tokenizer_class")).removesuffix("Fast"))
    if kind is None:
        kind = _kind_by_repository(folder, config)
    if kind is None:
        return None
    added = _added(folder, config)
    options = {"task_mask": "[gMASK]" in added or "[sMASK]" in added}
    options["decoder_mask"] = "[dBLOCK]" in added
    if kind == "chinese":
        options["task_mask"] = True
        # The published class has its masks at these ids where it names none.
        gmask = added.get("[gMASK]", 50_000 + _FIXED_GMASK_OFFSET)
        options["fix_command_token"] = gmask % 1000 == _FIXED_GMASK_OFFSET
    return PublishedTokenizer(kind, {name: True for name, value in options.items() if value})


def _kind_by_repository(folder: epath.Path, config: dict[str, Any]) -> str | None:
    """The kind of a class that chooses among the others, by the vocabulary that is there."""
    if config.get("tokenizer_class") != "GLMTokenizer":
        return None
    if (folder / "cog-pretrain.model").is_file():
        return "chinese"
    if (folder / "vocab.txt").is_file():
        return "bert"
    if not (folder / "vocab.json").is_file():
        return None
    pieces = _read(folder / "vocab.json") or {}
    return "roberta" if "<mask>" in pieces else "gpt2"


def _added(folder: epath.Path, config: dict[str, Any]) -> dict[str, int]:
    """The ids of added tokens, in either of the forms that transformers has written."""
    added = dict(_read(folder / ADDED_TOKENS_FILE) or {})
    decoder = config.get("added_tokens_decoder")
    for id, token in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(token, dict) and isinstance(token.get("content"), str) and id.isdecimal():
            added[token["content"]] = int(id)
    return {text: id for text, id in added.items() if isinstance(id, int)}


def _read(path: epath.Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no file.

    Raises:
      UsageError: it is something else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object")
    return value
