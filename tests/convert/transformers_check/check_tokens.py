"""Compares the tokenizers of exported folders with glm_jax, in the installed `transformers`.

    python check_tokens.py FOLDER...

FOLDER.json has what glm_jax encodes. Prints one JSON object: the texts with other ids, by the name
of the folder, as loaded and as saved and loaded again. Imports nothing of glm_jax, for it runs in
environments without it.
"""

# Runs on the oldest transformers too, whose types are others.
# pyright: basic

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import transformers
from transformers import AutoTokenizer

# The attributes of a tokenizer, and glm_jax's names of the tokens.
ROLES = {
    "bos": "ENC", "cls": "ENC", "mask": "MASK", "eos": "eos", "pad": "pad", "sep": "sep",
    "unk": "unk", "sop": "sop", "eop": "eop", "gmask": "gMASK", "smask": "sMASK",
}  # fmt: skip


def main(folders: list[Path]) -> None:
    """Checks all folders."""
    transformers.logging.set_verbosity_error()
    found = {}
    for folder in folders:
        expected = json.loads(folder.with_suffix(".json").read_text())
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=True)
        saved = saved_folder(folder)
        tokenizer.save_pretrained(str(saved))
        again = AutoTokenizer.from_pretrained(str(saved), trust_remote_code=True)
        found[folder.name] = {
            "loaded": other_ids(tokenizer, expected),
            "again": other_ids(again, expected),
            "saved_folder": str(saved),
        }
    print(json.dumps({"transformers": transformers.__version__, "folders": found}))


def saved_folder(folder: Path) -> Path:
    """Where this version of transformers saves what it loaded from a folder."""
    return folder.parent / f"{folder.name}_saved_{transformers.__version__.replace('.', '_')}"


def other_ids(tokenizer, expected: dict) -> list:
    """Texts with other ids, one by one or as a batch, and special tokens with another id."""
    texts = expected["texts"]
    batch = tokenizer(texts, add_special_tokens=False)["input_ids"]
    wrong = [
        text
        for text, ids, own in zip(texts, batch, expected["ids"], strict=True)
        if ids != own or tokenizer(text, add_special_tokens=False)["input_ids"] != own
    ]
    special = expected["special"]
    wrong += [
        role
        for role, name in ROLES.items()
        if name in special and getattr(tokenizer, f"{role}_token_id") != special[name]
    ]
    wrong += [
        prompt
        for prompt, ids in zip(expected["prompts"], expected["prompt_ids"], strict=True)
        if tokenizer(prompt)["input_ids"] != ids
    ]
    return wrong


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(list(map(Path, sys.argv[1:])))
