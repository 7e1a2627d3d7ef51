"""Published results of GLM and of the systems that its authors compare it with.

Sources: `PAPER` is Du et al. (2022), GLM: General Language Model Pretraining with Autoregressive
Blank Infilling (ACL 2022, arxiv.org/abs/2103.10360); `README` is that of github.com/THUDM/GLM at
commit 58c434c, which calls GLM-10B "GLM-XXLarge". Figures are written as they are published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glm_jax.finetune.published import PUBLISHED

PAPER = "the paper (arxiv.org/abs/2103.10360)"
README = "the README of github.com/THUDM/GLM"
# Where a source has no figure, or where it is left out.
NONE = "-"
SUPERGLUE_TASKS = ("copa", "wsc", "rte", "wic", "cb", "multirc", "boolq", "record")


@dataclass(frozen=True)
class PublishedTable:
    """One table.

    Attributes:
      title: of the benchmark.
      setting: the split, and what was done.
      columns: names of the figures.
      rows: the figures of each system.
      sources: where they are from.
      left_out: what the sources have and this table does not; "" for nothing.
    """

    title: str
    setting: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    sources: str
    left_out: str = ""


def superglue_row(model: str) -> list[str]:
    """The published scores of a GLM, in percent, in the order of `SUPERGLUE_TASKS`."""
    scores = PUBLISHED[model]
    found = []
    for task in SUPERGLUE_TASKS:
        if task == "cb":
            values = (scores[task]["f1-macro"] * 100, scores[task]["accuracy"])
        elif task == "multirc":
            values = (scores[task]["f1a"] * 100, scores[task]["em"] * 100)
        elif task == "record":
            values = (scores[task]["F1"], scores[task]["EM"])
        else:
            values = (scores[task]["accuracy"],)
        found.append("/".join(f"{value:.1f}" for value in values))
    return found


# Means over the eight tasks that table 1 of the paper prints.
AVERAGES: Mapping[str, str] = {
    "BERT-Base": "66.1",
    "GLM-Base": "70.7",
    "BERT-Large": "72.0",
    "GLM-Large": "77.0",
    "GLM-Doc": "75.7",
    "GLM-410M": "78.0",
    "GLM-515M": "78.8",
    "RoBERTa-Large": "81.5",
    "GLM-RoBERTa": "82.9",
}
_OTHERS: Mapping[str, Sequence[str]] = {
    "RoBERTa-Large": ("94.0", "91.3", "86.6", "75.6", "98.2/-", "85.7/-", "86.9", "89.5/89.0"),
    "DeBERTa-XXLarge-v2": ("97.0", NONE, "93.5", NONE, NONE, "87.8/63.6", "88.3", "94.1/93.7"),
}
_SUPERGLUE_ORDER = (
    *("BERT-Base", "GLM-Base", "BERT-Large", "GLM-Large", "GLM-Doc", "GLM-410M", "GLM-515M"),
    *("RoBERTa-Large", "GLM-RoBERTa", "DeBERTa-XXLarge-v2", "GLM-10B"),
)


def _superglue(system: str) -> list[str]:
    if system in PUBLISHED:
        scores = superglue_row(system)
    else:
        scores = list(_OTHERS.get(system, (NONE,) * len(SUPERGLUE_TASKS)))
    return [*scores, AVERAGES.get(system, NONE)]


SUPERGLUE = PublishedTable(
    "SuperGLUE",
    "dev sets, each task finetuned on alone; CB is F1/accuracy, MultiRC F1a/EM, ReCoRD F1/EM",
    ("COPA", "WSC", "RTE", "WiC", "CB", "MultiRC", "BoolQ", "ReCoRD", "average"),
    {system: _superglue(system) for system in _SUPERGLUE_ORDER},
    f"GLM-10B, DeBERTa and the tasks of RoBERTa-Large: {README}; other GLM and averages: table 1 "
    f"of {PAPER}",
    "BERT-Base and BERT-Large by task, UniLM-Large, T5 and GLM-Sent in table 1; tables 2, 3, 5 and "
    "6, which have other tasks and ablations",
)
CNN_DM = PublishedTable(
    "CNN/DailyMail",
    "test set, ROUGE, no additional data",
    ("ROUGE-1", "ROUGE-2", "ROUGE-L"),
    {
        "GLM-10B": ("44.7", "21.4", "41.4"),
        "T5-11B": ("43.5", "21.6", "40.7"),
        "PEGASUS-Large": ("44.2", "21.5", "41.4"),
        "BART-Large": ("44.2", "21.3", "40.9"),
    },
    README,
    "GLM-RoBERTa, UniLMv2 and the others of table 4 of the paper",
)
XSUM = PublishedTable(
    "XSum",
    "test set, ROUGE, no additional data",
    ("ROUGE-1", "ROUGE-2", "ROUGE-L"),
    {
        "GLM-10B": ("48.9", "25.7", "40.4"),
        "PEGASUS-Large": ("47.2", "24.6", "39.3"),
        "BART-Large": ("45.1", "22.3", "37.3"),
    },
    README,
    "GLM-RoBERTa, UniLMv2 and the others of table 4 of the paper",
)
LANGUAGE_MODELS = PublishedTable(
    "LAMBADA and WikiText-103",
    "test sets, zero-shot; accuracy of the last word, and perplexity by word",
    ("LAMBADA (accuracy)", "WikiText-103 (perplexity)"),
    {
        "GLM-10B, bidirectional": ("72.35", "11.33"),
        "GLM-10B, unidirectional": ("67.18", "12.22"),
        "GPT-2": ("52.66", "17.48"),
        "Megatron-LM (8.3B)": ("66.51", "10.81"),
        "Turing-NLG": ("67.98", "10.21"),
    },
    README,
)
