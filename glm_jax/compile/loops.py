"""How often the loops of a compiled program run."""

from __future__ import annotations

import re

from glm_jax.compile.hlo import Instruction, Module


def trip_count(loop: Instruction, module: Module) -> int | None:
    """How often a `while` runs its body, or None where that can't be told.

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
    # The comparison stands in a fusion of its own, which the constant comes into from outside.
    return next(iter(constants.values())) if len(constants) == 1 else None
