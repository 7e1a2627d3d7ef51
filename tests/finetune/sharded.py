"""Prints the losses of two steps and the scores after them, on one device and on eight, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.finetune.batches import training_batches
from glm_jax.finetune.encoded import encode_examples
from glm_jax.finetune.heads import ClassificationHead
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.predict import score_all
from glm_jax.finetune.program import make_finetune_program
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.batches import to_devices
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.tasks import Example
from glm_jax.tasks.custom import custom_task
from glm_jax.train.optimizer import OptimizerConfig
from tests.serve.tiny_checkpoint import MODEL, byte_tokenizer

BATCH_SIZE = 8


def found_on(mesh, scorer, extras, encoded) -> dict:
    """Losses, gradient norms and scores on one mesh."""
    optimizer = OptimizerConfig(learning_rate=1e-3, decay_steps=10)
    program = make_finetune_program(scorer, extras, optimizer, mesh, seed=1)
    with jax.set_mesh(mesh):
        state = program.initialize()
        made = map(share_contexts, training_batches(encoded, BATCH_SIZE, 0))
        batches = to_devices(made, mesh, BATCH_SIZE)
        steps = []
        for _, batch in zip(range(2), batches, strict=False):
            state, metrics = program.train_step(state, batch)
            steps.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
        scores = score_all(encoded, program.scores, state.params, mesh, BATCH_SIZE)
    return {"steps": steps, "scores": scores.tolist()}


def main(way: str) -> None:
    task = custom_task(["{text} is [MASK]."], {"bad": "n", "good": "yes"})
    examples = [
        Example(f"train-{n}", "abcdefgh"[: n % 8 + 1], None, ["bad", "good"][n % 2], n)
        for n in range(12)
    ]
    examples = [
        Example(e.guid, e.text_a, None, e.label, e.idx, meta={"text": e.text_a}) for e in examples
    ]
    options = {"cloze": way != "head", "multi_token": True}
    options |= {"prefix_prompt": 2} if way == "prompts" else {}
    encoded = encode_examples(task, examples, byte_tokenizer(), sequence_length=32, options=options)
    fields: Any = MODEL
    model = GLM(GLMConfig(**fields))
    extras, scorer = {}, Scorer(model, answer_length=4)
    if way == "head":
        head = ClassificationHead(2, MODEL["hidden_size"])
        inputs = jnp.zeros((1, MODEL["hidden_size"]))
        extras = {"classification_head": lambda key: head.init(key, inputs)["params"]}
        scorer = Scorer(model, head=head)
    if way == "prompts":
        prompts = PromptEncoder(2, MODEL["hidden_size"], "lstm")
        extras = {"prompt_encoder": lambda key: prompts.init(key)["params"]}
        scorer = Scorer(model, answer_length=4, prompts=prompts)
    one = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    eight = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    print(json.dumps([found_on(mesh, scorer, extras, encoded) for mesh in (one, eight)]))


if __name__ == "__main__":
    np.set_printoptions(precision=8)
    main(sys.argv[1])
