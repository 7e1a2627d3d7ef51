"""The weights that a finetuning run starts from: those it trains, and those that stay frozen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt32

from glm_jax.convert.base_weights import BASE, BaseWeights, base_path, checksum_weights
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig, FinetuneRunConfig
from glm_jax.finetune.program import FinetuneProgram, key_of
from glm_jax.finetune.prompts import words_as_prompts
from glm_jax.finetune.trainable import (
    LAYERS,
    IsTrained,
    from_paths,
    join,
    leaf_paths,
    partition,
    separate_layers,
)
from glm_jax.io.hub import checkpoint_path
from glm_jax.tasks import Task
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.step import TrainState

# Distinguishes the random numbers of prompts made of words from those of other parameters.
PROMPT_KEY = 1000


def divide_weights(
    loaded: PyTree,
    program: FinetuneProgram,
    is_trained: IsTrained,
    *,
    num_separate_layers: int = 0,
) -> tuple[PyTree, PyTree]:
    """Divides loaded parameters between the state of a run and its frozen parameters.

    Args:
      loaded: of the network, with one stack of layers, and others that are not random.
      program: says what is frozen, and how it is laid out.
      is_trained: as of the program.
      num_separate_layers: of the program's network.

    Returns:
      The trained parameters as they are, and the frozen ones as the program takes them.
    """
    trained, frozen = partition(separate_layers(loaded, num_separate_layers), is_trained)
    leaves = dict(leaf_paths(frozen))
    placed = from_paths(
        (path, jax.device_put(leaves.pop(path).astype(shape.dtype), shape.sharding))
        for path, shape in leaf_paths(program.abstract_frozen)
    )
    return trained, placed


def initial_state_from(program: FinetuneProgram, params: PyTree, seed: int) -> TrainState:
    """The state before the first step: these parameters, and random ones for all others."""
    state = program.initialize(seed)
    shapes = dict(leaf_paths(program.abstract_state.params))
    placed = from_paths(
        (path, jax.device_put(leaf, shapes[path].sharding)) for path, leaf in leaf_paths(params)
    )
    return dataclasses.replace(state, params=join(state.params, placed))


def describe_base(
    config: FinetuneBaseConfig, params: PyTree, num_attention_heads: int
) -> BaseWeights:
    """What is recorded of the weights that a run does not train.

    Args:
      config: of the run.
      params: of the network, loaded as float32.
      num_attention_heads: H.
    """
    path = base_path(checkpoint_path(config.finetune.initial_weights, "finetune.initial_weights"))
    return BaseWeights(
        path=os.fspath(path),
        relative_path="",
        num_attention_heads=num_attention_heads,
        adapter_scale=config.lora.scale,
        checksums=parameter_checksums(params),
    )


def check_base(record: Mapping[str, Any], base: BaseWeights | None) -> None:
    """Makes sure that the weights of a run are those that its checkpoint was trained with.

    Args:
      record: of the checkpoint.
      base: of the weights that were loaded.

    Raises:
      UsageError: they have changed, or the checkpoint was trained with others frozen.
    """
    saved = record.get(BASE)
    if saved is None and base is None:
        return
    if saved is None or base is None:
        raise UsageError(
            f"the run's checkpoint of step {record['step']} holds "
            f"{'all' if saved is None else 'not all'} parameters, but the configuration freezes "
            "others; give the run a folder of its own"
        )
    recorded = BaseWeights(**{**saved, "path": base.path})
    for path, checksums in base.checksums.items():
        for layer, checksum in enumerate(checksums):
            recorded.check(path, layer, checksum, f"the checkpoint of step {record['step']}")


def parameter_checksums(params: PyTree) -> dict[str, list[int]]:
    """The checksums of a network's parameters on devices, each process computing all of them.

    They are those of `glm_jax.convert.base_weights.checksum_of`.
    """

    def of_leaf(keys: tuple[Any, ...], leaf: Array) -> Array:
        return jax.vmap(_checksum)(leaf) if keys[0].key == LAYERS else _checksum(leaf)[None]

    # Every process needs all of them, wherever the parameters are.
    sharding = jax.tree.leaves(params)[0].sharding
    out = NamedSharding(sharding.mesh, PartitionSpec()) if hasattr(sharding, "mesh") else None
    checksums = jax.jit(partial(jax.tree_util.tree_map_with_path, of_leaf), out_shardings=out)
    found = checksums(params)
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(found))
    return {"/".join(key.key for key in keys): sums.tolist() for keys, sums in leaves}


def _checksum(leaf: Float[Array, "..."]) -> UInt32[Array, ""]:
    words = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
    numbers, stride = jnp.zeros(leaf.shape, jnp.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        numbers, stride = numbers + index * np.uint32(stride), stride * leaf.shape[axis]
    return jnp.sum(words * checksum_weights(numbers), dtype=jnp.uint32)


def initial_prompts(
    config: FinetuneRunConfig,
    task: Task,
    tokenizer: Tokenizer,
    table: Float[Array, "V D"],
    seed: int,
) -> dict[str, dict[str, jax.Array]]:
    """The parameters of the prompt encoder that are made of the network's word embeddings."""
    if config.prompt.initial != "words":
        return {}
    assert task.verbalizers is not None  # the configuration has been checked
    words = task.verbalizers(config.task.pattern).values()
    ids = sorted({id for word in words for id in tokenizer.encode_text(word)})
    key = jax.random.fold_in(key_of(seed), PROMPT_KEY)
    prompts = words_as_prompts(key, table, ids, config.prompt.total)
    return {"prompt_encoder": {"spell_embeddings": prompts}}
