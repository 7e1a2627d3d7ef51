"""The kinds of attention that a configuration can name."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from glm_jax.errors import UsageError
from glm_jax.model.attention.by_head import attend_by_head
from glm_jax.model.attention.cudnn import check_head_size, gpu_attention
from glm_jax.model.attention.flash import check_shape, prefix_flash_attention
from glm_jax.model.attention.mask import mask_of_part
from glm_jax.model.attention.xla import attend
from glm_jax.model.dropout import ProbabilityDropout

ATTENTION_KINDS = ("xla", "by_head", "flash", "cudnn")
_PLATFORMS = {"flash": "tpu", "cudnn": "gpu"}


@runtime_checkable
class Attention(Protocol):
    """Attention under the prefix mask on the arrays of one device.

    The query at position p, counted from `query_start` on, sees key j if `j <= p` or
    `j < prefix_length`. L < M where a mesh axis shards the queries. Not every kind can drop
    probabilities: see `check_attention`.
    """

    def __call__(
        self,
        query: Float[Array, "B L H K"],
        key: Float[Array, "B M H K"],
        value: Float[Array, "B M H K"],
        prefix_length: Int[Array, "#B"],
        query_start: Int[Array, ""] | int = 0,
        dropout: ProbabilityDropout | None = None,
    ) -> Float[Array, "B L H K"]: ...


def attention_function(name: str) -> Attention:
    """The attention of that name, one of `ATTENTION_KINDS`.

    - "xla": plain operations over all heads at once; runs everywhere, and is what the others are
      tested against.
    - "by_head": plain operations a few heads after another; the fastest on a CPU.
    - "flash": a kernel for TPU.
    - "cudnn": cuDNN's kernels for GPU.

    Raises:
      UsageError: there is none of that name.
    """
    if name not in ATTENTION_KINDS:
        raise UsageError(
            f"model.attention is {name!r}; expected one of {', '.join(ATTENTION_KINDS)}"
        )
    return _FUNCTIONS[name]


def check_attention(
    name: str,
    *,
    platform: str,
    attention_dropout: float,
    sequence_length: int,
    head_size: int,
) -> None:
    """Refuses an attention that can't do what a run asks of it.

    Args:
      name: as in `attention_function`.
      platform: what JAX calls the platform of the devices: "cpu", "gpu" or "tpu".
      attention_dropout: rate on the probabilities.
      sequence_length: the queries that one device works on, L.
      head_size: K.

    Raises:
      UsageError: the combination is impossible.
    """
    attention_function(name)
    needed = _PLATFORMS.get(name, platform)
    if platform != needed:
        raise UsageError(
            f"model.attention is {name!r}, which runs on {needed.upper()} only, but the devices "
            f"are of platform {platform!r}; xla runs everywhere"
        )
    if name == "cudnn":
        if attention_dropout > 0.0:
            raise UsageError(
                f"model.attention is {name!r}, which can't drop probabilities, but "
                f"model.attention_dropout is {attention_dropout}; the other kinds can"
            )
        check_head_size(head_size)
    if name == "flash":
        check_shape(sequence_length, head_size)


def _xla(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    prefix_length: Int[Array, "#B"],
    query_start: Int[Array, ""] | int = 0,
    dropout: ProbabilityDropout | None = None,
) -> Float[Array, "B L H K"]:
    length, num_keys = query.shape[1], key.shape[1]
    if length == num_keys:
        return attend(query, key, value, prefix_length, dropout=dropout)
    seen = mask_of_part(prefix_length, query_start, length, num_keys)
    return attend(query, key, value, None, attention_mask=seen, dropout=dropout)


_FUNCTIONS: dict[str, Attention] = {
    "xla": _xla,
    "by_head": attend_by_head,
    "flash": prefix_flash_attention,
    "cudnn": gpu_attention,
}
