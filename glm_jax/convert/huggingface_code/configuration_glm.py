"""Configuration of GLM for `transformers`."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class GLMConfig(PretrainedConfig):
    """What shapes a GLM, under the names of the published checkpoints' config.json.

    Arguments:
        vocab_size: rows of the word embedding.
        num_layers, hidden_size, num_attention_heads: of the network; the MLP is 4 hidden_size wide.
        max_sequence_length: the largest position. Each position table has a row more where there
            are two, and as many rows where positions are one-dimensional.
        block_position_encoding: whether a second table embeds the position inside a blank.
        embedding_dropout_prob, attention_dropout_prob, output_dropout_prob: dropout after the
            embeddings, on the attention probabilities, and after each half of a layer.
        layernorm_epsilon: added to the variance in every LayerNorm.
        hidden_act: "gelu_pytorch_tanh", the approximation that GLM was trained with, or "gelu" with
            the error function, as in the code of the published Hugging Face checkpoints.
        initializer_range: standard deviation of new weights.
        pool_token: what a sequence is classified by: "cls", its first token, or "pad", its last.
        classifier_dropout: dropout in the head of a classifier; None for `output_dropout_prob`.
        output_predict: whether `GLMModel` computes logits.
        sop_token_id, eop_token_id: ids of the tokens that start and end a blank.
        mask_token_ids: ids of the tokens that are replaced by a blank.
    """

    model_type = "glm"
    _auto_class = "AutoConfig"
    attribute_map = {
        "num_hidden_layers": "num_layers",
        "max_position_embeddings": "max_sequence_length",
    }
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size: int = 30592,
        num_layers: int = 12,
        hidden_size: int = 768,
        num_attention_heads: int = 12,
        max_sequence_length: int = 512,
        block_position_encoding: bool = True,
        embedding_dropout_prob: float = 0.1,
        attention_dropout_prob: float = 0.1,
        output_dropout_prob: float = 0.1,
        layernorm_epsilon: float = 1e-5,
        hidden_act: str = "gelu_pytorch_tanh",
        initializer_range: float = 0.02,
        pool_token: str = "cls",
        classifier_dropout: float | None = None,
        output_predict: bool = True,
        use_cache: bool = True,
        sop_token_id: int | None = None,
        eop_token_id: int | None = None,
        mask_token_ids: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if hidden_act not in ("gelu_pytorch_tanh", "gelu"):
            raise ValueError(f"hidden_act is {hidden_act!r}; expected gelu_pytorch_tanh or gelu")
        self.vocab_size = vocab_size
        self.num_layers = num_layers
        self.hidden_size = hidden_size
        self.num_attention_heads = num_attention_heads
        self.max_sequence_length = max_sequence_length
        self.block_position_encoding = block_position_encoding
        self.embedding_dropout_prob = embedding_dropout_prob
        self.attention_dropout_prob = attention_dropout_prob
        self.output_dropout_prob = output_dropout_prob
        self.layernorm_epsilon = layernorm_epsilon
        self.hidden_act = hidden_act
        self.initializer_range = initializer_range
        self.pool_token = pool_token
        self.classifier_dropout = classifier_dropout
        self.output_predict = output_predict
        self.use_cache = use_cache
        self.sop_token_id = sop_token_id
        self.eop_token_id = eop_token_id
        self.mask_token_ids = mask_token_ids
        super().__init__(**kwargs)
