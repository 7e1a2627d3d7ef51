"""What runs of this process add to a compilation cache of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

SETTINGS = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}


@contextmanager
def caching_in(folder: Path) -> Iterator[None]:
    """Keeps everything that is compiled in this block in a folder.

    JAX decides once whether and where it does, so it is made to decide again before and after.
    """
    settings = {**SETTINGS, "jax_compilation_cache_dir": str(folder)}
    before = {name: getattr(jax.config, name) for name in settings}
    _apply(settings)
    try:
        yield
    finally:
        _apply(before)


def _apply(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def cached_programs(folder: Path) -> set[str]:
    """The names of the programs in a cache, with the keys that distinguish them."""
    return {path.name.removesuffix("-cache") for path in folder.glob("*-cache")}
