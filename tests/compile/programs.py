"""Small programs in the compiler's own notation."""

from __future__ import annotations

from pathlib import Path

# A loop of 48 rounds with a product, a reduce-scatter inside a fusion and a kernel; before it a
# gather that is spread over two fusions, after it a scatter without an estimate.
LOOP = Path(__file__).with_name("loop.hlo").read_text()
