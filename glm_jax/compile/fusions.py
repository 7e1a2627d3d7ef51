"""The operations between and around the products of a step: what each reads, writes and takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from glm_jax.compile.costs import NO_ESTIMATE, PRODUCTS, Loops
from glm_jax.compile.hlo import (
    Array,
    Computation,
    Instruction,
    Module,
    read_arrays,
    trip_count,
)

# What transformations and loops add to the names of operations, and numbers of unscanned layers.
_WRAPPERS = re.compile(
    r"jit\([\w.<>]*\)/|shard_map/|while/body/|closed_call/|checkpoint/|rematted_computation/"
    r"|layers\.step/|layers\.run_block/|\w+\._run_\w+/|\w+\.hidden_states/|(?<=blocks)_\d+"
)
_BACKWARD = re.compile(r"transpose\(jvp\(([^()]*)\)\)/?")
_FORWARD = re.compile(r"jvp\(([^()]*)\)/?")
_RECOMPUTED = "rematted_computation/"
# Operations that a reader knows by other names.
_WORDS = {
    "dot_general": "product",
    "add_any": "sum of gradients",
    "reduce_sum": "sum",
    "convert_element_type": "cast",
    "broadcast_in_dim": "fill",
    "select_n": "select",
}
_LOGITS = re.compile(r"\.\.\.d,vd->\.\.\.v")


@dataclasses.dataclass(frozen=True)
class Fusion:
    """The fusions and copies of one operation, over all layers.

    Attributes:
      operation: of the fusion's result, by the path of its modules.
      result: shapes of the result.
      is_product: whether a matrix product is in it.
      calls: in a step.
      cycles: that the compiler estimates for all of them.
      read_bytes, written_bytes: of operands and results of all of them.
      least_bytes: what all of them must read and write at least: a product the two matrices that
        it multiplies and its result; any other operation, which could be part of a product next to
        it, only arguments and results of the program.
    """

    operation: str
    result: str
    is_product: bool
    calls: float
    cycles: float
    read_bytes: float
    written_bytes: float
    least_bytes: float = 0.0

    @property
    def main_result(self) -> Array:
        """The largest array of the result."""
        return max(read_arrays(self.result), key=lambda array: array.bytes)

    def in_words(self, rows: int, length: int) -> str:
        """What it is: "backward: MLP up, product, for the weights".

        Args:
          rows: positions of a step on one chip.
          length: of a sequence; an array with an axis of one or the other is no weight's gradient.
        """
        words = in_words(self.operation)
        # Logits may be for a part of the positions.
        if not (self.is_product and words.startswith("backward")) or "logits" in words:
            return words
        is_weight = not {rows, length}.intersection(self.main_result.dimensions)
        return f"{words}, for the {'weights' if is_weight else 'input'}"

    def memory_share(self, bytes_per_cycle: float) -> float:
        """The part of the estimated time in which its bytes pass at the memory's bandwidth."""
        return (self.read_bytes + self.written_bytes) / bytes_per_cycle / self.cycles


def largest_fusions(module: Module, loops: Loops, count: int) -> tuple[Fusion, ...]:
    """The operations with most estimated cycles, largest first.

    Args:
      module: optimized for the TPU, with the compiler's estimates.
      loops: what the program does not say about them.
      count: how many.
    """
    found: dict[tuple[str, str, bool], Fusion] = {}
    kept = _arguments_and_results(module)
    for instruction, calls, read_bytes in _timed(module, loops, module.entry, 1):
        products = list(_products(module, instruction))
        is_product = bool(products)
        operation = operation_of(instruction)
        result = re.sub(r"\{[^}]*\}", "", instruction.shape)
        key = (operation, result, is_product)
        before = found.get(key, Fusion(*key, 0, 0, 0, 0))
        outside = sum(kept.get(name, 0) for name in (*instruction.operands, instruction.name))
        least = sum(products) if products else outside
        calls_of_step = calls / loops.steps
        found[key] = Fusion(
            *key,
            before.calls + calls_of_step,
            before.cycles + calls_of_step * (instruction.number("estimated_cycles") or 0),
            before.read_bytes + calls_of_step * read_bytes,
            before.written_bytes + calls_of_step * instruction.bytes,
            before.least_bytes + calls_of_step * least,
        )
    return tuple(sorted(found.values(), key=lambda fusion: -fusion.cycles)[:count])


def operation_of(instruction: Instruction) -> str:
    """Its name without what transformations and layers add, with the pass that it is part of."""
    name = instruction.text("op_name") or instruction.opcode
    is_backward = _BACKWARD.search(name) is not None
    path = _WRAPPERS.sub("", _FORWARD.sub(_einsum, _BACKWARD.sub(_einsum, name)))
    if is_backward and _RECOMPUTED in name:
        return f"recomputed: {path}"
    return f"backward: {path}" if is_backward else path


def _einsum(differentiated: re.Match[str]) -> str:
    """The einsum that is differentiated; the method of a module says nothing."""
    return f"{differentiated[1]}/" if "->" in differentiated[1] else ""


def in_words(operation: str) -> str:
    """The name of an operation as people say it: "backward: MLP up, product"."""
    passing, separator, path = operation.rpartition(": ")
    *modules, last = _LOGITS.sub("logits", path.partition(";")[0]).split("/")
    modules = [name.replace("_", " ") for name in modules if "." not in name]
    where = " ".join(name for name in modules if name not in ("layers", "blocks"))
    where = where.replace("mlp", "MLP").replace("layernorm", "LayerNorm")
    where = where.replace("query key value", "query, key and value")
    what = _WORDS.get(last, re.sub(r"\.\d+$", "", last).replace("_", " "))
    return f"{passing}{separator}{f'{where}, ' if where else ''}{what}"


def _products(module: Module, instruction: Instruction) -> Iterator[float]:
    """For each product in a fusion, the bytes of its two operands and of its result."""
    computation = module.computations.get(instruction.called("calls") or "", ())
    arrays = {inner.name: inner.arrays[0] for inner in computation if inner.arrays}
    for inner in computation:
        if inner.opcode in PRODUCTS:
            result = _as_stored(inner.arrays[0], instruction.arrays)
            yield result + sum(arrays[name].bytes for name in inner.operands[:2])
        elif inner.opcode == "fusion":
            yield from _products(module, inner)


def _as_stored(result: Array, stored: tuple[Array, ...]) -> float:
    """Bytes of the result of a product, in the dtype in which the fusion writes it."""
    return min(array.bytes for array in (result, *stored) if array.size == result.size)


def _arguments_and_results(module: Module) -> dict[str, float]:
    """Bytes of the arrays that the program takes in and gives out, by name."""
    entry: Computation = module.computations.get(module.entry, ())
    results = {name for inner in entry if inner.is_root for name in inner.operands}
    return {i.name: i.bytes for i in entry if i.opcode == "parameter" or i.name in results}


def _timed(
    module: Module, loops: Loops, name: str, times: int
) -> Iterator[tuple[Instruction, int, float]]:
    """Instructions with an estimate, how often each runs, and the bytes of its operands."""
    computation = module.computations.get(name, ())
    sizes = {instruction.name: instruction.bytes for instruction in computation}
    for instruction in computation:
        if instruction.opcode == "while":
            rounds = loops.rounds_of(instruction) or trip_count(instruction, module) or 1
            yield from _timed(module, loops, instruction.called("body") or "", times * rounds)
        elif instruction.opcode == "call":
            yield from _timed(module, loops, instruction.called("to_apply") or "", times)
        elif instruction.opcode == "conditional":
            for branch in instruction.branches():
                yield from _timed(module, loops, branch, times)
        elif instruction.number("estimated_cycles") not in (None, NO_ESTIMATE):
            read = sum(sizes.get(operand, 0) for operand in instruction.operands)
            yield instruction, times, read
