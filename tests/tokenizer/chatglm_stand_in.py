"""A small SentencePiece model that has what ChatGLM's has, where the real file is not at hand."""

from __future__ import annotations

import functools
import io
import pydoc_data.topics

import sentencepiece

from glm_jax.tokenizer.chatglm import ChatGLMTokenizer
from glm_jax.tokenizer.chatglm_pieces import special_pieces


@functools.cache
def stand_in_model(*, old_release: bool = False) -> bytes:
    """The file of a vocabulary of about 600 pieces; the old release's has text pieces only."""
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())[:6]]
    chinese = ["你好，世界！问答，我是中文助手。你好吗？今天天气很好。中文和英文都可以。"] * 20
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*"\n".join(texts).split("\n"), *chinese]),
        model_writer=model,
        model_type="unigram",
        vocab_size=260,
        normalization_rule_name="nmt_nfkc",
        split_digits=True,
        user_defined_symbols=["<n>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue() + (b"" if old_release else special_pieces())


@functools.cache
def stand_in_tokenizer() -> ChatGLMTokenizer:
    """The tokenizer of the stand-in of the second release."""
    return ChatGLMTokenizer(stand_in_model())
