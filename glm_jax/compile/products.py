"""Floating-point operations of matrix products in HLO."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from glm_jax.compile.hlo import Array, Instruction


def product_flops(instruction: Instruction, arrays: Mapping[str, Array]) -> float:
    """Operations of a `dot` or `convolution`, a multiply-add counted as two.

    Args:
      instruction: one of the two.
      arrays: every array of its computation, by name.

    Multiplications with the zeros around an input or between its elements, by which the compiler
    writes batched products as convolutions, are not counted.
    """
    if instruction.opcode == "dot":
        contracted = _numbers(instruction.attributes, r"lhs_contracting_dims=\{([\d,]*)\}")
        left = arrays[instruction.operands[0]].dimensions
        terms = math.prod(left[dimension] for dimension in contracted)
        return 2 * instruction.arrays[0].size * terms
    return _convolution_flops(instruction, arrays)


def _convolution_flops(instruction: Instruction, arrays: Mapping[str, Array]) -> float:
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0.0
    left, right, out = (list(text) for text in labels.groups())
    image, kernel = (arrays[name].dimensions for name in instruction.operands[:2])
    output = instruction.arrays[0].dimensions
    window = _window(instruction.attributes)
    flops = 2 * output[out.index("b")] * output[out.index("f")] * kernel[right.index("i")]
    for number in range(len(out) - 2):
        name = str(number)
        flops *= _valid_taps(
            image[left.index(name)],
            kernel[right.index(name)],
            output[out.index(name)],
            {key: values[number] for key, values in window.items() if number < len(values)},
        )
    return float(flops)


def _window(attributes: str) -> dict[str, list[tuple[int, ...]]]:
    """The window's settings, each a list over the spatial dimensions."""
    match = re.search(r"window=\{([^}]*)\}", attributes)
    return {
        key: [tuple(int(number) for number in re.split(r"[_]", part)) for part in value.split("x")]
        for key, value in re.findall(r"(\w+)=([\d\-_x]+)", match[1] if match else "")
    }


def _valid_taps(image: int, kernel: int, output: int, window: dict[str, tuple[int, ...]]) -> int:
    """Pairs of an output position and a kernel position that meet an element of the input."""
    stride = window.get("stride", (1,))[0]
    before = window.get("pad", (0, 0))[0]
    image_step = window.get("lhs_dilate", (1,))[0]
    kernel_step = window.get("rhs_dilate", (1,))[0]
    taps = np.arange(output)[:, None] * stride + np.arange(kernel) * kernel_step - before
    inside = (taps >= 0) & (taps <= (image - 1) * image_step) & (taps % image_step == 0)
    return int(inside.sum())


def _numbers(text: str, pattern: str) -> list[int]:
    match = re.search(pattern, text)
    return [int(number) for number in match[1].split(",") if number] if match else []
