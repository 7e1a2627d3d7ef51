"""What a conversion writes, known before anything is written."""

from __future__ import annotations

import dataclasses
from typing import Any

from glm_jax.convert.changes import ChangedSource, Changes
from glm_jax.convert.dimensions import WORD_EMBEDDING, measure
from glm_jax.convert.huggingface_plan import HuggingFacePlan, plan_huggingface
from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.layouts.chatglm_prefix_writer import PrefixPart
from glm_jax.convert.layouts.native import NativeCheckpoint
from glm_jax.convert.layouts.native_record import model_config
from glm_jax.convert.quantize import BITS, ExpandedSource, QuantizedSource
from glm_jax.convert.weights import SourceMetadata, WeightSource
from glm_jax.errors import UsageError
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.tokenizer import Tokenizer

P_TUNING = "p_tuning"


@dataclasses.dataclass(frozen=True)
class Form:
    """What the weights are written as; attributes as the arguments of `convert`."""

    kind: str
    model_parallel_size: int
    file_format: str
    max_shard_bytes: int
    published: bool
    tokenizer: Tokenizer | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is written.

    Attributes:
      form: that it gets.
      opened: the source.
      source: the same with its changes.
      order: its tensors, as they are read.
      config: of the network.
      huggingface: what a folder of GLM for transformers has besides; None for other forms.
    """

    form: Form
    opened: WeightSource
    source: WeightSource
    order: list[str]
    config: Any
    huggingface: HuggingFacePlan | None = None

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(info.nbytes for info in self.source.tensors.values())

    @property
    def metadata(self) -> SourceMetadata:
        """Of the source, with the heads."""
        heads = self.config.num_attention_heads
        return dataclasses.replace(self.source.metadata, num_attention_heads=heads)

    def for_report(self) -> dict[str, Any]:
        """What the report says of it."""
        return {
            "source_kind": self.opened.kind,
            "kind": self.form.kind,
            "config": self.config,
            "iteration": self.metadata.iteration,
            "tensors": dict(self.source.tensors),
            "extended": _describe_extension(self.opened, self.source),
            "extra": self.source.extra,
            "notes": () if self.huggingface is None else self.huggingface.notes,
        }


def plan_conversion(
    opened: WeightSource, form: Form, changes: Changes, num_attention_heads: int | None
) -> Plan:
    """The plan for a source.

    Args:
      opened: the source.
      form: what it is written as.
      changes: what is changed on the way.
      num_attention_heads: H, where it isn't recorded and isn't hidden / 64.

    Raises:
      UsageError: it can't be written so.
    """
    source, order = _changed(opened, changes)
    config = _config(opened, source, num_attention_heads)
    if form.kind == P_TUNING:
        source = PrefixPart(source)
        order = [name for name in order if name in source.tensors]
    plan = Plan(form, opened, source, order, config)
    if form.kind == "huggingface" and not isinstance(config, ChatGLMConfig):
        extras = plan_huggingface(opened, source, config, form.published, form.tokenizer)
        plan = dataclasses.replace(plan, huggingface=extras)
    _check_vocabulary(plan)
    return plan


def _changed(opened: WeightSource, changes: Changes) -> tuple[WeightSource, list[str]]:
    """The source with its changes, and the names of its tensors in the order of reading."""
    order = opened.reading_order if isinstance(opened, NativeCheckpoint) else list(opened.tensors)
    source: WeightSource = opened
    if changes.quantization == "none":
        source = expanded = ExpandedSource(opened, changes.dtype)
        order = expanded.order(order)
    source = ChangedSource(source, changes)
    if changes.quantization in BITS:
        source = quantized = QuantizedSource(source, changes.quantization)
        order = quantized.order(order)
    return source, order


def _describe_extension(opened: WeightSource, source: WeightSource) -> str | None:
    """The position tables' old and new length, where they were extended."""
    if not isinstance(source, ChangedSource) or source.new_positions is None:
        return None
    old, new = (
        measure(each.tensors, str(each.path), each.where).max_sequence_length
        for each in (opened, source)
    )
    return f"{old} extended to {new}: {source.new_positions}"


def _config(opened: WeightSource, source: WeightSource, num_attention_heads: int | None) -> Any:
    """The model's configuration: inferred, and what a run's record has besides the dimensions."""
    heads = opened.metadata.num_attention_heads or num_attention_heads
    config = infer_config(source.tensors, heads, opened.metadata.huggingface_config)
    if not isinstance(opened, NativeCheckpoint):
        return config
    recorded = model_config(opened.record, opened.tensors, opened.step_folder)
    dimensions = {
        name: getattr(config, name)
        for name in ("vocab_size", "max_sequence_length", "quantization")
        if hasattr(recorded, name)
    }
    return dataclasses.replace(recorded, **dimensions)


def _check_vocabulary(plan: Plan) -> None:
    """Makes sure that the ranks can share the vocabulary, and says what to do if not.

    Raises:
      UsageError: they can't.
    """
    source, ranks = plan.source, plan.form.model_parallel_size
    if plan.form.kind != "original" or plan.config.num_attention_heads % ranks:
        return  # ranks that don't divide the heads are refused for that
    rows = source.tensors[WORD_EMBEDDING].shape[0]
    if rows % ranks:
        raise UsageError(
            f"{ranks} ranks can't share the {rows} rows of {WORD_EMBEDDING} in "
            f"{source.where(WORD_EMBEDDING)}; --pad_vocab_to_multiple_of={128 * ranks} adds rows "
            "of zeros, as the original pads its vocabulary"
        )
