"""Folders with a tokenizer of every kind and no weights, and what glm_jax encodes with them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

import glm_jax
from glm_jax.convert.layouts.huggingface_folder import code_files
from glm_jax.generate.prompt import encode_with_blank, make_prompt
from glm_jax.tokenizer import Tokenizer, train_sentencepiece
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer
from glm_jax.tokenizer.huggingface_export import huggingface_files

CONFIG = {"model_type": "glm", "auto_map": {"AutoConfig": "configuration_glm.GLMConfig"}}
MASKS = {"task_mask": True}
# By a name: the kind, its files in the folder of vocabularies, and options.
VOCABULARIES: Mapping[str, tuple[str, tuple[str, ...], dict[str, bool]]] = {
    "bert": ("bert", ("bert-base-uncased-vocab.txt",), {}),
    "bert_masks": ("bert", ("bert-large-uncased-vocab.txt",), {**MASKS, "decoder_mask": True}),
    "gpt2": ("gpt2", ("gpt2-vocab.json", "gpt2-merges.txt"), MASKS),
    "roberta": ("roberta", ("roberta-vocab.json", "roberta-merges.txt"), MASKS),
    "chinese": ("chinese", ("cog-pretrain.model",), {**MASKS, "fix_command_token": True}),
    "chinese_shared_id": ("chinese", ("cog-pretrain.model",), MASKS),
}
LINES = [
    f"Line {number} of a text, with {number * number} words; naïve façade, 世界和平 №{number}.\n\n"
    for number in range(200)
]
PIECES = (
    *("[MASK]", "[gMASK]", "[sMASK]", "[CLS]", "<|endoftext|>", "[SEP]", "<mask>", "</s>", "<s>"),
    *(
        "<n>",
        "世界",
        "▁",
        "<|startofpiece|>",
        "<|endofpiece|>",
        "[PAD]",
        "[UNK]",
        "[unk]",
        "[mask]",
    ),
    *("a", "Hello", ".", " ", "  ", "\n", "\t", "\x1c", "\xa0", "\u2003"),
)
# Letters that combine with those before them, and characters that normalization changes.
COMBINING = "e\u0301\u0308\u0340\u0344a \u3000o\u1100\u1161\u11a8\u05d0\u05b4\u0627\u0653"


def random_texts(count: int) -> list[str]:
    """Texts of random characters, of letters that combine, and of special tokens in any order."""
    draw = random.Random(1)

    def characters(lowest: int, highest: int) -> str:
        found = (chr(draw.randrange(lowest, highest)) for _ in range(draw.randint(1, 12)))
        return "".join(char for char in found if not "\ud800" <= char <= "\udfff")

    ranges = [(0, 0x110000), (0, 0x10000), (0, 0x3000), (0, 0x250), (0x2F0, 0x370)]
    texts = [characters(*bounds) for bounds in ranges for _ in range(count)]
    for letters, longest, share in ((COMBINING, 8, 2), (PIECES, 9, 4)):
        texts += [
            "".join(draw.choice(letters) for _ in range(draw.randint(1, longest)))
            for _ in range(share * count)
        ]
    return [*texts, "   ", "\n", "", " \x1c"]


def published_tokenizers(vocabularies: Path) -> dict[str, Tokenizer]:
    """Those of the published vocabularies, whose files are in a folder."""
    return {
        name: glm_jax.load_tokenizer(kind, *(vocabularies / file for file in files), **options)
        for name, (kind, files, options) in VOCABULARIES.items()
    }


def trained_tokenizers(work: Path) -> dict[str, Tokenizer]:
    """Those of small vocabularies that are made here, in an empty folder."""
    found: dict[str, Tokenizer] = {}
    words = sorted({word for line in LINES for word in line.split()})
    cased = work / "vocab.txt"
    letters = sorted({char for line in LINES for char in line if not char.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *words[:300]]
    pieces += [f"##{letter}" for letter in letters]
    cased.write_text("".join(f"{piece}\n" for piece in dict.fromkeys(pieces)))
    found["bert_cased"] = glm_jax.load_tokenizer("bert-cased", cased, task_mask=True)
    found["native"] = train_sentencepiece(LINES, work / "native", vocab_size=400)
    described = {
        "byte_level": _byte_level(),
        "metaspace": _metaspace(),
        "word_piece": _word_piece(pieces),
    }
    for name, made in described.items():
        file = work / f"{name}.json"
        made.save(str(file))
        found[name] = glm_jax.load_tokenizer("huggingface", file, task_mask=True)
    return found


def _byte_level() -> LibraryTokenizer:
    """Byte pairs, as newer models have them: with an expression of their own for words."""
    made: Any = LibraryTokenizer(models.BPE())
    words = Regex(r"\p{N}{1,3}|\p{L}+|\s+|[^\s\p{L}\p{N}]+")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    made.train_from_iterator(LINES, trainer)
    return made


def _metaspace() -> LibraryTokenizer:
    """A unigram model with normalization, and special tokens that GLM does not have."""
    made: Any = LibraryTokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>"
    )
    made.train_from_iterator(LINES, trainer)
    return made


def _word_piece(pieces: Sequence[str]) -> LibraryTokenizer:
    """BERT's, with pieces that have the texts of GLM's special tokens."""
    ids = {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}
    made: Any = LibraryTokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["[CLS]", "[SEP]", "[MASK]"])
    return made


@dataclasses.dataclass(frozen=True)
class TokenFolder:
    """A folder, and the tokenizer that it was made of."""

    folder: Path
    tokenizer: Tokenizer


def write_token_folder(folder: Path, tokenizer: Tokenizer, texts: Sequence[str]) -> TokenFolder:
    """Writes tokenizer and code into a new folder, and next to it what glm_jax encodes."""
    assert isinstance(tokenizer, GLMTokenizer)
    folder.mkdir(parents=True)
    files = {**huggingface_files(tokenizer, 512), **code_files()}
    files["config.json"] = json.dumps(CONFIG).encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    prompts = ["a [MASK] b"]
    blanks = [encode_with_blank(tokenizer, prompt) for prompt in prompts]
    expected = {
        "texts": list(texts),
        "ids": [tokenizer.encode(text) for text in texts],
        "special": dict(tokenizer.special),
        "prompts": prompts,
        "prompt_ids": [make_prompt(ids, tokenizer.special).ids for ids in blanks],
    }
    folder.with_suffix(".json").write_text(json.dumps(expected))
    return TokenFolder(folder, tokenizer)
