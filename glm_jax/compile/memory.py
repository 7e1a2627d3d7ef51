"""A chip's memory at the peak of a compiled program."""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import Any

from glm_jax.compile.hlo import Instruction, Module

_ALIVE = re.compile(r"^ +([\w.\-]+)\{[\d,]*\}: (\d+) bytes \(cumulative")
_PEAK = re.compile(r"Live ranges at \d+ \(peak\):\n(.*?)\n  \S", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """Bytes of one chip's memory.

    Attributes:
      arguments: the train state and the batch.
      temporaries: intermediate arrays, at their peak.
      outputs: results that do not alias an argument.
      code: the program itself.
      host: arrays that are kept in the host's memory instead.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int
    host: int

    @property
    def peak(self) -> int:
        """What must fit into the chip's memory."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Temporary:
    """Temporary arrays of one source line that live at the peak.

    Attributes:
      source: "file:line", or the operation's name where the line is not the project's.
      bytes: all together.
      arrays: how many.
      shape: of the largest.
    """

    source: str
    bytes: int
    arrays: int
    shape: str


def read_memory_use(statistics: Any) -> MemoryUse:
    """Takes the numbers from `jax.stages.Compiled.memory_analysis()`."""
    return MemoryUse(
        arguments=statistics.argument_size_in_bytes,
        temporaries=statistics.temp_size_in_bytes,
        outputs=statistics.output_size_in_bytes - statistics.alias_size_in_bytes,
        code=statistics.generated_code_size_in_bytes,
        host=statistics.host_argument_size_in_bytes + statistics.host_temp_size_in_bytes,
    )


def largest_temporaries(live_ranges: str, module: Module, count: int) -> tuple[Temporary, ...]:
    """The source lines whose temporaries take most of the memory at the peak.

    Args:
      live_ranges: the compiler's list of what lives when.
      module: the same program.
      count: maximum number of lines to return, largest first.
    """
    match = _PEAK.search(live_ranges)
    by_name = {i.name: i for body in module.computations.values() for i in body}
    found: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for line in match[1].splitlines() if match else ():
        alive = _ALIVE.match(line)
        instruction = by_name.get(alive[1]) if alive else None
        # Parameters are the program's arguments, or what a loop was given and is counted there.
        if alive and not (instruction and instruction.opcode == "parameter"):
            found[_origin(alive[1], instruction, module)].append(
                (int(alive[2]), _shape(instruction, int(alive[2])))
            )
    temporaries = [
        Temporary(source, sum(size for size, _ in parts), len(parts), max(parts)[1])
        for source, parts in found.items()
    ]
    return tuple(sorted(temporaries, key=lambda temporary: -temporary.bytes)[:count])


def _origin(name: str, instruction: Instruction | None, module: Module) -> str:
    if instruction is None:
        return name
    operation = instruction.text("op_name")
    return module.source(instruction) or (operation.rpartition("/")[2] if operation else name)


def _shape(instruction: Instruction | None, size: int) -> str:
    """The array of an instruction's result that has this size, as near as tiles allow."""
    arrays = instruction.arrays if instruction else ()
    if not arrays:
        return ""
    array = min(arrays, key=lambda array: abs(array.bytes - size))
    return f"{array.dtype}[{','.join(str(size) for size in array.dimensions)}]"
