"""The package's public names."""

import glm_jax
from glm_jax.convert.load import load


def test_public_names_stay_what_they_are_after_their_modules_are_imported():
    assert glm_jax.load is load and glm_jax.load is load
    for name in glm_jax.__all__:
        assert callable(getattr(glm_jax, name)), name
