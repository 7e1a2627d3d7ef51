"""What must be set before libraries are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

# New pages of memory, of 4 KiB, in a step with 64 MiB of intermediate results, after two others.
STEPS = """
import resource, sys
import jax, jax.numpy as jnp
from glm_jax import environment
if sys.argv[1] == "keep":
    environment.keep_memory_between_steps()
step = jax.jit(lambda x: jnp.sort(jnp.sin(x[:, None] * x[None, :]), axis=0).sum(axis=1))
values = jnp.arange(4096.0)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(values).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc keeps the memory")
def test_a_step_on_a_cpu_reuses_the_memory_of_the_step_before_it(process_environment):
    def new_pages(*arguments: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", STEPS, *arguments],
            env=process_environment(1),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert new_pages("keep") < 1000
    assert new_pages("return") > 10000
