"""What one step of a compiled program costs, every loop counted as often as it runs."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from glm_jax.compile.collectives import (
    Collective,
    collective_kind,
    links_in_use,
    read_collective,
    read_slice_transfer,
)
from glm_jax.compile.hlo import Array, Computation, Instruction, Module, trip_count
from glm_jax.compile.products import product_flops

PRODUCT_FUSION = "product fusion"
PRODUCTS = ("dot", "convolution")
KERNEL_TARGET = "tpu_custom_call"
# The compiler writes the largest number where it has no estimate.
NO_ESTIMATE = 2**63 - 1
# `flag_end` of a collective that is spread over fusions, in the first of them.
STARTS = "-1"
# What takes time though the compiler may give it no estimate; the rest is free, or moves in the
# background.
TIMED = ("fusion", "reshape", "copy", "sort", "gather", "scatter")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One Pallas kernel, as its author described it to the compiler.

    Attributes:
      name: of the kernel.
      calls: how often a step runs it, on average.
      flops, bytes: of one call.
    """

    name: str
    calls: float
    flops: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Loops:
    """What a program does not say about its loops.

    Attributes:
      rounds: how often loops run that have no constant number of rounds, by the end of their names
        (`op_name`).
      steps: that the program makes in one run; costs are those of one, with its share of what is
        outside the loop over the steps.
    """

    rounds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    steps: int = 1

    def rounds_of(self, loop: Instruction) -> int | None:
        """How often a loop runs, where that is known."""
        name = loop.text("op_name") or ""
        return next((n for end, n in self.rounds.items() if name.endswith(end)), None)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Totals of one chip and step.

    Attributes:
      flops: of all matrix products outside kernels.
      cycles: the compiler's estimates by kind of instruction; collectives and kernels have none.
      unestimated: bytes moved by instructions that take time without an estimate, such as scatters
        and what runs on SparseCore, by name.
      collectives: every collective and how often it runs, on average.
      kernels: every Pallas kernel.
      unknown_loops: loops whose number of iterations is unknown; counted once.
    """

    flops: float
    cycles: dict[str, int]
    unestimated: dict[str, float]
    collectives: tuple[tuple[Collective, float], ...]
    kernels: tuple[Kernel, ...]
    unknown_loops: tuple[str, ...]


def count_costs(module: Module, slice_of: Sequence[int], loops: Loops | None = None) -> Costs:
    """Counts the operations and transfers of a step of a program.

    Args:
      module: optimized for the TPU, with the compiler's estimates.
      slice_of: the slice of every device of the mesh, in its order.
      loops: what the program does not say about them.
    """
    loops = loops or Loops()
    counter = _Counter(module, slice_of, loops)
    counter.count(module.entry, 1)
    return Costs(
        flops=counter.flops / loops.steps,
        cycles={kind: count // loops.steps for kind, count in counter.cycles.items()},
        unestimated={name: size / loops.steps for name, size in counter.unestimated.items()},
        collectives=tuple((one, times / loops.steps) for one, times in counter.collectives),
        kernels=tuple(
            dataclasses.replace(one, calls=one.calls / loops.steps) for one in counter.kernels
        ),
        unknown_loops=tuple(counter.unknown_loops),
    )


class _Counter:
    """Walks the computations from the entry and adds up."""

    def __init__(self, module: Module, slice_of: Sequence[int], loops: Loops):
        self._module = module
        self._loops = loops
        self._slice_of = slice_of
        self._num_slices = len(set(slice_of))
        self.flops = 0.0
        self.cycles: collections.Counter[str] = collections.Counter()
        self.unestimated: dict[str, float] = {}
        self.collectives: list[tuple[Collective, int]] = []
        self.kernels: list[Kernel] = []
        self.unknown_loops: list[str] = []

    def count(self, name: str, times: int, *, in_background: bool = False) -> None:
        """Adds a computation that runs `times` times, and all that it calls."""
        computation = self._module.computations.get(name, ())
        arrays = _arrays_by_name(computation)
        for instruction in computation:
            self._add_cycles(instruction, times, computation)
            if kind := collective_kind(instruction):
                is_async = in_background or instruction.opcode.endswith("-start")
                self._add_collective(instruction, kind, times, is_async=is_async)
            elif instruction.opcode in PRODUCTS:
                self.flops += times * product_flops(instruction, arrays)
            elif instruction.opcode == "while":
                self._add_loop(instruction, times)
            elif instruction.opcode in ("fusion", "async-start"):
                self._add_fused(instruction, times)
            elif instruction.opcode == "call":
                self.count(instruction.called("to_apply") or "", times)
            elif instruction.opcode == "conditional":
                self._add_slowest_branch(instruction, times)
            elif instruction.text("custom_call_target") == KERNEL_TARGET:
                self._add_kernel(instruction, times)
            elif transfer := read_slice_transfer(instruction, self._num_slices):
                self.collectives.append((transfer, times))

    def _add_loop(self, instruction: Instruction, times: int) -> None:
        rounds = self._loops.rounds_of(instruction) or trip_count(instruction, self._module)
        if rounds is None:
            self.unknown_loops.append(instruction.name)
        self.count(instruction.called("body") or "", times * (1 if rounds is None else rounds))

    def _add_slowest_branch(self, instruction: Instruction, times: int) -> None:
        """Adds the branch of a conditional with most cycles: which one is taken is not known."""
        counters = []
        for branch in instruction.branches():
            counter = _Counter(self._module, self._slice_of, self._loops)
            counter.count(branch, times)
            counters.append(counter)
        slowest = max(counters, key=lambda counter: sum(counter.cycles.values()))
        self.flops += slowest.flops
        self.cycles += slowest.cycles
        self.unestimated |= slowest.unestimated
        self.collectives += slowest.collectives
        self.kernels += slowest.kernels
        self.unknown_loops += slowest.unknown_loops

    def _add_fused(self, instruction: Instruction, times: int) -> None:
        """Adds products and collectives inside a fusion, or inside an asynchronous call.

        A collective that is spread over several fusions, to overlap with their computation, occurs
        in each of them and is counted in the one that starts it.
        """
        name = instruction.called("calls") or ""
        if instruction.opcode == "async-start":
            if instruction.text("async_execution_thread") == "sparsecore":
                self.unestimated[instruction.name] = 0.0
            return self.count(name, times, in_background=True)
        computation = self._module.computations.get(name, ())
        arrays = _arrays_by_name(computation)
        for inner in computation:
            kind = collective_kind(inner)
            spread = inner.text("flag_end")
            if inner.opcode in PRODUCTS:
                self.flops += times * product_flops(inner, arrays)
            elif inner.opcode == "fusion":
                self._add_fused(inner, times)
            elif kind and spread in (None, STARTS):
                # A fusion with a smaller result keeps only the chip's part of the sum.
                if kind == "all-reduce" and spread is None and instruction.bytes < inner.bytes:
                    kind = "reduce-scatter"
                self._add_collective(
                    inner, kind, times, is_async=spread is not None, of=instruction
                )
        return None

    def _add_collective(
        self,
        instruction: Instruction,
        kind: str,
        times: int,
        *,
        is_async: bool,
        of: Instruction | None = None,
    ) -> None:
        """Adds a collective; `of` is the fusion that it is in, which may name its algorithm."""
        collective = read_collective(instruction, kind, self._slice_of, is_async=is_async)
        if collective.ici_links is None and of is not None:
            collective = dataclasses.replace(collective, ici_links=links_in_use(of.attributes))
        self.collectives.append((collective, times))

    def _add_kernel(self, instruction: Instruction, times: int) -> None:
        self.kernels.append(
            Kernel(
                re.sub(r"\.\d+$", "", instruction.name),
                times,
                float(instruction.number("flops") or 0),
                float(instruction.number("bytes_accessed") or 0),
            )
        )

    def _add_cycles(self, instruction: Instruction, times: int, computation: Computation) -> None:
        cycles = instruction.number("estimated_cycles")
        fused: Computation = ()
        if instruction.opcode == "fusion":
            fused = self._module.computations.get(instruction.called("calls") or "", ())
        if cycles is None or cycles == NO_ESTIMATE:
            moves = any(collective_kind(inner) for inner in fused)
            if instruction.opcode in TIMED and not moves:
                self.unestimated[instruction.name] = times * _moved(instruction, computation, fused)
            return
        kind = instruction.opcode
        if fused:
            has_product = any(inner.opcode in PRODUCTS for inner in fused)
            kind = PRODUCT_FUSION if has_product else "other fusion"
        self.cycles[kind] += times * cycles


def _moved(instruction: Instruction, computation: Computation, fused: Computation) -> float:
    """Bytes of the result; of a scatter, which writes into its operand, those of the updates."""
    around = fused or computation
    last = next((one for one in fused if one.is_root), instruction)
    if last.opcode != "scatter":
        return instruction.bytes
    return _arrays_by_name(around)[last.operands[-1]].bytes


def _arrays_by_name(computation: Sequence[Instruction]) -> dict[str, Array]:
    return {i.name: i.arrays[0] for i in computation if i.arrays}
