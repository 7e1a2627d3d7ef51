"""Heads, losses and continuous prompts are the original's, within rounding."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from glm_jax.convert.load import load
from glm_jax.finetune import losses
from glm_jax.finetune.heads import ClassificationHead, pooled_positions
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.scores import answer_scores, verbalizer_scores
from glm_jax.model.embeddings import Prompts
from glm_jax.model.self_attention import take_positions

OUTPUT_TOLERANCE = 1e-4  # absolute, of logits and scores
LOSS_TOLERANCE = 1e-5  # relative, of losses and gradients


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "goldens/h_heads"


@pytest.fixture(scope="module")
def cases(folder) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in np.load(folder / "io.npz").items():
        case, name = key.split("/")
        found.setdefault(case, {})[name] = array
    return found


@pytest.fixture(scope="module")
def info(folder) -> dict:
    return json.loads((folder / "info.json").read_text())


@cache
def model_of(path):
    return load(path, num_attention_heads=4, ignore_extra=True)


def hidden_states(path, case, tokens="tokens", prompts=None):
    """Hidden states of rows with any leading axes."""
    model, params = model_of(path)
    lead, length = case[tokens].shape[:-1], case[tokens].shape[-1]
    hidden = model.apply(
        {"params": params},
        jnp.asarray(case[tokens]).reshape(-1, length),
        jnp.asarray(case["position_ids"]).reshape(-1, 2, length),
        jnp.asarray(case["attention_mask"]).ravel(),
        method="hidden_states",
        prompts=prompts,
    )
    logits = model.apply({"params": params}, hidden, method="logits")
    return hidden.reshape(*lead, length, -1), logits.reshape(*lead, length, -1)


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=OUTPUT_TOLERANCE)


def test_scores_of_answers(folder, cases, info):
    names = [
        name for name in info["cases"] if name.startswith("multi_token") and "fast" not in name
    ]
    assert names
    for name in names:
        case, settings = cases[name], info["cases"][name]
        _, logits = hidden_states(folder / "ckpt", case)
        targets, mask = jnp.asarray(case["target_ids"]), jnp.asarray(case["logit_mask"])
        if settings.get("take_softmax", True):
            penalty = settings.get("length_penalty", 0.0)
            ours = answer_scores(logits, targets, mask, length_penalty=penalty)
        else:  # a setting of the original that nothing uses: the logits themselves
            chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
            ours = jnp.sum(chosen * mask, axis=-1)
        assert_close(ours, case["output"])


def test_scores_of_answers_that_continue_one_context(folder, cases, info):
    """The context and each answer in one row have the scores of a context that was read once."""
    for name in ("multi_token_fast", "multi_token_fast_len_penalty"):
        case = cases[name]
        num_choices, answer_length = case["dec_tokens"].shape[1:]
        length = case["tokens"].shape[1]
        rows = {key: [] for key in ("tokens", "position_ids", "target_ids", "logit_mask")}
        for example, prefix in enumerate(case["attention_mask"]):
            for choice in range(num_choices):
                answer = (example, choice)
                tail = length - prefix
                zeros = np.zeros(tail, int)
                rows["tokens"].append(
                    np.concatenate(
                        [case["tokens"][example, :prefix], case["dec_tokens"][answer], zeros]
                    )
                )
                positions = [case["position_ids"][example][:, :prefix]]
                positions += [case["dec_position_ids"][answer], np.zeros((2, tail), int)]
                rows["position_ids"].append(np.concatenate(positions, axis=1))
                for key in ("target_ids", "logit_mask"):
                    before = np.zeros(prefix, int)
                    rows[key].append(np.concatenate([before, case[f"dec_{key}"][answer], zeros]))
        stacked = {key: np.stack(value) for key, value in rows.items()}
        stacked["attention_mask"] = np.repeat(case["attention_mask"], num_choices)
        _, logits = hidden_states(folder / "ckpt", stacked)
        penalty = info["cases"][name].get("length_penalty", 0.0)
        targets, mask = (jnp.asarray(stacked[key]) for key in ("target_ids", "logit_mask"))
        ours = answer_scores(logits, targets, mask, length_penalty=penalty)
        assert_close(ours.reshape(case["output"].shape), case["output"])
        assert answer_length == 5


def test_scores_of_verbalizers(folder, cases):
    for name, normalized in (("single_token", False), ("single_token_softmax", True)):
        case = cases[name]
        _, logits = hidden_states(folder / "ckpt", case)
        at_mask = logits[jnp.arange(len(logits)), case["attention_mask"]]
        ours = verbalizer_scores(at_mask, jnp.asarray(case["target_ids"]), normalized=normalized)
        assert_close(ours, case["output"])


def test_classification(folder, cases, info):
    names = [name for name in info["cases"] if name.startswith(("classify", "multichoice"))]
    for name in names:
        case, settings = cases[name], info["cases"][name]
        hidden, _ = hidden_states(folder / "ckpt", case)
        lead = case["tokens"].shape[:-1]
        flat = hidden.reshape(-1, *hidden.shape[-2:])
        prefix = jnp.asarray(case["attention_mask"]).ravel()
        params = {
            layer: {
                "kernel": case[f"{layer}.weight"].T,
                "bias": case[f"{layer}.bias"],
            }
            for layer in ("pool_layer", "multichoice_head")
        }
        head = ClassificationHead(settings["num_class"], hidden.shape[-1])
        at = pooled_positions(prefix, flat.shape[1], settings["pool_token"])
        scores: Any = head.apply({"params": params}, take_positions(flat, at[:, None])[:, 0])
        ours = scores[:, 0].reshape(lead) if name.startswith("multichoice") else scores
        assert_close(ours, case["output"])


def test_losses_and_their_gradients(cases, info):
    for number, settings in enumerate(info["losses"]):
        case = cases[f"loss_{number}"]
        labels = jnp.asarray(case["labels"])
        mask = jnp.asarray(case["loss_mask"], jnp.float32)

        def loss(logits, settings=settings, labels=labels, mask=mask):
            used = mask if settings["loss_mask_used"] else None
            if settings["adapet"]:
                used = jnp.ones_like(logits) if used is None else used
                return jnp.mean(losses.adapet(logits, labels, used))
            scores = losses.masked_scores(logits, used)
            return jnp.mean(losses.LOSSES[settings["loss_func"]](scores, labels))

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(case["logits"]))
        np.testing.assert_allclose(value, case["loss"], rtol=LOSS_TOLERANCE)
        scale = np.abs(case["grad"]).max()
        np.testing.assert_allclose(gradient, case["grad"], rtol=0, atol=LOSS_TOLERANCE * scale)


def prompt_params(path, kind):
    """Parameters of the prompt encoder, from the original's checkpoint."""
    file = next(path.glob("*/mp_rank_00_model_states.pt"))
    loaded = torch.load(file, weights_only=False)["module"]
    weights = {key: value.float().numpy() for key, value in loaded.items() if "prompt_spell" in key}
    weights = {key.removeprefix("prompt_spell."): value for key, value in weights.items()}
    params = {"spell_embeddings": weights["spell_embeddings.weight"]}
    for name, original in (("mlp_in", "mlp_head.0"), ("mlp_out", "mlp_head.2")):
        if kind != "none":
            kernel, bias = weights[f"{original}.weight"].T, weights[f"{original}.bias"]
            params[name] = {"kernel": kernel, "bias": bias}
    for layer in range(2) if kind == "lstm" else ():
        for direction in ("", "_reverse"):
            params[f"lstm_{layer}{direction}"] = {
                ours: weights[f"lstm_head.{theirs}_l{layer}{direction}"].T
                for ours, theirs in (
                    ("kernel_ih", "weight_ih"),
                    ("kernel_hh", "weight_hh"),
                    ("bias_ih", "bias_ih"),
                    ("bias_hh", "bias_hh"),
                )
            }
    return params


@pytest.mark.parametrize("kind", ["lstm", "mlp", "none"])
def test_prompts(folder, cases, kind):
    case, path = cases[f"prompt_{kind}"], folder / f"ckpt_prompt_{kind}"
    params = prompt_params(path, kind)
    num_prompts, size = params["spell_embeddings"].shape
    embeddings: Any = PromptEncoder(num_prompts, size, kind).apply({"params": params})
    assert_close(embeddings, case["prompt_embeddings"][0])
    ids = np.zeros(case["tokens"].shape, np.int32)
    np.put_along_axis(ids, case["prompt_pos"], np.arange(1, num_prompts + 1)[None], axis=1)
    _, logits = hidden_states(path, case, prompts=Prompts(jnp.asarray(ids), embeddings))
    assert_close(logits, case["logits"])
    targets, mask = jnp.asarray(case["target_ids"]), jnp.asarray(case["logit_mask"])
    ours = answer_scores(logits, targets, mask)
    assert_close(ours, case["output"])
