"""The tokenizer of a run, and whether a network can have its vocabulary."""

from __future__ import annotations

from glm_jax.errors import UsageError
from glm_jax.finetune.config import TokenizerConfig
from glm_jax.io.hub import checkpoint_path
from glm_jax.tokenizer import Tokenizer, load_tokenizer
from glm_jax.tokenizer.load import NoTokenizerError

# The original pads the word embedding to a multiple of 128 for each of its model-parallel ranks.
MAX_PADDING_ROWS = 8 * 128 + 1


def find_tokenizer(named: TokenizerConfig, checkpoint: str) -> Tokenizer:
    """The tokenizer that the configuration names, or that is with a checkpoint.

    Raises:
      UsageError: there is none, it can't be read, or the checkpoint is a run folder with another.
    """
    if named.kind:
        tokenizer = load_tokenizer(
            named.kind,
            *named.files,
            task_mask=named.task_mask,
            fix_command_token=named.fix_command_token,
        )
        _check_recorded(named, checkpoint, tokenizer)
        return tokenizer
    try:
        return load_tokenizer(checkpoint)
    except NoTokenizerError as error:
        raise UsageError(
            f"{checkpoint} has no tokenizer with it; set tokenizer.kind and tokenizer.files"
        ) from error


def _check_recorded(named: TokenizerConfig, checkpoint: str, tokenizer: Tokenizer) -> None:
    """Makes sure that a run folder's weights are used with the tokenizer that it has.

    Raises:
      UsageError: the configuration names another one.
    """
    folder = checkpoint_path(checkpoint) / "tokenizer"
    if folder.is_dir() and load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
        raise UsageError(
            f"{checkpoint} has a tokenizer with it, which is another one than tokenizer.kind = "
            f"{named.kind!r}"
        )


def check_vocabulary(tokenizer: Tokenizer, rows: int, checkpoint: str) -> None:
    """Makes sure that a word embedding can be that of a tokenizer's vocabulary.

    Raises:
      UsageError: it has fewer rows than there are tokens, or more than padding explains.
    """
    if tokenizer.vocab_size > rows:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, more than the {rows} of {checkpoint}"
        )
    if rows >= tokenizer.padded_vocab_size + MAX_PADDING_ROWS:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, but {checkpoint} has {rows} rows of "
            "a word embedding: it is of another vocabulary"
        )
