"""A checkpoint of any kind on a split of a sequence-to-sequence task."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree

from glm_jax.convert.load import load_glm
from glm_jax.finetune.recorded import best_checkpoint
from glm_jax.finetune.vocabulary import check_vocabulary, find_tokenizer
from glm_jax.generate.beam_engine import BeamUsage
from glm_jax.generate.decoder import Decoder, make_decoder
from glm_jax.io.files import write_file
from glm_jax.model import GLM
from glm_jax.parallel.mesh import make_mesh
from glm_jax.seq2seq.catalog import answers
from glm_jax.seq2seq.config import Seq2SeqConfig, Seq2SeqEvaluationConfig
from glm_jax.seq2seq.generate import PROMPT_MULTIPLE, generate_outputs
from glm_jax.seq2seq.judge import check_packages, judge_outputs
from glm_jax.seq2seq.metrics import Estimate
from glm_jax.seq2seq.outputs import OutputFile
from glm_jax.seq2seq.read import (
    check_lengths,
    check_tokenizer,
    has_references,
    prompts_of,
    read_split,
)
from glm_jax.tasks.example import Example
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.metrics import ProgressLine, duration

# Off a terminal, a line is printed after so many outputs.
LOG_EVERY = 100


@dataclass(frozen=True)
class Seq2SeqResult:
    """What an evaluation found.

    Attributes:
      num_outputs: in the file.
      metrics: by name, those of the task; empty where there are no references, or on processes
        that write no file.
      usage: what was searched in this call, which may have continued an earlier one.
    """

    num_outputs: int
    metrics: Mapping[str, Estimate]
    usage: BeamUsage


def evaluate_seq2seq(
    config: Seq2SeqEvaluationConfig,
    checkpoint: epath.Path,
    split: str,
    outputs: epath.Path,
    line: ProgressLine,
) -> Seq2SeqResult:
    """Writes an output for every example that has none yet, and judges all; all processes take
    part, and process 0 writes.

    Args:
      config: what is read, and how outputs are searched for.
      checkpoint: anything that `glm_jax.load` opens; of a finetuning run its best checkpoint.
      split: "train", "dev" or "test".
      outputs: the file of outputs, which is continued where it is there.
      line: shows how far it is.

    Raises:
      UsageError: something is missing, or does not fit the rest.
    """
    settings = config.seq2seq
    sampling = config.generation.sampling(settings.target_length)
    mesh = make_mesh(config.mesh)
    tokenizer = find_tokenizer(config.tokenizer, str(checkpoint))
    check_tokenizer(tokenizer)
    examples = read_split(settings, split, tokenizer)
    judged = has_references(settings.task, examples)
    if judged:
        check_packages(settings.task)
    prompts = prompts_of(settings, examples, tokenizer)
    weights = best_checkpoint(checkpoint)
    heads = config.generation.num_attention_heads or None
    model, params = load_glm(weights, num_attention_heads=heads, mesh=mesh, ignore_extra=True)
    check_vocabulary(tokenizer, model.config.vocab_size, str(checkpoint))
    check_lengths(settings, model.config.max_sequence_length)
    writes = jax.process_index() == 0
    file = OutputFile(outputs, output_settings(config, weights, split)) if writes else None
    decoder = output_decoder(model, params, tokenizer)
    usage = generate_outputs(
        decoder,
        tokenizer,
        prompts,
        sampling,
        file,
        num_texts=min(config.generation.batch_size, len(examples)),
        report=progress(line, len(examples)),
    )
    metrics: Mapping[str, Estimate] = {}
    if file is not None:
        file.sort([str(example.guid) for example in examples])
        metrics = judged_metrics(settings, examples, file, tokenizer) if judged else {}
    result = Seq2SeqResult(len(examples), metrics, usage)
    if writes:
        write_results(outputs.with_suffix(".results.json"), result)
    return result


def write_results(path: epath.Path, result: Seq2SeqResult) -> None:
    """Writes the metrics, and what the search did; a call that had nothing to search for keeps what
    the one before it did.

    Args:
      path: of the file, next to the outputs.
      result: of this call.
    """
    usage: Mapping[str, Any] = {
        **dataclasses.asdict(result.usage),
        "padding_share": result.usage.padding_share,
        "idle_share": result.usage.idle_share,
        "wasted_share": result.usage.wasted_share,
    }
    if not result.usage.text_slots and path.exists():
        usage = json.loads(path.read_text())["usage"]
    values = {
        "num_outputs": result.num_outputs,
        "metrics": {name: estimate.value for name, estimate in result.metrics.items()},
        "intervals": {name: [e.low, e.high] for name, e in result.metrics.items()},
        "usage": usage,
    }
    write_file(path, (json.dumps(values, indent=1) + "\n").encode())


def judged_metrics(
    settings: Seq2SeqConfig, examples: Sequence[Example], file: OutputFile, tokenizer: Tokenizer
) -> Mapping[str, Estimate]:
    """The metrics of a complete file of outputs.

    Raises:
      UsageError: a package for a metric is not installed.
    """
    return judge_outputs(
        settings.task,
        examples,
        [file.outputs[str(example.guid)] for example in examples],
        tokenizer,
        original=settings.original_rouge,
    )


def output_decoder(model: GLM, params: PyTree, tokenizer: Tokenizer) -> Decoder:
    """A decoder whose outputs end with the end of the piece, and whose sources have little padding.

    Args:
      model: the network.
      params: its parameters.
      tokenizer: of the model.
    """
    decoder = make_decoder(model, params, tokenizer.special, ends=("eop",))
    return dataclasses.replace(decoder, prompt_multiple=PROMPT_MULTIPLE)


def output_settings(
    config: Seq2SeqEvaluationConfig, weights: epath.Path, split: str
) -> Mapping[str, Any]:
    """What decides the outputs, and nothing else, for their file."""
    settings = config.seq2seq
    names = ("name", "data", "source_length", "target_length", "pad_source", "seed")
    of_search = ("beams", "length_penalty", "min_length", "no_repeat_ngram")
    if config.generation.temperature:
        of_search = ("temperature", "top_k", "top_p", "seed", "min_length", "no_repeat_ngram")
    if settings.name == answers.NAME:
        names += ("prompt_field", "history_field", "prompt_prefix")
    return {
        "checkpoint": str(weights),
        "split": split,
        **{f"seq2seq.{name}": getattr(settings, name) for name in names},
        **{f"generation.{name}": getattr(config.generation, name) for name in of_search},
    }


def progress(line: ProgressLine, total: int) -> Callable[[int], None]:
    """A report of the number of outputs so far, with the time that the others will take."""
    started, before = time.perf_counter(), None

    def report(done: int) -> None:
        nonlocal before
        before = done - 1 if before is None else before
        seconds = time.perf_counter() - started
        rate = (done - before) / max(seconds, 1e-9)
        left = duration((total - done) / rate)
        text = f"{done:,} of {total:,} outputs, {rate:.2g}/s, {left} left"
        line.show(text, logged=done % LOG_EVERY == 0 or done == total)

    return report
