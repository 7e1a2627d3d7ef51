"""What is recorded with a run's checkpoints, and whether a run can resume from one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.data.batches.position import DataPosition, recorded_position, same_stores
from glm_jax.errors import UsageError
from glm_jax.model import GLMConfig
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.config import RunConfig
from glm_jax.train.optimizer import OptimizerConfig

# A checkpoint fits a model if these agree; the rest (dropout, dtype, remat) may change.
SHAPE_FIELDS = (
    "vocab_size",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "max_sequence_length",
    "block_position_encoding",
)


# Settings that don't decide which texts an example is made from, or are compared otherwise.
BATCHES_ONLY = ("data.batch_size", "data.supervised_share")
STORE_SETTINGS = ("data.store", "data.stores")


def run_record(config: RunConfig, tokenizer: Tokenizer, position: DataPosition) -> dict[str, Any]:
    """What is recorded with a checkpoint, whose run continues at `position` of its data."""
    return {
        "configuration": dataclasses.asdict(config),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "data_seed": config.data.seed,
        "data_position": dataclasses.asdict(position),
    }


def describe_changes(record: Mapping[str, Any], config: RunConfig, new: DataPosition) -> str | None:
    """One line: how the data differ from those of a checkpoint, and where they continue.

    Args:
      record: of the checkpoint.
      config: of the run now.
      new: where a new run would start with the data that it has now.

    Returns:
      The line; None where nothing differs.
    """
    saved = recorded_position(record)
    settings = dict(_changed_settings(record["configuration"], config))
    stores = list(_changed_stores(saved, new))
    if not settings and not stores:
        return None
    line = f"the data have changed since step {record['step']}: " + ", ".join(
        [f"{name} was {old!r} and is {now!r}" for name, (old, now) in settings.items()] + stores
    )
    line += f"; resuming from example {saved.example:,}"
    if stores or any(name not in BATCHES_ONLY for name in settings):
        line += ", in another order: texts may come again before others come once"
    return line


def _changed_settings(
    saved: Mapping[str, Any], config: RunConfig
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The settings of data and blanks that have other values, with the old and the new one."""
    for section in ("data", "blanks"):
        now = getattr(config, section)
        for field in dataclasses.fields(now):
            name = f"{section}.{field.name}"
            # A setting that came after the checkpoint had its default.
            old = saved[section].get(field.name, field.default)
            if name not in STORE_SETTINGS and old != getattr(now, field.name):
                yield name, (old, getattr(now, field.name))


def _changed_stores(saved: DataPosition, new: DataPosition) -> Iterator[str]:
    """What is different in the stores that are mixed."""
    matches = same_stores(saved.mixed, new.stores)
    for store, old in zip(new.stores, matches, strict=True):
        if old is None:
            yield f"the store {store.path} is new"
        elif old.content and old.content != store.content:
            yield f"the store {store.path} holds other text"
        elif old.weight != store.weight and len(saved.mixed) + len(new.stores) > 2:
            yield f"the weight of the store {store.path} was {old.weight} and is {store.weight}"
    for old in saved.mixed:
        if old not in matches:
            yield f"the store {old.path} is left out"


def check_same_run(
    record: Mapping[str, Any], model: GLMConfig, optimizer: OptimizerConfig, fingerprint: str
) -> None:
    """Makes sure that a run can resume from a checkpoint.

    Raises:
      UsageError: the model has other dimensions, the optimizer is another or has other moments, or
        the store has another tokenizer.
    """
    if "tokenizer_fingerprint" not in record:
        raise UsageError(
            f"the checkpoint of step {record['step']} in the run's folder was converted, not "
            "trained here, and a run can't resume from it; give the run a folder of its own"
        )
    saved = record["configuration"]
    check_dimensions(saved["model"], model, f"the run's checkpoint of step {record['step']}")
    # These came later than the first checkpoints, and their defaults are what there was before.
    wanted = {"optimizer.name": optimizer.name}
    found = {"optimizer.name": saved["optimizer"].get("name", "adamw")}
    saved_moments = saved["optimizer"].get("moments", "float32")
    if "factored" in (optimizer.moments, saved_moments):
        wanted["optimizer.moments"], found["optimizer.moments"] = optimizer.moments, saved_moments
    for name, value in wanted.items():
        if found[name] != value:
            raise UsageError(
                f"the run's checkpoint of step {record['step']} has {name} = {found[name]}, "
                f"but the configuration says {value}"
            )
    if record["tokenizer_fingerprint"] != fingerprint:
        raise UsageError(
            f"the run's checkpoint of step {record['step']} was trained with the tokenizer "
            f"{record['tokenizer_fingerprint'][:12]}, but the store was built with "
            f"{fingerprint[:12]}"
        )


def check_dimensions(saved: Mapping[str, Any], model: GLMConfig, checkpoint: str) -> None:
    """Makes sure that the parameters of a checkpoint are those of a model.

    Args:
      saved: the fields of the configuration of the checkpoint's model.
      model: the configuration of the other.
      checkpoint: what it is, for the message.

    Raises:
      UsageError: the model has other dimensions.
    """
    for name, found in _other_dimensions(saved, model):
        raise UsageError(
            f"{checkpoint} has model.{name} = {found}, but the configuration says "
            f"{getattr(model, name)}"
        )


def _other_dimensions(saved: Mapping[str, Any], model: GLMConfig) -> Iterator[tuple[str, Any]]:
    """The dimensions in which a saved model differs, and those that it has."""
    # One-dimensional positions came later than the first checkpoints.
    saved = {"block_position_encoding": True, **saved}
    for name in SHAPE_FIELDS:
        if saved.get(name) != getattr(model, name):
            yield name, saved.get(name)


def initial_weights(path: str, model: GLMConfig, mesh: Mesh) -> PyTree:
    """The parameters of another checkpoint, for a run to start from.

    Raises:
      UsageError: no checkpoint there, or one of other dimensions.
    """
    from glm_jax.convert.load import load

    other, params = load(path, num_attention_heads=model.num_attention_heads, mesh=mesh)
    saved = {name: getattr(other.config, name, None) for name in SHAPE_FIELDS}
    for name, found in _other_dimensions(saved, model):
        raise UsageError(
            f"train.initial_weights {path} has {name} = {found}, but the configuration says "
            f"model.{name} = {getattr(model, name)}"
        )
    return params
