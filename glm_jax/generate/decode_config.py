"""What a program for decoding is compiled for: a network, texts at a time, and their caches."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.model.paged_attention import PAGE_SIZE


@dataclasses.dataclass(frozen=True)
class DecodeSize:
    """What a step of decoding works on.

    Attributes:
      batch_size: texts at a time, B.
      cache_length: positions of the cache of each, M.

    Raises:
      UsageError: one of them is below 1, or the pages of the cache don't divide its positions.
    """

    batch_size: int = 1
    cache_length: int = 2048

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"decode.batch_size is {self.batch_size}; expected at least 1")
        if self.cache_length < 1 or self.cache_length % PAGE_SIZE:
            raise UsageError(
                f"decode.cache_length is {self.cache_length}; expected a positive multiple of "
                f"{PAGE_SIZE}"
            )


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Decoding with a GLM: what a file such as those of configs/models/ describes.

    Attributes:
      model: the network.
      decode: the sizes of a step.
    """

    model: GLMConfig
    decode: DecodeSize

    @property
    def network(self) -> GLMConfig:
        """The network, whatever its section is called."""
        return self.model


@dataclasses.dataclass(frozen=True)
class ChatGLMDecodeConfig:
    """`DecodeConfig` of a file such as those of configs/chatglm/."""

    chatglm: ChatGLMConfig
    decode: DecodeSize

    @property
    def network(self) -> GLMConfig:
        """As `DecodeConfig.network`."""
        return self.chatglm
