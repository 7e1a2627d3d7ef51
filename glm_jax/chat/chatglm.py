"""How ChatGLM-6B is talked to: its prompt, and what is changed in its answers.

Source: `chat`, `stream_chat` and `process_response` of the published model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glm_jax.chat.clean_up import settled_clean_up
from glm_jax.chat.growing import end_before_prefix
from glm_jax.chat.turns import Turn
from glm_jax.tokenizer.chatglm_pieces import BLANKS, NEWLINE, TAB
from glm_jax.tokenizer.streaming import without_incomplete

TRAINING_TIME, TRAINED_IN = "[[训练时间]]", "2023年"
# Of punctuation next to a Chinese character.
FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_CHINESE = "[\u4e00-\u9fff]"
_PUNCTUATION = re.compile(f"(?<={_CHINESE})[,!:;?]|[,!:;?](?={_CHINESE})")
_WHITESPACE_PIECES = (NEWLINE, TAB, *BLANKS.values())


def chatglm_prompt(history: Sequence[Turn], query: str) -> str:
    """The text before an answer: the bare query, or numbered rounds where there is a history."""
    return rounds_prompt(history, query) if history else query


def rounds_prompt(history: Sequence[Turn], query: str) -> str:
    """The prompt in rounds, also of an empty history, as the published tuning data has it."""
    rounds = [
        f"[Round {number}]\n问：{turn.query}\n答：{turn.answer}\n"
        for number, turn in enumerate(history)
    ]
    return "".join(rounds) + f"[Round {len(history)}]\n问：{query}\n答："


def process_answer(text: str) -> str:
    """An answer as the published model shows it and puts it into the history."""
    text = text.strip().replace(TRAINING_TIME, TRAINED_IN)
    return _PUNCTUATION.sub(lambda match: FULL_WIDTH[match[0]], text)


def settled_text(decoded: str) -> str:
    """The part of a decoded text that no further tokens can change.

    Tokens may form the text of a piece for a newline, tab or run of spaces, which then is one.
    """
    text = without_incomplete(decoded)
    return text[: end_before_prefix(text, _WHITESPACE_PIECES)]


def settled_answer(decoded: str) -> str:
    """The part of an answer that no further tokens can change.

    What is left out of it: a character that is not complete, what may become a newline, tab or run
    of spaces, or lose a space in the clean-up, and punctuation whose next character decides on it.

    Args:
      decoded: the answer so far, without clean-up of spaces.
    """
    text = settled_clean_up(settled_text(decoded)).rstrip()
    text = text[: end_before_prefix(text, (TRAINING_TIME,))]
    return process_answer(text.rstrip("".join(FULL_WIDTH)))
