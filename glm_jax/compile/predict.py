"""How long a step takes, from what the compiler estimates and what its networks can carry."""

from __future__ import annotations

import dataclasses

from glm_jax.compile.chips import TpuChip
from glm_jax.compile.costs import PRODUCT_FUSION, Costs


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of one step on one chip, and what share of its peak the model's operations are.

    Attributes:
      product_seconds: the compiler's estimate for fusions around matrix products.
      other_seconds: its estimate for everything else that it compiles; where it has none, the
        result read and written once at the memory's bandwidth.
      kernel_seconds: Pallas kernels, from the operations and bytes that they declare: the larger of
        operations at the part of the peak that a head's width can fill, and bytes at the memory's
        bandwidth.
      ici_seconds: what comes in over ICI, with all links of the chip busy.
      ici_used_seconds: the same bytes on the links that each collective keeps busy, as read from
        the compiler's name for its algorithm: a ring around one dimension of a torus uses two.
      dcn_seconds: what comes in from other slices.
      overlapped_seconds: the lower bound: everything hides behind the longest of computing, ICI
        with all links busy, and DCN.
      serial_seconds: nothing hides, and all links are busy.
      serial_used_seconds: the upper bound: nothing hides, and only the links used are busy.
      overlapped_utilisation, serial_utilisation, serial_used_utilisation: the model's operations at
        these times, as a share of the chip's peak.
    """

    product_seconds: float
    other_seconds: float
    kernel_seconds: float
    ici_seconds: float
    ici_used_seconds: float
    dcn_seconds: float
    overlapped_seconds: float
    serial_seconds: float
    serial_used_seconds: float
    overlapped_utilisation: float
    serial_utilisation: float
    serial_used_utilisation: float


def predict(costs: Costs, chip: TpuChip, model_flops: float, head_size: int) -> Prediction:
    """Bounds of a step's time.

    Args:
      costs: of one chip's step.
      chip: where it runs.
      model_flops: analytic operations of the model per chip and step.
      head_size: K, which decides how well kernels can fill the matrix units.
    """
    products = costs.cycles.get(PRODUCT_FUSION, 0) / chip.clock
    others = sum(costs.cycles.values()) / chip.clock - products
    others += 2 * sum(costs.unestimated.values()) / chip.hbm_bandwidth
    kernel_peak = chip.peak_flops * chip.head_efficiency(head_size)
    kernels = sum(
        kernel.calls * max(kernel.flops / kernel_peak, kernel.bytes / chip.hbm_bandwidth)
        for kernel in costs.kernels
    )
    ici = sum(t * moved.ici_bytes for moved, t in costs.collectives) / chip.ici_bandwidth
    ici_used = sum(
        times * moved.ici_bytes / (_links(moved.ici_links, chip) * chip.ici_link_bandwidth)
        for moved, times in costs.collectives
    )
    dcn = sum(t * moved.dcn_bytes for moved, t in costs.collectives) / chip.dcn_bandwidth
    computing = products + others + kernels
    overlapped = max(computing, ici, dcn)
    serial = computing + ici + dcn
    serial_used = computing + ici_used + dcn
    return Prediction(
        product_seconds=products,
        other_seconds=others,
        kernel_seconds=kernels,
        ici_seconds=ici,
        ici_used_seconds=ici_used,
        dcn_seconds=dcn,
        overlapped_seconds=overlapped,
        serial_seconds=serial,
        serial_used_seconds=serial_used,
        overlapped_utilisation=model_flops / (overlapped * chip.peak_flops),
        serial_utilisation=model_flops / (serial * chip.peak_flops),
        serial_used_utilisation=model_flops / (serial_used * chip.peak_flops),
    )


def no_faster_than(prediction: Prediction, seconds: float) -> Prediction:
    """The prediction with bounds of at least that time.

    The compiler reads some arrays ahead, while other operations run, and estimates nothing for it.
    """

    def bound(name: str) -> dict[str, float]:
        found = getattr(prediction, f"{name}_seconds")
        utilisation = getattr(prediction, f"{name}_utilisation")
        slower = max(found, seconds)
        return {
            f"{name}_seconds": slower,
            f"{name}_utilisation": utilisation * found / slower,
        }

    bounds = bound("overlapped") | bound("serial") | bound("serial_used")
    return dataclasses.replace(prediction, **bounds)


def what_limits(prediction: Prediction) -> str:
    """One sentence on where the time goes."""
    parts = {
        "matrix products": prediction.product_seconds,
        "work between the products (memory traffic)": prediction.other_seconds,
        "kernels": prediction.kernel_seconds,
        "transfers within a slice (ICI)": prediction.ici_used_seconds,
        "transfers between slices (DCN)": prediction.dcn_seconds,
    }
    (first, largest), (second, next_largest) = sorted(parts.items(), key=lambda part: -part[1])[:2]
    total = prediction.serial_used_seconds
    return (
        f"limited by {first}: {largest:.3g} of {total:.3g} s with nothing hidden "
        f"({largest / total:.0%}), then {second} ({next_largest / total:.0%})"
    )


def _links(used: int | None, chip: TpuChip) -> int:
    """Links in use, all of them where the compiler doesn't say."""
    return min(used or chip.ici_links, chip.ici_links)
