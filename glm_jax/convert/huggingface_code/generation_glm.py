"""What `generate` of transformers asks of a model, for blanks."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from .inputs_glm import cached_length, positions_of, visibility_of
from .outputs_glm import CACHE


class BlankFilling(GenerationMixin):
    """Prepares the forward passes of `generate`; a blank is continued until its end."""

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        cache: Any = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        generation_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> dict[str, Any]:
        """The arguments of the next forward pass.

        Arguments:
            input_ids: all tokens so far.
            position_ids, generation_attention_mask: of all positions up to the longest result, as
                `build_inputs_for_generation` of the tokenizer makes them; None for what the ids
                show, which need a <|startofpiece|> then.
            attention_mask: which positions are no padding, where the other two are not given.
        """
        cache = past_key_values if cache is None else cache
        past, length, config = cached_length(cache), input_ids.shape[1], self.config
        if position_ids is None:
            if not (input_ids == config.sop_token_id).any(dim=1).all():
                raise ValueError(
                    "input_ids have no <|startofpiece|>, which starts a blank: make them with "
                    "build_inputs_for_generation of the tokenizer"
                )
            position_ids = positions_of(input_ids, config, attention_mask)
        mask = generation_attention_mask
        if mask is None:
            mask = visibility_of(input_ids, config, attention_mask, length, 0)
        if mask.shape[-1] < length or position_ids.shape[-1] < length:
            raise ValueError(
                f"{length} tokens are more than build_inputs_for_generation made positions for: "
                "give it a larger max_gen_length"
            )
        return {
            "input_ids": input_ids[:, past:],
            "position_ids": position_ids[..., past:length],
            "attention_mask": mask[:, :, past:length, :length],
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
            CACHE: cache,
        }

    def _prepare_position_ids_for_generation(self, *_: Any, **__: Any) -> None:
        """Positions that are not given come from the ids, step by step."""

    def _expand_inputs_for_generation(self, *args: Any, **kwargs: Any) -> tuple:
        """Repeats rows for beams; transformers 5 takes three axes for those of images."""
        position_ids = kwargs.pop("position_ids", None)
        input_ids, inputs = super()._expand_inputs_for_generation(*args, **kwargs)
        if position_ids is not None:
            size = kwargs.get("expand_size", 1)
            inputs["position_ids"] = position_ids.repeat_interleave(size, dim=0)
        return input_ids, inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Positions are those of the longest result from the start, and don't grow."""
        position_ids = model_kwargs.pop("position_ids", None)
        updated = super()._update_model_kwargs_for_generation(
            outputs, model_kwargs, *args, **kwargs
        )
        return updated if position_ids is None else {**updated, "position_ids": position_ids}

    @staticmethod
    def _reorder_cache(past_key_values: Any, beam_idx: Tensor) -> Any:
        past_key_values.reorder_cache(beam_idx)
        return past_key_values
