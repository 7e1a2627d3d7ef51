"""Which collectives a compiled program runs, and what each moves over which network."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from glm_jax.compile.hlo import Instruction

KINDS = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)
# What the compiler says of its way of moving data: around how many dimensions of the torus, or over
# how many sets of rings ("colors"), which go both ways unless they are called one-way.
_DIMENSIONS = re.compile(r'"emitter":"(\d)D')
_COLORS = re.compile(r"colors:([1-9]\d*)")
_ONE_WAY = "UniDirection"
# It names no algorithm where it spreads a collective over fusions, whose steps go around a ring.
_SPREAD = "async_collective_fusion_config"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of one chip.

    Attributes:
      kind: one of `KINDS`.
      bytes: size of the full array, before it is scattered or after it is gathered.
      group_size: chips that take part together.
      ici_bytes: what a chip takes in over the links of its slice.
      dcn_bytes: what a chip takes in from other slices.
      ici_links: how many of its links the operation keeps busy, None if the compiler doesn't say.
      is_async: whether the chip may compute meanwhile.
    """

    kind: str
    bytes: float
    group_size: int
    ici_bytes: float
    dcn_bytes: float
    ici_links: int | None
    is_async: bool


def collective_kind(instruction: Instruction) -> str | None:
    """The kind of a collective, also of one that only starts here; None for anything else."""
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def read_collective(
    instruction: Instruction, kind: str, slice_of: Sequence[int], *, is_async: bool
) -> Collective:
    """The transfers of a collective.

    Args:
      instruction: with the groups that take part.
      kind: the effective kind; an all-reduce whose result is sliced is a reduce-scatter.
      slice_of: the slice of every device of the mesh, in its order.
      is_async: as in `Collective`.
    """
    full_bytes = _full_bytes(instruction, kind)
    groups = read_groups(instruction.attributes, len(slice_of))
    group = groups[0] if groups else list(range(len(slice_of)))
    num_slices = len({slice_of[device] for device in group})
    ici, dcn = wire_bytes(kind, full_bytes, len(group), num_slices)
    return Collective(
        kind, full_bytes, len(group), ici, dcn, links_in_use(instruction.attributes), is_async
    )


def read_slice_transfer(instruction: Instruction, num_slices: int) -> Collective | None:
    """What goes between slices, which a program hands over to its host in a pair of send and recv.

    Args:
      instruction: any; a sum is recognized by its `send`, everything else by its `recv`.
      num_slices: how many take part.

    Returns:
      A collective among the chips at the same index of their slices; None for other instructions.
    """
    kind = instruction.text("_xla_megascale_transfer_type")
    if kind is None or instruction.opcode != ("send" if kind == "ALL_REDUCE" else "recv"):
        return None
    kind = kind.lower().replace("_", "-")
    full_bytes = instruction.arrays[0].bytes
    rounds = {"all-reduce": 2, "all-gather": 1}.get(kind)
    wire = full_bytes if rounds is None else rounds * full_bytes * (num_slices - 1) / num_slices
    return Collective(kind, full_bytes, num_slices, 0.0, wire, None, is_async=True)


def wire_bytes(
    kind: str, full_bytes: float, group_size: int, num_slices: int = 1
) -> tuple[float, float]:
    """Bytes that each chip takes in over ICI and over DCN.

    Args:
      kind: one of `KINDS`.
      full_bytes: size of the full array.
      group_size: chips that take part.
      num_slices: slices that they are spread over evenly. Each does its own part over ICI; what is
        left is exchanged with the chips at the same index of the other slices.

    Source: the ring algorithms, where every chip passes on all parts but its own.
    """
    rounds = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}.get(kind)
    if rounds is None:
        return (full_bytes, 0.0) if num_slices == 1 else (0.0, full_bytes)
    in_slice = group_size // num_slices
    ici = rounds * full_bytes * (in_slice - 1) / in_slice
    dcn = rounds * (full_bytes / in_slice) * (num_slices - 1) / num_slices
    return ici, dcn


def read_groups(attributes: str, num_devices: int) -> list[list[int]]:
    """The groups of devices of a collective, each a list of device indices in the mesh.

    The compiler writes them out ({{0,1},{2,3}}), as a reshaped and transposed count
    ([2,2]<=[2,2]T(1,0)), or as axes of a mesh (mesh['a'=2,'b'=2] {'b'}).
    """
    listed = re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", attributes)
    if listed:
        return [
            [int(device) for device in group.split(",")]
            for group in re.findall(r"\{([\d, ]+)\}", listed[1])
        ]
    counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if counted:
        shape, sizes = _integers(counted[1]), _integers(counted[2])
        devices = np.arange(math.prod(sizes)).reshape(sizes)
        if counted[3]:
            devices = devices.transpose(_integers(counted[3]))
        return devices.reshape(shape).tolist()
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if axes:
        return _mesh_groups(axes[1], axes[2])
    pairs = re.search(r"source_target_pairs=\{(.*?\})\}", attributes)
    if pairs:
        return [[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
    return [list(range(num_devices))]


def _mesh_groups(declared: str, chosen: str) -> list[list[int]]:
    """Groups along some axes of a mesh, where an axis may be split: 'a':(2)4 is 4 of it after 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", declared)}
    picked = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
    shape: list[int] = []
    kept: list[tuple[str, int]] = []  # (axis, sizes in front) of every dimension of the shape
    for name, size in sizes.items():
        bounds = {1, size}
        for axis, before, part in picked:
            if axis == name and part:
                bounds |= {int(before), int(before) * int(part)}
        steps = sorted(bounds)
        for low, high in itertools.pairwise(steps):
            shape.append(high // low)
            kept.append((name, low))
    inside = [
        number
        for axis, before, part in picked
        for number, (name, low) in enumerate(kept)
        if name == axis and (not part or int(before) <= low < int(before) * int(part))
    ]
    outside = [number for number in range(len(shape)) if number not in inside]
    devices = np.arange(math.prod(sizes.values()))
    devices = devices.reshape(shape or [1]).transpose(outside + inside if shape else [0])
    return devices.reshape(-1, math.prod(shape[number] for number in inside)).tolist()


def _full_bytes(instruction: Instruction, kind: str) -> float:
    sizes = [array.bytes for array in instruction.arrays]
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        # A start's result holds its operands too, and the full array is the largest.
        return max(sizes)
    if instruction.opcode == "reduce-scatter":
        return sum(sizes) * len(read_groups(instruction.attributes, 1)[0])
    return sum(sizes)


def links_in_use(attributes: str) -> int | None:
    """How many of a chip's links a collective keeps busy, None if the compiler doesn't say.

    Args:
      attributes: of the collective, or of the fusion that it is in.
    """
    colors = _COLORS.search(attributes)
    dimensions = _DIMENSIONS.search(attributes)
    if colors:
        return int(colors[1]) * (1 if _ONE_WAY in attributes else 2)
    if dimensions is None and _SPREAD in attributes:
        return 2
    return 2 * int(dimensions[1]) if dimensions else None


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
