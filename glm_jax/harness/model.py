"""The harness's interface to a GLM checkpoint.

python -m glm_jax.harness --model glm_jax --model_args checkpoint=runs/demo --tasks NAME
"""

# The harness is not installed where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from glm_jax.convert.load import load_glm
from glm_jax.generate.fill import Filler
from glm_jax.generate.prompt import Prompt, mask_ids
from glm_jax.generate.settings import Sampling
from glm_jax.harness.requests import make_template, stop_at
from glm_jax.language_model.score import score_rows
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import load_tokenizer

MAX_NEW_TOKENS = 256


@register_model("glm_jax")
class GLMHarnessModel(LM):
    """A checkpoint as the harness asks it.

    Several devices share a batch. Special tokens in the harness's texts are text.
    """

    def __init__(
        self,
        checkpoint: str,
        tokenizer: str = "",
        template: str = "",
        batch_size: int | str = 8,
        stride: int = 0,
        num_attention_heads: int = 0,
        **_: Any,
    ):
        """Loads the checkpoint.

        Args:
          checkpoint: anything that `glm_jax.load` opens.
          tokenizer: a folder with a saved one, where none is with the checkpoint.
          template: where the context and the blank are, see `glm_jax.harness.requests`.
          batch_size: rows at a time.
          stride: tokens from one window of a long text to the next; 0 for a quarter of its length.
          num_attention_heads: of an original checkpoint, which doesn't record it.

        Raises:
          UsageError: something does not fit.
        """
        super().__init__()
        rows = int(batch_size) if str(batch_size).isdigit() else 8
        self._mesh = make_mesh(MeshConfig())
        self._batch_size = -(-rows // self._mesh.size) * self._mesh.size
        self._tokenizer = load_tokenizer(tokenizer or checkpoint)
        self._model, self._params = load_glm(
            checkpoint, num_attention_heads=num_attention_heads or None, mesh=self._mesh
        )
        length = self._model.config.max_sequence_length
        self._template = make_template(template, self._tokenizer, length)
        self._stride = stride or max(length // 4, 1)
        self._filler: Filler | None = None

    @property
    def tokenizer_name(self) -> str:
        """What requests that depend on the tokenizer are stored under."""
        return self._tokenizer.fingerprint

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as one context, as the chat template of an exported folder has them.

        The template of this model, and not the text, says where the blank is.
        """
        return "\n\n".join(message["content"] for message in chat_history)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-probability of the continuation, whether greedy decoding writes it) of each."""
        rows = [
            self._template.continuation_row(_first(request), _second(request))
            for request in requests
        ]
        return [
            (float(log_probs.sum()), bool(right.all())) for log_probs, right in self._scores(rows)
        ]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-probability of each text, whose tokens are scored once."""
        rows, numbers = [], []
        for number, request in enumerate(requests):
            found = self._template.text_rows(_first(request), self._stride)
            rows += found
            numbers += [number] * len(found)
        total = [0.0] * len(requests)
        for number, (log_probs, _) in zip(numbers, self._scores(rows), strict=True):
            total[number] += float(log_probs.sum())
        return total

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What fills the blank after each context, up to the first stop string."""
        by_settings: dict[Sampling, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            by_settings[sampling_of(_second(request))].append(number)
        found = [""] * len(requests)
        for sampling, numbers in by_settings.items():
            contexts = [_first(requests[number]) for number in numbers]
            for number, text in zip(numbers, self._written(contexts, sampling), strict=True):
                found[number] = stop_at(text, stops_of(_second(requests[number])))
        return found

    def _scores(self, rows: Sequence[Row]) -> list[tuple[np.ndarray, np.ndarray]]:
        if not rows:
            return []
        with jax.set_mesh(self._mesh):
            scores = score_rows(self._model, self._params, rows, self._mesh, self._batch_size)
        return [(row.log_probs, row.right) for row in scores]

    def _written(self, contexts: Sequence[str], sampling: Sampling) -> list[str]:
        """The text of the blank of each context."""
        if self._filler is None:
            self._filler = Filler(self._model, self._params, self._tokenizer)
        special = self._tokenizer.special
        length = self._model.config.max_sequence_length
        reserved = min(sampling.max_blank_length + 1, length // 2)
        prompts = []
        for context in contexts:
            ids = [special["ENC"], *self._template.context_ids(context, reserved)]
            blank = max(index for index, id in enumerate(ids) if id in mask_ids(special))
            prompts.append(Prompt(ids, [blank]))
        return self._filler.write(prompts, sampling)


def sampling_of(settings: dict[str, Any]) -> Sampling:
    """The harness's generation settings as ours."""
    temperature = float(settings.get("temperature") or 0.0)
    drawn = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    return Sampling(
        max_blank_length=int(
            settings.get("max_gen_toks") or settings.get("max_new_tokens") or MAX_NEW_TOKENS
        ),
        temperature=temperature if drawn else 0.0,
        top_p=float(settings.get("top_p", 1.0)) if drawn else 1.0,
        top_k=int(settings.get("top_k", 0)) if drawn else 0,
        beams=int(settings.get("num_beams", 1)) if not drawn else 1,
    )


def stops_of(settings: dict[str, Any]) -> list[str]:
    """The strings that end a generation."""
    until = settings.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def _first(request: Any) -> str:
    """The context, or the text, of a request."""
    return request.args[0]


def _second(request: Any) -> Any:
    """The continuation, or the generation settings, of a request."""
    return request.args[1]
