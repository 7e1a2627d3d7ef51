"""Outputs of many sources: independent of batches, resumable, and judged."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling
from glm_jax.seq2seq.encode import encode_source
from glm_jax.seq2seq.generate import generate_outputs, source_prompt
from glm_jax.seq2seq.judge import answer_text, filled_text, judge_outputs
from glm_jax.seq2seq.metrics import bleu_estimate, mean_estimate
from glm_jax.seq2seq.outputs import Output, OutputFile
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.seq2seq.rouge import rouge_scores
from glm_jax.tasks import Example
from tests.generate.tiny_decoder import decoder_that_ends_with
from tests.serve.tiny_checkpoint import byte_tokenizer

SAMPLING = Sampling(max_blank_length=6, beams=3, length_penalty=0.7, no_repeat_ngram=2)
SETTINGS = {"beams": 3}


class Letters:
    """Just enough of a tokenizer."""

    special: ClassVar = {"pad": 0, "eop": 39}

    def decode(self, ids):
        return " ".join(map(str, ids))


def sources(count: int) -> dict[str, Prompt]:
    draw = np.random.default_rng(5)
    made = {}
    for number in range(count):
        ids = draw.integers(3, 39, int(draw.integers(4, 30))).tolist()
        made[f"test-{number}"] = Prompt(ids, [1])
    return made


def outputs_of(prompts, file, num_texts=2, **options):
    decoder = decoder_that_ends_with([39, 20, 21, 22, 23])
    return generate_outputs(
        decoder,
        Letters(),  # pyright: ignore[reportArgumentType]
        prompts,
        SAMPLING,
        file,
        num_texts=num_texts,
        **options,
    )


class KilledError(Exception):
    pass


def test_outputs_do_not_depend_on_the_batch_and_continue_after_kills(tmp_path):
    prompts = sources(9)
    alone = OutputFile(epath.Path(tmp_path / "alone.jsonl"), SETTINGS)
    for name, prompt in prompts.items():
        outputs_of({name: prompt}, alone, num_texts=1)
    path = epath.Path(tmp_path / "together.jsonl")

    def kill(count):
        if count % 3 == 0:
            raise KilledError

    for _ in range(3):
        file = OutputFile(path, SETTINGS)
        with pytest.raises(KilledError):
            outputs_of(prompts, file, report=kill)
        # As a kill while a line is written leaves it.
        with open(path, "ab") as half:
            half.write(b'{"id": "test-0", "te')
    file = OutputFile(path, SETTINGS)
    assert len(file.outputs) == 9
    assert not outputs_of(prompts, file).prompt_tokens
    file.sort(list(prompts))
    again = OutputFile(path, SETTINGS).outputs
    assert list(again) == list(prompts)
    for name, output in alone.outputs.items():
        assert again[name].ids == output.ids
        assert again[name].score == pytest.approx(output.score, abs=1e-5)


def test_rows_that_are_free_get_the_next_source(tmp_path):
    usage = outputs_of(sources(30), None, num_texts=2)
    # Blanks end after one to six tokens; batches that wait for their longest would waste a third.
    assert usage.active_texts / usage.text_slots > 0.9
    assert 0 <= usage.wasted_share <= 1


def test_outputs_of_other_settings_are_refused(tmp_path):
    path = epath.Path(tmp_path / "outputs.jsonl")
    OutputFile(path, SETTINGS).close()
    with pytest.raises(UsageError, match="beams = 3, not 5"):
        OutputFile(path, {"beams": 5})
    path.write_text("text\n")
    with pytest.raises(UsageError, match="no file of outputs"):
        OutputFile(path, SETTINGS)


def test_summaries_are_judged_by_rouge_and_bleu():
    tokenizer = byte_tokenizer()
    task = SEQ2SEQ_TASKS["customization"]
    references = ["the ferry left at dawn . [SEP] it came back late .", "rain fell all day long ."]
    written = ["the ferry left at dawn . [SEP] it came back .", "rain fell on most of the days ."]
    examples = [Example(str(n), "text", text) for n, text in enumerate(references)]
    outputs = [Output(str(n), [text], [[]]) for n, text in enumerate(written)]
    found = judge_outputs(task, examples, outputs, tokenizer)
    for name, scores in rouge_scores(written, references).items():
        assert found[name] == mean_estimate(scores)
        assert found[name].low <= found[name].value <= found[name].high
    assert found["bleu"] == bleu_estimate(written, references)
    perfect = judge_outputs(
        task, examples, [Output("", [text], [[]]) for text in references], tokenizer
    )
    assert perfect["rouge-l"].value == 1 and perfect["bleu"].value == pytest.approx(100)
    assert bleu_estimate(["a", "b"], ["x y z", "u v w"]) == (0, 0, 0)


def test_answers_in_lower_case_get_the_letters_of_their_passage():
    class LowerCase:
        special: ClassVar = {"pad": 0}

        def encode(self, text):
            return [ord(letter) for letter in text.lower() if letter != " "]

        def decode(self, ids):
            return " ".join(map(chr, ids))

    example = Example("0", "", meta={"context": "Founded by Maria Lund in 1988."})
    tokenizer = LowerCase()
    ids = tokenizer.encode("maria lund")
    found = answer_text(example, Output("0", [tokenizer.decode(ids)], [ids]), tokenizer)  # pyright: ignore[reportArgumentType]
    assert found == "Maria Lund"
    other = Output("0", ["well - known"], [tokenizer.encode("zz")])
    assert answer_text(example, other, tokenizer) == "well-known"  # pyright: ignore[reportArgumentType]


def test_filled_blanks_stand_in_their_text():
    tokenizer = byte_tokenizer()
    task = SEQ2SEQ_TASKS["extraction"]
    example = Example("0", "a [MASK] b [MASK] c", "x|y")
    source = encode_source(task, example, tokenizer, 32)
    prompt = source_prompt(source, tokenizer.special["pad"], 32, pad_source=True)
    assert len(prompt.ids) == 32 and len(prompt.masks) == 2
    output = Output("0", [" x", " y"], [tokenizer.encode(" x"), tokenizer.encode(" y")])
    assert filled_text(prompt.ids, output, tokenizer) == " a x b y c"
