"""A corpus, and ways to look at the stores that are made of it."""

import json
from itertools import pairwise

import numpy as np

from glm_jax.data.store.store import open_store

TEXTS = [f"Document {number}.\n\nIt says [MASK] and {number**3}." * 3 for number in range(300)]


def write_jsonl(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def stored_documents(path, split):
    opened = open_store(path).split(split)
    starts = [*opened.document_starts().tolist(), opened.num_tokens]
    return [
        opened.read(np.array([start]), end - start)[0].tolist() for start, end in pairwise(starts)
    ]


def files_below(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
