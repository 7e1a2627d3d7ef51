"""The tests run with the package's annotations checked, shapes included."""

import jax.numpy as jnp
import jaxtyping
import pytest

from glm_jax.model.attention.mask import prefix_mask
from glm_jax.train.loss import mask_normalizer, token_losses


def test_arrays_of_the_annotated_shapes_are_taken():
    losses = token_losses(jnp.zeros((2, 3, 5)), jnp.zeros((2, 3), jnp.int32))
    assert losses.shape == (2, 3)


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param(jnp.zeros((2, 1), jnp.int32), id="a wrong shape"),
        pytest.param(jnp.zeros((2, 3)), id="a wrong dtype"),
        pytest.param([[0, 0, 0], [0, 0, 0]], id="no array"),
    ],
)
def test_arguments_against_the_annotations_are_refused(targets):
    with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
        token_losses(jnp.zeros((2, 3, 5)), targets)


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: prefix_mask(jnp.zeros((2, 2)), 4), id="model"),
        pytest.param(lambda: mask_normalizer(jnp.zeros((2, 2, 2))), id="train"),
    ],
)
def test_every_folder_with_shapes_is_checked(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
