"""Compares two checkpoints of any kind."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.open import needs_base, open_source, readable_checkpoint
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import UsageError
from glm_jax.model import GLMConfig, RelativeGLMConfig
from glm_jax.parity.compare import Difference, compare_stations, first_beyond, stream_reader
from glm_jax.parity.engines import choose_engine, run_engine
from glm_jax.parity.inputs import Inputs, random_inputs, read_inputs
from glm_jax.parity.report import ParityReport, Side
from glm_jax.parity.weights import check_sums, explain

# Float32 differences that float64 is asked about, as a multiple of the tolerance: a network that
# is wrong in float32 alone must not pass.
MAX_ROUNDING = 10
# Of the same network, quantized weights can be compared with others. Dropout is not part of a pass
# without training, and not every checkpoint records its rates.
NOT_COMPARED = ("quantization", "embedding_dropout", "hidden_dropout", "attention_dropout")


@dataclasses.dataclass(frozen=True)
class RandomInputs:
    """Inputs to be drawn, as in `random_inputs`."""

    seed: int
    batch_size: int
    length: int | None


def check_parity(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    inputs: str | os.PathLike[str] | RandomInputs,
    tolerance: float,
    num_attention_heads: int | None = None,
    base: str | os.PathLike[str] | None = None,
) -> ParityReport:
    """Runs two checkpoints on the same inputs, one after the other.

    Args:
      first, second: checkpoints of any kind that `glm_jax.load` opens.
      inputs: a file as `read_inputs` takes it, or what to draw.
      tolerance: the largest absolute difference allowed at any station.
      num_attention_heads: H, for checkpoints that don't record it. Without it they are taken to
        have as many as the other one records, or hidden size / 64.
      base: the ChatGLM checkpoint that those of the two belong to that hold a prefix only.

    Raises:
      UsageError: a checkpoint or the inputs can't be read, or the networks' dimensions differ.
    """
    with ExitStack() as stack:
        paths = (first, second)
        local = [stack.enter_context(readable_checkpoint(path)) for path in paths]
        bases = [base if base is not None and needs_base(path) else None for path in local]
        sources = [
            stack.enter_context(open_source(path, base=its_base))
            for path, its_base in zip(local, bases, strict=True)
        ]
        config, heads = _same_dimensions(sources, num_attention_heads)
        batch, description = _inputs(inputs, config)
        sides = [
            Side(str(path), source.kind, choose_engine(source, config), known)
            for path, source, known in zip(paths, sources, heads, strict=True)
        ]
        compare = partial(_compare, sides, sources, bases, config, batch)
        differences, explanation, rounding = compare("float32"), None, None
        if first_beyond(differences, tolerance) is not None:
            sums = [check_sums(source) for source in sources]
            explanation = explain(*sums)
            largest = max(each.max_absolute for each in differences)
            may_be_rounding = sums[0] == sums[1] and largest <= MAX_ROUNDING * tolerance
            if may_be_rounding and isinstance(config, GLMConfig):
                # Of the same weights, float64 shows whether it is float32's rounding.
                differences, rounding = compare("float64"), largest
    return ParityReport(
        first=sides[0],
        second=sides[1],
        num_attention_heads=config.num_attention_heads,
        inputs=description,
        tolerance=tolerance,
        differences=differences,
        explanation=explanation,
        rounding=rounding,
    )


def _compare(
    sides: Sequence[Side],
    sources: Sequence[WeightSource],
    bases: Sequence[str | os.PathLike[str] | None],
    config: GLMConfig | RelativeGLMConfig,
    inputs: Inputs,
    dtype: str,
) -> list[Difference]:
    """Runs both networks in a dtype."""
    first, second = (
        run_engine(side.engine, source, config, inputs, base, dtype)
        for side, source, base in zip(sides, sources, bases, strict=True)
    )
    return compare_stations(first, second, stream_reader(sources[0], config.layernorm_epsilon))


def _same_dimensions(
    sources: list[WeightSource], given: int | None
) -> tuple[GLMConfig | RelativeGLMConfig, list[str]]:
    """The dimensions of both networks, and how each one's number of heads is known."""
    recorded = [source.metadata.num_attention_heads for source in sources]
    configs, known = [], []
    for source, own, other in zip(sources, recorded, reversed(recorded), strict=True):
        if given is not None and own not in (None, given):
            raise UsageError(
                f"--num_attention_heads is {given}, but {source.path} records {own} heads"
            )
        heads = own or given or other
        configs.append(infer_config(source.tensors, heads, source.metadata.huggingface_config))
        if own or isinstance(configs[-1], RelativeGLMConfig):
            known.append("recorded")
        elif given:
            known.append("given")
        else:
            known.append("as the other records" if other else "not recorded: hidden size / 64")
    first, second = configs
    if type(first) is not type(second):
        relative = sources[0] if isinstance(first, RelativeGLMConfig) else sources[1]
        raise UsageError(f"only {relative.path} has relative positions: these are two networks")
    sizes, others = dataclasses.asdict(first), dataclasses.asdict(second)
    apart = [
        f"{name} is {size} and {others[name]}"
        for name, size in sizes.items()
        if size != others[name] and name not in NOT_COMPARED
    ]
    if apart:
        raise UsageError(
            f"{sources[0].path} and {sources[1].path} have different dimensions: {', '.join(apart)}"
        )
    return first, known


def _inputs(
    wanted: str | os.PathLike[str] | RandomInputs, config: GLMConfig | RelativeGLMConfig
) -> tuple[Inputs, str]:
    """The inputs, and where they come from."""
    if isinstance(wanted, RandomInputs):
        inputs = random_inputs(config, wanted.seed, wanted.batch_size, wanted.length)
        source = f"random, seed {wanted.seed}"
    else:
        inputs, source = read_inputs(wanted, config), str(wanted)
    batch_size, length = inputs.tokens.shape
    return inputs, f"{source}: {batch_size} x {length} tokens"
