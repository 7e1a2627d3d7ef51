"""Every input of text, in every encoding and form that people have: what is taken or refused.

An outcome is what the input understands, or the sentence that it is refused with.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_jax.cli.fill import read_texts
from glm_jax.errors import UsageError
from glm_jax.serve.errors import RequestError
from tests.text_readers import (
    byte_pairs,
    corpus,
    fill_file,
    fill_standard_input,
    gin,
    http,
    merges,
    supervised,
    tokenizer_json,
    word_pieces,
)
from tests.tiny_runs import TINY_RUN

# Where a form puts what it is about.
HERE = "§"

FORMS: dict[str, Callable[[str], bytes]] = {
    "UTF-8": lambda text: text.replace(HERE, "").encode(),
    "byte order mark": lambda text: text.replace(HERE, "").encode("utf-8-sig"),
    "UTF-16": lambda text: text.replace(HERE, "").encode("utf-16"),
    "UTF-16 without mark": lambda text: text.replace(HERE, "").encode("utf-16-le"),
    "Latin-1": lambda text: text.replace(HERE, "").encode("latin-1"),
    "NUL": lambda text: text.replace(HERE, "\0").encode(),
    "lone surrogate": lambda text: text.replace(HERE, "\ud800").encode(errors="surrogatepass"),
    "U+2028 and NEL": lambda text: text.replace(HERE, "\u2028\x85").encode(),
    "form feed": lambda text: text.replace(HERE, "\f").encode(),
    "CRLF": lambda text: text.replace(HERE, "").replace("\n", "\r\n").encode(),
    "no final newline": lambda text: text.replace(HERE, "").rstrip("\n").encode(),
    "empty": lambda _text: b"",
    "only a byte order mark": lambda _text: "\ufeff".encode(),
    # In JSON only.
    "escaped NUL": lambda text: text.replace(HERE, "\\u0000").encode(),
    "escaped surrogate": lambda text: text.replace(HERE, "\\ud800").encode(),
}
ESCAPES = ("escaped NUL", "escaped surrogate")


TOKENIZER = json.dumps(
    {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "truncation": None, "padding": None,
        "model": {"type": "WordLevel", "vocab": {"a": 0, f"caf{HERE}é": 1}, "unk_token": "a"},
    },
    ensure_ascii=False,
)  # fmt: skip

# What an input understands in place of "caf§é", in all forms that leave it a choice.
TAKEN = {
    "UTF-8": "café",
    "byte order mark": "café",
    "CRLF": "café",
    "no final newline": "café",
    "U+2028 and NEL": "caf\u2028\x85é",
    "form feed": "caf\fé",
    "NUL": "caf\0é",
    "escaped NUL": "caf\0é",
}
IS_UTF_16 = "{} is UTF-16 text, expected UTF-8"


def refused(name: str, line: int = 1) -> dict[str, object]:
    """The sentences for text that isn't UTF-8, of an input called `name`."""
    bad = f"line {line} of {name} is not UTF-8 text"
    utf_16 = IS_UTF_16.format(name)
    return {"UTF-16": utf_16, "UTF-16 without mark": utf_16, "Latin-1": bad, "lone surrogate": bad}


def bad_json(sentence: str) -> dict[str, object]:
    """JSON allows no control character in a string, unless it is escaped."""
    return {"NUL": sentence, "form feed": sentence}


def empty(outcome: object) -> dict[str, object]:
    return {"empty": outcome, "only a byte order mark": outcome}


REPLACED = "documents with bad utf8: 1"
VOCAB_JSON = "the tokenizer's vocab.json"
TOKENIZER_JSON = "the tokenizer's tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of text.

    Attributes:
      file: the name of its file.
      text: its content, HERE where the forms put what they are about.
      read: what it understands.
      taken: that, for a text in the place of "caf§é".
      others: outcomes of the forms that are different; of a sentence, the start.
      is_json: whether it has escapes.
    """

    file: str
    text: str
    read: Callable[[Path], object]
    taken: Callable[[str], object]
    others: dict[str, object]
    is_json: bool = False


INPUTS = {
    "corpus, text": Input(
        "a.txt",
        f"caf{HERE}é\nend\n",
        corpus,
        lambda text: [f"{text}\nend"],
        {
            "UTF-16": [f"unreadable files: FILE ({IS_UTF_16[6:]})"],
            "UTF-16 without mark": [f"unreadable files: FILE ({IS_UTF_16[6:]})"],
            "Latin-1": ["caf\ufffd\nend", REPLACED],
            "lone surrogate": ["caf\ufffd\ufffd\ufffdé\nend", REPLACED],
            **empty(["empty documents: 1"]),
        },
    ),
    "corpus, lines": Input(
        "a.jsonl",
        f'{{"text": "caf{HERE}é"}}\n{{"text": "end"}}\n',
        corpus,
        lambda text: [text, "end"],
        {
            "UTF-16": IS_UTF_16.format("FILE"),
            "UTF-16 without mark": IS_UTF_16.format("FILE"),
            "Latin-1": ["caf\ufffd", "end", REPLACED],
            "lone surrogate": ["caf\ufffd\ufffd\ufffdé", "end", REPLACED],
            "escaped surrogate": ["caf\ufffdé", "end", REPLACED],
            "NUL": ["end", "bad json lines: 1"],
            "form feed": ["end", "bad json lines: 1"],
            **empty([]),
        },
        is_json=True,
    ),
    "supervised lines": Input(
        "a.jsonl",
        f'{{"context": "caf{HERE}é [MASK]", "answer": "b"}}\n',
        supervised,
        lambda text: [f"{text} [MASK]"],
        {
            **refused("FILE"),
            **bad_json("line 1 of FILE is not JSON"),
            "escaped surrogate": "line 1 of FILE has a lone surrogate, half of a character",
            **empty([]),
        },
        is_json=True,
    ),
    "fill, file": Input(
        "texts",
        f"caf{HERE}é\nend\n",
        fill_file,
        lambda text: {1: text, 2: "end"},
        {**refused("--file FILE"), **empty("no text to fill in --file FILE: expected one text a")},
    ),
    "fill, standard input": Input(
        "texts",
        f"caf{HERE}é\nend\n",
        fill_standard_input,
        lambda text: {1: text, 2: "end"},
        {**refused("standard input"), **empty("no text to fill in standard input: expected")},
    ),
    "vocab.txt": Input(
        "vocab.txt",
        f"[PAD]\n[UNK]\ncaf{HERE}é\nend\n",
        word_pieces,
        lambda text: [text, "end"],
        {
            **refused("the tokenizer's vocab.txt", line=3),
            **empty("the tokenizer's vocab.txt has no line [UNK]"),
        },
    ),
    "vocab.json": Input(
        "vocab.json",
        f'{{"a": 0, "caf{HERE}é": 1, "end": 2}}\n',
        byte_pairs,
        lambda text: [text, "end"],
        {
            **refused(VOCAB_JSON),
            **bad_json(f"{VOCAB_JSON} and merges.txt can't be read: Invalid control character"),
            "escaped surrogate": f"{VOCAB_JSON} and merges.txt can't be read: a piece has a lone",
            **empty(f"{VOCAB_JSON} and merges.txt can't be read: Expecting value"),
        },
        is_json=True,
    ),
    "merges.txt": Input(
        "merges.txt",
        f"#version: {HERE}é\na b\n",
        merges,
        lambda _text: [2],
        {**refused("the tokenizer's merges.txt"), **empty([0, 1])},
    ),
    "tokenizer.json": Input(
        "tokenizer.json",
        TOKENIZER + "\n",
        tokenizer_json,
        lambda text: [text],
        {
            **refused(TOKENIZER_JSON),
            **bad_json(f"{TOKENIZER_JSON} can't be read: control character"),
            "escaped surrogate": f"{TOKENIZER_JSON} can't be read: unexpected end of hex escape",
            **empty(f"{TOKENIZER_JSON} can't be read: EOF while parsing"),
        },
        is_json=True,
    ),
    "gin": Input(
        "a.gin",
        TINY_RUN.format(store=f"caf{HERE}é", run_folder="r"),
        gin,
        lambda text: text,
        {
            **dict.fromkeys(refused(""), "the gin file FILE is not UTF-8 text"),
            "NUL": "the gin file FILE is not text: it contains NUL characters",
            **empty("model.vocab_size is not set, and it has no default"),
        },
    ),
    "HTTP": Input(
        "body",
        f'{{"text": "caf{HERE}é"}}\n',
        http,
        lambda text: text,
        {
            **dict.fromkeys(refused(""), "the body is not UTF-8: "),
            **bad_json("the body is not JSON: Invalid control character"),
            "escaped surrogate": "text has a lone surrogate, half of a character",
            **empty("the body is not JSON: Expecting value"),
        },
        is_json=True,
    ),
}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (name, form)
        for name, tried in INPUTS.items()
        for form in FORMS
        if tried.is_json or form not in ESCAPES
    ],
)
def test_every_input_takes_or_refuses_every_form_of_text(name, form, tmp_path):
    tried = INPUTS[name]
    path = tmp_path / tried.file
    path.write_bytes(FORMS[form](tried.text))
    expected = tried.others[form] if form in tried.others else tried.taken(TAKEN[form])
    try:
        found = tried.read(path)
    except (UsageError, RequestError) as error:
        sentence = str(error).replace(str(path), "FILE")
        assert isinstance(expected, str) and sentence.startswith(expected)
        assert "\n" not in sentence
    else:
        assert found == expected


def test_a_text_on_the_command_line_is_text():
    with pytest.raises(UsageError, match=r"the text 'caf\\udce9' is not UTF-8 text"):
        read_texts(argparse.Namespace(file=None, texts=["good", "caf\udce9"]))
    texts = ["one\ntext", "caf\u2028é"]
    assert read_texts(argparse.Namespace(file=None, texts=texts)) == {1: texts[0], 2: texts[1]}
