"""Outputs of a task and their references -> metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from glm_jax.seq2seq import answer_metrics
from glm_jax.seq2seq.encode import reference_text
from glm_jax.seq2seq.fix_tokenization import fix_blanks, fix_squad
from glm_jax.seq2seq.metrics import (
    Estimate,
    answer_scores,
    bleu_estimate,
    import_bleu,
    is_no_answer,
    mean_estimate,
)
from glm_jax.seq2seq.outputs import Output
from glm_jax.seq2seq.rouge import original_rouge_scores, rouge_scores
from glm_jax.seq2seq.task import Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tokenizer import Tokenizer

_WORD = re.compile(r"[^\W_]+|\S")


def judge_outputs(
    task: Seq2SeqTask,
    examples: Sequence[Example],
    outputs: Sequence[Output],
    tokenizer: Tokenizer,
    *,
    original: bool = False,
) -> Mapping[str, Estimate]:
    """The metrics that the task reports, by name; none for tasks without one.

    Args:
      task: of the examples.
      examples: with references.
      outputs: one for each example.
      tokenizer: of the model.
      original: computes ROUGE as the original does, see `original_rouge_scores`.

    Raises:
      UsageError: an example has no reference, or a package for a metric is not installed.
    """
    if not task.metrics:
        return {}
    if task.windows is not None:
        texts = [
            answer_text(example, output, tokenizer)
            for example, output in zip(examples, outputs, strict=True)
        ]
        answers = [example.meta["answers"] for example in examples]
        scores = answer_scores(texts, [example.idx for example in examples], answers)
        return {"F1": mean_estimate(scores.f1), "EM": mean_estimate(scores.exact_match)}
    references = [reference_text(task, example, tokenizer) for example in examples]
    texts = [output.texts[0] for output in outputs]
    if "EM" in task.metrics:
        scores = answer_scores(texts, range(len(texts)), [[text] for text in references])
        return {"F1": mean_estimate(scores.f1), "EM": mean_estimate(scores.exact_match)}
    if original:
        rouge = original_rouge_scores(texts, references, task.rouge_fix)
        return {name: mean_estimate(scores) for name, scores in rouge.items()}
    if "bleu-4" in task.metrics:
        of_answers = answer_metrics.answer_scores(texts, references)
        return {name: mean_estimate(scores) for name, scores in of_answers.items()}
    rouge = rouge_scores(texts, references)
    found = {name: mean_estimate(scores) for name, scores in rouge.items()}
    return found | {"bleu": bleu_estimate(texts, references)}


def check_packages(task: Seq2SeqTask) -> None:
    """Makes sure, before outputs are written, that they can be judged.

    Raises:
      UsageError: a package for a metric is not installed.
    """
    if any(name.startswith("rouge") for name in task.metrics):
        rouge_scores(["a"], ["a"])
        import_bleu()


def answer_text(example: Example, output: Output, tokenizer: Tokenizer) -> str:
    """An answer as its passage has it, where the vocabulary has lower-case letters only.

    Source: reference-finetune.md, section 9, "Output text".
    """
    text, ids = output.texts[0], output.ids[0]
    keeps_case = tokenizer.decode(tokenizer.encode("A")) != "a"
    if keeps_case or is_no_answer(text):
        return text
    passage = example.meta["context"]
    spans: list[tuple[int, int]] = []
    passage_ids: list[int] = []
    for word in _WORD.finditer(passage):
        pieces = tokenizer.encode(word.group())
        passage_ids += pieces
        spans += [word.span()] * len(pieces)
    for start in range(len(passage_ids) - len(ids) + 1):
        if ids and passage_ids[start : start + len(ids)] == ids:
            return passage[spans[start][0] : spans[start + len(ids) - 1][1]]
    return fix_squad(text)


def filled_text(source_ids: Sequence[int], output: Output, tokenizer: Tokenizer) -> str:
    """A text with its blanks filled, as the original prints it."""
    special = tokenizer.special
    remaining = iter(output.ids)
    ids: list[int] = []
    for id in source_ids:
        if id == special["pad"]:
            continue
        ids += next(remaining, [id]) if id == special["MASK"] else [id]
    return fix_blanks(tokenizer.decode(ids))
