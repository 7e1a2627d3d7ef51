"""Tasks: examples of a benchmark's files, as cloze questions or inputs of a classifier."""

from glm_jax.tasks.catalog.multichoice import encode_multiple_choice
from glm_jax.tasks.encode import encode_example, encode_priming_text, encode_shared_context
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import Row, comma_separated, json_lines, tab_separated
from glm_jax.tasks.metric_functions import metrics
from glm_jax.tasks.patterns import MASK, SLOT, Pattern, Shortenable
from glm_jax.tasks.read import has_split, read_examples, read_multiple_choice
from glm_jax.tasks.registry import TASKS, find_task
from glm_jax.tasks.task import Segments, Task

__all__ = [
    "MASK",
    "SLOT",
    "TASKS",
    "Example",
    "Pattern",
    "Row",
    "Segments",
    "Shortenable",
    "Task",
    "comma_separated",
    "encode_example",
    "encode_multiple_choice",
    "encode_priming_text",
    "encode_shared_context",
    "find_task",
    "has_split",
    "json_lines",
    "metrics",
    "read_examples",
    "read_multiple_choice",
    "tab_separated",
]
