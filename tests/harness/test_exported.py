"""lm-evaluation-harness on an exported Hugging Face folder, against our own model of it."""

# The harness is not installed where types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import pytest

from glm_jax.convert.convert import convert
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer
from glm_jax.tokenizer.huggingface_export import chat_template
from glm_jax.tokenizer.load import SpecialTokenOptions, make_tokenizer
from tests.convert.transformers_check.folders import silent
from tests.harness.local_tasks import ROWS, write_tasks
from tests.serve.tiny_checkpoint import byte_tokenizer, write_checkpoint

# One of them with the label that the random network prefers, one with another.
MIXED_ROWS = [{**ROWS[0], "label": 1}, ROWS[1], {**ROWS[0], "question": "we met near the"}]
TASKS = ("local_choice", "local_word", "local_write")
TOLERANCE = 1e-4


@pytest.mark.slow
def test_the_harness_agrees_on_an_exported_folder_and_on_its_checkpoint(tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval")
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("lm_eval.models")  # registers the model hf
    from lm_eval.tasks import TaskManager

    from glm_jax.harness.model import GLMHarnessModel

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    convert(checkpoint, tmp_path / "exported", "huggingface", stages=silent)
    write_tasks(tmp_path, MIXED_ROWS, TASKS)

    def run(model: Any, **settings: Any) -> dict:
        return lm_eval.simple_evaluate(
            model=model,
            tasks=list(TASKS),
            task_manager=TaskManager(include_path=str(tmp_path)),
            apply_chat_template=True,
            log_samples=True,
            batch_size=2,
            **settings,
        )

    arguments = f"pretrained={tmp_path}/exported,trust_remote_code=True,dtype=float32,device=cpu"
    theirs = run("hf", model_args=arguments)
    make: Any = GLMHarnessModel
    ours = run(make(str(checkpoint), batch_size=2))
    accuracy = {}
    for task in TASKS:
        samples = [
            sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
            for found in (theirs, ours)
        ]
        for their, our in zip(*samples, strict=True):
            assert responses(their) == pytest.approx(responses(our), abs=TOLERANCE), task
        for metric in ("acc,none", "exact_match,none"):
            accuracy[task] = ours["results"][task].get(metric, accuracy.get(task))
            assert theirs["results"][task].get(metric) == ours["results"][task].get(metric)
    assert 0 < accuracy["local_choice"] < 1


def responses(sample: dict) -> Any:
    """The log-probabilities of a sample's continuations, or its text."""
    first = [response[0] for response in sample["resps"]]
    return first[0] if isinstance(first[0], str) else [float(value) for value, _ in first]


def rendered(tokenizer: GLMTokenizer, messages: list[str], *, prompt: bool) -> str:
    jinja = pytest.importorskip("jinja2.sandbox")
    environment = jinja.ImmutableSandboxedEnvironment()
    template = environment.from_string(chat_template(tokenizer))
    history = [{"role": "user", "content": message} for message in messages]
    return template.render(messages=history, add_generation_prompt=prompt)


def test_a_prompt_ends_where_a_blank_starts():
    tokenizer = byte_tokenizer()
    assert isinstance(tokenizer, GLMTokenizer)
    text = rendered(tokenizer, ["{one}", "two"], prompt=True)
    assert text == "[CLS]{one}\n\ntwo[gMASK]<|startofpiece|>"
    assert rendered(tokenizer, ["one"], prompt=False) == "[CLS]one"


def test_without_a_generation_mask_the_text_has_its_end():
    vocabulary = b"[PAD]\n[CLS]\n[SEP]\n[UNK]\n[MASK]\na\n"
    tokenizer = make_tokenizer("bert", [vocabulary], SpecialTokenOptions())
    assert isinstance(tokenizer, GLMTokenizer)
    eos = tokenizer.table.id_to_text()[tokenizer.special["eos"]]
    assert rendered(tokenizer, ["a"], prompt=True) == f"[CLS]a[MASK]{eos}<|startofpiece|>"
