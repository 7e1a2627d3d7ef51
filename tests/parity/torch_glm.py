"""The PyTorch twin's training: loss, decay groups, clipping, AdamW and schedules in PyTorch.

Written after the original's arithmetic, apart from ours, on top of the network in
`glm_jax.parity.torch_reference`. Settings come in our `OptimizerConfig`, as plain numbers only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jax.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from glm_jax.parity.torch_reference import TorchGLM
from glm_jax.train.optimizer import OptimizerConfig

TorchBatch = Mapping[str, Tensor]


def torch_batch(batch: Mapping[str, ArrayLike]) -> dict[str, Tensor]:
    """A batch of ours as tensors."""
    return {name: torch.tensor(np.asarray(values)) for name, values in batch.items()}


def load_state(model: TorchGLM, state: Mapping[str, np.ndarray]) -> None:
    """Fills the twin with arrays by the original's names, as float32."""
    model.load_state_dict(
        {name: torch.tensor(np.asarray(array, np.float32)) for name, array in state.items()}
    )


def random_state(model: TorchGLM, seed: int) -> dict[str, np.ndarray]:
    """Parameters far from an initialisation, so that every one of them matters.

    LayerNorm scales lie around 1, all else around 0.
    """
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal("layernorm.weight" in name, 0.2, tensor.shape).astype(np.float32)
        for name, tensor in model.state_dict().items()
    }


def logits_of(model: TorchGLM, batch: TorchBatch) -> Tensor:
    """Logits [B, L, V] of a batch under its prefixes."""
    return model(batch["tokens"], batch["position_ids"], batch["prefix_length"]).logits


def token_losses(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy [B, L] in nats."""
    return functional.cross_entropy(
        logits.flatten(0, 1),
        targets.flatten().long(),
        reduction="none",
        label_smoothing=label_smoothing,
    ).view(targets.shape)


def mean_loss(logits: Tensor, batch: TorchBatch, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the targets under the mask, 0 where it is empty."""
    mask = batch["loss_mask"].float()
    losses = token_losses(logits, batch["targets"], label_smoothing)
    return (losses * mask).sum() / mask.sum().clamp(min=1.0)


def decayed_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters under weight decay: all but those of LayerNorms and biases."""
    return {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if not isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters(recurse=False)
        if name != "bias"
    }


class AdamW:
    """Adam with bias correction and decoupled weight decay (Loshchilov and Hutter, 2019).

    Not torch.optim.AdamW, whose import of torch's compiler and Triton can crash a process that has
    loaded TensorFlow; the recorded steps come from that class.
    """

    def __init__(self, model: nn.Module, settings: OptimizerConfig):
        self.parameters = dict(model.named_parameters())
        self.decayed = decayed_parameters(model)
        self.settings = settings
        self.steps = 0
        self.first = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in self.parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update from the parameters' gradients."""
        self.steps += 1
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            if name in self.decayed:
                parameter.mul_(1.0 - rate * self.settings.weight_decay)
            first = self.first[name].lerp_(gradient, 1.0 - beta1)
            second = self.second[name].mul_(beta2).add_(gradient.square(), alpha=1.0 - beta2)
            deviation = (second / (1.0 - beta2**self.steps)).sqrt() + self.settings.epsilon
            parameter.sub_(rate * (first / (1.0 - beta1**self.steps)) / deviation)


def learning_rate(settings: OptimizerConfig, step: int) -> float:
    """The learning rate before the step of that number, in float64."""
    warmup = settings.warmup_fraction * settings.decay_steps
    if step <= settings.restart_step or not settings.restart_step:
        falling, peak, style, place = (
            settings.decay_steps - warmup,
            settings.learning_rate,
            settings.decay,
            float(step),
        )
    else:
        before = dataclasses.replace(settings, restart_step=0, restart_decay_steps=0)
        falling, peak, style, place = (
            settings.restart_decay_steps,
            learning_rate(before, settings.restart_step),
            "linear",
            float(step - settings.restart_step),
        )
    if warmup > 0 and place <= warmup:
        return peak * place / warmup
    progress = (place - warmup) / falling
    if style != "linear_unclamped":
        progress = min(progress, 1.0)
    floor = settings.final_fraction * peak
    match style:
        case "linear" | "linear_unclamped":
            return peak - (peak - floor) * progress
        case "cosine":
            return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case _:
            return peak


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """Mean of the micro-batches' losses, and the global norm before each clipping."""

    loss: float
    norms: list[float]


def train_step(
    model: TorchGLM, optimizer: AdamW, micro_batches: Sequence[TorchBatch], rate: float
) -> StepOutcome:
    """One update from micro-batches in turn, their sum so far clipped after each."""
    model.zero_grad()
    total, norms = 0.0, []
    for batch in micro_batches:
        loss = mean_loss(logits_of(model, batch), batch) / len(micro_batches)
        loss.backward()
        clip_norm = optimizer.settings.clip_norm or math.inf  # 0 is for no clipping
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), clip_norm)))
        total += float(loss.detach())
    optimizer.step(rate)
    return StepOutcome(total, norms)


def gradients_by_name(model: nn.Module) -> dict[str, np.ndarray]:
    """The gradient of every parameter by the original's names; 0 where there is none."""
    return {
        name: np.zeros(parameter.shape, np.float32)
        if parameter.grad is None
        else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }


def parameters_by_name(model: nn.Module) -> dict[str, np.ndarray]:
    """A copy of every parameter by the original's names."""
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
