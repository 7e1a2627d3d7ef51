"""The texts of a data set that TFDS has prepared on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from glm_jax.data.pipeline_options import untuned_options
from glm_jax.errors import UsageError


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
        for kind in ("GPU", "TPU"):  # the accelerators are JAX's
            tf.config.set_visible_devices([], kind)
        name, _, split = name.partition("#")
        try:
            builder = tfds.builder(name, try_gcs=False)
        except (ValueError, AssertionError) as error:
            raise UsageError(f"TFDS has no data set {name!r}") from error
        if not builder.is_prepared():
            raise UsageError(
                f"TFDS data set {name!r} is not prepared in {builder.data_dir}; "
                f"run `tfds build {name}` first"
            )
        self._key = _text_feature(name, builder.info.features, text_key)
        # What changes when the data set does.
        self.stamp = f"{builder.info.full_name} of {builder.info.dataset_size} bytes"
        try:
            self._dataset = tfds.load(
                name,
                split=split or "train",
                download=False,
                try_gcs=False,
                shuffle_files=False,
                decoders=tfds.decode.PartialDecoding({self._key: True}),
                # One file after the other: the order of the examples is then fixed.
                read_config=tfds.ReadConfig(interleave_cycle_length=1, options=untuned_options()),
            )
        except ValueError as error:
            raise UsageError(
                f"TFDS data set {name!r} has no split {split or 'train'!r}; "
                f"splits found: {', '.join(sorted(builder.info.splits))}"
            ) from error

    def __iter__(self) -> Iterator[bytes]:
        for example in tfds.as_numpy(self._dataset):
            yield example[self._key]


def _text_feature(name: str, features: tfds.features.FeatureConnector | None, text_key: str) -> str:
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


def _holds_text(feature: tfds.features.FeatureConnector) -> bool:
    return isinstance(feature, tfds.features.Text) or (
        type(feature) is tfds.features.Tensor and feature.tf_dtype == tf.string
    )
