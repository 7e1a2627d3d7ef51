"""Loads an exported folder with the installed `transformers`, and compares it with glm_jax.

    python check.py FOLDER

FOLDER.json and FOLDER.npz have what glm_jax computes. Prints one JSON object: the largest
differences, and what failed. Imports nothing of glm_jax, for it runs in environments without it.
"""

# Runs on the oldest transformers too, whose types are others.
# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from check_tokens import other_ids, saved_folder  # pyright: ignore[reportMissingImports]
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TextStreamer,
    Trainer,
    TrainingArguments,
)

REMOTE = {"trust_remote_code": True}
NO_DROPOUT = {
    name: 0.0
    for name in ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob")
}


def main(folder: Path) -> None:
    """Runs all checks."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    expected = json.loads(folder.with_suffix(".json").read_text())
    with np.load(folder.with_suffix(".npz")) as file:
        arrays = {name: torch.tensor(file[name]) for name in file.files}
    found: dict = {"transformers": transformers.__version__}
    tokenizer = AutoTokenizer.from_pretrained(str(folder), **REMOTE)
    model = AutoModelForSeq2SeqLM.from_pretrained(str(folder), torch_dtype=torch.float32, **REMOTE)
    model.eval()
    found["token_ids"] = len(other_ids(tokenizer, expected))
    found["logits"] = logits_difference(model, arrays)
    found["greedy"], found["beams"] = fills_differ(model, tokenizer, expected)
    found["choices"] = choice_difference(folder, tokenizer, expected)
    found["classes"] = check_classes(folder, model)
    found["sampled"] = sample(model, tokenizer, expected)
    saved = saved_folder(folder)
    found["saved"] = save_again(folder, saved, tokenizer, expected)
    found["saved_folder"] = str(saved)
    found["gradients"] = gradient_difference(folder, arrays, checkpointing=False)
    found["checkpointed_gradients"] = gradient_difference(folder, arrays, checkpointing=True)
    print(json.dumps(found))


def logits_difference(model, arrays: dict) -> float:
    """The largest difference of logits."""
    with torch.no_grad():
        output = model(
            arrays["tokens"],
            position_ids=arrays["position_ids"],
            attention_mask=arrays["prefix_length"],
        )
    return float((output.logits - arrays["logits"]).abs().max())


def fills_differ(model, tokenizer, expected: dict) -> tuple[int, int]:
    """Prompts that are filled otherwise, greedily and by beam search, alone and as a batch."""
    settings = {"max_new_tokens": expected["new_tokens"], "do_sample": False}
    counts = []
    for name, more in (("greedy", {}), ("beams", {"num_beams": 3, "length_penalty": 0.0})):
        alone = [generate(model, tokenizer, [text], **settings, **more)[0]
                 for text in expected["prompts"]]  # fmt: skip
        batch = generate(model, tokenizer, expected["prompts"], **settings, **more)
        counts.append(
            sum(
                own != one or own != other
                for own, one, other in zip(expected[name], alone, batch, strict=True)
            )
        )
    return counts[0], counts[1]


def generate(model, tokenizer, texts: list, **settings) -> list:
    """The ids of the blank of each text, without its end."""
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    inputs = tokenizer.build_inputs_for_generation(encoded, settings["max_new_tokens"])
    written = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()
    ends = {tokenizer.eop_token_id, tokenizer.eos_token_id}
    return [
        row[: next((index for index, token in enumerate(row) if token in ends), len(row))]
        for row in written
    ]


def choice_difference(folder: Path, tokenizer, expected: dict) -> float:
    """The largest difference of the log-probabilities of choices."""
    model = AutoModelForMultipleChoice.from_pretrained(
        str(folder), torch_dtype=torch.float32, **REMOTE
    )
    encoded = tokenizer(expected["prompts"], return_tensors="pt", padding=True)
    choices = [expected["choices"]] * len(expected["prompts"])
    inputs = tokenizer.build_inputs_for_multiple_choice(encoded, choices)
    with torch.no_grad():
        output = model.eval()(**inputs, labels=torch.tensor([0, 1]))
    assert torch.isfinite(output.loss)
    return float((output.logits - torch.tensor(expected["choice_scores"])).abs().max())


def check_classes(folder: Path, model) -> bool:
    """Whether every Auto class loads the same weights, with new ones for a head only."""
    assert type(AutoConfig.from_pretrained(str(folder), **REMOTE)).__name__ == "GLMConfig"
    state = model.glm.state_dict()
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification):
        other, info = auto.from_pretrained(
            str(folder), torch_dtype=torch.float32, output_loading_info=True, **REMOTE
        )
        assert not info["unexpected_keys"] and not info["mismatched_keys"], info
        assert all(name.startswith(("dense.", "out_proj.")) for name in info["missing_keys"]), info
        own = getattr(other, "glm", other).state_dict()
        assert own.keys() == state.keys()
        assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    output = other.eval()(ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([0, 1]))
    assert output.logits.shape == (2, 2) and torch.isfinite(output.loss)
    output.loss.backward()
    return True


def sample(model, tokenizer, expected: dict) -> bool:
    """Whether sampling draws tokens, and streaming shows what greedy decoding returns."""
    settings = {"max_new_tokens": expected["new_tokens"]}
    torch.manual_seed(0)
    generate(model, tokenizer, expected["prompts"], do_sample=True, top_k=5, **settings)
    encoded = tokenizer(expected["prompts"][:1], return_tensors="pt")
    inputs = tokenizer.build_inputs_for_generation(encoded, max_gen_length=expected["new_tokens"])
    shown, stdout = io.StringIO(), sys.stdout
    sys.stdout = shown
    try:
        written = model.generate(
            **inputs,
            do_sample=False,
            streamer=TextStreamer(tokenizer, skip_prompt=True),
            **settings,
        )
    finally:
        sys.stdout = stdout
    text = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :])
    return shown.getvalue().strip() == text.strip()


def save_again(folder: Path, saved: Path, tokenizer, expected: dict) -> bool:
    """Whether what is saved loads again: weights, code and tokenizer."""
    stored = AutoModelForSeq2SeqLM.from_pretrained(str(folder), torch_dtype="auto", **REMOTE)
    stored.save_pretrained(str(saved))
    tokenizer.save_pretrained(str(saved))
    again = AutoModelForSeq2SeqLM.from_pretrained(str(saved), torch_dtype="auto", **REMOTE)
    state = stored.state_dict()
    assert again.state_dict().keys() == state.keys()
    for name, tensor in again.state_dict().items():
        assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name]), name
    return not other_ids(AutoTokenizer.from_pretrained(str(saved), **REMOTE), expected)


class Rows(torch.utils.data.Dataset):
    """The rows of a batch."""

    def __init__(self, arrays: dict) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["tokens"])

    def __getitem__(self, row: int) -> dict:
        return {
            "input_ids": self.arrays["tokens"][row],
            "position_ids": self.arrays["position_ids"][row],
            "attention_mask": self.arrays["prefix_length"][row],
            "labels": self.arrays["labels"][row],
        }


def gradient_difference(folder: Path, arrays: dict, *, checkpointing: bool) -> float:
    """The largest difference of gradients, which a step of SGD at rate 1 subtracts."""
    model = AutoModelForSeq2SeqLM.from_pretrained(
        str(folder), torch_dtype=torch.float32, **NO_DROPOUT, **REMOTE
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out,
            per_device_train_batch_size=len(arrays["tokens"]),
            max_steps=1,
            max_grad_norm=0.0,
            report_to=[],
            save_strategy="no",
            gradient_checkpointing=checkpointing,
            disable_tqdm=True,
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)
        trainer = Trainer(model, settings, train_dataset=Rows(arrays),
                          optimizers=(optimizer, constant))  # fmt: skip
        stdout, sys.stdout = sys.stdout, io.StringIO()
        try:
            trainer.train()
        finally:
            sys.stdout = stdout
    prefix = "gradient/"
    return max(
        float((before[f"glm.{name[len(prefix):]}"] - model.state_dict()[f"glm.{name[len(prefix):]}"]
               - gradient).abs().max())
        for name, gradient in arrays.items() if name.startswith(prefix)
    )  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(Path(sys.argv[1]))
