"""The prose of docs/tpu.md, before the tables of each of its parts."""

from __future__ import annotations

HEADER = """# GLM on TPU slices

The train step of every published model, compiled by the real TPU compiler for slices of four
generations of chips, ahead of time and without the hardware. Memory and transfers are those of the
compiled program; times are computed from the compiler's estimates. Each row names its configuration
in `configs/hardware/`; the full report is the file of the same name in `docs/tpu/`. Programs were
compiled on two cores, partly shared with other work.

- **Memory** is the peak per chip (arguments and temporaries in brackets) and the compiler's limit
  for a program.
- **Remat** says what the backward pass keeps (*gathered*: the parameters that the forward pass
  gathered, which are not transferred again), and *no loop* that the program has all layers one
  after another (`model.scan_layers = False`). Pretraining rows without *no loop* were compiled
  before dropout and LayerNorm became cheaper: their steps are slower than today's.
- Rows of v5e, except for `glm_10b-v5e-16x16` and `glm_large-v5e-4x4`, were compiled when gathers
  that the compiler spreads over several fusions were counted only in part: their transfers, and the
  steps with nothing hidden, take longer than these rows say.
- **Step** and **utilisation** are three bounds. The first hides everything behind the longest of
  computing, the links within a slice (ICI) and the network between slices (DCN). The second hides
  nothing. The third hides nothing either, and counts only the links that the compiler's algorithm
  for each collective keeps busy: a ring around one dimension of the torus uses two of a chip's four
  or six. Parameters are gathered over all their mesh axes at once, which the compiler does on the
  links of all dimensions on v4, v5p and a full pod of v6e, and of one at a time elsewhere.
  Utilisation is the model's own operations (nothing that remat repeats) as a share of the chip's
  bfloat16 peak.
- Computing is the sum of the compiler's estimated cycles, times the rounds of each loop, at the
  chip's clock. Kernels, which the compiler has no estimate for, count with the operations that
  they declare, at the part of the peak that a head can fill, or with the bytes that they read,
  whichever takes longer. What the compiler has no estimate for (gathers and scatters) is
  taken to move its result, a scatter its updates, at the memory's bandwidth. Of the branches of a
  conditional the one with most cycles counts.
- **Transfers** are the bytes that a chip takes in per step over ICI and DCN.

To inspect one row, or a change to it:

```bash
glm-jax compile --gin_file=configs/hardware/glm_10b-v5p-4x4x4.gin --topology=v5p:4x4x4
```

This page is generated: `make tpu-report`.
"""
FINETUNING = """
# Finetuning

The step of `glm-jax finetune`, with the recipes of the paper, on the smallest slice of each
generation that it fits. Rows have full length; a row of ReCoRD is a text of 512 tokens with ten
answers of 8 tokens behind it, all of an example (*batch per chip x length*). Training all weights
of GLM-10B needs 16 bytes for each of its 9.89 billion parameters, with gradients and optimizer
state: 19.8 GB a chip on 8 chips of v5e and 39.6 GB on 4 of v6e, more than they have.

ChatGLM-6B is tuned with its published recipes: 16 rows of 64 + 64 tokens a step, P-tuning v2 over
int4 weights with a row per chip at a time, adapters over bfloat16 weights.
"""
DECODING = """
# Decoding

A step of the loop of `glm-jax fill`, `chat` and `serve`: one more token of every text, with full
caches, on the smallest slice of each generation that it fits. Several chips divide every matrix
(tensor parallelism).

- Weights are bfloat16, or int8 or int4 where the name says so; word embeddings, biases, LayerNorms
  and caches are bfloat16.
- **Reads** is what a chip reads of weights and caches, and how long that takes at the memory's
  bandwidth. **Step** is computed as above; it includes the choice of a token by temperature, top-k,
  top-p and repeated n-grams, and a share of what a program does once in 32 steps. **Step / reads**
  is the largest of the three bounds as a multiple of that time. Where a network has no kernels, the
  compiler reads some matrices ahead, while other operations run, and estimates nothing for that: so
  a step counts as no faster than its reads.
- **Temporaries** are next to the caches, which no step copies: what the kernels read is kept in HBM
  until they read it.
- A layer is two kernels, and the logits are one. A kernel reads weights and cache in blocks of
  4 MiB, the next one while it computes with one, and counts with the bytes that it reads. Without
  them the compiler estimates 72% of the bandwidth on v5e, 85% on v6e and 47% on v5p for a product
  that reads its matrix from memory, and no operation has less than 2,000 cycles, 1.2 microseconds,
  of which a layer has twenty: GLM-2B on four chips of v5p took five times as long as its reads.
- Not counted is what a kernel waits for before its first block, one or two microseconds, and the
  latency of the two sums over chips in a layer, of which only the bytes count. On many chips and
  small networks that is as long as the reads themselves: a layer of GLM-2B is 10 microseconds on
  v5p:2x2x1, 140 on v5e:1x1.
- That the kernels wait for memory and not for their operations can be seen in the compiler's
  schedule (`benchmarks/decode_kernels.py`): for a block of bfloat16, int8 and int4 weights it has
  1,465, 2,753 and 4,514 cycles on v5e, where reading takes 7,697; 1,512, 2,094 and 4,591 of 4,478
  on v6e; and 1,411, 2,754 and 4,522 of 5,312 on v5p.
- A slot of the cache is one row of all heads of a chip. Networks that the kernels don't support
  (trained prefixes, sizes that no block of 128 or 256 divides, weights sharded over fsdp) have
  plain operations, as all have on other platforms.

```bash
glm-jax compile --decode --model_file=configs/hardware/decode/chatglm_6b_int8-v5e-1x1.gin \\
    --topology=v5e:1x1
```
"""

OPERATIONS = """
# What the operations read and write

The operations of a step with most estimated cycles, those of all layers together; products are in
bold, with what the compiler fused into them. What the backward pass computes again is *recomputed*.

- **Result** is its largest array, **ms** the time of all calls of a step; reads and writes are the
  operands and results of one.
- **Least** is what one call must read and write. A product reads the two matrices that it
  multiplies and writes its result. Any other operation could be part of a product next to it and
  read and write nothing, except for arguments and results of the program, such as the optimizer's
  state.
- **Memory's share** is the part of the estimated time that its reads and writes take at the
  memory's bandwidth. Near 100%, nothing but less traffic helps; a product far below can't become
  faster by reading less. It is over 100% where arrays stay in the chip's own memory (VMEM).

`glm-jax compile` prints this table for every program.
"""
