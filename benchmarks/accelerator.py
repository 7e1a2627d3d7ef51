"""Training and decoding on one accelerator: the share of its peak, and of its memory's bandwidth.

    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --models glm_2b --batch_sizes 16 8 --minutes 3

For GLM-Large and GLM-2B in bfloat16, with random weights and tokens, on the first device that JAX
finds. No measurement is started after --minutes (6), so that the last ends within eight: what there
is no time for is named, not measured.
- Training: the program of `glm-jax pretrain` for one device, with the recipe's optimizer, the kind
  of attention made for the platform, and without dropout of attention on GPUs, where that kind has
  none. The largest batch of --batch_sizes that fits counts, by the median of its steps. Utilisation
  is that of the training logs: the model's operations as a share of the device's bfloat16 peak.
- Decoding: the engine of `glm-jax fill` and `serve`, blanks of 129 tokens in texts of 256. A step
  reads all weights and what is written of the caches, at least; the share of the memory's bandwidth
  is how long that takes at the published rate. Compiling is apart.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parents[1] / "configs" / "runs"
# Published bytes per second of GPUs, by the start of JAX's `device_kind`; the first match counts.
GPU_BANDWIDTH = {
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    "NVIDIA A100 80GB": 1.935e12,
    "NVIDIA A100": 1.555e12,
    "NVIDIA H100 PCIe": 2.0e12,
    "NVIDIA H100 NVL": 3.9e12,
    "NVIDIA H100": 3.35e12,
    "NVIDIA H200": 4.8e12,
    "NVIDIA L40S": 0.864e12,
    "NVIDIA L4": 0.3e12,
}
ATTENTION = {"gpu": "cudnn", "tpu": "flash", "cpu": "by_head"}
PROMPT, NEW_TOKENS = 256, 129


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["glm_large", "glm_2b"], metavar="RUN")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[64, 32, 16, 8, 4])
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 8, 64], help="decoded at once")
    parser.add_argument("--steps", type=int, default=10, help="measured training steps")
    parser.add_argument("--remat", default="minimal", help="see model.remat")
    parser.add_argument("--minutes", type=float, default=6.0, help="to start measurements in")
    arguments = parser.parse_args()

    import jax

    device = jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), JAX {jax.__version__}", flush=True)
    ends = time.monotonic() + 60 * arguments.minutes
    for name in arguments.models:
        config = configuration(name, device.platform, arguments.remat)
        for batch_size in sorted(arguments.batch_sizes, reverse=True):
            if measure_training(name, config, device, batch_size, arguments.steps, ends):
                break
        measure_decoding(name, config, device, arguments.texts, ends)


def configuration(name: str, platform: str, remat: str) -> Any:
    """The run of a model in bfloat16, as it suits a platform."""
    from glm_jax.configure import read_configuration

    bindings = [
        "model.compute_dtype='bfloat16'",
        f"model.remat={remat!r}",
        f"model.attention={ATTENTION[platform]!r}",
    ]
    if platform == "gpu":
        bindings.append("model.attention_dropout=0.0")
    return read_configuration([RUNS / f"{name}.gin"], bindings)


def is_late(ends: float, what: str) -> bool:
    """Whether there is no time left, which is printed."""
    late = time.monotonic() > ends
    if late:
        print(f"  {what}: no time left", flush=True)
    return late


def measure_training(
    name: str, config: Any, device: Any, batch_size: int, steps: int, ends: float
) -> bool:
    """Prints the speed of training with batches of this size; False if they do not fit."""
    import jax

    length = config.data.sequence_length
    what = f"{name}, training, {batch_size} x {length}"
    if is_late(ends, what):
        return True
    started = time.perf_counter()
    try:
        seconds, compile_seconds = training_seconds(config, device, batch_size, steps, ends)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"  {what}: does not fit ({time.perf_counter() - started:.0f} s)", flush=True)
        return False
    finally:
        gc.collect()  # before the next program needs the memory
    from random_inputs import TARGET_FRACTION

    from glm_jax.model.flops import model_flops_utilisation

    median = statistics.median(seconds)
    speed = batch_size * length / median
    share = model_flops_utilisation(config.model, length, speed, [device], TARGET_FRACTION)
    used = (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30
    print(
        f"  {what}: {1e3 * median:.1f} ms a step (median of {len(seconds)}), "
        f"{speed:,.0f} tokens/s, utilisation {'unknown' if share is None else f'{share:.1%}'}, "
        f"peak of memory so far {used:.1f} GiB, compiled in {compile_seconds:.0f} s",
        flush=True,
    )
    return True


def training_seconds(
    config: Any, device: Any, batch_size: int, steps: int, ends: float
) -> tuple[list[float], float]:
    """The seconds of each step, and of compiling it."""
    import jax
    from random_inputs import TARGET_FRACTION, TARGET_SHARE, training_rows

    from glm_jax.parallel.batches import to_devices
    from glm_jax.parallel.mesh import MeshConfig, make_mesh
    from glm_jax.train.compile_ahead import lower_step
    from glm_jax.train.program import make_program
    from glm_jax.train.step import settings_on_devices

    length = config.data.sequence_length
    mesh = make_mesh(MeshConfig(), [device])
    program = make_program(
        config.model, config.optimizer, mesh, seed=0, target_fraction=TARGET_FRACTION
    )
    rows = training_rows(batch_size, length, config.model.vocab_size, TARGET_SHARE)
    started = time.perf_counter()
    step = lower_step(program, batch_size, length, mesh).compile()
    compile_seconds = time.perf_counter() - started
    seconds = []
    with jax.set_mesh(mesh):
        (batch,) = to_devices([rows], mesh, batch_size)
        state, settings = program.initialize(), settings_on_devices(program.settings, mesh)
        for number in range(steps + 2):  # the first two are not measured
            started = time.perf_counter()
            state, metrics = step(state, batch, settings)
            jax.block_until_ready((state, metrics))
            if number >= 2:
                seconds.append(time.perf_counter() - started)
            if seconds and time.monotonic() > ends:
                break
    return seconds, compile_seconds


def measure_decoding(name: str, config: Any, device: Any, texts: list[int], ends: float) -> None:
    """Prints the speed of decoding some numbers of texts at a time."""
    import flax.linen as nn
    import jax
    import numpy as np
    from random_inputs import random_decoder, timed_fill

    from glm_jax.model import GLM
    from glm_jax.model.initial import initial_params

    if is_late(ends, f"{name}, decoding"):
        return
    model = GLM(config.model)
    draw = jax.jit(lambda key: nn.unbox(initial_params(model, key)))
    decoder = random_decoder(model, draw(jax.random.key(0)))
    gc.collect()  # the stacked parameters: the decoder has its own
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(decoder.params))
    random = np.random.default_rng(0)
    for batch_size in texts:
        what = f"{name}, decoding {batch_size} texts"
        if is_late(ends, what):
            return
        started = time.perf_counter()
        timed_fill(decoder, random, batch_size, PROMPT, NEW_TOKENS)
        compile_seconds = time.perf_counter() - started
        found = [timed_fill(decoder, random, batch_size, PROMPT, NEW_TOKENS) for _ in range(3)]
        step = min(each.rest for each in found) / (NEW_TOKENS - 1)
        written = batch_size * (PROMPT + NEW_TOKENS / 2)
        read = weights + written * 2 * config.model.num_layers * config.model.hidden_size * 2
        print(
            f"  {what}: {1e3 * step:.2f} ms a step, {batch_size / step:,.0f} tokens/s, first token "
            f"{1e3 * min(each.first for each in found):.0f} ms, {read / 1e9:.2f} GB read a step"
            f"{bandwidth_share(device, read / step)}, first run {compile_seconds:.0f} s",
            flush=True,
        )


def bandwidth_share(device: Any, bytes_per_second: float) -> str:
    """The rate as a share of the device's, where that is known."""
    from glm_jax.compile.chips import CHIPS

    tpus = {chip.device_kind: chip.hbm_bandwidth for chip in CHIPS.values()}
    # "TPU v5" is also how the longer names begin.
    published_rates = GPU_BANDWIDTH | dict(sorted(tpus.items(), reverse=True))
    for kind, published in published_rates.items():
        if device.device_kind.startswith(kind):
            return f", {bytes_per_second / published:.0%} of the memory's bandwidth"
    return f", {bytes_per_second / 1e9:.0f} GB/s"


if __name__ == "__main__":
    main()
