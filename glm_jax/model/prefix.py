"""P-tuning v2: trained keys and values before those of the sequence, in every layer.

Source: Liu et al. (2022), P-tuning v2; ChatGLM-6B's `PrefixEncoder`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.dropout import Dropout
from glm_jax.model.embeddings import embedding_parameter
from glm_jax.model.gathering import ParamSpecs, with_gathered_parameters
from glm_jax.model.layers import INITIAL_STANDARD_DEVIATION, Linear
from glm_jax.model.paged_attention import PrefixKeyValue
from glm_jax.parallel.collectives import copy_to_tensor_parallel, local_offset, local_size
from glm_jax.parallel.layout import TENSOR

PREFIX = "prefix"
PREFIX_ENCODER = "prefix_encoder"
_KEY_VALUE_AXES = ("prefix", "key_value", "heads_out")
# The number of this use of a layer's dropout key, above those of the network and of adapters.
_DROPOUT_USE = 64


class LayerPrefix(nn.Module):
    """The prefix of one layer: parameters of its own, or a projection of what all layers share."""

    config: ChatGLMConfig

    @nn.compact
    def __call__(
        self, states: Float[Array, "P D"] | None, dropout: Dropout | None, batch_size: int
    ) -> PrefixKeyValue:
        """Keys and values, of this device's heads.

        Args:
          states: the output of `PrefixEncoder`; None where layers have parameters of their own.
          dropout: of each example.
          batch_size: B.
        """
        config = self.config
        if states is not None:
            deviation = INITIAL_STANDARD_DEVIATION
            axes = ("hidden_in", *_KEY_VALUE_AXES[1:])
            features = (2, config.hidden_size)
            project = Linear(features, axes, deviation, config.compute_dtype, name="projection")
            pairs = project(copy_to_tensor_parallel(states))
        else:
            width = local_size("heads_out", config.hidden_size)
            normal = nn.initializers.normal(INITIAL_STANDARD_DEVIATION)
            init = nn.with_logical_partitioning(normal, _KEY_VALUE_AXES)
            table: Any = self.param("embedding", init, (config.num_prefix_tokens, 2, width))
            pairs = table.astype(jnp.dtype(config.compute_dtype))
        both = jnp.swapaxes(pairs, 0, 1)[:, None]  # [P, 2, D] -> [2, 1, P, D]
        if dropout is not None and config.prefix_dropout:
            both = _dropped(dropout, config.prefix_dropout, both, batch_size)
        heads = both.reshape(*both.shape[:3], -1, config.head_size)
        return PrefixKeyValue(heads[0], heads[1])


class PrefixEncoder(nn.Module):
    """What every layer projects its prefix from: an embedding, a dense layer and a tanh."""

    config: ChatGLMConfig

    def setup(self) -> None:
        config = self.config
        shape = (config.num_prefix_tokens, config.hidden_size)
        self.embedding = embedding_parameter(self, "embedding", ("prefix", "hidden"), shape)
        self.hidden = Linear(
            (config.hidden_size,),
            ("hidden_in", "hidden"),
            INITIAL_STANDARD_DEVIATION,
            config.compute_dtype,
        )

    def __call__(self, model_specs: ParamSpecs | None) -> Float[Array, "P D"]:
        """The states; `model_specs` are how the parameters of the network are sharded, if so."""
        specs = model_specs and model_specs[PREFIX_ENCODER]
        encode = with_gathered_parameters(PrefixEncoder._encode, specs, self.config.compute_dtype)
        return encode(self)

    def _encode(self) -> Float[Array, "P D"]:
        embedded = self.embedding.astype(jnp.dtype(self.config.compute_dtype))
        return accurate_tanh(self.hidden(embedded))


def accurate_tanh(values: Float[Array, "P D"]) -> Float[Array, "P D"]:
    """tanh within 1.5e-7; XLA's is within 2.4e-7 on CPUs, which scores of long keys amplify."""
    smaller = jnp.expm1(-2 * jnp.abs(values))
    return jnp.sign(values) * -smaller / (smaller + 2)


def _dropped(
    dropout: Dropout, rate: float, both: Float[Array, "2 1 P D"], batch_size: int
) -> Float[Array, "2 B P D"]:
    """Keys and values of every example, each with its own elements dropped."""
    # The prefix is the same wherever a device's part of the sequence starts.
    dropout = dataclasses.replace(dropout, first_position=0)
    _, _, length, width = both.shape
    rows = jnp.broadcast_to(both.reshape(1, 2 * length, width), (batch_size, 2 * length, width))
    first = local_offset((TENSOR,), width)
    kept = dropout.hidden(rate, rows, _DROPOUT_USE, first_column=first)
    return jnp.swapaxes(kept.reshape(batch_size, 2, length, width), 0, 1)


def with_projected_prefix(config: ChatGLMConfig, params: PyTree) -> PyTree:
    """The parameters with the prefixes that layers project as parameters of their own."""
    if not (config.num_prefix_tokens and config.prefix_projection):
        return params
    shared, layers = params[PREFIX_ENCODER], params["layers"]
    hidden = shared["hidden"]
    states = accurate_tanh(shared["embedding"] @ hidden["kernel"] + hidden["bias"])
    # One layer after another: the kernels of all are larger than the rest of the network.
    embedding = jax.lax.map(
        lambda layer: jnp.einsum("pd,dcw->pcw", states, layer["kernel"]) + layer["bias"],
        layers["attention"][PREFIX]["projection"],
    )
    attention = layers["attention"] | {PREFIX: {"embedding": embedding}}
    others = {name: leaf for name, leaf in params.items() if name != PREFIX_ENCODER}
    return others | {"layers": layers | {"attention": attention}}
