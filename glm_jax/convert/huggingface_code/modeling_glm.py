"""GLM for `transformers`: blank filling, sequence classification and multiple choice.

Works with `transformers` from 4.30 on; what it renamed since is chosen by what is there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_glm import GLMConfig
from .generation_glm import BlankFilling
from .inputs_glm import DynamicCache, cached_length, pooled, positions_of, visibility_of
from .network_glm import Transformer
from .outputs_glm import CACHE, GLMOutput


class GLMPreTrainedModel(PreTrainedModel):
    """What all classes share: how weights are called and initialised."""

    config_class = GLMConfig
    base_model_prefix = "glm"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ["Layer"]
    _supports_sdpa = True
    _supports_cache_class = True
    _skip_keys_device_placement = [CACHE]

    def _init_weights(self, module: nn.Module) -> None:
        """Initialises a new module; what was loaded is never passed to torch's functions."""
        deviation = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=deviation)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            nn.init.zeros_(module.bias)

    if not hasattr(PreTrainedModel, "_set_gradient_checkpointing"):  # until 4.34

        def _set_gradient_checkpointing(self, module: nn.Module, value: bool = False) -> None:
            if isinstance(module, Transformer):
                module.gradient_checkpointing = value


class GLMModel(GLMPreTrainedModel):
    """The network: hidden states, and logits of every position."""

    _auto_class = "AutoModel"

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.transformer = Transformer(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_predict: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> Any:
        """Runs the network.

        Arguments:
            input_ids: Part A followed by Part B, [B, L].
            position_ids: [B, 2, L], in row 0 the position in the text and in row 1 the one inside
                the blank. None for what the ids show: every <|startofpiece|> starts the next blank.
            attention_mask: lengths of Part A, [B] or [1]; or what each position sees, 1 or true,
                [B, 1, L, M + L]; or which positions are no padding, [B, L]. None for what the ids
                show.
            past_key_values, cache: keys and values of M earlier positions; two names of one thing.
            use_cache: whether keys and values are returned.
            output_hidden_states: whether the output of every layer is returned.
            output_predict: whether logits are; None as the configuration says.
            logits_to_keep: logits of so many last positions only; 0 for all.
            return_dict: False for a tuple.
        """
        config = self.config
        cache = past_key_values if cache is None else cache
        checkpointing = self.transformer.gradient_checkpointing and self.training
        use_cache = config.use_cache if use_cache is None else use_cache
        use_cache = use_cache and not checkpointing and (cache is not None or not self.training)
        if cache is None and use_cache:
            cache = DynamicCache()
        past, length = cached_length(cache), input_ids.shape[1]
        if position_ids is None:
            position_ids = positions_of(input_ids, config, attention_mask)
        if not config.block_position_encoding and position_ids.ndim == 3:
            position_ids = position_ids[:, 0]
        visible = visibility_of(input_ids, config, attention_mask, length, past)
        embeddings = self.word_embeddings(input_ids)
        hidden, outputs = self.transformer(embeddings, position_ids, visible, cache)
        predict = config.output_predict if output_predict is None else output_predict
        output = GLMOutput(
            logits=functional.linear(hidden[:, -logits_to_keep:], self.word_embeddings.weight)
            if predict
            else None,
            last_hidden_state=hidden,
            hidden_states=outputs if output_hidden_states else None,
            **({CACHE: cache} if use_cache else {}),
        )
        return output.to_tuple() if return_dict is False else output


class GLMForConditionalGeneration(BlankFilling, GLMPreTrainedModel, GenerationMixin):
    """Fills blanks: predicts the tokens of Part B from Part A and those before them."""

    _auto_class = "AutoModelForSeq2SeqLM"

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.glm = GLMModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits, and the loss of labels.

        Arguments:
            labels: the token that follows each position, [B, L]; -100 where none is predicted.
            output_attentions: must be false: attention probabilities are not kept.

        The other arguments are those of `GLMModel.forward`.
        """
        if output_attentions:
            raise ValueError("output_attentions is true, but GLM keeps no attention probabilities")
        output = self.glm(
            input_ids,
            position_ids,
            attention_mask,
            cache=past_key_values if cache is None else cache,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_predict=True,
            logits_to_keep=logits_to_keep,
        )
        if labels is not None:
            logits = output.logits.flatten(0, 1).float()
            loss = functional.cross_entropy(logits, labels.flatten(), ignore_index=-100)
            output = GLMOutput(loss, **output)
        return output.to_tuple() if return_dict is False else output


class GLMForSequenceClassification(GLMPreTrainedModel):
    """Classifies a text by the hidden state of one of its tokens, or chooses among several."""

    _auto_class = "AutoModelForSequenceClassification"

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.glm = GLMModel(config)
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.output_dropout_prob if dropout is None else dropout)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels or 1)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """One score per label, [B, num_labels].

        Arguments:
            input_ids: [B, L]; or [B, C, L], for one score per choice, [B, C].
            labels: the right label or choice, [B].

        The other arguments are those of `GLMModel.forward`, with the axes of `input_ids`.
        """
        choices = input_ids.shape[1] if input_ids.ndim == 3 else None
        if choices is not None:
            input_ids = input_ids.flatten(0, 1)
            position_ids = None if position_ids is None else position_ids.flatten(0, 1)
            attention_mask = None if attention_mask is None else attention_mask.flatten(0, 1)
        output = self.glm(
            input_ids,
            position_ids,
            attention_mask,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_predict=False,
        )
        hidden = self.dropout(
            pooled(output.last_hidden_state, attention_mask, self.config.pool_token)
        )
        logits = self.out_proj(self.dropout(torch.tanh(self.dense(hidden))))
        if choices is not None:
            logits = logits.view(-1, choices)
        loss = None if labels is None else functional.cross_entropy(logits.float(), labels)
        found = SequenceClassifierOutput(loss, logits, hidden_states=output.hidden_states)
        return found.to_tuple() if return_dict is False else found


class GLMForMultipleChoice(GLMPreTrainedModel):
    """Chooses by the probability of each choice as the content of the blank."""

    _auto_class = "AutoModelForMultipleChoice"

    def __init__(self, config: GLMConfig) -> None:
        super().__init__(config)
        self.glm = GLMModel(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        attention_mask: Tensor,
        choice_ids: list[list[Tensor]],
        choice_indices: list[list[Tensor]],
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """The log-probability of every choice, [B, C].

        Arguments:
            choice_ids: of each choice of each example, its tokens.
            choice_indices: the positions that predict them.
            labels: the right choice, [B].

        The other arguments are those of `GLMModel.forward`; all are made by
        `build_inputs_for_multiple_choice` of the tokenizer.
        """
        output = self.glm(
            input_ids,
            position_ids,
            attention_mask,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_predict=True,
        )
        log_probs = output.logits.float().log_softmax(dim=-1)
        scores = torch.stack(
            [
                torch.stack([row[at, ids].sum() for ids, at in zip(tokens, indices)])
                for row, tokens, indices in zip(log_probs, choice_ids, choice_indices)
            ]
        )
        found = GLMOutput(
            loss=None if labels is None else functional.cross_entropy(scores, labels),
            logits=scores,
            hidden_states=output.hidden_states,
            lm_logits=output.logits,
        )
        return found.to_tuple() if return_dict is False else found
