"""What one chip of each TPU generation can do, as published."""

from __future__ import annotations

import dataclasses

from glm_jax.model.flops import peak_flops_per_second

GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class TpuChip:
    """One generation's chip; every bandwidth is in bytes per second.

    Attributes:
      name: the generation, as at the start of a topology's name.
      device_kind: what JAX calls it.
      matrix_units: multipliers of the chip, over all its cores.
      matrix_unit_width: rows and columns of one of them.
      hbm_bytes: memory that the compiler lets a program have; it keeps a little of the published
        32, 16, 95 and 32 GiB.
      hbm_bandwidth: of that memory.
      ici_links: links to neighbouring chips, two for every dimension of the torus.
      ici_link_bandwidth: one link, in one direction.
      dcn_bandwidth: the chip's share of its host's network, in one direction.
      chip_config_name: the compiler's name for using the chip's two cores as one; "" with one core.

    Sources: Google Cloud's pages on TPU v4, v5e, v5p and v6e. They give the interconnect per chip:
    2,400, 1,600, 4,800 and 3,200 Gbit/s in one direction over all links. The network is that of a
    pod divided by its chips (v5e 6.4, v6e 25.6 Tbit/s for 256) and, for v4 and v5p, where no figure
    is published, an assumed 200 Gbit/s for the four chips of a host.
    """

    name: str
    device_kind: str
    matrix_units: int
    matrix_unit_width: int
    hbm_bytes: int
    hbm_bandwidth: float
    ici_links: int
    ici_link_bandwidth: float
    dcn_bandwidth: float
    chip_config_name: str

    @property
    def peak_flops(self) -> float:
        """Dense bfloat16 peak in FLOP/s."""
        peak = peak_flops_per_second(self)
        assert peak is not None, f"{self.device_kind} has no published peak"
        return peak

    @property
    def clock(self) -> float:
        """Cycles per second: the rate at which full matrix units reach the published peak."""
        return self.peak_flops / (2 * self.matrix_units * self.matrix_unit_width**2)

    @property
    def ici_bandwidth(self) -> float:
        """All links together, in one direction."""
        return self.ici_links * self.ici_link_bandwidth

    def head_efficiency(self, head_size: int) -> float:
        """The share of a matrix unit that products with one attention head's width can fill."""
        return min(1.0, head_size / self.matrix_unit_width)


CHIPS: dict[str, TpuChip] = {
    chip.name: chip
    for chip in (
        TpuChip("v4", "TPU v4", 8, 128, int(30.75 * GIBIBYTE), 1228e9, 6, 50e9, 6.25e9, "megacore"),
        TpuChip("v5e", "TPU v5 lite", 4, 128, int(15.75 * GIBIBYTE), 819e9, 4, 50e9, 3.125e9, ""),
        TpuChip(
            "v5p", "TPU v5", 8, 128, int(95.73 * GIBIBYTE), 2765e9, 6, 100e9, 6.25e9, "megacore"
        ),
        TpuChip("v6e", "TPU v6 lite", 4, 256, int(31.24 * GIBIBYTE), 1640e9, 4, 100e9, 12.5e9, ""),
    )
}
