"""What a model is talked to with: the form of its prompts and of its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from glm_jax.chat.chatglm import chatglm_prompt, process_answer, settled_answer, settled_text
from glm_jax.chat.growing import AnswerText, DecodedText
from glm_jax.chat.turns import Turn
from glm_jax.errors import UsageError
from glm_jax.generate.fill import Filler
from glm_jax.generate.prompt import Prompt, chat_prompt, make_prompt
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer

# A window is not filled with history to its end: this share of it, at least, is for the answer.
_SHARE_FOR_ANSWER = 1 / 16


def plain_prompt(history: Sequence[Turn], query: str) -> str:
    """The prompt of models that no form of conversation was trained into."""
    turns = "".join(f"Question: {turn.query}\nAnswer: {turn.answer}\n\n" for turn in history)
    return f"{turns}Question: {query}\nAnswer:"


@dataclasses.dataclass(frozen=True)
class FittedPrompt:
    """A prompt that fits the window.

    Attributes:
      prompt: its tokens, which end with the mask that the answer fills.
      num_dropped: turns of the history that were left out, the oldest ones.
      max_new_tokens: tokens that the answer can have.
    """

    prompt: Prompt
    num_dropped: int
    max_new_tokens: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt, the start token of the answer included."""
        return num_prompt_tokens(self.prompt)

    @property
    def note(self) -> str | None:
        """What to say about turns that were left out; None where none were."""
        if not self.num_dropped:
            return None
        turns = "turn was" if self.num_dropped == 1 else f"{self.num_dropped} turns were"
        return f"the oldest {turns} left out, so that the prompt fits the window"


class ChatForm:
    """The form of conversations with one kind of model."""

    def __init__(self, tokenizer: Tokenizer, *, two_dimensional: bool = True) -> None:
        """ChatGLM's rounds for its tokenizer, and questions and answers in lines for others.

        Args:
          tokenizer: the model's.
          two_dimensional: whether the network has positions inside the answer
            (`config.block_position_encoding`).
        """
        self._tokenizer = tokenizer
        self._two_dimensional = two_dimensional
        self.answer: AnswerText = DecodedText(tokenizer.decode)
        self.continuation: AnswerText = DecodedText(tokenizer.decode)
        self.chat_text: Callable[[Sequence[Turn], str], str] = plain_prompt
        if isinstance(tokenizer, ChatGLMTokenizer):
            self.answer = _ChatGLMAnswer(tokenizer)
            self.continuation = _ChatGLMText(tokenizer)
            self.chat_text = chatglm_prompt

    def encode(self, text: str, *, special_tokens: bool) -> Prompt:
        """A text that is continued."""
        encode = self._tokenizer.encode if special_tokens else self._tokenizer.encode_text
        return self.continue_ids(encode(text))

    def continue_ids(self, ids: Sequence[int]) -> Prompt:
        """Ids that are continued, with the mask at their end."""
        special = self._tokenizer.special
        if isinstance(self._tokenizer, ChatGLMTokenizer):
            ids = [*ids, *self._tokenizer.prompt_end]
            return chat_prompt(ids, special, two_dimensional=self._two_dimensional)
        prompt = make_prompt([*ids, special.get("gMASK", special["MASK"])], special)
        # Masks that the text itself has are not filled.
        return Prompt(prompt.ids, [len(ids) + 1])

    def fit(
        self,
        history: Sequence[Turn],
        query: str,
        *,
        window: int,
        max_new_tokens: int | None = None,
        special_tokens: bool = True,
        before: str = "",
    ) -> FittedPrompt:
        """The prompt of a conversation, with as many of its last turns as fit.

        Args:
          history: earlier turns.
          query: what is to be answered.
          window: maximum tokens of prompt and answer together.
          max_new_tokens: maximum tokens of the answer; None for all that the window has.
          special_tokens: whether literal special tokens are read as such.
          before: text before the first turn, which is never left out.

        Raises:
          UsageError: not even the query by itself fits.
        """
        reserve = max(1, int(window * _SHARE_FOR_ANSWER))
        if max_new_tokens is not None:
            reserve = min(max_new_tokens, window // 2)

        def prompt(num_dropped: int) -> Prompt:
            text = before + self.chat_text(history[num_dropped:], query)
            return self.encode(text, special_tokens=special_tokens)

        low, high = 0, len(history)
        while low < high:  # the smallest number that fits, or all
            middle = (low + high) // 2
            if num_prompt_tokens(prompt(middle)) + reserve <= window:
                high = middle
            else:
                low = middle + 1
        return fitted(prompt(low), window, max_new_tokens, num_dropped=low)


def form_of(filler: Filler) -> ChatForm:
    """The form of conversations with a model."""
    two_dimensional = filler.config.block_position_encoding
    return ChatForm(filler.tokenizer, two_dimensional=two_dimensional)


def num_prompt_tokens(prompt: Prompt) -> int:
    """Tokens before an answer, its start token included."""
    return len(prompt.ids) + 1 + len(prompt.written)


def fitted(
    prompt: Prompt, window: int, max_new_tokens: int | None, *, num_dropped: int = 0
) -> FittedPrompt:
    """A prompt with the number of tokens that its answer can have.

    Raises:
      UsageError: the window has no room for an answer.
    """
    room = window - num_prompt_tokens(prompt)
    if room < 1:
        raise UsageError(
            f"the prompt has {num_prompt_tokens(prompt)} tokens, but the window of prompt and "
            f"answer only {window}"
        )
    limit = room if max_new_tokens is None else min(room, max_new_tokens)
    return FittedPrompt(prompt, num_dropped, limit)


class _ChatGLMAnswer:
    """Answers as the published `chat` gives them."""

    def __init__(self, tokenizer: ChatGLMTokenizer) -> None:
        self._tokenizer = tokenizer

    def complete(self, ids: Sequence[int]) -> str:
        return process_answer(self._tokenizer.decode(ids))

    def settled(self, ids: Sequence[int]) -> str:
        return settled_answer(self._tokenizer.decode(ids, clean_up=False))


class _ChatGLMText:
    """Continuations as their tokens decode."""

    def __init__(self, tokenizer: ChatGLMTokenizer) -> None:
        self._tokenizer = tokenizer

    def complete(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, clean_up=False)

    def settled(self, ids: Sequence[int]) -> str:
        return settled_text(self._tokenizer.decode(ids, clean_up=False))
