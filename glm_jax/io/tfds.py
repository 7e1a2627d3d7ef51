"""Data sets that TFDS has prepared on this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from glm_jax.errors import UsageError

TFDS_PREFIX = "tfds:"


def prepared_builder(name: str) -> Any:
    """The builder of a prepared data set.

    Args:
      name: ``NAME[/CONFIG]``; TFDS_DATA_DIR is where prepared data sets are.

    Raises:
      UsageError: there is no such data set, it is not prepared, or TFDS is not installed.
    """
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            f"{TFDS_PREFIX}{name} needs TensorFlow Datasets; install tensorflow-datasets ({error})"
        ) from error
    for kind in ("GPU", "TPU"):  # the accelerators are JAX's
        tf.config.set_visible_devices([], kind)
    try:
        builder = tfds.builder(name, try_gcs=False)
    except (ValueError, AssertionError) as error:
        raise UsageError(f"TFDS has no data set {name!r}") from error
    if not builder.is_prepared():
        raise UsageError(
            f"TFDS data set {name!r} is not prepared in {builder.data_dir}; run `tfds build {name}`"
            " once, which downloads it, or set TFDS_DATA_DIR to where it is"
        )
    return builder


def stored_examples(builder: Any, split: str, decoders: Any = None) -> Iterable[Mapping[str, Any]]:
    """The examples of a split as NumPy values, in the order in which TFDS stored them.

    Args:
      builder: of a prepared data set.
      split: any TFDS split expression.
      decoders: of the features, as TFDS takes them.

    Raises:
      ValueError: there is no such split.
    """
    import tensorflow_datasets as tfds

    from glm_jax.io.pipeline_options import untuned_options

    # One file after the other: the order of the examples is then fixed.
    config = tfds.ReadConfig(interleave_cycle_length=1, options=untuned_options())
    dataset = builder.as_dataset(
        split=split, shuffle_files=False, read_config=config, decoders=decoders
    )
    return tfds.as_numpy(dataset)


def plain_examples(builder: Any, split: str) -> Iterator[Any]:
    """The same as values of JSON: classes by their names, missing labels left out."""
    for example in stored_examples(builder, split):
        yield _plain(example, builder.info.features)


def _plain(value: Any, feature: Any) -> Any:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        inner = {name: _plain(value[name], feature[name]) for name in feature}
        return {name: item for name, item in inner.items() if item is not None}
    if isinstance(feature, tfds.features.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    return _of_json(value)


def _of_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, Mapping):
        return {name: _of_json(item) for name, item in value.items()}
    if hasattr(value, "to_list"):  # a ragged tensor
        return _of_json(value.to_list())
    if hasattr(value, "tolist"):
        return _of_json(value.tolist())
    return [_of_json(item) for item in value] if isinstance(value, list | tuple) else value
