"""The names of language modelling tasks, and of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LANGUAGE_MODEL_TASKS = ("lambada", "wikitext", "ptb", "language_model")
# Names or patterns of the file in a folder of the task, in the order in which it is looked for.
FILES: Mapping[str, Sequence[str]] = {
    "lambada": ("lambada_test.jsonl", "test.jsonl", "*.jsonl"),
    "wikitext": ("wiki.test.tokens", "*.tokens"),
    "ptb": ("ptb.test.txt", "test.txt", "*.txt"),
    "language_model": ("test.txt", "*.txt"),
}
PUBLISHED_AT: Mapping[str, str] = {
    "lambada": "https://zenodo.org/records/2630551",
    "wikitext": "https://huggingface.co/datasets/Salesforce/wikitext",
    "ptb": "https://catalog.ldc.upenn.edu/LDC99T42",
    "language_model": "",
}
