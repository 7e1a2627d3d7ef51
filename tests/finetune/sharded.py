"""Prints the losses of two steps and the scores after them, on one device and on eight, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.finetune.batches import TrainingBatches, training_batches
from glm_jax.finetune.encoded import encode_examples
from glm_jax.finetune.heads import ClassificationHead
from glm_jax.finetune.lora import linear_kind
from glm_jax.finetune.lora_config import LoraConfig
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.predict import score_all
from glm_jax.finetune.program import make_finetune_program
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.finetune.trainable import TrainedParameters, join, train_all
from glm_jax.finetune.weights import divide_weights
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import initial_params
from glm_jax.parallel.batches import to_devices
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.tasks import Example, find_task
from glm_jax.tasks.custom import custom_task
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.step import settings_on_devices
from tests.serve.tiny_checkpoint import MODEL, byte_tokenizer

BATCH_SIZE = 8


def found_on(mesh, scorer, extras, encoded, is_trained) -> dict:
    """Losses, gradient norms and scores on one mesh."""
    optimizer = OptimizerConfig(learning_rate=1e-3, decay_steps=10)
    program = make_finetune_program(scorer, extras, optimizer, mesh, is_trained=is_trained)
    loaded = initial_params(GLM(scorer.model.config), jax.random.key(2))
    separate = scorer.model.num_separate_layers
    with jax.set_mesh(mesh):
        _, frozen = divide_weights(
            nn.unbox(loaded), program, is_trained, num_separate_layers=separate
        )
        state, settings = program.initialize(1), settings_on_devices(program.settings_of(1), mesh)
        made = map(share_contexts, training_batches(TrainingBatches(encoded, BATCH_SIZE, 0)))
        batches = to_devices(made, mesh, BATCH_SIZE)
        steps = []
        for _, batch in zip(range(2), batches, strict=False):
            state, metrics = program.step(state, batch, settings, frozen)
            steps.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
        scores = score_all(encoded, program.score, join(state.params, frozen), mesh, BATCH_SIZE)
    return {"steps": steps, "scores": scores.tolist()}


def print_both(scorer, extras, encoded, is_trained=train_all) -> None:
    """What is found on one device and on eight."""
    one = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    eight = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    print(
        json.dumps([found_on(mesh, scorer, extras, encoded, is_trained) for mesh in (one, eight)])
    )


def main_generative() -> None:
    """Rows that are trained on as language models are."""
    examples = []
    for n in range(12):
        meta = {"span1_text": "abcd"[: n % 4 + 1], "span2_text": "it", "span2_index": 1}
        examples.append(Example(f"train-{n}", "see it", None, "True", n, meta=meta))
    encoded = encode_examples(
        find_task("wsc"),
        examples,
        byte_tokenizer(),
        sequence_length=64,
        options={"negatives": False},
    )
    fields: Any = MODEL
    print_both(Scorer(GLM(GLMConfig(**fields)), answer_length=6), {}, encoded)


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
    is_trained = train_all
    if way == "adapters":
        lora = LoraConfig(rank=2, alpha=4, dropout=0.2)
        adapted = GLM(GLMConfig(**fields), linear=linear_kind(lora))
        scorer = Scorer(adapted, answer_length=4)
        is_trained = TrainedParameters(freeze_network=True)
    if way == "layers":
        separated = GLM(GLMConfig(**fields), num_separate_layers=1)
        scorer = Scorer(separated, answer_length=4)
        is_trained = TrainedParameters(freeze_network=True, train_layers=True)
    print_both(scorer, extras, encoded, is_trained)


if __name__ == "__main__":
    np.set_printoptions(precision=8)
    if sys.argv[1] == "generative":
        main_generative()
    else:
        main(sys.argv[1])
