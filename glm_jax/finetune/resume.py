"""What is recorded with a run's checkpoints, and whether a run can resume from one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from glm_jax.convert.base_weights import BASE, BaseWeights, path_from
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.finetune.prepare import PreparedFinetuning
from glm_jax.io.paths import resolve_path

# What a run can't resume with other values of: it decides parameters or batches.
FIXED_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "task": (
        *("name", "pattern", "ensemble", "few_shot", "cloze", "multi_token", "segment_length"),
        *("sequence_length", "patterns", "words"),
    ),
    "seq2seq": (
        *("name", "source_length", "target_length", "pad_source", "label_smoothing", "seed"),
        *("prompt_field", "answer_field", "history_field", "prompt_prefix"),
    ),
    "prompt": ("num_tokens", "prefix", "encoder", "initial"),
    "lora": ("rank", "alpha", "targets"),
    "prefix": ("num_tokens", "projection"),
    "finetune": (
        *("batch_size", "seed", "max_train_examples", "random_weights", "length_window"),
        *("block_lm_ratio", "new_positions", "freeze", "freeze_transformer", "tune_prefix_layers"),
    ),
}


def run_record(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> dict[str, Any]:
    """What is saved with a checkpoint, which `glm_jax.load` opens as that of any run."""
    configuration = dataclasses.asdict(config) | {"model": dataclasses.asdict(ready.model)}
    return {
        "configuration": configuration,
        "tokenizer_fingerprint": ready.tokenizer.fingerprint,
        "num_train_examples": len(ready.splits["train"].examples),
        BASE: ready.base and recorded_base(config, ready.base),
    }


def recorded_base(config: FinetuneBaseConfig, base: BaseWeights) -> dict[str, Any]:
    """Where the weights that a run does not train are, also from the run's own folder."""
    folder = resolve_path(config.finetune.run_folder, "finetune.run_folder")
    relative = path_from(folder, resolve_path(base.path))
    return dataclasses.asdict(dataclasses.replace(base, relative_path=relative))


def check_same_run(
    saved: Mapping[str, Any], config: FinetuneBaseConfig, ready: PreparedFinetuning
) -> None:
    """Makes sure that a run resumes with what decides its batches and its parameters.

    Raises:
      UsageError: the checkpoint is not of a finetuning run, or something has changed.
    """
    folder = config.finetune.run_folder
    recorded = saved.get("configuration", {})
    if config.task_section not in recorded:
        raise UsageError(
            f"{folder} holds a checkpoint that no finetuning run has written; give the run a "
            "folder of its own"
        )
    for name, old, new in _changes(recorded, config):
        raise UsageError(
            f"{name} is {new!r}, but the run in {folder} has {old!r}; give the run a folder of its "
            "own"
        )
    if saved["tokenizer_fingerprint"] != ready.tokenizer.fingerprint:
        raise UsageError(
            f"the run in {folder} has another tokenizer; give the run a folder of its own"
        )
    now = len(ready.splits["train"].examples)
    before = saved.get("num_train_examples", now)
    if before != now:
        raise UsageError(
            f"{config.data} has {now} training examples, but the run in {folder} has "
            f"{before}; give the run a folder of its own"
        )


def _changes(recorded: Mapping[str, Any], config: FinetuneBaseConfig):
    """Names, old and new values of the fixed settings that have changed."""
    for section, names in FIXED_SETTINGS.items():
        now = getattr(config, section, None)
        if now is None:
            continue
        defaults = {field.name: field.default for field in dataclasses.fields(now)}
        for name in names:
            new = getattr(now, name)
            # A setting that came after the checkpoint had its default.
            old = recorded.get(section, {}).get(name, defaults[name])
            if json.dumps(old) != json.dumps(new):
                yield f"{section}.{name}", old, new
    old, new = recorded["finetune"]["initial_weights"], config.finetune.initial_weights
    # The checksums of frozen weights say whether they are the same, wherever they are.
    matters = not (config.freezes or config.finetune.random_weights)
    if matters and resolve_path(old) != resolve_path(new):
        yield "finetune.initial_weights", old, new
