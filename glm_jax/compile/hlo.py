"""Optimized HLO text as computations and instructions.

Only what costs are counted from is read: names, shapes, opcodes, operands, and attributes as text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

ELEMENT_BITS = {
    "pred": 8,
    **{f"{kind}{bits}": bits for kind in "su" for bits in (2, 4, 8, 16, 32, 64)},
    **{"bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
}
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)", re.DOTALL)
_OPCODE = re.compile(r"([\w\-]+)\(")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclasses.dataclass(frozen=True)
class Array:
    """Element type and dimensions of one array."""

    dtype: str
    dimensions: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> float:
        """Its size without the padding of tiles; 0 for a token."""
        bits = ELEMENT_BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 0)
        return self.size * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without its %.
      shape: text of the result's shape, possibly a tuple of shapes.
      opcode: such as "fusion".
      operands: names of the operands.
      constant: value of an integer constant.
      attributes: text of everything behind the operands.
      is_root: whether it is its computation's result.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    constant: int | None
    attributes: str
    is_root: bool

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result, tuples flattened."""
        return read_arrays(self.shape)

    @property
    def bytes(self) -> float:
        """Size of the result, all arrays together."""
        return sum(array.bytes for array in self.arrays)

    def called(self, attribute: str) -> str | None:
        """The computation that `attribute` names, such as "body"."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else None

    def branches(self) -> list[str]:
        """The computations that a conditional chooses from."""
        chosen = re.findall(
            r"(?:true_computation|false_computation|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)",
            self.attributes,
        )
        return re.findall(r"[\w.\-]+", " ".join(chosen))

    def text(self, attribute: str) -> str | None:
        """The quoted value of `attribute`, here or inside the backend's configuration."""
        match = re.search(rf'"?\b{attribute}"?[=:]"([^"]*)"', self.attributes)
        return match[1] if match else None

    def number(self, attribute: str) -> int | None:
        """The integer that the backend's configuration gives for `attribute`."""
        match = re.search(rf'"{attribute}":"?(\d+)', self.attributes)
        return int(match[1]) if match else None


Computation = tuple[Instruction, ...]


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      entry: name of its entry computation.
      computations: every computation by name.
      frames: source position "file:line" by `stack_frame_id`; see `read_frames`.
    """

    entry: str
    computations: Mapping[str, Computation]
    frames: Mapping[int, str]

    def source(self, instruction: Instruction) -> str | None:
        """The line of the project that an instruction comes from, or None."""
        match = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        return self.frames.get(int(match[1])) if match else None


@functools.lru_cache(maxsize=4096)
def read_arrays(shape: str) -> tuple[Array, ...]:
    """The arrays in the text of a shape, such as "(f32[2,3]{1,0}, s32[])"."""
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(shape)
    )


def read_module(text: str, own_folder: str = "") -> Module:
    """Parses the text of a compiled module.

    Args:
      text: as the compiler writes it.
      own_folder: part of the paths of the source files that `Module.source` shall name; a position
        in another file is given by the nearest caller in there.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = None
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            if current is not None and (instruction := _read_instruction(line)):
                current.append(instruction)
        elif line.endswith("{") and not line.startswith("HloModule"):
            match = re.match(r"(ENTRY )?%?([\w.\-]+)", line)
            if match:
                current = computations.setdefault(match[2], [])
                entry = match[2] if match[1] else entry
        elif line.startswith("}"):
            current = None
    if entry is None:
        raise ValueError("the HLO text has no ENTRY computation")
    return Module(
        entry,
        {name: tuple(instructions) for name, instructions in computations.items()},
        read_frames(text, own_folder),
    )


def read_frames(text: str, own_folder: str = "") -> dict[int, str]:
    """Source positions "file:line" by stack frame, from the tables at the head of a module.

    Args:
      text: of the module.
      own_folder: a frame is named by the innermost of its callers whose file's path has this in it;
        one without such a caller is left out.
    """
    files = {int(n): name for n, name in re.findall(r'^(\d+) "(/.*)"$', text, re.MULTILINE)}
    locations = {
        int(n): (files.get(int(file), ""), line)
        for n, file, line in re.findall(
            r"^(\d+) \{file_name_id=(\d+) .*?\bline=(\d+)", text, re.MULTILINE
        )
    }
    # Ids are counted from 1, and a parent is written one higher still: 1 says that there is none.
    frames = {
        int(n): (int(location), int(parent) - 1)
        for n, location, parent in re.findall(
            r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}", text, re.MULTILINE
        )
    }
    positions = {}
    for number in frames:
        frame = number
        while frame in frames:
            path, line = locations.get(frames[frame][0], ("", "0"))
            if own_folder in path:
                start = path.rfind(own_folder) if own_folder else 0
                positions[number] = f"{path[start:]}:{line}"
                break
            frame = frames[frame][1]
    return positions


def _read_instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    root, name, rest = match.groups()
    shape = next(_pieces(rest, " "), "")
    operation = rest[len(shape) + 1 :]
    opcode = _OPCODE.match(operation)
    if opcode is None:
        return None
    arguments = _enclosed(operation, opcode.end() - 1)
    constant = re.fullmatch(r"-?\d+", arguments.strip())
    return Instruction(
        name=name,
        shape=shape,
        opcode=opcode[1],
        operands=_operands(opcode[1], arguments),
        constant=int(constant[0]) if opcode[1] == "constant" and constant else None,
        attributes=operation[opcode.end() + len(arguments) + 1 :],
        is_root=bool(root),
    )


def _operands(opcode: str, arguments: str) -> tuple[str, ...]:
    """Names of the operands, each perhaps behind its shape or a comment that counts them."""
    if opcode in ("constant", "parameter") or not arguments.strip():
        return ()
    return tuple(
        re.split(r"[\s/]", piece.strip())[-1].lstrip("%") for piece in _pieces(arguments, ",")
    )


def _pieces(text: str, separator: str) -> Iterator[str]:
    """Splits at separators outside of all brackets."""
    depth = start = 0
    for position, character in enumerate(text):
        if character in _CLOSING:
            depth += 1
        elif character in _CLOSING.values():
            depth -= 1
        elif character == separator and not depth:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _enclosed(text: str, opening: int) -> str:
    """The text between the bracket at `opening` and the one that closes it."""
    depth = 0
    for position in range(opening, len(text)):
        if text[position] in _CLOSING:
            depth += 1
        elif text[position] in _CLOSING.values():
            depth -= 1
            if not depth:
                return text[opening + 1 : position]
    return text[opening + 1 :]


def trip_count(loop: Instruction, module: Module) -> int | None:
    """How often a `while` runs its body, or None where that is unknown.

    A loop over a known number of rounds counts from 0 by 1 up to a constant in its condition, which
    TPU programs don't say otherwise.
    """
    known = re.search(r'"?known_trip_count"?[=:]\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations.get(loop.called("condition") or "", ())
    instructions = list(condition)
    for instruction in condition:
        instructions += module.computations.get(instruction.called("calls") or "", ())
    compares = [i for i in instructions if i.opcode == "compare"]
    if len(compares) != 1 or "direction=LT" not in compares[0].attributes:
        return None
    constants = {i.name: i.constant for i in instructions if i.constant is not None}
    if compares[0].operands[-1] in constants:
        return constants[compares[0].operands[-1]]
    # The comparison is in a fusion of its own, which the constant comes into from outside.
    return next(iter(constants.values())) if len(constants) == 1 else None
