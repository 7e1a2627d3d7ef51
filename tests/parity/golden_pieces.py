"""Single steps of generation that the original code recorded: filters, processors, beam search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.generate.beam_step import (
    BeamSettings,
    best_candidates,
    close_search,
    first_beams,
    no_hypotheses,
    search_step,
)
from glm_jax.generate.sampling import FORBIDDEN, early_ends, lowest_kept, repeating_tokens
from tests.parity.rows import Row, absolute, largest

SCORE_TOLERANCE = 1e-4
MAX_STEPS = 8  # of a recorded search
Case = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def read_pieces(folder: Path) -> tuple[dict[str, list[Case]], dict[str, np.ndarray]]:
    """The settings of every recorded step, and the arrays that they are recorded in."""
    with np.load(folder / "pieces.npz") as arrays:
        return json.loads((folder / "pieces.json").read_text()), dict(arrays)


def piece_rows(folder: Path) -> Iterator[Row]:
    """How many of the recorded steps come out different."""
    cases, arrays = read_pieces(folder)
    golden = f"{folder.name}/pieces"
    checks = {
        "top_k_logits": ("filters that keep other tokens", filter_differs),
        "processors": ("processors that forbid other tokens", processor_differs),
    }
    for name, (what, differs) in checks.items():
        used = cases[name]
        different = sum(differs(number, case, arrays) for number, case in enumerate(used))
        yield Row(golden, f"{what}, of {len(used)}", 0.0, different if used else float("inf"))
    searches = cases["beam_scorer"]
    outcomes = [search_differences(case) for case in searches]
    different = sum(other for other, _ in outcomes) if searches else float("inf")
    yield Row(golden, f"beam searches with other beams or ends, of {len(searches)}", 0.0, different)
    difference = largest(score for _, score in outcomes)
    yield Row(golden, "scores of the beam searches", SCORE_TOLERANCE, difference)


def filter_differs(number: int, case: Case, arrays: Arrays) -> bool:
    """Whether top-k and top-p keep other tokens or values."""
    logits = jnp.asarray(arrays[f"top_k_logits_{number}/in"])
    rows = len(logits)
    top_p = jnp.full(rows, case["top_p"] or 1.0)  # 0 keeps all in the original
    lowest = lowest_kept(logits, jnp.full(rows, case["top_k"]), top_p)
    kept = jnp.where(logits < lowest, FORBIDDEN, logits)
    return not np.array_equal(kept, arrays[f"top_k_logits_{number}/out"])


def processor_differs(number: int, case: Case, arrays: Arrays) -> bool:
    """Whether no-repeat-ngram or min-length forbid other tokens."""
    logits = jnp.asarray(arrays[f"processors_{number}/in"])
    ids = jnp.asarray(arrays[f"processors_{number}/ids"])
    rows, length = ids.shape
    start, stop = jnp.zeros(rows, jnp.int32), jnp.full(rows, length)
    vocab_size = logits.shape[1]
    repeats = repeating_tokens(ids, start, stop, jnp.full(rows, case["ngram"]), vocab_size)
    ends, shortest = jnp.array([case["eos_token_id"]]), jnp.full(rows, case["min_length"])
    early = early_ends(ends, stop, shortest, vocab_size)
    return not all(
        np.array_equal(
            jnp.where(forbidden, FORBIDDEN, logits), arrays[f"processors_{number}/{name}"]
        )
        for name, forbidden in (("no_repeat_ngram", repeats), ("min_length", early))
    )


def search_differences(case: Case) -> tuple[bool, float]:
    """Whether a recorded search takes other beams or ends otherwise; and its scores' difference."""
    num_texts, num_beams = case["batch"], case["num_beams"]
    used = BeamSettings(
        jnp.float32(case["length_penalty"]),
        jnp.bool_(case["early_stopping"]),
        jnp.int32(1),  # the recorded hypotheses begin with one token
    )
    beams = first_beams(num_texts, num_beams, MAX_STEPS)
    found = no_hypotheses(num_texts, num_beams, MAX_STEPS)
    done, same, scores = np.zeros(num_texts, bool), True, []
    for number, step in enumerate(case["steps"]):
        log_probs = jnp.asarray(step["log_probs"]).reshape(num_texts, num_beams, -1)
        candidates = best_candidates(log_probs, beams.total, 2 * num_beams)
        new, more, parent, ends_now = _one_step(
            beams, found, candidates, jnp.zeros(candidates.token.shape),
            jnp.full(num_texts, number), jnp.array([case["eos"]]), used,
        )  # fmt: skip
        for text in np.flatnonzero(~done):
            rows = slice(text * num_beams, (text + 1) * num_beams)
            scores.append(absolute(new.total[text], step["beam_scores"][rows]))
            parents = [int(p) + text * num_beams for p in parent[text]]
            same &= new.tokens[text, :, number].tolist() == step["beam_tokens"][rows]
            same &= parents == step["beam_indices"][rows]
        beams, found = _keep_done(done, (beams, found), (new, more))
        done |= np.asarray(ends_now)
        same &= done.tolist() == step["done"]
    closed = close_search(beams, found, jnp.full(num_texts, len(case["steps"])), used)
    for text in range(num_texts):
        best = found if done[text] else closed
        length = int(best.length[text, 0])
        start = case["start_ids"][text * num_beams][0]
        ids = [start, *best.tokens[text, 0, :length].tolist()]
        recorded = case["decoded"][text]
        # Behind the ids the original puts the end, and then padding up to the longest text.
        rest = recorded[len(ids) :]
        same &= recorded[: len(ids)] == ids and rest[:1] in ([], [case["eos"]])
        same &= set(rest[1:]) <= {case["pad"]}
        scores.append(absolute(best.score[text, 0], case["scores"][text]))
    return not same, largest(scores)


_one_step = jax.jit(search_step)


def _keep_done(done: np.ndarray, old: Any, new: Any) -> Any:
    """What texts have whose search has ended does not change."""

    def keep(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(done.reshape(-1, *(1,) * (old.ndim - 1)), old, new)

    return jax.tree.map(keep, old, new)
