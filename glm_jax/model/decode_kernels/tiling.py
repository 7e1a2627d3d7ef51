"""How the kernels of decoding divide weights and caches into blocks."""

from __future__ import annotations

import dataclasses

from glm_jax.model.attention.flash_tiling import LANES
from glm_jax.model.decode_kernels.matrices import INT4_WAYS

# Bytes of one block of weights, and of one of keys: large enough for the memory's full bandwidth,
# small enough that a kernel soon has its first block. Two of each are in on-chip memory at a time.
_WEIGHT_BYTES = 4 * 2**20
_CACHE_BYTES = 4 * 2**20
# On-chip memory that a kernel may use; every generation has 64 MiB or more for a core.
VMEM_LIMIT_BYTES = 56 * 2**20
# Blocks of vectors are powers of two, at least this long.
_MIN_MLP_COLUMNS = 256


@dataclasses.dataclass(frozen=True)
class Shard:
    """What one device has of a layer, in numbers.

    Attributes:
      hidden_size: D.
      attention_width: W, the numbers of its heads.
      mlp_width: F, its columns of the MLP.
      head_size: K.
      weight_bits: of a number in a matrix.
      cache_bytes: of a number in the cache.
      num_cores: that share the work of a device.
    """

    hidden_size: int
    attention_width: int
    mlp_width: int
    head_size: int
    weight_bits: int
    cache_bytes: int
    num_cores: int

    @property
    def per_byte(self) -> int:
        """Numbers that a byte of a matrix has: two, or one as more bytes have."""
        return max(8 // self.weight_bits, 1)

    @property
    def ways(self) -> int:
        """Parts of the inputs of a product, see `apart`."""
        return INT4_WAYS if self.weight_bits == 4 else 1

    @property
    def attention_columns(self) -> int | None:
        """Numbers of the heads that are worked on at a time; None if there is no such number."""
        # Query, key, value and output have a column each.
        size = _columns(self._fitting(4), self.attention_width // self.num_cores, LANES)
        return size if size and size % self.head_size == 0 else None

    @property
    def mlp_columns(self) -> int | None:
        """Columns of the MLP that are worked on at a time; None if there is no such number."""
        return _columns(self._fitting(2), self.mlp_width // self.num_cores, _MIN_MLP_COLUMNS)

    @property
    def is_tiled(self) -> bool:
        """Whether the kernels can work on it."""
        even = not any(n % self.num_cores for n in (self.attention_width, self.mlp_width))
        aligned = self.hidden_size % LANES == 0
        return bool(even and aligned and self.attention_columns and self.mlp_columns)

    @property
    def max_batch_size(self) -> int:
        """Examples whose streams fit on-chip memory next to the blocks.

        Of every number of a stream a kernel has its terms, from all cores, two results, each twice,
        and what it computes with; an example has its queries, keys and values of a group besides,
        in rows that are padded to 8.
        """
        stream = (2 * self.cache_bytes + 8 * self.num_cores) + (2 * self.cache_bytes + 8)
        stream += self.cache_bytes + 4
        group = 8 * (3 * 4 + self.cache_bytes) * (self.attention_columns or LANES)
        blocks = 2 * _WEIGHT_BYTES + 4 * _CACHE_BYTES
        return (VMEM_LIMIT_BYTES - blocks) // (stream * self.hidden_size + group)

    def rows_at_once(self, batch_size: int, num_slots: int) -> int:
        """Examples whose slots are worked on at a time, a divisor of the batch size."""
        columns = self.attention_columns or LANES
        limit = max(_CACHE_BYTES // (num_slots * columns * self.cache_bytes), 1)
        return next(n for n in range(min(limit, batch_size), 0, -1) if batch_size % n == 0)

    def _fitting(self, matrices: int) -> int:
        """Columns of several matrices that a block of weights has room for."""
        return _WEIGHT_BYTES * 8 // (matrices * self.hidden_size * self.weight_bits)


def table_rows(hidden_size: int, bytes_of_number: int) -> int:
    """Rows of a word table that are worked on at a time."""
    return max(_WEIGHT_BYTES // (hidden_size * bytes_of_number) // LANES, 1) * LANES


def _columns(limit: int, total: int, minimum: int) -> int | None:
    """The largest power of two within a limit that divides a number of columns."""
    size = minimum
    if total < minimum or total % minimum:
        return None
    while 2 * size <= limit and total % (2 * size) == 0:
        size *= 2
    return size
