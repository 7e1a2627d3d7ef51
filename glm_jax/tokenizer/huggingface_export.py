"""A tokenizer as the files of a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.tokenizer.byte_pair import BytePairModel
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer
from glm_jax.tokenizer.hugging_face import HuggingFaceModel
from glm_jax.tokenizer.huggingface_parts import described_parts
from glm_jax.tokenizer.sentence_piece import SentencePieceModel
from glm_jax.tokenizer.sentence_piece_json import sentence_piece_parts
from glm_jax.tokenizer.special import TEXT_OF_SPECIAL_TOKEN
from glm_jax.tokenizer.word_piece import WordPieceModel

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
# The class in tokenization_glm.py, which travels with the folder.
CLASS = "GLMTokenizer"
# The names that transformers has for special tokens, and ours.
_ROLES = {
    # A text starts with it; without this name, lm-evaluation-harness would add a second one.
    "bos_token": "ENC",
    "cls_token": "ENC",
    "eos_token": "eos",
    "pad_token": "pad",
    "mask_token": "MASK",
    "sep_token": "sep",
    "unk_token": "unk",
}


def huggingface_files(tokenizer: GLMTokenizer, model_max_length: int) -> dict[str, bytes]:
    """The content of every file, by its name.

    Args:
      tokenizer: any kind but ChatGLM's.
      model_max_length: positions of the network.

    Raises:
      UsageError: the vocabulary is of a kind that has no tokenizer.json.
    """
    shown = tokenizer.table.id_to_text()
    roles = {role: shown[tokenizer.special[name]] for role, name in _ROLES.items()}
    others = [text for text in shown.values() if text not in roles.values()]
    added = _added_tokens(tokenizer)
    by_text = {token["content"]: token for token in added}
    texts = tokenizer.table.text_to_id()
    config: dict[str, Any] = {
        "tokenizer_class": CLASS,
        "auto_map": {"AutoTokenizer": [None, f"tokenization_glm.{CLASS}"]},
        **{role: _serialized(by_text[text]) for role, text in roles.items()},
        "additional_special_tokens": others,
        "chat_template": chat_template(tokenizer),
        "aliases": {text: shown[id] for text, id in texts.items() if shown[id] != text},
        "model_max_length": model_max_length,
        "padding_side": "right",
        "truncation_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **_parts(tokenizer),
        "post_processor": _post_processor(tokenizer),
    }
    special = {**roles, "additional_special_tokens": others}
    return {
        **tokenizer.saved_files(),
        TOKENIZER_FILE: _json(description),
        TOKENIZER_CONFIG_FILE: _json(config, indent=2),
        SPECIAL_TOKENS_FILE: _json(special, indent=2),
    }


def chat_template(tokenizer: GLMTokenizer) -> str:
    """A Jinja template whose prompt ends where a blank that continues the messages starts.

    It is how programs that know of causal models only, such as lm-evaluation-harness, ask GLM.
    """
    shown, special = tokenizer.table.id_to_text(), tokenizer.special
    end = [special["gMASK"]] if "gMASK" in special else [special["MASK"], special["eos"]]
    prompt = "".join(shown[id] for id in (*end, special["sop"]))
    return (
        f"{shown[special['ENC']]}{{% for message in messages %}}{{{{ message['content'] }}}}"
        "{% if not loop.last %}{{ '\n\n' }}{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )


def _json(value: Any, indent: int | None = None) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=indent) + "\n").encode()


def _added_tokens(tokenizer: GLMTokenizer) -> list[dict[str, Any]]:
    """Every special token in the order of the ids, and one for every id without any token."""
    shown, masks = tokenizer.table.id_to_text(), tokenizer.table.mask_texts()
    last = max([*shown, tokenizer.text_model.size - 1])
    unused = (id for id in range(tokenizer.text_model.size, last) if id not in shown)
    contents = {**{id: f"<unused {id}>" for id in unused}, **shown}
    return [
        {
            "id": id,
            "content": contents[id],
            "single_word": False,
            "lstrip": contents[id] in masks,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for id in sorted(contents)
    ]


def _serialized(token: Mapping[str, Any]) -> dict[str, Any]:
    """An added token as tokenizer_config.json has it."""
    fields = ("content", "lstrip", "normalized", "rstrip", "single_word")
    return {"__type": "AddedToken", **{field: token[field] for field in fields}}


def _post_processor(tokenizer: GLMTokenizer) -> dict[str, Any]:
    """[CLS] before a text, [SEP] between two, and eos at the end."""
    shown, special = tokenizer.table.id_to_text(), tokenizer.special

    def token(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": shown[special[name]], "type_id": 0}}

    def text(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    used = {shown[special[name]]: special[name] for name in ("ENC", "sep", "eos")}
    return {
        "type": "TemplateProcessing",
        "single": [token("ENC"), text("A"), token("eos")],
        "pair": [token("ENC"), text("A"), token("sep"), text("B"), token("eos")],
        "special_tokens": {
            text: {"id": text, "ids": [id], "tokens": [text]} for text, id in used.items()
        },
    }


def _parts(tokenizer: GLMTokenizer) -> dict[str, Any]:
    """Normalizer, pre-tokenizer, model and decoder.

    Raises:
      UsageError: the vocabulary is of another kind.
    """
    model, shown = tokenizer.text_model, tokenizer.table.id_to_text()
    match model:
        case WordPieceModel():
            return _word_piece(model)
        case BytePairModel():
            return _byte_pair(model, shown)
        case SentencePieceModel():
            return sentence_piece_parts(next(iter(model.files.values())))
        case HuggingFaceModel():
            return described_parts(model, shown.values())
    raise UsageError(f"a tokenizer of type {type(model).__name__} has no tokenizer.json")


def _word_piece(model: WordPieceModel) -> dict[str, Any]:
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": model.lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordPiece",
            "unk_token": TEXT_OF_SPECIAL_TOKEN["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": dict(model.piece_ids),
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    }


def _byte_pair(model: BytePairModel, shown: Mapping[int, str]) -> dict[str, Any]:
    """Pieces that are special tokens have GLM's text for them, as RoBERTa's <mask> has [MASK]."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {shown.get(id, piece): id for piece, id in model.piece_ids.items()},
            "merges": [" ".join(pair) for pair in model.merges],
        },
        "decoder": {**byte_level, "use_regex": True},
    }
