"""How many floating-point operations training needs, and what share of the chips' peak that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from glm_jax.model.config import GLMConfig

# Published dense bfloat16 peaks in FLOP/s, by the start of JAX's `device_kind`; the first match
# counts, so a longer name precedes its own prefix. Sources: Google Cloud's TPU pages ("TPU v5"
# is how a v5p reports itself) and NVIDIA's data sheets, without sparsity.
PEAK_FLOPS_PER_SECOND: dict[str, float] = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
}


@runtime_checkable
class Chip(Protocol):
    """The part of a JAX device that is needed here."""

    @property
    def device_kind(self) -> str: ...


def forward_flops_per_token(
    config: GLMConfig, sequence_length: int, logit_fraction: float = 1.0
) -> float:
    """Operations of the forward pass per token of a sequence, a multiply-add counted as two.

    Counted are the matrix products only: the four linear maps of every block, both products of
    attention over the full sequence (masked pairs are counted), and the
    logits.

    Args:
      config: the network's dimensions.
      sequence_length: L.
      logit_fraction: share of the positions whose logits are computed.

    Source: the counting rule of PaLM (Chowdhery et al., 2022), appendix B.
    """
    width = config.hidden_size
    linear = 2 * (3 * width**2 + width**2 + 2 * width * config.mlp_size)
    attention = 2 * 2 * sequence_length * width
    logits = 2 * width * config.vocab_size * logit_fraction
    return config.num_layers * (linear + attention) + logits


def training_flops_per_token(
    config: GLMConfig,
    sequence_length: int,
    logit_fraction: float = 1.0,
    frozen_parameters: int = 0,
) -> float:
    """Operations of forward and backward pass per token; what remat computes again is not counted.

    The backward pass takes twice the forward pass, but for parameters without gradients.

    Args:
      config, sequence_length, logit_fraction: as in `forward_flops_per_token`.
      frozen_parameters: number of parameters of layers that are not trained.
    """
    forward = forward_flops_per_token(config, sequence_length, logit_fraction)
    return 3 * forward - 2 * frozen_parameters


def peak_flops_per_second(chip: Chip) -> float | None:
    """The chip's published bfloat16 peak in FLOP/s, None where it is not in the table."""
    for kind, peak in PEAK_FLOPS_PER_SECOND.items():
        if chip.device_kind.startswith(kind):
            return peak
    return None


def model_flops_utilisation(
    config: GLMConfig,
    sequence_length: int,
    tokens_per_second: float,
    devices: Sequence[Chip],
    logit_fraction: float = 1.0,
    frozen_parameters: int = 0,
) -> float | None:
    """Share of the devices' bfloat16 peak that training at this speed uses.

    Args:
      config: the network's dimensions.
      sequence_length: L.
      tokens_per_second: positions of the global batch trained per second, over all devices.
      devices: every device that takes part.
      logit_fraction: share of the positions whose logits are computed.
      frozen_parameters: number of parameters of layers that are not trained.

    Returns:
      A number from 0 to 1, or None where a chip's peak is not known (as on CPU).
    """
    peaks = [peak_flops_per_second(device) for device in devices]
    known = [peak for peak in peaks if peak is not None]
    if not known or len(known) < len(peaks):
        return None
    per_token = training_flops_per_token(config, sequence_length, logit_fraction, frozen_parameters)
    return per_token * tokens_per_second / sum(known)
