"""Sources -> outputs by beam search, in batches, with what is done kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from glm_jax.generate.beam_engine import BeamEngine, BeamUsage, FoundBlank, search_all
from glm_jax.generate.decoder import Decoder
from glm_jax.generate.engine import ActiveFill, fill_all
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling
from glm_jax.seq2seq.outputs import Output, Outputs
from glm_jax.seq2seq.source import Source
from glm_jax.tokenizer import Tokenizer

# Sources are padded to a multiple of this: a page of the cache.
PROMPT_MULTIPLE = 64


def source_prompt(source: Source, pad: int, length: int, *, pad_source: bool) -> Prompt:
    """A source as the decoder reads it.

    Args:
      source: with S ids at most.
      pad: the padding token.
      length: S.
      pad_source: fills the source up to S, as the original does; the model sees the padding.
    """
    ids = list(source.ids)
    if pad_source:
        ids += [pad] * (length - len(ids))
    return Prompt(ids, list(source.blanks))


def generate_outputs(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    file: Outputs | None,
    *,
    num_texts: int,
    report: Callable[[int], None] = lambda count: None,
) -> BeamUsage:
    """Writes an output for every source that has none yet; all processes take part.

    Sources of like lengths are searched together, the longest first, so that too little memory
    shows at once.

    Args:
      decoder: the network.
      tokenizer: of the model.
      prompts: the sources by the ids of their examples.
      sampling: beams and limits, or how outputs are drawn.
      file: where outputs go: a file on the process that writes it and None on all others, or the
        memory of all.
      num_texts: sources at a time.
      report: called with the number of outputs so far.

    Returns:
      What was done, and how much of it was padding.
    """
    names = sorted(prompts, key=lambda name: -len(prompts[name].ids))
    waiting = [name for name in names if name in _missing(names, file)]
    if not waiting:
        return BeamUsage()
    done = len(names) - len(waiting)
    if sampling.used_temperature:
        numbers = {name: number for number, name in enumerate(names)}
        _draw_outputs(decoder, tokenizer, prompts, sampling, file, num_texts, waiting, numbers)
        report(len(names))
        return BeamUsage()
    # Sizes are those of all sources, so that a continued run searches with the same programs.
    everything = list(prompts.values())
    engine = BeamEngine(decoder, sampling, everything, num_texts=num_texts, first_length=0)
    numbered = [(number, prompts[name]) for number, name in enumerate(waiting)]
    for number, blanks in search_all(engine, numbered):
        done += 1
        if file is not None:
            file.add(_output(waiting[number], blanks, tokenizer))
        report(done)
    return engine.usage


def _missing(names: Sequence[str], file: Outputs | None) -> set[str]:
    """The names without an output in the file of process 0; all processes get the same."""
    is_missing = np.asarray([file is None or name not in file.outputs for name in names])
    if jax.process_count() > 1:
        is_missing = np.asarray(multihost_utils.broadcast_one_to_all(is_missing))
    return {name for name, missing in zip(names, is_missing, strict=True) if missing}


def _output(name: str, blanks: Sequence[Sequence[FoundBlank]], tokenizer: Tokenizer) -> Output:
    pad = tokenizer.special["pad"]
    best = [found[0] for found in blanks]
    ids = [[id for id in found.blank.ids if id != pad] for found in best]
    return Output(name, [tokenizer.decode(of_blank) for of_blank in ids], ids, best[-1].score)


def _draw_outputs(
    decoder: Decoder,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    file: Outputs | None,
    num_texts: int,
    names: Sequence[str],
    numbers: Mapping[str, int],
) -> None:
    """Draws an output for each of some sources; their numbers decide on the randomness."""
    pad = tokenizer.special["pad"]
    for first in range(0, len(names), num_texts):
        group = names[first : first + num_texts]
        fills = [ActiveFill(prompts[name], sampling, numbers[name]) for name in group]
        fill_all(decoder, fills, num_texts)
        for name, active in zip(group, fills, strict=True):
            ids = [[id for id in blank.ids if id != pad] for blank in active.blanks]
            if file is not None:
                file.add(Output(name, [tokenizer.decode(blank) for blank in ids], ids))
