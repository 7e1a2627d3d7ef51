"""The texts of a data set that TFDS has prepared on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.io.tfds import prepared_builder, stored_examples


class TfdsTexts:
    """The texts of one split of a prepared data set, in the order in which TFDS stored them."""

    def __init__(self, name: str, text_key: str) -> None:
        """Find the data set, without reading it and without the network.

        Args:
          name: ``NAME[/CONFIG][#SPLIT]``; split "train" by default, any TFDS split expression.
          text_key: the feature to read; where there is only one text feature, that one is read.

        Raises:
          UsageError: no such data set, split or feature, or the data set is not prepared.
        """
        name, _, split = name.partition("#")
        builder = prepared_builder(name)
        self._key = _text_feature(name, builder.info.features, text_key)
        # What changes when the data set does.
        self.stamp = f"{builder.info.full_name} of {builder.info.dataset_size} bytes"
        import tensorflow_datasets as tfds

        decoders = tfds.decode.PartialDecoding({self._key: True})
        try:
            self._examples = stored_examples(builder, split or "train", decoders)
        except ValueError as error:
            raise UsageError(
                f"TFDS data set {name!r} has no split {split or 'train'!r}; "
                f"splits found: {', '.join(sorted(builder.info.splits))}"
            ) from error

    def __iter__(self) -> Iterator[bytes]:
        for example in self._examples:
            yield example[self._key]


def _text_feature(name: str, features: Any, text_key: str) -> str:
    import tensorflow_datasets as tfds

    fields = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    textual = [key for key, field in fields.items() if field.shape == () and _holds_text(field)]
    if text_key in textual:
        return text_key
    if len(textual) == 1:
        return textual[0]
    raise UsageError(
        f"TFDS data set {name!r} has no text feature {text_key!r}; "
        f"text features found: {', '.join(sorted(textual)) or 'none'}"
    )


def _holds_text(feature: Any) -> bool:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    return isinstance(feature, tfds.features.Text) or (
        type(feature) is tfds.features.Tensor and feature.tf_dtype == tf.string
    )
