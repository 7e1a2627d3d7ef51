"""Position tables for sequences that are longer than those a checkpoint was trained with.

Source: reference-finetune.md, section 12.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.positions import extend_positions
from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneBaseConfig
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import abstract_params

TABLES = ("position_embedding", "block_position_embedding")


def extend_network(
    config: FinetuneBaseConfig, network: GLMConfig, params: PyTree, mesh: Mesh
) -> tuple[GLMConfig, PyTree]:
    """The network with position tables that reach to the end of the task's sequences.

    Rows that are there stay; `finetune.new_positions` and the seed make the others. A network
    whose tables reach that far is returned as it is.

    Raises:
      UsageError: the network has no block positions, for which a table has a row for every
        position of a sequence, and no more; or the tables are frozen, so that nothing would save
        their new rows.
    """
    length = config.sequence_length
    if length <= network.max_sequence_length:
        return network, params
    if not network.block_position_encoding:
        raise UsageError(
            f"{config.length_setting} is {length}, but the position table of "
            f"{config.finetune.initial_weights} ends at {network.max_sequence_length}, and tables "
            "of networks without block positions are not extended"
        )
    if config.freezes:
        raise UsageError(
            f"{config.length_setting} is {length}, but the position tables of "
            f"{config.finetune.initial_weights} end at {network.max_sequence_length}; a run that "
            "freezes weights can't extend them: run glm-jax convert --max_sequence_length first"
        )
    extended = dataclasses.replace(network, max_sequence_length=length)
    shardings = abstract_params(GLM(extended), mesh)
    tables = {}
    for name in TABLES:
        table = extend_positions(
            np.asarray(jax.device_get(params[name])),
            extended.num_positions,
            config.finetune.new_positions,
            name=name,
            seed=config.finetune.seed,
        )
        tables[name] = _place(table, shardings[name].sharding)
    return extended, {**params, **tables}


def _place(table: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(table.shape, sharding, lambda index: table[index])
