"""What GLM returns in `transformers`."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import ModelOutput

# The name of the cache in calls and outputs, `past_key_values` until transformers renamed it.
CACHE = next(
    field.name
    for field in dataclasses.fields(CausalLMOutputWithPast)
    if field.name in ("cache", "past_key_values")
)


@dataclasses.dataclass
class GLMOutput(ModelOutput):
    """What GLM computes; a field is None where it was not asked for.

    Attributes:
        loss: mean cross-entropy of the labels.
        logits: [B, L, V]; of multiple choice the log-probability of every choice, [B, C].
        last_hidden_state: output of the final LayerNorm, [B, L, D].
        past_key_values, cache: keys and values, under the name that transformers has for them.
        hidden_states: input of the first layer and output of each.
        lm_logits: of multiple choice, [B, L, V].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    cache: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    lm_logits: Tensor | None = None
