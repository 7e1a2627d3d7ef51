"""Prompts, searches and fillings that the original code recorded, and how ours differ from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.generate.beam_engine import beam_search
from glm_jax.generate.decoder import Decoder, make_decoder
from glm_jax.generate.engine import ActiveFill, fill_all
from glm_jax.generate.prompt import Prompt, mask_ids
from glm_jax.generate.settings import Sampling
from tests.parity.golden_forward import Load
from tests.parity.golden_pieces import piece_rows
from tests.parity.rows import Row, guarded

FOLDER = "g_generation"
SCORE_TOLERANCE = 1e-4
Network = tuple[Any, Any]


def special_ids(folder: Path) -> dict[str, int]:
    """Ids of the special tokens of the recordings."""
    commands = json.loads((folder / "tokenizer.json").read_text())["commands"]
    return {name: command["id"] for name, command in commands.items()}


def load_cases(folder: Path, name: str) -> list[dict[str, Any]]:
    """One file of recordings."""
    return json.loads((folder / f"{name}.json").read_text())


def sample_differences(
    network: Network, special: Mapping[str, int], cases: Sequence[Mapping], at_once: int
) -> list[str]:
    """The prompts of `generate_samples` that are filled otherwise, found setting by setting."""
    decoder = make_decoder(*network, special)
    different = []
    for (beams, limit, penalty), group in groupby(sorted(cases, key=_setting), key=_setting):
        sampling = Sampling(max_blank_length=limit, beams=beams, length_penalty=penalty)
        for some in _groups(list(group), at_once):
            prompts = [
                Prompt(case["context"], [done["mask_position"] for done in case["per_mask"]])
                for case in some
            ]
            found = filled(decoder, prompts, sampling, at_once)
            for case, blanks in zip(some, found, strict=True):
                generated = [token for ids in blanks for token in (decoder.blank_start, *ids)]
                if generated != case["generated"]:
                    different.append(f"{case['kind']} with {beams} beams: {blanks}")
    return different


def filled(
    decoder: Decoder, prompts: Sequence[Prompt], sampling: Sampling, num_texts: int
) -> list[list[list[int]]]:
    """The ids of every blank of every prompt."""
    if sampling.beams > 1:
        found = beam_search(decoder, prompts, sampling, num_texts=num_texts)
        return [[best.blank.ids for best, *_ in blanks] for blanks in found]
    fillings = [ActiveFill(prompt, sampling) for prompt in prompts]
    fill_all(decoder, fillings, num_texts)
    return [[blank.ids for blank in filling.blanks] for filling in fillings]


def search_differences(
    network: Network, special: Mapping[str, int], cases: Sequence[Mapping], at_once: int
) -> list[str]:
    """The texts of `seq2seq_beam` of which the searches end with other hypotheses or scores."""
    decoder = make_decoder(*network, special, ends=("eop",))
    different = []
    for number, case in enumerate(cases):
        settings, masks = case["settings"], mask_ids(special)
        sampling = Sampling(
            max_blank_length=settings["tgt"],
            beams=settings["num_beams"],
            length_penalty=settings["lp"],
            no_repeat_ngram=settings["ngram"],
            min_blank_length=settings["minlen"],
        )
        prompts = [prompt_of(ids, masks) for ids in _part_a(case)]
        found = [
            text
            for some in _groups(prompts, at_once)
            for text in beam_search(decoder, some, sampling, num_texts=at_once, first_length=0)
        ]
        for text, ([hypotheses], recorded) in enumerate(
            zip(found, case["hypotheses"], strict=True)
        ):
            same = [h.blank.ids for h in hypotheses] == [h["tokens"] for h in recorded]
            scores = [h.score for h in hypotheses], [h["score"] for h in recorded]
            if not same or not np.allclose(*scores, rtol=0, atol=SCORE_TOLERANCE):
                different.append(f"case {number}, text {text}: {hypotheses}")
    return different


def blank_lm_differences(
    network: Network, special: Mapping[str, int], cases: Sequence[Mapping], at_once: int
) -> list[str]:
    """The texts of `blank_lm` that are filled otherwise."""
    decoder = make_decoder(*network, special, ends=("eop",))
    different = []
    for case in cases:
        settings = case["settings"]
        sampling = Sampling(
            max_blank_length=settings["tgt"],
            min_blank_length=settings["minlen"],
            no_repeat_ngram=settings["ngram"],
            repeat_scope="text",
        )
        prompts = [prompt_of(ids, mask_ids(special)) for ids in _part_a(case)]
        blanks = [
            text
            for some in _groups(prompts, at_once)
            for text in filled(decoder, some, sampling, at_once)
        ]
        for prompt, text, recorded in zip(prompts, blanks, case["filled_ids"], strict=True):
            ids = put_in_place(prompt, text)
            if not is_padded(recorded, ids, special["pad"]):
                different.append(str(ids))
    return different


def put_in_place(prompt: Prompt, blanks: Sequence[Sequence[int]]) -> list[int]:
    """The ids of a text with every mask replaced by its blank."""
    filled = dict(zip(prompt.masks, blanks, strict=True))
    return [new for place, old in enumerate(prompt.ids) for new in filled.get(place, [old])]


def is_padded(recorded: Sequence[int], ids: Sequence[int], pad: int) -> bool:
    """Whether a text is the recorded one; the shorter may lack padding, and nothing else."""
    count = min(len(recorded), len(ids))
    rest = {*recorded[count:], *ids[count:]}
    return list(recorded[:count]) == list(ids[:count]) and rest <= {pad}


def prompt_of(ids: Sequence[int], masks: frozenset[int]) -> Prompt:
    """A recorded Part A."""
    return Prompt(list(ids), [place for place, token in enumerate(ids) if token in masks])


def generation_rows(goldens: Path, load: Load) -> Iterator[Row]:
    """How many recorded texts, filled side by side, and single steps come out different."""
    folder = goldens / FOLDER
    checks = {
        "generate_samples": ("prompts filled otherwise", sample_differences),
        "seq2seq_beam": ("texts with other hypotheses or scores", search_differences),
        "blank_lm": ("texts filled otherwise", blank_lm_differences),
    }

    @cache
    def opened() -> tuple[Network, dict[str, int]]:
        config = json.loads((folder / "config.json").read_text())
        return load(folder / "ckpt", config["num_attention_heads"]), special_ids(folder)

    def rows(name: str) -> Iterator[Row]:
        what, differences = checks[name]
        cases = load_cases(folder, name)
        total = sum(len(case["text"]) if "text" in case else 1 for case in cases)
        different = len(differences(*opened(), cases, 4)) if total else float("inf")
        yield Row(f"{FOLDER}/{name}", f"{what}, of {total}", 0.0, different)

    for name in checks:
        yield from guarded(f"{FOLDER}/{name}", partial(rows, name))
    yield from guarded(f"{FOLDER}/pieces", partial(piece_rows, folder))


def _part_a(case: Mapping[str, Any]) -> list[list[int]]:
    """Part A of the texts of a case, without the padding that was hidden from it."""
    texts = [ids[:-1] for ids in case["text"]]  # the last token begins the blank
    mask = np.asarray(case["attention_mask"])
    if mask.ndim == 1:
        return texts
    # What the last query sees: Part A without its padding, and itself.
    visible = mask.reshape(len(texts), -1, mask.shape[-1])[:, -1, :-1].sum(axis=1)
    return [ids[:count] for ids, count in zip(texts, visible, strict=True)]


def _setting(case: Mapping[str, Any]) -> tuple:
    return case["num_beams"], case["out_seq_length"], case["length_penalty"]


def _groups(items: list, size: int) -> Iterator[list]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
