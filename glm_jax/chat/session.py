"""Answers from a model in this process, one at a time, as they grow."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence

from glm_jax.chat.growing import GrowingAnswer
from glm_jax.chat.model import FittedPrompt, form_of
from glm_jax.chat.settings import ChatSettings
from glm_jax.chat.turns import Turn
from glm_jax.generate.decoder import cache_size
from glm_jax.generate.engine import ActiveFill, Engine
from glm_jax.generate.fill import Filler

# Few, so that tokens are shown soon after they are generated.
_STEPS = 2


@dataclasses.dataclass
class Reply:
    """An answer, as far as it is generated.

    Attributes:
      note: about turns that the prompt left out; None where it has all.
      num_prompt_tokens: tokens before the answer.
      seed: of the sampling.
      text: the answer so far.
      ids: its tokens so far.
      complete: whether the model ended it; False also where it reached its limit.
    """

    note: str | None
    num_prompt_tokens: int
    seed: int
    text: str = ""
    ids: list[int] = dataclasses.field(default_factory=list)
    complete: bool = False


class ChatSession:
    """A model that answers; it keeps no history by itself."""

    def __init__(self, filler: Filler) -> None:
        """Takes the model with its tokenizer."""
        self._filler = filler
        self._engine: Engine | None = None
        self.form = form_of(filler)
        self.max_window = filler.config.max_sequence_length

    def window(self, settings: ChatSettings) -> int:
        """Maximum tokens of a prompt and its answer together."""
        return min(settings.max_length, self.max_window)

    def ask(
        self, history: Sequence[Turn], query: str, settings: ChatSettings
    ) -> tuple[Reply, Iterator[str]]:
        """Starts an answer.

        Returns:
          The reply, which grows while the iterator is read, and the iterator over pieces of its
          text. Closing the iterator ends the answer.

        Raises:
          UsageError: the query doesn't fit the window.
        """
        fitted = self.form.fit(
            history,
            query,
            window=self.window(settings),
            special_tokens=settings.special_tokens,
        )
        seed = secrets.randbits(32) if settings.seed is None else settings.seed
        reply = Reply(fitted.note, fitted.num_tokens, seed)
        return reply, self._pieces(fitted, settings, reply)

    def answer(self, history: Sequence[Turn], query: str, settings: ChatSettings) -> Reply:
        """A complete answer.

        Raises:
          UsageError: the query doesn't fit the window.
        """
        reply, pieces = self.ask(history, query, settings)
        for _ in pieces:
            pass
        return reply

    def _pieces(self, fitted: FittedPrompt, settings: ChatSettings, reply: Reply) -> Iterator[str]:
        active = ActiveFill(fitted.prompt, settings.sampling(fitted.max_new_tokens, reply.seed))
        engine = self._ready_engine(fitted.num_tokens + fitted.max_new_tokens)
        engine.start([active])
        growing = GrowingAnswer(self.form.answer)
        try:
            while engine.num_active:
                for event in engine.advance(_STEPS):
                    if event.token is None:
                        reply.complete = True
                    else:
                        reply.ids.append(event.token)
                        yield from self._shown(growing.add(event.token), reply)
            yield from self._shown(growing.end(), reply)
        finally:
            engine.stop(active)

    def _shown(self, piece: str, reply: Reply) -> Iterator[str]:
        if piece:
            reply.text += piece
            yield piece

    def _ready_engine(self, num_slots: int) -> Engine:
        """An engine of one row; it is kept, for its cache is large."""
        if self._engine is None or self._engine.num_slots < cache_size(num_slots):
            self._engine = Engine(self._filler.decoder, num_rows=1, num_slots=num_slots)
        return self._engine
