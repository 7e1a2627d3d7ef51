"""Filling blanks in text, and scoring answers for them, with a trained model.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "Decoder": "decoder",
        "make_decoder": "decoder",
        "ActiveFill": "engine",
        "Engine": "engine",
        "TokenEvent": "engine",
        "FilledText": "fill",
        "Filler": "fill",
        "AnswerScore": "score",
        "score_answers": "score",
        "Sampling": "settings",
    },
)
