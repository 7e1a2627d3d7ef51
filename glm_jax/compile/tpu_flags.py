"""Flags of the TPU compiler for each chip generation, defined only here.

    export LIBTPU_INIT_ARGS="$(python -m glm_jax.compile.tpu_flags v5e)"

The compiler reads that variable when a program first uses the TPU; programs compiled ahead of time
take the same flags as `compiler_options`. What each flag does to a step of GLM-10B, with two layers
on a slice of 64 chips or more, is measured by benchmarks/tpu_flags.py; one that does nothing for it
doesn't belong here.
"""

from __future__ import annotations

import dataclasses
import sys

from glm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
      name: without dashes.
      value: as the compiler reads it.
      effect: what it did to the compiled step, against no flags at all.
    """

    name: str
    value: str
    effect: str


FLAGS: dict[str, tuple[Flag, ...]] = {
    "v4": (
        Flag(
            "xla_enable_async_all_gather",
            "true",
            "44% of the bytes on the wire move while the chip computes instead of none; "
            "temporaries 3,045 MiB instead of 3,532; cycles as before",
        ),
    ),
    # All-gathers are fused and asynchronous without any flag.
    "v5e": (),
    # xla_enable_async_all_gather changes nothing: 106.8 ms of cycles, temporaries of 2,951 MiB and
    # 10 of 3,651 MB moved while the chip computes. Asynchronous collective fusion is refused.
    "v5p": (),
    # Asynchronous collective fusion is refused.
    "v6e": (),
}


def compiler_options(generation: str) -> dict[str, str]:
    """The flags as `jax.stages.Lowered.compile(compiler_options=...)` takes them.

    Raises:
      UsageError: there is no such generation.
    """
    if generation not in FLAGS:
        raise UsageError(
            f"there are no flags for the TPU generation {generation!r}; "
            f"expected one of {', '.join(FLAGS)}"
        )
    return {flag.name: flag.value for flag in FLAGS[generation]}


def libtpu_init_args(generation: str) -> str:
    """The flags as the variable LIBTPU_INIT_ARGS holds them.

    Raises:
      UsageError: there is no such generation.
    """
    return " ".join(f"--{name}={value}" for name, value in compiler_options(generation).items())


def main(arguments: list[str]) -> int:
    """Prints LIBTPU_INIT_ARGS of the one generation given; returns the exit code."""
    try:
        if len(arguments) != 1:
            raise UsageError(f"expected one TPU generation: {', '.join(FLAGS)}")
        print(libtpu_init_args(arguments[0]))
    except UsageError as error:
        print(f"flags: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
