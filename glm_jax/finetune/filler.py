"""A checkpoint that was finetuned to choose between answers, where texts are to be filled."""

from __future__ import annotations

from typing import Any

from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.generate.fill import Filler, Reading
from glm_jax.generate.prompt import mask_ids
from glm_jax.model import GLM
from glm_jax.tokenizer import Tokenizer


class ChoiceFiller(Filler):
    """Fills texts with blanks, and refuses to continue those without."""

    def __init__(self, model: GLM, params: PyTree, tokenizer: Tokenizer, run: str, task: str):
        """Takes the model, and the run and task that it was finetuned on."""
        super().__init__(model, params, tokenizer)
        self._run, self._task = run, task

    @property
    def trained_for(self) -> dict[str, Any]:
        """What the run was trained for, as JSON values."""
        return {"task": self._task}

    def read(self, text: str) -> Reading:
        """A text as the network reads it.

        Raises:
          UsageError: it has no blank, too.
        """
        if mask_ids(self.tokenizer.special).isdisjoint(self.tokenizer.encode(text)):
            raise UsageError(
                f"the text has no blank, and {self._run} was finetuned to choose the answers of "
                f"task {self._task}; glm-jax evaluate {self._run} --task={self._task} does that"
            )
        return super().read(text)
