"""The files that make a run folder self-contained: configuration as gin and JSON, tokenizer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from glm_jax.tokenizer import Tokenizer
from glm_jax.train.config import RunConfig


def gin_text(config: RunConfig) -> str:
    """The whole configuration as a gin file that reads back to the same configuration."""
    return (
        "\n".join(
            f"{section}.{name} = {value!r}"
            for section, values in dataclasses.asdict(config).items()
            for name, value in values.items()
        )
        + "\n"
    )


def json_text(config: RunConfig) -> str:
    """The whole configuration as JSON, one object per section."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def write_configuration(folder: Path, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Writes the configuration as gin and JSON, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.gin").write_text(gin_text(config))
    (folder / "config.json").write_text(json_text(config))
    tokenizer.save(folder / "tokenizer")
