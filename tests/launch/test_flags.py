"""The compiler's flags: one line for the environment, the same as options, nothing heavy loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glm_jax.compile.tpu_flags import FLAGS, compiler_options, libtpu_init_args
from glm_jax.errors import UsageError

# A program here loads the compiler of TPUs.
pytestmark = pytest.mark.usefixtures("without_xla_flags")


@pytest.mark.parametrize("generation", FLAGS)
def test_both_forms_hold_the_same_flags(generation):
    written = [flag.removeprefix("--") for flag in libtpu_init_args(generation).split()]
    assert dict(flag.split("=") for flag in written) == compiler_options(generation)
    assert all(flag.effect for flag in FLAGS[generation])


def test_an_unknown_generation_is_refused():
    with pytest.raises(UsageError, match=r"'v3'; expected one of v4, v5e, v5p, v6e"):
        compiler_options("v3")


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the module as the launch scripts do."""
    return subprocess.run(
        [sys.executable, "-m", "glm_jax.compile.tpu_flags", *arguments],
        capture_output=True,
        text=True,
    )


def test_the_module_prints_the_line_for_the_environment():
    done = ask("v4")
    assert (done.returncode, done.stdout) == (0, libtpu_init_args("v4") + "\n")


@pytest.mark.parametrize("arguments", [[], ["v3"], ["v4", "v5e"]])
def test_the_module_refuses_anything_else_in_one_sentence(arguments):
    done = ask(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_asking_loads_no_jax():
    program = "import glm_jax.compile.tpu_flags, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_tpu_compiler_accepts_every_flag():
    pytest.importorskip("libtpu")
    program = (
        "import sys\n"
        "from glm_jax.compile.topology import open_topology\n"
        "from glm_jax.compile.tpu_flags import FLAGS, compiler_options\n"
        "devices = open_topology('v5e:2x2').devices\n"
        "import jax\n"
        "place = jax.sharding.SingleDeviceSharding(devices[0])\n"
        "x = jax.ShapeDtypeStruct((8, 128), 'float32', sharding=place)\n"
        "for generation in FLAGS:\n"
        "    jax.jit(lambda x: x + 1).lower(x).compile(compiler_options(generation))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
