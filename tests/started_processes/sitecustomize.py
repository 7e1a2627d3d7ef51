"""Imported by the processes that tests start: see `FEW_COLLECTIONS` in tests/conftest.py."""

import gc

gc.set_threshold(100_000, 50, 50)
