"""Operations of matrix products, against XLA's own count of the same text."""

from __future__ import annotations

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings

from glm_jax.compile.costs import count_costs
from glm_jax.compile.hlo import read_module


def both_counts(function, *shapes: tuple[int, ...]) -> tuple[float, float]:
    """Our count and XLA's, before anything is optimized."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    lowered = jax.jit(function).lower(*arguments)
    ours = count_costs(read_module(lowered.as_text(dialect="hlo")), [0]).flops
    return ours, (lowered.cost_analysis() or {}).get("flops", 0.0)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("md,df->mf", [(3, 5), (5, 7)]),
        ("blhk,bmhk->bhlm", [(2, 4, 3, 8), (2, 6, 3, 8)]),
        ("bhlm,bmhk->blhk", [(2, 3, 4, 6), (2, 6, 3, 8)]),
    ],
)
def test_dots(equation, shapes):
    ours, xla = both_counts(lambda *arrays: jnp.einsum(equation, *arrays), *shapes)
    assert ours == xla > 0


@settings(max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    image=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    image_step=st.integers(1, 2),
    kernel_step=st.integers(1, 2),
)
def test_convolutions_do_not_count_padding_and_gaps(
    sizes, image, kernel, stride, padding, image_step, kernel_step
):
    batch, features, outputs = sizes

    def convolve(x, weights):
        return jax.lax.conv_general_dilated(
            x,
            weights,
            window_strides=stride,
            padding=[(padding[0], padding[1]), (padding[1], padding[0] + 4)],
            lhs_dilation=(image_step, 1),
            rhs_dilation=(1, kernel_step),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    ours, xla = both_counts(convolve, (batch, *image, features), (*kernel, features, outputs))
    assert ours == xla
