"""Weights of any kind of checkpoint, ready to use."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.convert.array_layouts import to_native
from glm_jax.convert.dimensions import WORD_EMBEDDING
from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.native import NativeCheckpoint, NativeSource
from glm_jax.convert.layouts.native_record import model_config
from glm_jax.convert.layouts.state_dict import name_some
from glm_jax.convert.names import by_native
from glm_jax.convert.open import open_source, readable_checkpoint
from glm_jax.convert.quantize import ExpandedSource, scale_name
from glm_jax.convert.tensors import contiguous
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import UsageError
from glm_jax.model import GLM, GLMConfig, network_of
from glm_jax.model.initial import abstract_params
from glm_jax.model.relative import RelativeGLM, RelativeGLMConfig
from glm_jax.parallel.layout import abstract_with_shardings, parameter_shardings
from glm_jax.parallel.mesh import MeshConfig, make_mesh

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What finetuning starts from.

    Attributes:
      model: the network.
      params: its parameters.
      head: those of a classifier's head, float32, by their paths; empty where there is none.
      left_out: a sentence on tensors that are neither; "" where there are none.
    """

    model: GLM
    params: PyTree
    head: Mapping[str, np.ndarray]
    left_out: str


def load(
    path: str | os.PathLike[str],
    *,
    num_attention_heads: int | None = None,
    dtype: DTypeLike = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    ignore_extra: bool = False,
    base: str | os.PathLike[str] | None = None,
) -> tuple[GLM | RelativeGLM, PyTree]:
    """The model and its parameters, from any kind of checkpoint (contract C4).

    Parameters go to their devices one after the other, so that the host never holds much more than
    the result and the largest of them.

    Args:
      path: a run folder, as `glm-jax pretrain` and `glm-jax convert` leave it, or one of its
        checkpoints; a checkpoint folder of the original code, split over any number of ranks; a
        Hugging Face folder of the glm-* family, or one file of weights of these two; a local path,
        or a URL of fsspec.
      num_attention_heads: H, which an original checkpoint doesn't record; None for hidden size /
        64, true of every published model.
      dtype: of the parameters. What the network computes in is its configuration's compute_dtype.
      mesh: where the parameters go; replicated over all devices by default.
      ignore_extra: leaves out tensors that GLM doesn't have, such as heads of a task, which are
        refused otherwise. Those of Hugging Face folders are left out with a line in the log.
      base: where `path` holds a prefix of P-tuning v2, the ChatGLM network that it belongs to.

    Returns:
      The model, and its parameters as `model.apply({"params": params}, ...)` takes them.

    Raises:
      UsageError: no checkpoint there, or one that is damaged, of another network, or has extra
        tensors.
      RunError: the checkpoint of a run is damaged.
    """
    mesh = make_mesh(MeshConfig()) if mesh is None else mesh
    with _opened(path, num_attention_heads, ignore_extra=ignore_extra, base=base) as source:
        if source.extra and not ignore_extra and jax.process_index() == 0:
            logger.warning("%s", extra_sentence(path, source.extra))
        return _load_source(source, mesh, dtype)


@contextmanager
def _opened(
    path: str | os.PathLike[str], num_attention_heads: int | None, **options: Any
) -> Iterator[WeightSource]:
    """An open checkpoint, which may be at a URL."""
    with (
        readable_checkpoint(path) as readable,
        open_source(readable, num_attention_heads, **options) as source,
    ):
        yield source


def _load_source(
    source: WeightSource, mesh: jax.sharding.Mesh, dtype: DTypeLike
) -> tuple[GLM | RelativeGLM, PyTree]:
    """The model and its parameters, from an open checkpoint."""
    model = _model(_config(source))
    if scale_name(WORD_EMBEDDING) in source.tensors:
        source = ExpandedSource(source, np.dtype(dtype), only_words=True)
    abstract = _abstract(model, mesh, dtype)
    if isinstance(source, NativeSource) and not source.converted:
        step = source.step_folder
        if not step.name.isdecimal():
            raise UsageError(f"{step} is not named as a checkpoint of a run, by its step")
        with Checkpoints(step.parent) as checkpoints:
            restored = checkpoints.restore(int(step.name), {"params": abstract})
        return model, restored["params"]
    params = jax.tree_util.tree_map_with_path(
        lambda keys, leaf: _assemble(source, "/".join(key.key for key in keys), leaf), abstract
    )
    return model, params


def extra_sentence(path: str | os.PathLike[str], extra: Sequence[str]) -> str:
    """What is said of tensors that are left out."""
    what = "a tensor" if len(extra) == 1 else f"{len(extra)} tensors"
    return f"{path} has {what} that GLM doesn't have, left out here: {name_some(extra)}"


def load_glm(
    path: str | os.PathLike[str],
    *,
    num_attention_heads: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    ignore_extra: bool = False,
    base: str | os.PathLike[str] | None = None,
) -> tuple[GLM, PyTree]:
    """`load` for what only the blank-filling network can do.

    Raises:
      UsageError: as `load`, or the checkpoint is of the relative variant.
    """
    options: dict[str, Any] = {"ignore_extra": ignore_extra, "base": base}
    model, params = load(path, num_attention_heads=num_attention_heads, mesh=mesh, **options)
    return _check_glm(model, path), params


def load_for_finetuning(
    path: str | os.PathLike[str], *, num_attention_heads: int | None, mesh: jax.sharding.Mesh
) -> InitialWeights:
    """`load_glm`, with the head of a classifier where a Hugging Face folder has one.

    Raises:
      UsageError: as `load_glm`.
    """
    with _opened(path, num_attention_heads, ignore_extra=True) as source:
        model, params = _load_source(source, mesh, jnp.float32)
        head, extra = {}, ()
        if isinstance(source, HuggingFaceSource):
            head = source.read_head()
            extra = [name for name in source.extra if name not in source.head.values()]
        left_out = extra_sentence(path, extra) if extra else ""
        return InitialWeights(_check_glm(model, path), params, head, left_out)


def _check_glm(model: GLM | RelativeGLM, path: str | os.PathLike[str]) -> GLM:
    if not isinstance(model, GLM):
        raise UsageError(f"{path} is of the relative-position variant, which fills no blanks")
    return model


def _config(source: WeightSource) -> GLMConfig | RelativeGLMConfig:
    """The configuration of the network in an open checkpoint."""
    if isinstance(source, NativeCheckpoint):
        return model_config(source.record, source.tensors, source.step_folder)
    metadata = source.metadata
    return infer_config(source.tensors, metadata.num_attention_heads, metadata.huggingface_config)


def _model(config: Any) -> GLM | RelativeGLM:
    if not isinstance(config, GLMConfig):
        return RelativeGLM(config)
    # The run may have used kernels of a platform that is not this one's.
    return network_of(dataclasses.replace(config, attention="xla"))


def _abstract(model: GLM | RelativeGLM, mesh: jax.sharding.Mesh, dtype: DTypeLike) -> PyTree:
    """Shapes and shardings of the model's parameters, with the dtype asked for."""
    if isinstance(model, GLM):
        abstract = abstract_params(model, mesh)
    else:
        tokens, prefix_length = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
        boxed = jax.eval_shape(model.init, jax.random.key(0), tokens, prefix_length)["params"]
        abstract = abstract_with_shardings(nn.unbox(boxed), parameter_shardings(boxed, mesh))
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape,
            dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype,
            sharding=leaf.sharding,
        ),
        abstract,
    )


def _assemble(source: WeightSource, native: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """One parameter, its layers read one by one, on the devices."""
    entry = by_native(native)
    assert entry is not None, native
    host = np.empty(leaf.shape, leaf.dtype)
    if entry.in_layers:
        for layer in range(leaf.shape[0]):
            host[layer] = contiguous(to_native(entry.layout, source.read(entry.name(layer))))
    else:
        host[...] = contiguous(to_native(entry.layout, source.read(entry.original)))
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: host[index])
