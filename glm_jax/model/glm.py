"""GLM: a transformer that fills blanks, with one embedding table in and out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.block import Block
from glm_jax.model.config import GLMConfig
from glm_jax.model.dropout import Dropout, drop_hidden
from glm_jax.model.embeddings import Embeddings, Prompts, unembed
from glm_jax.model.gathering import (
    ParamSpecs,
    specs_of_layer,
    tables_of,
    with_gathered_parameters,
    with_part_of_stack,
)
from glm_jax.model.layers import Linear, LinearKind, layer_norm
from glm_jax.model.remat import keeps_gathered, rematerialize
from glm_jax.model.self_attention import AttentionExtras
from glm_jax.parallel.collectives import (
    gather_from_tensor_parallel,
    local_offset,
    local_size,
    scatter_to_tensor_parallel,
)
from glm_jax.parallel.layout import BATCH_AXES, LENGTH_AXES, TENSOR, constrain

HIDDEN_AXES = ("batch", "length", "hidden")


class GLM(nn.Module):
    """The network of Du et al. (2022): word, position and block position embeddings, N blocks.

    `model.apply({"params": params}, tokens, position_ids, prefix_length)` gives logits. A loss that
    needs logits at few positions calls `hidden_states` and `logits` through `method=`; decoding has
    `DecodingGLM`. Dropout needs `deterministic=False` and `rngs={"dropout": key}`.

    The layers are stacked: every parameter below `layers` has a leading axis N. With
    `mutable="intermediates"` a pass also gives the stream after the embeddings and after every
    layer; `glm_jax.model.intermediates` reads them.

    Inside `jax.shard_map` every device passes its own shard of parameters, batch and sequence, and
    gets its shard of the result; `glm_jax.parallel.collectives` has what devices exchange.

    Attributes:
      config: dimensions and numerics.
      param_specs: inside `jax.shard_map`, how the parameters are sharded; None elsewhere.
      linear: the kind of linear maps in the blocks.
      num_separate_layers: the first k layers are stacked below `layers` and the others below
        `later_layers`, so that the two can be treated differently; 0 for one stack of all.
    """

    config: GLMConfig
    param_specs: ParamSpecs | None = None
    linear: LinearKind = Linear
    num_separate_layers: int = 0

    def setup(self) -> None:
        config = self.config
        self.embeddings = Embeddings(
            config.vocab_size,
            config.hidden_size,
            config.compute_dtype,
            config.position_rows,
            config.block_position_encoding,
        )
        # The tables are parameters of the model itself in every checkpoint.
        nn.share_scope(self, self.embeddings)
        self.layers = self.make_block(self.linear)
        if self.num_separate_layers:
            self.later_layers = self.make_block(self.linear)
        self.final_layernorm = layer_norm(config.layernorm_epsilon, config.compute_dtype)

    def make_block(self, linear: LinearKind) -> Any:
        """One block, or a stack of them, for a method such as `setup` to assign."""
        return Block(self.config, linear)

    def extras(
        self, position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"]
    ) -> AttentionExtras | None:
        """What the attention of every layer takes from this pass besides its masks."""
        return None

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        deterministic: bool = True,
        attention_mask: Bool[Array, "#B 1 Q L"] | Int[Array, "#B 1 Q L"] | None = None,
    ) -> Float[Array, "B L V"]:
        """Float32 logits of the token at each position's target.

        Args:
          tokens: Part A followed by Part B.
          position_ids: row 0 the position in the text, row 1 that inside the blank. Networks with
            one-dimensional positions read row 0, or take [B, L].
          prefix_length: length of Part A, visible to every position; [1] is for all examples.
          deterministic: False applies dropout.
          attention_mask: 1 where one of the last Q positions (third axis) sees another position
            (fourth axis); for them it replaces the prefix. Usually Q = L; where it is less, the
            positions before are a text with its prefix, and see no others.

        Source: paper, section 2.
        """
        hidden = self.hidden_states(
            tokens, position_ids, prefix_length, deterministic, attention_mask
        )
        return self.logits(hidden)

    def hidden_states(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        prefix_length: Int[Array, "#B"],
        deterministic: bool = True,
        attention_mask: Bool[Array, "#B 1 Q L"] | Int[Array, "#B 1 Q L"] | None = None,
        prompts: Prompts | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B L D"] | Float[Array, "B T D"]:
        """Output of the final LayerNorm, in the compute dtype.

        Args:
          tokens, position_ids, prefix_length, deterministic, attention_mask: as in `__call__`.
          prompts: continuous prompts, which take the place of tokens.
          positions: indices in the sequence of those that are wanted; None for all. Others are not
            computed in the last layer. The parameters of the other layers are copied for it, and
            their gradients, and there can be no `attention_mask`.
        """
        dropout = self._dropout(tokens, deterministic)
        hidden = self._embed(tokens, position_ids, dropout, prompts)
        extras = self.extras(position_ids)
        inputs = (prefix_length, dropout, attention_mask, extras, positions)
        hidden = self._run_layers(hidden, *inputs)
        return self.final_layernorm(hidden)

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Float32 logits of hidden states of any leading shape.

        Tensor-parallel devices pass different positions: each has the full vocabulary.
        """
        return unembed(hidden, self.embedding_table())

    def embedding_table(self) -> Float[Array, "V D"]:
        """The word embedding in the compute dtype, on every device."""
        return self._with_gathered_tables(Embeddings.embedding_table)(self.embeddings)

    def _with_gathered_tables(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """`function(embeddings, ...)` with all embedding tables gathered."""
        specs = self.param_specs and tables_of(self.param_specs)
        return with_gathered_parameters(
            function, specs, self.config.compute_dtype, over_tensor=True
        )

    def _embed(
        self,
        tokens: Int[Array, "B L"],
        position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"],
        dropout: Dropout | None,
        prompts: Prompts | None = None,
    ) -> Float[Array, "B L D"]:
        # Each tensor-parallel device looks up a part of the positions.
        tokens = scatter_to_tensor_parallel(tokens, 1)
        position_ids = scatter_to_tensor_parallel(position_ids, -1)
        if prompts is not None:
            prompts = prompts._replace(ids=scatter_to_tensor_parallel(prompts.ids, 1))
        embed = self._with_gathered_tables(Embeddings.embed)
        hidden = embed(self.embeddings, tokens, position_ids, prompts)
        hidden = gather_from_tensor_parallel(hidden, 1)  # [B, L, D]
        hidden = drop_hidden(dropout, self.config.embedding_dropout, hidden, 0)
        self.sow("intermediates", "embedding", hidden)
        return hidden

    def _dropout(self, tokens: Int[Array, "B L"], deterministic: bool) -> Dropout | None:
        """Dropout for this device's shard; every use of it draws a key of its own."""
        config, (batch, length) = self.config, tokens.shape
        rates = (config.embedding_dropout, config.hidden_dropout, config.attention_dropout)
        # Other kinds of linear maps may have a rate of their own.
        if deterministic or not (any(rates) or self.linear is not Linear):
            return None
        return Dropout(
            self.make_rng("dropout"),
            local_offset(BATCH_AXES, batch),
            local_offset(LENGTH_AXES, length),
            local_offset((TENSOR,), local_size("heads_out", config.num_attention_heads)),
        )

    def _run_layers(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None,
        extras: AttentionExtras | None,
        positions: Int[Array, "B T"] | None = None,
    ) -> Float[Array, "B L D"] | Float[Array, "B T D"]:
        """Runs all blocks, the last one for some positions if they are given."""

        def run_block(block: Block, hidden: Float[Array, "B L D"], layer: Int[Array, ""], at=None):
            hidden = constrain(hidden, HIDDEN_AXES)
            layer_dropout = dropout and dropout.of_layer(layer)
            inputs = (prefix_length, layer_dropout, attention_mask, None, extras, at)
            return block(hidden, *inputs)[0]

        num_layers, border = self.config.num_layers, self.num_separate_layers
        stack, layers = self.layers, range(num_layers)
        if border:
            hidden = self._run_stack(run_block, self.layers, hidden, range(border))
            stack, layers = self.later_layers, range(border, num_layers)
        if positions is None:
            hidden = self._run_stack(run_block, stack, hidden, layers)
        else:
            before = with_part_of_stack(partial(self._run_stack, run_block), slice(0, -1))
            if len(layers) > 1:
                hidden = before(stack, hidden, layers[:-1])
            last = with_part_of_stack(self._in_layer(run_block, stack, in_loop=False), -1)
            hidden = last(stack, hidden, jnp.asarray(layers[-1]), positions)
        return constrain(hidden, HIDDEN_AXES)

    def _in_layer(
        self, run_block: Callable[..., Array], stack: Block, *, in_loop: bool
    ) -> Callable[..., Array]:
        """`run_block` with the parameters of its layer gathered, and what it keeps limited."""
        remat = self.config.remat
        rematerialized = partial(rematerialize, name=remat, in_loop=in_loop)
        if self.param_specs is None:
            return rematerialized(run_block)
        specs = specs_of_layer(self.param_specs[str(stack.name)])
        gathered = partial(with_gathered_parameters, specs=specs, dtype=self.config.compute_dtype)
        # What is gathered outside is kept for the backward pass, inside it is not. A policy that
        # saves it would have it copied, through `reduce_precision`.
        if keeps_gathered(remat):
            return gathered(rematerialized(run_block))
        return rematerialized(gathered(run_block))

    def _run_stack(
        self,
        run_block: Callable[..., Array],
        stack: Block,
        hidden: Float[Array, "B L D"],
        layers: range,
    ) -> Float[Array, "B L D"]:
        """Runs blocks whose parameters are stacked."""
        in_loop = self.config.scan_layers
        run_block = self._in_layer(run_block, stack, in_loop=in_loop)

        def step(block: Block, hidden: Float[Array, "B L D"], layer: Int[Array, ""]):
            return run_block(block, hidden, layer), None

        scan = nn.scan(
            step,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=len(layers),
            unroll=1 if in_loop else len(layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        hidden, _ = scan(stack, hidden, jnp.arange(layers.start, layers.stop))
        return hidden
