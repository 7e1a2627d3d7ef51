"""Tasks of lm-evaluation-harness with data on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

TASKS = {
    "local_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
""",
    "local_word": """
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{answer}}"
metric_list:
  - metric: perplexity
  - metric: acc
""",
    "local_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
""",
    "local_write": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["z"]
  max_gen_toks: 8
  do_sample: false
metric_list:
  - metric: exact_match
""",
}
ROWS = [
    {"question": "the ferry left at", "choices": ["dawn", "noon"], "label": 0, "answer": "dawn"},
    {"question": "rain fell all", "choices": ["day", "night"], "label": 1, "answer": "night"},
]


def write_tasks(
    folder: Path, rows: Sequence[Mapping], names: Sequence[str] = tuple(TASKS)
) -> list[str]:
    """Writes tasks and their rows into a folder; the tasks' names."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in names:
        head = f"task: {name}\ndataset_path: json\ntest_split: train\n"
        files = f"dataset_kwargs:\n  data_files: {data}\n"
        (folder / f"{name}.yaml").write_text(head + files + TASKS[name])
    return list(names)
