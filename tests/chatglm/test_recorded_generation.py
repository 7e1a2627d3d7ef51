"""Tokens that the published code generated, ours by the one engine."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.generate.beam_engine import beam_search
from glm_jax.generate.decoder import Decoder, make_decoder
from glm_jax.generate.engine import ActiveFill, fill_all
from glm_jax.generate.prompt import chat_prompt, full_length
from glm_jax.generate.sampling import FORBIDDEN, lowest_kept
from glm_jax.generate.settings import Sampling
from glm_jax.model.chatglm import replace_invalid
from tests.chatglm.recorded import FOLDER, MIXED_SPECIAL, SPECIAL, arrays, facts, network

pytestmark = pytest.mark.usefixtures("shared")
PADDING = 3


@cache
def decoder_of(folder: str, base: str | None = None) -> Decoder:
    special = MIXED_SPECIAL if "mixed" in folder else SPECIAL
    return make_decoder(*network(folder, base), special, ends=("eop",))


def greedy(
    decoder: Decoder, rows: list[tuple[list[int], int]], special: dict[str, int], at_once: int
) -> list[list[int]]:
    """New ids of prompts with the maximum length of each, the prompt included; eop if it came."""
    fills = [
        ActiveFill(chat_prompt(ids, special), Sampling(max_blank_length=max(1, limit - len(ids))))
        for ids, limit in rows
    ]
    fill_all(decoder, fills, at_once)
    blanks = [active.blanks[0] for active in fills]
    end = special["eop"]
    return [blank.ids + [end] * (blank.end_log_prob is not None) for blank in blanks]


def check_greedy(folder: str, cases: list[Any], base: str | None = None) -> None:
    special = MIXED_SPECIAL if "mixed" in folder else SPECIAL
    rows = [(case["input_ids"], case["max_length"]) for case in cases]
    found = greedy(decoder_of(folder, base), rows, special, at_once=2)
    for case, new in zip(cases, found, strict=True):
        assert case["input_ids"] + new == case["output_ids"]


def test_greedy_generation():
    check_greedy("ckpt", facts("info")["generate_greedy"])


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_greedy_generation_with_quantized_weights(quantization):
    check_greedy(f"ckpt_{quantization}", facts("real_info")["quantized"]["greedy"][quantization])


@pytest.mark.parametrize("name", ["prefix", "prefix_projection"])
def test_greedy_generation_with_a_prefix(name):
    check_greedy(f"ckpt_{name}", facts("real_info")["prefix"]["greedy"][name], base="ckpt")


@pytest.mark.parametrize("folder", ["ckpt_mixed_bin", "ckpt_mixed_safetensors"])
def test_greedy_generation_of_files_with_two_dtypes(folder):
    check_greedy(folder, facts("real_info")["mixed"]["greedy"])


def test_the_maximum_length_counts_the_prompt_and_leaves_one_token():
    cases = facts("chat_real")["chat_and_stream_chat"]
    rows = [(case["input_ids"], case["max_length"]) for case in cases]
    found = greedy(decoder_of("ckpt_mixed_bin"), rows, MIXED_SPECIAL, at_once=4)
    assert found == [case["chat_new_ids"] for case in cases]


@pytest.mark.parametrize("number", range(2))
def test_rows_of_different_lengths_are_those_of_a_padded_batch(number):
    case = facts("chat_real")["generate_batch"][number]
    width = len(case["padded"]["input_ids"][0])
    limit = case["max_length"] - width
    rows = [(row, len(row) + limit) for row in case["rows"]]
    decoder = decoder_of("ckpt_mixed_bin")
    together = greedy(decoder, rows, MIXED_SPECIAL, at_once=4)
    alone = [greedy(decoder, [row], MIXED_SPECIAL, at_once=1)[0] for row in rows]
    assert together == alone
    for expected, found in zip(case["output_ids"], together, strict=True):
        new = expected[width:]
        assert new[: len(found)] == found
        assert set(new[len(found) :]) <= {PADDING}


def test_beams():
    cases = facts("chat_real")["generate_beams"]
    decoder = decoder_of("ckpt_mixed_bin")
    for case in cases:
        ids = case["input_ids"]
        sampling = Sampling(
            max_blank_length=case["max_length"] - len(ids),
            beams=case["num_beams"],
            length_penalty=1.0,
        )
        prompts = [chat_prompt(ids, MIXED_SPECIAL)]
        found = beam_search(decoder, prompts, sampling, num_texts=1, first_length=full_length)
        best = found[0][0][0]
        assert ids + best.blank.ids == case["output_ids"]
        assert best.score == pytest.approx(case["score"], abs=1e-5)


def test_beams_of_several_prompts_are_those_of_each_alone():
    """Two prompts of different lengths: the length of each is part of its scores."""
    cases = [case for case in facts("chat_real")["generate_beams"] if case["num_beams"] == 2]
    prompts = [chat_prompt(case["input_ids"], MIXED_SPECIAL) for case in cases]
    prompts.append(chat_prompt([9, *cases[0]["input_ids"]], MIXED_SPECIAL))
    sampling = Sampling(max_blank_length=8, beams=2, length_penalty=1.0)
    decoder = decoder_of("ckpt_mixed_bin")

    def search(some: list[Any]) -> list[tuple[list[int], float]]:
        found = beam_search(decoder, some, sampling, num_texts=4, first_length=full_length)
        return [(text[0][0].blank.ids, text[0][0].score) for text in found]

    for (ids, score), prompt in zip(search(prompts), prompts, strict=True):
        ((alone, alone_score),) = search([prompt])
        assert ids == alone
        assert score == pytest.approx(alone_score, abs=1e-5)


CHAINS = [c["case"] for c in facts("chat_real")["logits_chain"]] if FOLDER.is_dir() else []


def filtered(scores: jnp.ndarray, top_k: int = 0, top_p: float = 1.0) -> jnp.ndarray:
    """Scores of what the filters leave."""
    count = len(scores)
    limits = (jnp.full(count, top_k, jnp.int32), jnp.full(count, top_p, jnp.float32))
    return jnp.where(scores < lowest_kept(scores, *limits), FORBIDDEN, scores)


@pytest.mark.parametrize("case", CHAINS)
def test_scores_are_guarded_then_cooled_then_filtered(case):
    settings = next(c for c in facts("chat_real")["logits_chain"] if c["case"] == case)
    stages = {
        name: arrays("chat_real")[f"chain/{case}/{name}"]
        for name in ("scores", *(f"after_{stage}" for stage in ("guard", *settings["stages"])))
    }
    scores = jnp.asarray(stages["scores"])
    # The original guards a batch at once, we each row: it has a batch for each here.
    if not np.isfinite(stages["scores"]).all(axis=1).all():
        is_valid = np.isfinite(stages["scores"]).all(axis=1)
        guarded = np.asarray(replace_invalid(scores, 5))
        np.testing.assert_array_equal(guarded[is_valid], stages["scores"][is_valid])
        np.testing.assert_array_equal(guarded[~is_valid], stages["after_guard"][~is_valid])
    scores = jnp.asarray(stages["after_guard"])
    for stage in settings["stages"]:
        if stage == "temperature":
            scores = scores / settings["temperature"]
        elif stage == "top_k":
            scores = filtered(scores, top_k=settings["top_k"])
        else:
            if settings["num_beams"] > 1:
                return  # beams are not drawn here
            scores = filtered(scores, top_p=settings["top_p"])
        expected = stages[f"after_{stage}"]
        np.testing.assert_array_equal(np.isfinite(scores), np.isfinite(expected))
        kept = np.isfinite(expected)
        np.testing.assert_allclose(np.asarray(scores)[kept], expected[kept], rtol=1e-6)
