"""Text to ids and back: one protocol, the tokenizers behind it, and training one's own."""

from glm_jax.tokenizer.load import load_tokenizer
from glm_jax.tokenizer.protocol import Tokenizer
from glm_jax.tokenizer.train import train_sentencepiece

__all__ = ["Tokenizer", "load_tokenizer", "train_sentencepiece"]
