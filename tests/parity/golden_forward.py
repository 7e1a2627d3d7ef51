"""Every number recorded of forward passes, beside ours.

What a folder holds decides what is compared: whole passes under prefixes and masks, passes that go
on from a memory, and both segments of the relative variant.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.model import GLM, RelativeGLM
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.decoding import DecodingGLM, by_layer
from glm_jax.model.intermediates import apply_with_stream
from glm_jax.model.kv_cache import empty_cache
from glm_jax.model.paged_attention import PAGE_SIZE
from tests.parity.rows import Row, absolute, folders, guarded

TOLERANCE = 1e-4  # absolute, of logits, hidden states and every layer's input

Recorded = Mapping[str, np.ndarray]
Computed = dict[str, Any]  # "logits", "hidden", and "stream" [N + 1, B, L, D] with what was before
Load = Callable[[Path, int], tuple[Any, Any]]


def forward_rows(goldens: Path, load: Load) -> Iterator[Row]:
    """Compares all models of `a_forward` and the merged one of `b_model_parallel`.

    Args:
      goldens: folder of the recorded numbers.
      load: (checkpoint folder, number of attention heads) -> (model, parameters).
    """
    for folder in folders(goldens / "a_forward"):
        yield from guarded(f"a_forward/{folder.name}", partial(model_rows, folder, load))
    folder = goldens / "b_model_parallel"
    yield from guarded(folder.name, partial(model_parallel_rows, folder, load))


def model_rows(folder: Path, load: Load) -> Iterator[Row]:
    """Compares every case of one folder of `a_forward`."""
    config = json.loads((folder / "config.json").read_text())
    model, params = load(folder / "ckpt", config["num_attention_heads"])
    cases = split_cases(np.load(folder / "io.npz"))
    if isinstance(model, RelativeGLM):
        passes = relative_passes(model, params, cases, config["max_memory_length"])
    else:
        bound = config.get("bounded_max_memory_length")
        passes = (*whole_passes(model, params, cases), *memory_passes(model, params, cases, bound))
    compared = set()
    for case, computed in passes:
        compared.add(case)
        words = params["word_embedding"]
        yield from case_rows(f"a_forward/{folder.name}/{case}", cases[case], computed, words)
    for case in sorted(set(cases) - compared):
        yield Row(f"a_forward/{folder.name}/{case}", "not compared", 0.0, float("inf"))


def model_parallel_rows(folder: Path, load: Load) -> Iterator[Row]:
    """Compares the merged model of `b_model_parallel`, from each number of ranks."""
    config = json.loads((folder / "config.json").read_text())
    recorded = dict(np.load(folder / "io.npz"))
    for ranks in sorted(path for path in folder.glob("mp*") if path.is_dir()):
        model, params = load(ranks, config["num_attention_heads"])
        computed = whole_pass(model, params, recorded)
        yield from case_rows(f"{folder.name}/{ranks.name}", recorded, computed, None)


def split_cases(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays `case/name` by case."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        case, name = key.split("/")
        cases.setdefault(case, {})[name] = array
    return cases


def case_rows(
    golden: str, recorded: Recorded, computed: Computed, words: Any | None
) -> Iterator[Row]:
    """A row for every output that was recorded; memories are the end of what has been seen."""
    for name, expected in sorted(recorded.items()):
        if name in ("logits", "hidden"):
            ours = computed[name]
        elif name.startswith("mem_"):
            ours = computed["stream"][int(name.removeprefix("mem_"))][:, -expected.shape[1] :]
        else:
            continue
        yield Row(golden, name, TOLERANCE, absolute(ours, expected))
    if "logits" not in recorded and words is not None:
        expected = recorded["hidden"] @ np.asarray(words).T
        difference = absolute(computed["logits"], expected)
        yield Row(golden, "logits (of the recorded hidden)", TOLERANCE, difference)


@functools.partial(jax.jit, static_argnums=0)
def run(model: GLM, params: Any, tokens: Any, position_ids: Any, prefix_length: Any, mask: Any):
    """One pass over a whole sequence."""
    hidden, stream = apply_with_stream(
        model, params, tokens, position_ids, prefix_length, attention_mask=mask
    )
    logits = model.apply({"params": params}, hidden, method="logits")
    return {"logits": logits, "hidden": hidden, "stream": stream}


def whole_pass(model: GLM, params: Any, case: Recorded) -> Computed:
    """A case without memory."""
    mask = case["attention_mask"]
    prefix_length, full_mask = (mask, None) if mask.ndim == 1 else (np.zeros(1, int), mask)
    return run(model, params, case["tokens"], case["position_ids"], prefix_length, full_mask)


def needs_memory(name: str) -> bool:
    """Whether a case goes on from another, or starts a memory that the tests of one do."""
    return name.startswith(("inc_", "bounded_")) and name != "inc_full"


def whole_passes(model: GLM, params: Any, cases: Mapping[str, Recorded]):
    """Every case that stands by itself, with its name."""
    for name, case in cases.items():
        if not needs_memory(name):
            yield name, whole_pass(model, params, case)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def run_on(
    model: DecodingGLM,
    params: Any,
    tokens: Any,
    position_ids: Any,
    cache: Any,
    start: Any,
    mask: Any,
):
    """Further positions of a sequence, with the cache of those before."""
    (hidden, cache), stream = apply_with_stream(
        model, params, tokens, position_ids, cache, start, mask, method="extend"
    )
    logits = model.apply({"params": params}, hidden, method="logits")
    return {"logits": logits, "hidden": hidden, "stream": stream}, cache


def memory_passes(model: GLM, params: Any, cases: Mapping[str, Recorded], bound: int | None):
    """The cases that go on from one another in order: those of `inc_`, then those of `bounded_`."""
    steps = sorted(
        (name for name in cases if name.startswith("inc_step")),
        key=lambda name: int(name.removeprefix("inc_step")),
    )
    incremental = ["inc_prefix", *steps, "inc_chunk", "inc_mask4d"]
    present = [name for name in incremental if name in cases]
    yield from one_memory(model, params, {name: cases[name] for name in present}, None)
    bounded = sorted(name for name in cases if name.startswith("bounded_"))
    yield from one_memory(model, params, {name: cases[name] for name in bounded}, bound)


def one_memory(model: GLM, params: Any, cases: Mapping[str, Recorded], bound: int | None):
    """Cases that follow each other in one sequence; `bound` is the original's max_memory_length."""
    if not cases:
        return
    batch = len(next(iter(cases.values()))["tokens"])
    positions = sum(case["tokens"].shape[1] for case in cases.values())
    slots = -(-positions // PAGE_SIZE) * PAGE_SIZE
    cache, start, streams = empty_cache(model.config, batch, slots), 0, []
    decoding, params = DecodingGLM(model.config), by_layer(params)
    for name, case in cases.items():
        length = case["tokens"].shape[1]
        first = 0 if bound is None else start - bound
        mask = slot_mask(case["attention_mask"], start, length, slots, first)
        # One shape and dtype of mask, so that all steps are one program.
        mask = np.broadcast_to(np.asarray(mask, bool), (batch, *mask.shape[1:]))
        inputs = case["tokens"], case["position_ids"]
        computed, cache = run_on(decoding, params, *inputs, cache, start, mask)
        streams.append(computed["stream"])
        start += length
        yield name, computed | {"stream": np.concatenate(streams, axis=2)}


def slot_mask(recorded: np.ndarray, start: int, length: int, slots: int, first: int) -> np.ndarray:
    """Which of all slots the new positions see, from a mask in the original's terms."""
    if recorded.ndim == 1:
        start_of_all = np.full(1, start)
        return np.asarray(
            memory_mask(start_of_all, length, slots, prefix_length=recorded, first_slot=first)
        )
    # The original keeps as many of the last columns as there are memories and new positions.
    kept = recorded[..., -(start + length) :]
    return np.pad(kept, ((0, 0), (0, 0), (0, 0), (0, slots - kept.shape[-1])))


def relative_passes(model: RelativeGLM, params: Any, cases: Mapping[str, Recorded], bound: int):
    """The segments of the relative variant, each with the memory of those before."""
    memory = None
    for name in sorted(cases):
        case = cases[name]
        hidden, stream = apply_with_stream(
            model, params, case["tokens"], np.zeros(1, int), case["attention_mask"], memory
        )
        logits = model.apply({"params": params}, hidden, method="logits")
        yield name, {"logits": logits, "hidden": hidden, "stream": stream}
        seen = stream[:-1] if memory is None else jnp.concatenate([memory, stream[:-1]], axis=2)
        memory = seen[:, :, -bound:]
