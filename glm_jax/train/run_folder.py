"""The files that make a run folder self-contained: configuration as gin and JSON, tokenizer."""

from __future__ import annotations

import dataclasses
import json
import os

from glm_jax.io.files import write_files
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.config import RunConfig


def gin_text(config: RunConfig) -> str:
    """The full configuration as a gin file that reads back to the same configuration."""
    return (
        "\n".join(
            f"{section}.{name} = {value!r}"
            for section, values in dataclasses.asdict(config).items()
            for name, value in values.items()
        )
        + "\n"
    )


def json_text(config: RunConfig) -> str:
    """The full configuration as JSON, one object per section."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def write_configuration(
    folder: str | os.PathLike[str], config: RunConfig, tokenizer: Tokenizer
) -> None:
    """Makes the run folder self-contained: configuration as gin and JSON, and the tokenizer.

    Each file is replaced atomically: a full disk leaves the old one.
    """
    folder = resolve_path(folder, "train.run_folder")
    folder.mkdir(parents=True, exist_ok=True)
    # The gin file last: where it is new, the other is too.
    contents = {"config.json": json_text(config), "config.gin": gin_text(config)}
    write_files(folder, {name: text.encode() for name, text in contents.items()})
    tokenizer.save(folder / "tokenizer")
