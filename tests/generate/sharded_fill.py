"""Run by test_sharded.py in a process with eight virtual CPU devices; prints JSON."""

from __future__ import annotations

import json

import flax.linen as nn
import jax
import numpy as np

from glm_jax.generate.beam_engine import beam_search
from glm_jax.generate.decoder import make_decoder
from glm_jax.generate.engine import ActiveFill, Engine, fill_all
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.score import score_answers
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.layout import parameter_shardings
from glm_jax.parallel.mesh import MeshConfig, make_mesh

MODEL = GLM(
    GLMConfig(
        vocab_size=128, num_layers=2, hidden_size=32, num_attention_heads=4, max_sequence_length=80
    )
)
SPECIAL = {"sop": 1, "eop": 2, "eos": 3}
ROWS = 8


def everything(params) -> dict:
    """Texts filled greedily and by beams, and scores of answers."""
    decoder = make_decoder(MODEL, params, SPECIAL)
    draw = np.random.default_rng(0)
    prompts = [
        Prompt(draw.integers(4, 128, length).tolist(), [1, length - 1]) for length in range(5, 14)
    ]
    fills = [ActiveFill(prompt, Sampling(max_blank_length=6)) for prompt in prompts]
    fill_all(decoder, fills, ROWS)
    found = beam_search(decoder, prompts[:4], Sampling(max_blank_length=4, beams=4), num_texts=2)
    scores = score_answers(decoder, prompts[:3], [[[[5, 6], [7]]] * 3] * 3, num_rows=ROWS)
    engine = Engine(decoder, num_rows=ROWS, num_slots=100)
    return {
        "greedy": [[blank.ids for blank in filling.blanks] for filling in fills],
        "beams": [[[h.blank.ids for h in blank] for blank in text] for text in found],
        "scores": [score.log_prob for of_text in scores for score in of_text],
        "cache_part": engine._cache[0].key.addressable_shards[0].data.shape,
    }


def main() -> None:
    inputs = np.zeros((1, 8), int), np.zeros((1, 2, 8), int), np.ones(1, int)
    boxed = MODEL.init(jax.random.key(0), *inputs)["params"]
    # Larger than initial values, so that the tokens depend on everything that is seen.
    alone = jax.tree.map(lambda array: 8.0 * array, jax.device_get(nn.unbox(boxed)))
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(alone, parameter_shardings(boxed, mesh))
    print(json.dumps({"alone": everything(alone), "spread": everything(spread)}))


if __name__ == "__main__":
    main()
