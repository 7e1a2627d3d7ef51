"""The model card of a Hugging Face folder: README.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_jax.model.config import GLMConfig

_USE = """\
```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained("{name}", trust_remote_code=True)
inputs = tokenizer("{example}", return_tensors="pt")
inputs = tokenizer.build_inputs_for_generation(inputs, max_gen_length=32)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```
"""
_EXAMPLE = "GLM fills the [MASK] in a text."
# The settings of a run that say most of how it was trained.
_SHOWN = {
    "optimizer": ("learning_rate", "decay", "decay_steps", "weight_decay"),
    "data": ("sequence_length", "batch_size", "store"),
    "train": ("num_steps",),
    "task": ("name", "sequence_length"),
}


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What README.md says.

    Attributes:
      name: of the folder.
      config: of the network.
      dtype: of its weights.
      source: what the weights were converted from, "original", "huggingface" or "native".
      iteration: the training step, None where it isn't known.
      settings: of the run that trained them; empty where it isn't known.
      scores: of the run's evaluation, by metric.
      has_tokenizer: whether the folder has one.
    """

    name: str
    config: GLMConfig
    dtype: str
    source: str
    iteration: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    has_tokenizer: bool = True

    def text(self) -> str:
        """The card, in Markdown."""
        return "\n".join(
            [
                "---",
                "library_name: transformers",
                "tags: [glm, fill-mask, text-generation]",
                "---",
                "",
                f"# {self.name}",
                "",
                *self._description(),
                "",
                "## Use",
                "",
                *self._use(),
                "## Training",
                "",
                *self._training(),
                *self._scores(),
            ]
        )

    def _description(self) -> list[str]:
        config = self.config
        positions = "two-dimensional" if config.block_position_encoding else "one-dimensional"
        return [
            "GLM ([Du et al., 2022](https://arxiv.org/abs/2103.10360)), a language model that "
            "fills blanks in texts.",
            "",
            "| layers | hidden size | heads | positions | vocabulary | weights |",
            "|---|---|---|---|---|---|",
            f"| {config.num_layers} | {config.hidden_size} | {config.num_attention_heads} | "
            f"{config.max_sequence_length}, {positions} | {config.vocab_size} | {self.dtype} |",
            "",
            "The activation is the tanh approximation of GELU, as GLM was trained with; "
            '`hidden_act="gelu"` in config.json is the error function of older code.',
        ]

    def _use(self) -> list[str]:
        if not self.has_tokenizer:
            return ["The folder has no tokenizer: add the one that the model was trained with.", ""]
        return [_USE.format(name=self.name, example=_EXAMPLE)]

    def _training(self) -> list[str]:
        sources = {
            "native": "a checkpoint of glm_jax",
            "original": "a checkpoint of the original GLM code",
            "huggingface": "another Hugging Face folder",
        }
        step = "" if self.iteration is None else f", step {self.iteration}"
        lines = [f"Converted from {sources[self.source]}{step}."]
        shown = [
            f"| {group}.{name} | {self.settings[group][name]} |"
            for group, names in _SHOWN.items()
            if isinstance(self.settings.get(group), dict)
            for name in names
            if name in self.settings[group]
        ]
        return [*lines, "", *(["| setting | |", "|---|---|", *shown, ""] if shown else [])]

    def _scores(self) -> list[str]:
        if not self.scores:
            return []
        rows = [f"| {name} | {value:.4g} |" for name, value in self.scores.items()]
        return ["## Scores", "", "| metric | |", "|---|---|", *rows, ""]


def run_scores(run_folder: Path) -> dict[str, float]:
    """The numbers in a run's results.json; none where there is no such file."""
    try:
        results = json.loads((run_folder / "results.json").read_text())
    except (OSError, ValueError):
        return {}
    metrics = results.get("metrics", results) if isinstance(results, dict) else {}
    return {
        name: float(value)
        for name, value in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
