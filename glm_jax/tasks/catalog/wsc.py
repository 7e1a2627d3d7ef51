"""WSC: what a pronoun refers to, by scoring the antecedent alone or against wrong ones.

Fields and patterns: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task

TEXTS = ("text", "target.span1_text", "target.span2_text")
# Candidates that one training example has at most.
MAX_CANDIDATES = 9


def _examples(rows: Sequence[Row], split: str) -> list[Example]:
    """For cloze: training drops texts that name a wrong antecedent."""
    examples = classification_examples(rows, split)
    if split != "train":
        return examples
    return [example for example in examples if example.label == "True"]


def classification_examples(rows: Sequence[Row], split: str) -> list[Example]:
    """A row of training with many candidates becomes several examples."""
    examples = []
    for number, row in enumerate(rows):
        words, span1, span2 = _locate(row, f"{split}-{row.get('idx', number)}")
        label = None if row.get("label") is None else str(row["label"])
        meta = {
            "span1_text": row["target"]["span1_text"],
            "span2_text": row["target"]["span2_text"],
            "span1_index": span1,
            "span2_index": span2,
        }
        candidates = list(dict.fromkeys(c["text"] for c in row.get("candidates", ())))
        idx = row.get("idx", number)
        for group in _groups(candidates) if split == "train" else [candidates]:
            guid, text = f"{split}-{idx}", " ".join(words)
            with_candidates = meta | ({"candidates": group} if "candidates" in row else {})
            examples.append(Example(guid, text, None, label, idx, meta=with_candidates))
    return examples


def _groups(candidates: list[str]) -> list[list[str]]:
    """Slices of `MAX_CANDIDATES`; the last one is filled up from the first candidates."""
    if len(candidates) <= MAX_CANDIDATES:
        return [candidates]
    starts = range(0, len(candidates), MAX_CANDIDATES)
    groups = [candidates[start : start + MAX_CANDIDATES] for start in starts]
    missing = MAX_CANDIDATES - len(groups[-1])
    # As recorded: the first candidates come before the rest of the last slice.
    groups[-1] = groups[-1] + candidates[:missing]
    return groups


def _locate(row: Row, guid: str) -> tuple[list[str], int, int]:
    """The words of the text and the indices of both spans, which files have wrong by one.

    Raises:
      UsageError: the pronoun is not where the row says, nor one word from there.
    """
    words = row["text"].split()
    target = row["target"]
    span1, span2 = target["span1_index"], target["span2_index"]
    first = target["span1_text"].lower().split()
    for index in (span1, span1 - 1, span1 + 1):
        if [word.lower() for word in words[max(index, 0) : max(index, 0) + len(first)]] == first:
            span1 = index
            break
    pronoun = target["span2_text"]
    for index in (span2, span2 - 1, span2 + 1):
        if 0 <= index < len(words) and words[index] == pronoun:
            return words, span1, index
    if span2 < len(words) and words[span2].startswith(pronoun):
        rest = words[span2][len(pronoun) :]
        return [*words[:span2], pronoun, rest, *words[span2 + 1 :]], span1, span2
    raise UsageError(f"example {guid} of wsc has no {pronoun!r} at word {span2} of {row['text']!r}")


def marked_text(example: Example) -> str:
    """The text with its pronoun between asterisks."""
    words = example.text_a.split()
    index = example.meta["span2_index"]
    return " ".join([*words[:index], f"*{words[index]}*", *words[index + 1 :]])


def _pattern(example: Example, pattern: int) -> list[Pattern]:
    text, pronoun = Shortenable(marked_text(example)), example.meta["span2_text"]
    if pattern == 2:
        question = f" Question: In the passage above, what does the pronoun '*{pronoun}*' refer to?"
        parts = (SLOT, text, SLOT, question, SLOT, " Answer:", MASK, ".")
    else:
        start = " The" if pattern == 0 else " In the previous sentence, the"
        parts = (SLOT, text, SLOT, f"{start} pronoun '*{pronoun}*' refers to", SLOT, MASK, ".")
    answers = (example.meta["span1_text"], *example.meta.get("candidates", ()))
    return [Pattern(parts, answer=" " + answer) for answer in answers]


def _segments(example: Example) -> Segments:
    return Segments(marked_text(example), example.meta["span1_text"])


def _choose(example: Example) -> int:
    """Training takes the antecedent, which is the first choice; else the label is 0 or 1."""
    if str(example.guid).startswith("train"):
        return 0
    return int(example.label == "True")


def _pair_examples(rows: Sequence[Row], split: str) -> list[Example]:
    """A text and an antecedent that is right or wrong; candidates of training are wrong ones.

    The original encodes the right antecedent for all of them, and so do we: rows of one text
    differ in their labels only. It is here for parity; `wsc` learns from wrong antecedents.
    """
    pairs = []
    for row, example in zip(rows, _examples_without_groups(rows, split), strict=True):
        meta = {name: value for name, value in example.meta.items() if name != "candidates"}
        antecedents = [(meta["span1_text"], example.label)]
        if split == "train" and example.label == "True":
            wrong = dict.fromkeys(c["text"] for c in row.get("candidates", ()))
            antecedents += [(candidate, "False") for candidate in wrong]
        pairs += [
            Example(example.guid, example.text_a, text, label, example.idx, meta=meta)
            for text, label in antecedents
        ]
    return pairs


def _examples_without_groups(rows: Sequence[Row], split: str) -> list[Example]:
    bare = [{name: value for name, value in row.items() if name != "candidates"} for row in rows]
    return classification_examples(bare, split)


TASKS = (
    Task(
        name="wsc",
        submission="WSC.jsonl",
        labels=("False", "True"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_examples,
        other_examples={"classification": classification_examples},
        published_at=SUPERGLUE,
        texts=TEXTS,
        pattern=_pattern,
        num_patterns=3,
        segments=_segments,
        has_slots=True,
        variable_choices=True,
        choose=_choose,
        answer_alone=True,
        # True if the antecedent, which is the first answer, is the best one.
        label_of_choice=lambda choice: int(choice == 0),
    ),
    Task(
        name="wsc1",
        labels=("False", "True"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_pair_examples,
        published_at=SUPERGLUE,
        texts=TEXTS,
        segments=_segments,
    ),
)
