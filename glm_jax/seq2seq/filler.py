"""A checkpoint that was finetuned to write texts, as its run describes it: texts in, texts out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.generate.fill import FilledText, Filler, Reading
from glm_jax.generate.prompt import mask_ids
from glm_jax.generate.score import AnswerScore
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM
from glm_jax.seq2seq.config import GenerationConfig, Seq2SeqConfig
from glm_jax.seq2seq.judge import answer_text
from glm_jax.seq2seq.metrics import is_no_answer
from glm_jax.seq2seq.outputs import Output
from glm_jax.seq2seq.read import check_lengths, check_tokenizer, prompt_of
from glm_jax.seq2seq.source import SourceEncoder
from glm_jax.seq2seq.task import GIVEN, TEXT
from glm_jax.tasks.example import Example
from glm_jax.tokenizer import Tokenizer

# Settings that the run has: all runs, and those that draw their outputs.
_SEARCH = ("beams", "length_penalty", "max_blank_length", "min_blank_length", "no_repeat_ngram")
_DRAWING = ("temperature", "top_k", "top_p")
# What asks for something else than beam search.
_OF_OTHER_SEARCHES = (*_DRAWING, "samples")


class TaskFiller(Filler):
    """Writes what the network was finetuned to write: the output for a text without a blank.

    Texts of one-text tasks with a blank are filled, as by any checkpoint. Tasks with several inputs
    take them as a JSON object.
    """

    def __init__(
        self,
        model: GLM,
        params: PyTree,
        tokenizer: Tokenizer,
        settings: Seq2SeqConfig,
        generation: GenerationConfig,
    ):
        """Prepares the model for decoding.

        Args:
          model: the network.
          params: its parameters.
          tokenizer: of the model.
          settings: of the run: the task and the form of its sources.
          generation: of the run: how it searches.

        Raises:
          UsageError: the tokenizer has more tokens than the model, or lacks one that the task
            needs, or the model has too few positions.
        """
        super().__init__(model, params, tokenizer)
        check_tokenizer(tokenizer)
        check_lengths(settings, model.config.max_sequence_length)
        # As outputs end when the run's checkpoints are evaluated.
        self.decoder = dataclasses.replace(self.decoder, ends=(tokenizer.special["eop"],))
        self._settings, self._task = settings, settings.task
        self._encoder = SourceEncoder(tokenizer, settings.source_length)
        searched = generation.sampling(settings.target_length)
        names = (*_SEARCH, *_DRAWING) if searched.used_temperature else _SEARCH
        self._search = {name: getattr(searched, name) for name in names}

    @property
    def trained_for(self) -> dict[str, Any]:
        """What the run was trained for, as JSON values."""
        return {
            "task": self._task.name,
            "inputs": list(self._task.inputs),
            "source_length": self._settings.source_length,
            "sampling": dict(self._search),
        }

    def sampling(self, text: str, given: Mapping[str, Any]) -> Sampling:
        """The settings that a text is filled with: those of the run where none are given."""
        if not self._is_input(text):
            return super().sampling(text, given)
        own = dict(self._search)
        if "beams" not in given and any(given.get(n) is not None for n in _OF_OTHER_SEARCHES):
            own = {name: own[name] for name in own if name not in ("beams", "length_penalty")}
        if given.get("beams", 1) > 1:
            own = {name: own[name] for name in own if name not in _DRAWING}
        return Sampling(**{**own, **given})

    def is_read_in_windows(self, text: str) -> bool:
        """Whether a text is the input of a task that reads long passages in windows."""
        return self._task.windows is not None and self._is_input(text)

    def read(self, text: str) -> Reading:
        """A text as the network reads it; of one that is read in windows, the first."""
        return self._readings(text)[0]

    def fill(self, texts: Sequence[str], sampling: Sampling) -> list[FilledText]:
        """As the function `fill`."""
        readings = [self._readings(text) for text in texts]
        every = [reading for of_text in readings for reading in of_text]
        filled = iter(self.fill_read(every, sampling))
        of_texts = [list(islice(filled, len(of_text))) for of_text in readings]
        return [self._chosen(*pair) for pair in zip(texts, of_texts, strict=True)]

    def score(
        self, texts: Sequence[str], answers: Sequence[Sequence[str | Sequence[str]]]
    ) -> list[list[AnswerScore]]:
        """As the function `score`.

        Raises:
          UsageError: a text is read in several windows, too.
        """
        for text in texts:
            if len(self._readings(text)) > 1:
                raise UsageError(
                    f"the passage is longer than {self._settings.source_length} tokens with its "
                    "question, and answers are scored in one window only"
                )
        return super().score(texts, answers)

    def _is_input(self, text: str) -> bool:
        """Whether a text is an input of the task, and not a text with blanks of any kind."""
        if self._task.several_blanks:
            return True
        if self._task.inputs != (TEXT,) and text.lstrip().startswith("{"):
            return True
        return mask_ids(self.tokenizer.special).isdisjoint(self.tokenizer.encode(text))

    def _readings(self, text: str) -> list[Reading]:
        if not self._is_input(text):
            return [super().read(text)]
        windows = self._task.windows
        example = self._example(text)
        examples = [example] if windows is None else windows(example, self._encoder)
        return [self._reading(one) for one in examples]

    def _example(self, text: str) -> Example:
        """The example that a user's input is.

        Raises:
          UsageError: an input is missing, empty or unknown.
        """
        inputs = self._inputs(text)
        for name, value in inputs.items():
            if not value.strip():
                raise UsageError(f"the input {name!r} of task {self._task.name} is empty")
        return self._task.asked(inputs)

    def _inputs(self, text: str) -> Mapping[str, str]:
        names = self._task.inputs
        if names == (TEXT,):
            return {TEXT: text}
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        given = found if isinstance(found, dict) else {}
        if set(given) != set(names) or not all(isinstance(text, str) for text in given.values()):
            expected = ", ".join(f'"{name}": "..."' for name in names)
            raise UsageError(
                f"task {self._task.name} takes a JSON object with texts, {{{expected}}}"
            )
        return given

    def _reading(self, example: Example) -> Reading:
        special = self.tokenizer.special
        prompt = prompt_of(self._settings, example, self.tokenizer)
        if not self._task.several_blanks:
            return Reading([special["MASK"]], prompt)
        if len(prompt.masks) < sum(id in mask_ids(special) for id in prompt.ids):
            raise UsageError(f"task {self._task.name} fills [MASK] only, and no other masks")
        return Reading([id for id in prompt.ids if id != special["pad"]], prompt)

    def _chosen(self, text: str, filled: Sequence[FilledText]) -> FilledText:
        """Of the answers in all windows the first that is one, in the passage's letters."""
        if not self.is_read_in_windows(text):
            return filled[0]
        chosen = next((one for one in filled if not is_no_answer(one.text)), filled[0])
        output = Output(GIVEN, [chosen.text], [chosen.blanks[0].ids])
        answer = answer_text(self._example(text), output, self.tokenizer)
        return dataclasses.replace(chosen, text=answer, spans=[(0, len(answer))])
