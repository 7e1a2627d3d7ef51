"""What is scored as a language model, and how."""

from __future__ import annotations

from dataclasses import dataclass

from glm_jax import validation
from glm_jax.errors import UsageError
from glm_jax.finetune.config import TokenizerConfig
from glm_jax.io.tfds import TFDS_PREFIX
from glm_jax.language_model.tasks import LANGUAGE_MODEL_TASKS
from glm_jax.language_model.windows import check_stride
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.tasks.registry import unknown_task


@dataclass(frozen=True)
class LanguageModelConfig:
    """The text, and how it is read.

    Attributes:
      name: one of `LANGUAGE_MODEL_TASKS`.
      data: the file, or a data set that TFDS has prepared, "tfds:NAME[/CONFIG]".
      split: of a data set of TFDS.
      sequence_length: L; 0 for the longest that the network has positions for.
      stride: tokens from one window to the next; 0 for a quarter of L.
      unidirectional: whether context is read from left to right.
      batch_size: rows at a time.
      num_attention_heads: of an original checkpoint, which doesn't record it; 0 for hidden size /
        64.
    """

    name: str
    data: str
    split: str = "test"
    sequence_length: int = 0
    stride: int = 0
    unidirectional: bool = False
    batch_size: int = 16
    num_attention_heads: int = 0

    def __post_init__(self) -> None:
        if self.name not in LANGUAGE_MODEL_TASKS:
            raise UsageError(
                f"language_model.name: {unknown_task(self.name, LANGUAGE_MODEL_TASKS)}"
            )
        validation.at_least("language_model", self, 0, "sequence_length", "stride")
        validation.at_least("language_model", self, 1, "batch_size")
        validation.at_least("language_model", self, 0, "num_attention_heads")
        validation.boolean("language_model", self, "unidirectional")
        if self.sequence_length and self.stride:
            check_stride(self.sequence_length, self.stride)
        if self.name == "lambada" and self.stride:
            raise UsageError(
                "language_model.stride is for documents; a passage of LAMBADA is one window"
            )
        if self.split != "test" and not self.is_stored:
            raise UsageError("language_model.split is for data sets of TFDS; a file has no splits")

    @property
    def is_stored(self) -> bool:
        """Whether the data are a data set of TFDS."""
        return self.data.startswith(TFDS_PREFIX)


@dataclass(frozen=True)
class LanguageModelRunConfig:
    """Everything that an evaluation needs; each field is a section."""

    mesh: MeshConfig
    tokenizer: TokenizerConfig
    language_model: LanguageModelConfig
