"""Tuning ChatGLM on answers: prefixes, adapters and all parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from glm_jax.cli.main import main
from glm_jax.cluster.preemption import StopRequest
from glm_jax.train.metrics import read_metrics
from tests.tokenizer.chatglm_stand_in import stand_in_model, stand_in_tokenizer

HIDDEN, LAYERS, HEADS, VOCABULARY = 64, 3, 4, 704
WAYS = {
    "prefix": ["prefix.num_tokens=64", "prefix.dropout=0.0", "optimizer.learning_rate=2e-2"],
    "projected_prefix": [
        *("prefix.num_tokens=64", "prefix.projection=True", "prefix.dropout=0.0"),
        "optimizer.learning_rate=1e-2",
    ],
    "lora": ["lora.rank=8", "optimizer.learning_rate=1e-2"],
    "full": ["optimizer.learning_rate=3e-3"],
}
SETTINGS = """
seq2seq.name = 'answers'
seq2seq.source_length = 24
seq2seq.target_length = 16
generation.beams = 1
generation.batch_size = 10
generation.no_repeat_ngram = 0
generation.length_penalty = 0.0
finetune.epochs = 2
finetune.batch_size = 5
finetune.dropout = 0.0
finetune.log_every = 1
optimizer.learning_rate = 1e-3
optimizer.decay = 'linear'
optimizer.weight_decay = 0.0
checkpoint.keep = 1
"""


def write_chatglm(folder: Path) -> Path:
    """A random ChatGLM with the stand-in vocabulary, as published folders are."""
    random = np.random.default_rng(7)
    folder.mkdir(parents=True)

    def matrix(*shape: int, scale: float = 0.2) -> np.ndarray:
        return random.normal(scale=scale, size=shape).astype(np.float32)

    tensors = {"transformer.word_embeddings.weight": matrix(VOCABULARY, HIDDEN)}
    norms = ["final_layernorm"]
    for layer in range(LAYERS):
        name = f"layers.{layer}"
        norms += [f"{name}.input_layernorm", f"{name}.post_attention_layernorm"]
        for part, rows, columns in (
            ("attention.query_key_value", 3 * HIDDEN, HIDDEN),
            ("attention.dense", HIDDEN, HIDDEN),
            ("mlp.dense_h_to_4h", 4 * HIDDEN, HIDDEN),
            ("mlp.dense_4h_to_h", HIDDEN, 4 * HIDDEN),
        ):
            # What is added to the residual must count against the residual's factor of 7.5.
            scale = 2.0 if rows == HIDDEN else 0.2
            tensors[f"transformer.{name}.{part}.weight"] = matrix(rows, columns, scale=scale)
            tensors[f"transformer.{name}.{part}.bias"] = np.zeros(rows, np.float32)
    for name in norms:
        tensors[f"transformer.{name}.weight"] = np.ones(HIDDEN, np.float32)
        tensors[f"transformer.{name}.bias"] = np.zeros(HIDDEN, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    special = stand_in_tokenizer().special
    config = {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_attention_heads": HEADS,
        "inner_hidden_size": 4 * HIDDEN,
        "max_sequence_length": 64,
        "layernorm_epsilon": 1e-5,
        "position_encoding_2d": True,
        "bos_token_id": special["sop"],
        "eos_token_id": special["eop"],
        "mask_token_id": special["MASK"],
        "gmask_token_id": special["gMASK"],
        "pad_token_id": special["pad"],
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "ice_text.model").write_bytes(stand_in_model())
    return folder


def write_answers(folder: Path, number: int, shift: int = 0) -> Path:
    """Questions of two words with an answer for each; another one for another shift."""
    words = ["the", "a", "one", "two", "red", "blue", "old", "new", "big", "bad"]
    folder.mkdir(parents=True)
    lines = [
        {
            "prompt": f"{words[index % 10]} {words[index // 10]}",
            "response": f"{words[(3 * n + 1) % 10]} {words[(7 * n + n // 10) % 10]}",
        }
        for index in range(number)
        for n in [index + shift * (index // 10 + 1)]
    ]
    for name in ("train.jsonl", "dev.jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("answers")
    checkpoint = write_chatglm(made / "chatglm")
    data = write_answers(made / "data", 10)
    paths = f"seq2seq.data = '{data}'\nfinetune.initial_weights = '{checkpoint}'\n"
    (made / "run.gin").write_text(SETTINGS + paths)
    return made


def finetune(folder: Path, run: Path, *settings: str) -> int:
    flags = [f"--gin.{setting}" for setting in (f"finetune.run_folder={run}", *settings)]
    return main(["finetune", f"--gin_file={folder / 'run.gin'}", *flags])


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"]


# tests/chatglm has the gradients of prefixes, and tests/finetune trains adapters.
SLOW_WAYS = {"lora", "prefix", "projected_prefix"}


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.slow if way in SLOW_WAYS else ()) for way in WAYS],
)
def test_every_way_learns_and_is_judged(folder, tmp_path, capsys, way):
    pytest.importorskip("jieba")
    run = tmp_path / "run"
    settings = [*WAYS[way], "finetune.epochs=6", "finetune.evaluate_every_epochs=6"]
    assert finetune(folder, run, *settings) == 0
    found = losses(run)
    assert min(found[-2:]) < 0.95 * found[0]
    results = json.loads((run / "results.json").read_text())
    assert {"bleu-4", "rouge-1", "rouge-2", "rouge-l"} <= set(results)
    outputs = [json.loads(line) for line in (run / "predictions.jsonl").open()]
    assert [output["id"] for output in outputs] == [f"dev-{n}" for n in range(10)]
    # The checkpoint, over its base where it is a part, writes the same.
    capsys.readouterr()
    command = ["evaluate", str(run), "--task=answers", "--json"]
    assert main([*command, f"--outputs={tmp_path / 'outputs.jsonl'}"]) == 0
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["ids"] for line in lines] == [output["ids"] for output in outputs]


@pytest.mark.slow
def test_outputs_can_be_drawn(folder, tmp_path):
    pytest.importorskip("jieba")
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        drawn = [f"generation.seed={seed}", "generation.temperature=2.0", "finetune.epochs=1"]
        assert finetune(folder, tmp_path / name, *WAYS["lora"], *drawn) == 0
        lines = (tmp_path / name / "predictions.jsonl").open()
        texts.append([json.loads(line)["texts"] for line in lines])
    assert texts[0] == texts[1] != texts[2]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    """A network that has learnt other answers: prefixes steer what a network can do already."""
    made = tmp_path_factory.mktemp("trained")
    other = write_answers(made / "data", 100, shift=5)
    settings = [f"seq2seq.data={other}", *by_heart(60), *WAYS["full"]]
    assert finetune(folder, made / "run", *settings) == 0
    return made / "run"


def by_heart(epochs: int) -> list[str]:
    return [
        f"finetune.epochs={epochs}",
        f"finetune.evaluate_every_epochs={epochs}",
        "finetune.batch_size=10",
        "finetune.log_every=20",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_fifty_answers_are_learnt_by_heart(folder, trained, tmp_path, way):
    pytest.importorskip("jieba")
    data = write_answers(tmp_path / "data", 50)
    paths = [f"seq2seq.data={data}", f"finetune.initial_weights={trained}"]
    epochs = {"full": 60, "lora": 100, "prefix": 200, "projected_prefix": 400}[way]
    assert finetune(folder, tmp_path / "run", *paths, *by_heart(epochs), *WAYS[way]) == 0
    outputs = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").open()]
    answers = [json.loads(line)["response"] for line in (data / "dev.jsonl").open()]
    assert [output["texts"][0] for output in outputs] == answers


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_resumes_with_the_same_bits(folder, tmp_path, monkeypatch, way):
    assert finetune(folder, tmp_path / "run", *WAYS[way]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == 3)
        assert finetune(folder, tmp_path / "stopped", *WAYS[way]) == 0
    assert finetune(folder, tmp_path / "stopped", *WAYS[way]) == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "run")
    for name in ("predictions.jsonl", "results.json"):
        one, other = (tmp_path / run / name for run in ("run", "stopped"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["prefix.num_tokens=-1"], "prefix.num_tokens is -1"),
        (["prefix.num_tokens=4", "lora.rank=2"], "both set; expected one of them"),
        (["seq2seq.name=customization", "prefix.num_tokens=4"], "which tasks that write texts"),
        (["seq2seq.prompt_field=question"], "no field 'question'"),
    ],
)
def test_bad_input_is_one_sentence(folder, tmp_path, capsys, settings, sentence):
    assert finetune(folder, tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


def test_quantized_weights_take_a_prefix_and_nothing_else(folder, tmp_path, capsys):
    pytest.importorskip("jieba")
    integers = tmp_path / "integers"
    assert main(["convert", str(folder / "chatglm"), str(integers), "--quantize=int8"]) == 0
    weights = f"finetune.initial_weights={integers}"
    for way in ("full", "lora"):
        capsys.readouterr()
        assert finetune(folder, tmp_path / way, *WAYS[way], weights) == 2
        error = capsys.readouterr().err
        assert "is quantized to int8; only a prefix" in error and error.count("\n") == 1, error
    assert finetune(folder, tmp_path / "prefix", *WAYS["prefix"], weights, "finetune.epochs=4") == 0
    found = losses(tmp_path / "prefix")
    assert min(found[-2:]) < found[0]
