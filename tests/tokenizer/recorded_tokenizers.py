"""Our tokenizers for the command lines that `goldens/e_tokenizers` was recorded with."""

from __future__ import annotations

from pathlib import Path

from glm_jax.tokenizer import load_tokenizer
from glm_jax.tokenizer.protocol import Tokenizer

# The vocabulary files of every kind, in the folder of original vocabularies.
FILES = {
    "bert": ["bert-large-uncased-vocab.txt"],
    "gpt2": ["gpt2-vocab.json", "gpt2-merges.txt"],
    "roberta": ["roberta-vocab.json", "roberta-merges.txt"],
    "chinese": ["cog-pretrain.model"],
}


def from_command_line(arguments: list[str], vocabularies: Path) -> Tokenizer:
    """Our tokenizer for the original's command line."""

    def value(flag: str, default: str = "") -> str:
        return arguments[arguments.index(flag) + 1] if flag in arguments else default

    kinds = {"BertWordPieceTokenizer": "bert", "ChineseSPTokenizer": "chinese"}
    kind = kinds.get(value("--tokenizer-type"), value("--tokenizer-model-type", "gpt2"))
    files = [vocabularies / name for name in FILES[kind]]
    positions = int(value("--max-position-embeddings", "1"))
    return load_tokenizer(
        kind,
        *files,
        task_mask="--task-mask" in arguments,
        decoder_mask="--block-mask-prob" in arguments or "--context-mask-ratio" in arguments,
        fix_command_token="--fix-command-token" in arguments,
        sentinels=positions - 1 if "--sentinel-token" in arguments else 0,
        blocks="--block-lm" in arguments,
    )
