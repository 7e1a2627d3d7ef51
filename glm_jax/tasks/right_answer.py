"""Examples of tasks with their right answers only, as pretraining learns them.

Source: the original's pretraining on several tasks (reference-finetune.md, section 11).
"""

from __future__ import annotations

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.patterns import Pattern, Shortenable
from glm_jax.tasks.sequence import Layout, Row, cloze_row
from glm_jax.tasks.task import Task
from glm_jax.tasks.tokens import Prompts, joined, single_tokens, tokenize, truncate
from glm_jax.tokenizer import Tokenizer

# Tokens of a part that are not of its text: a SentencePiece model may put a space before it.
_EXTRA_TOKENS = 2
# Tokens of a character at most: as many as NFKC, which SentencePiece applies, makes of U+FDFA.
_TOKENS_OF_CHARACTER = 18


def encode_right_answer(
    task: Task,
    example: Example,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    pattern: int = 0,
    all_tokens: bool = False,
    block_positions: bool = True,
) -> Row:
    """The cloze question of an example with its right answer.

    A verbalizer of one token is predicted at the start of Part B, which is sop alone, without the
    end of the piece, and is the target at every position, as the original has it; any other answer
    is predicted with all its tokens and the end of the piece.

    Args:
      task, example, tokenizer: what is encoded.
      sequence_length: L.
      pattern: id of the pattern.
      all_tokens: predicts all tokens of a verbalizer, which may then have several.
      block_positions: whether the model has block positions.

    Returns:
      tokens, targets, loss_mask [L], position_ids [2, L], prefix_length [].

    Raises:
      UsageError: the label is not one of the task's, a verbalizer is several tokens, or parts that
        can't be shortened don't fit.
    """
    special = tokenizer.special
    layout = Layout(special, sequence_length, block_positions)
    try:
        question, word = right_question(task, example, pattern)
        text = word if task.verbalizers is not None and all_tokens else question.answer
        answer = None if text is None else [*tokenizer.encode(text), special["eop"]]
        first, second = tokenize(question, tokenizer.encode, special["MASK"], Prompts())
        truncate(first, second, 2 + (1 if answer is None else len(answer)), sequence_length)
        row = cloze_row(layout, joined((*first, *second)), answer)
        if answer is None:
            (target,) = single_tokens({0: word}, (0,), tokenizer.encode_text)
            row["targets"] = np.full(sequence_length, target, np.int32)
        return row
    except UsageError as error:
        raise UsageError(f"example {example.guid} of task {task.name}: {error}") from error


def right_question(task: Task, example: Example, pattern: int) -> tuple[Pattern, str]:
    """The question of the right answer, and the verbalizer of the right label ("" without one)."""
    questions, index = task.questions(example, pattern), task.label_index(example)
    if task.verbalizers is not None:
        return questions[0], task.verbalizers(pattern)[task.labels[index]]
    return questions[index if task.choose is None else task.choose(example)], ""


def fits_surely(task: Task, example: Example, pattern: int, sequence_length: int) -> bool:
    """Whether the parts that can't be shortened fit, without looking at any tokens.

    An ASCII character is one token at most.
    """
    question, word = right_question(task, example, pattern)
    texts = [part for part in (*question.first, *question.second) if isinstance(part, str)]
    texts += [question.answer or "", word]
    shortened = sum(isinstance(part, Shortenable) for part in (*question.first, *question.second))
    tokens = sum(_max_tokens(text) for text in texts) + shortened
    # ENC, mask, eos, sop, and the end of the piece.
    return tokens + 5 <= sequence_length


def _max_tokens(text: str) -> int:
    return len(text) * (1 if text.isascii() else _TOKENS_OF_CHARACTER) + _EXTRA_TOKENS
