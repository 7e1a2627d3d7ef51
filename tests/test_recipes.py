"""The gin files of the published models give the values of the original's recipes."""

from pathlib import Path

import pytest

from glm_jax.configure import read_configuration
from glm_jax.train.config import RunConfig

RUNS = Path(__file__).resolve().parents[1] / "configs" / "runs"

# Peak learning rate, decay, beta2, epsilon, weight decay, warmup, decay steps, train steps, floor.
OPTIMIZERS = {
    "glm_base": (4e-4, "cosine", 0.98, 1e-6, 0.1, 0.05, 120_000, 150_000, 0.05),
    "glm_large": (2e-4, "cosine", 0.98, 1e-6, 0.1, 0.05, 160_000, 200_000, 0.05),
    "glm_large_chinese": (4e-4, "cosine", 0.98, 1e-6, 0.01, 0.04, 200_000, 250_000, 0.1),
    "glm_roberta": (4e-4, "linear", 0.98, 1e-6, 0.01, 0.06, 500_000, 500_000, 0.025),
    "glm_10b": (1e-4, "cosine", 0.95, 1e-8, 0.1, 0.04, 175_000, 250_000, 0.1),
    "glm_10b_longer": (3e-5, "linear", 0.95, 1e-8, 0.1, 0.005, 50_000, 250_000, 0.1),
    "glm_10b_chinese": (1e-4, "cosine", 0.95, 1e-8, 0.1, 0.04, 120_000, 150_000, 0.1),
}

# Sequence length and batch size; None where the recipe names none.
BATCHES = {
    "glm_base": (512, 1024),
    "glm_large": (512, 1024),
    "glm_large_chinese": (512, None),
    "glm_roberta": (512, 16 * 8 * 64),  # on 64 devices
    "glm_10b": (512, 21 * 64),
    "glm_10b_longer": (1024, 8 * 64),
    "glm_10b_chinese": (512, None),
    "glm_doc": (512, None),
    "glm_410m": (512, None),
    "glm_515m": (512, None),
    "glm_2b": (512, None),
}

# Layers, hidden size, heads, position table, rows of the word embedding.
MODELS = {
    "glm_base": (12, 768, 12, 512, 30_592),
    "glm_large": (24, 1024, 16, 512, 30_592),
    "glm_large_chinese": (24, 1024, 16, 1024, 50_048),
    "glm_roberta": (24, 1024, 16, 512, 50_304),
    "glm_doc": (24, 1024, 16, 512, 30_592),
    "glm_410m": (30, 1024, 16, 512, 30_592),
    "glm_515m": (30, 1152, 18, 512, 30_592),
    "glm_2b": (36, 2048, 32, 1024, 50_304),
    "glm_10b": (48, 4096, 64, 1024, 50_304),
    "glm_10b_longer": (48, 4096, 64, 1024, 50_304),
    "glm_10b_chinese": (48, 4096, 64, 1024, 50_048),
}

# Shares of token, sentence and document examples; whether each has a mask token of its own.
MIXTURES = {
    "glm_base": ((1.0, 0.0, 0.0), False),
    "glm_large": ((1.0, 0.0, 0.0), False),
    "glm_roberta": ((1.0, 0.0, 0.0), False),
    "glm_doc": ((0.5, 0.0, 0.5), False),
    "glm_410m": ((0.5, 0.0, 0.5), False),
    "glm_515m": ((0.5, 0.0, 0.5), False),
    "glm_large_chinese": ((0.4, 0.3, 0.3), True),
    "glm_2b": ((0.5, 0.3, 0.2), True),
    "glm_10b": ((0.5, 0.3, 0.2), True),
    "glm_10b_longer": ((0.4, 0.3, 0.3), True),
    "glm_10b_chinese": ((0.5, 0.3, 0.2), True),
}

# Probabilities of a masked block token, a shorter text and a single span, where a recipe has any.
SMALLER_SETTINGS = {
    "glm_10b": (0.1, 0.02, 0.0),
    "glm_10b_chinese": (0.1, 0.02, 0.0),
    "glm_2b": (0.1, 0.02, 0.0),
    "glm_10b_longer": (0.0, 0.5, 0.05),
}


def read(name: str) -> RunConfig:
    return read_configuration([RUNS / f"{name}.gin"])


def test_every_published_model_has_a_run():
    assert {path.stem for path in RUNS.glob("glm_*.gin")} == set(MODELS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    config = read(name)
    optimizer = config.optimizer
    assert (
        optimizer.learning_rate,
        optimizer.decay,
        optimizer.beta2,
        optimizer.epsilon,
        optimizer.weight_decay,
        optimizer.warmup_fraction,
        optimizer.decay_steps,
        config.train.num_steps,
        optimizer.final_fraction,
    ) == OPTIMIZERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_what_all_recipes_share(name):
    config = read(name)
    assert (config.optimizer.beta1, config.optimizer.clip_norm) == (0.9, 1.0)
    model = config.model
    dropouts = (model.embedding_dropout, model.hidden_dropout, model.attention_dropout)
    assert dropouts == (0.1, 0.1, 0.1)
    assert (config.blanks.mask_ratio, config.blanks.mean_span_length) == (0.15, 3.0)
    assert config.blanks.minimum_document_ratio == 0.25


@pytest.mark.parametrize("name", BATCHES)
def test_batches(name):
    data = read(name).data
    sequence_length, batch_size = BATCHES[name]
    assert data.sequence_length == sequence_length
    assert batch_size is None or data.batch_size == batch_size


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model = read(name).model
    assert (
        model.num_layers,
        model.hidden_size,
        model.num_attention_heads,
        model.max_sequence_length,
        model.vocab_size,
    ) == MODELS[name]


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures(name):
    blanks = read(name).blanks
    assert (tuple(blanks.proportions.values()), blanks.task_masks) == MIXTURES[name]
    assert (
        blanks.block_mask_probability,
        blanks.short_sequence_probability,
        blanks.single_span_probability,
    ) == SMALLER_SETTINGS.get(name, (0.0, 0.0, 0.0))


def test_roberta_accumulates_as_the_original():
    assert read("glm_roberta").train.accumulation_steps == 8
