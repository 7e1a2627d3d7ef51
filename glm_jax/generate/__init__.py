"""Filling blanks in text, and scoring answers for them, with a trained model.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.generate.decoder import Decoder, make_decoder
    from glm_jax.generate.engine import ActiveFill, Engine, TokenEvent
    from glm_jax.generate.fill import FilledText, Filler
    from glm_jax.generate.score import AnswerScore, score_answers
    from glm_jax.generate.settings import Sampling

__all__ = [
    "ActiveFill",
    "AnswerScore",
    "Decoder",
    "Engine",
    "FilledText",
    "Filler",
    "Sampling",
    "TokenEvent",
    "make_decoder",
    "score_answers",
]

_PUBLIC = {
    "Decoder": "glm_jax.generate.decoder",
    "make_decoder": "glm_jax.generate.decoder",
    "ActiveFill": "glm_jax.generate.engine",
    "Engine": "glm_jax.generate.engine",
    "TokenEvent": "glm_jax.generate.engine",
    "FilledText": "glm_jax.generate.fill",
    "Filler": "glm_jax.generate.fill",
    "AnswerScore": "glm_jax.generate.score",
    "score_answers": "glm_jax.generate.score",
    "Sampling": "glm_jax.generate.settings",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.generate' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
