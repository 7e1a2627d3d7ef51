"""What may be asked for, and what excludes each other."""

from __future__ import annotations

import pytest

from glm_jax.errors import UsageError
from glm_jax.generate.settings import Sampling


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_blank_length": 0}, "max_blank_length is 0"),
        ({"samples": True}, "samples is True"),
        ({"min_blank_length": -1}, "min_blank_length is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"length_penalty": "1"}, "length_penalty is '1'"),
        ({"early_stopping": 1}, "early_stopping is 1"),
        ({"repeat_scope": "word"}, "repeat_scope is 'word'.*blank, text"),
        ({"min_blank_length": 9, "max_blank_length": 8}, "min_blank_length is 9.*only 8"),
        ({"beams": 4, "top_k": 5}, "beams is 4.*leave top_k = 5 out"),
        ({"beams": 4, "temperature": 0.5}, "beams is 4.*leave temperature = 0.5 out"),
        ({"temperature": 0.0, "samples": 2}, "temperature is 0.*leave samples = 2 out"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(settings, said):
    with pytest.raises(UsageError, match=said):
        Sampling(**settings)


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [
        ({}, 0.0),
        ({"beams": 4}, 0.0),
        ({"top_k": 5}, 1.0),
        ({"top_p": 0.9}, 1.0),
        ({"samples": 2}, 1.0),
        ({"samples": 2, "temperature": 0.5}, 0.5),
    ],
)
def test_drawing_begins_where_a_setting_asks_for_it(settings, temperature):
    assert Sampling(**settings).used_temperature == temperature
