"""What is listed of a program's operations."""

from __future__ import annotations

import dataclasses

import pytest

from glm_jax.compile.costs import Loops
from glm_jax.compile.fusions import Fusion, in_words, largest_fusions, operation_of
from glm_jax.compile.hlo import read_module
from tests.compile.programs import LOOP

ROUNDS = 48


def test_operations_of_a_loop_count_every_round_and_have_their_traffic():
    product, copy = largest_fusions(read_module(LOOP), Loops(), 9)
    read, written = ROUNDS * 2 * 8 * 4 * 2, ROUNDS * 8 * 16 * 2
    cycles = ROUNDS * 1000
    shape = "bf16[8,16]"
    least = ROUNDS * (8 * 4 + 4 * 16 + 8 * 16) * 2
    assert product == Fusion("mlp/dot_general", shape, True, ROUNDS, cycles, read, written, least)
    assert (copy.is_product, copy.calls, copy.cycles) == (False, 1, 7)
    assert largest_fusions(read_module(LOOP), Loops(), 1) == (product,)
    of_a_step = largest_fusions(read_module(LOOP), Loops(steps=ROUNDS), 1)[0]
    assert of_a_step.calls == 1 and of_a_step.cycles == 1000


def test_only_arguments_and_results_of_the_program_must_pass_outside_of_products():
    text = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %y = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"30"}
  %z = f32[8]{0} copy(%y), backend_config={"estimated_cycles":"20"}
  %w = f32[8]{0} copy(%z), backend_config={"estimated_cycles":"10"}
  ROOT %out = (f32[8]{0}) tuple(%w)
}
"""
    found = largest_fusions(read_module(text), Loops(), 9)
    (sums,) = found
    assert (sums.calls, sums.read_bytes, sums.written_bytes, sums.least_bytes) == (3, 96, 96, 64)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("layers/mlp/up/up.product/dot_general", "MLP up, product"),
        (
            "backward: layers/attention/query_key_value/reduce_sum",
            "backward: attention query, key and value, sum",
        ),
        ("recomputed: ...d,vd->...v/dot_general", "recomputed: logits, product"),
        (
            "backward: layers/attention_layernorm/add_any;layers/mlp/add",
            "backward: attention LayerNorm, sum of gradients",
        ),
        ("broadcast.57", "broadcast"),
    ],
)
def test_operations_have_names_in_words(operation, words):
    assert in_words(operation) == words


def test_gradients_for_weights_and_inputs_have_different_names():
    def words(result: str, operation: str = "backward: layers/mlp/up/dot_general") -> str:
        return Fusion(operation, result, True, 1, 1, 1, 1).in_words(rows=1024, length=128)

    assert words("bf16[256,512]") == "backward: MLP up, product, for the weights"
    assert words("(f32[256], bf16[8,128,256])") == "backward: MLP up, product, for the input"
    assert words("bf16[1024,256]") == "backward: MLP up, product, for the input"
    assert words("bf16[8,128,512]", "layers/mlp/up/dot_general") == "MLP up, product"


def test_the_memory_of_an_operation_has_a_share_of_its_time():
    fusion = Fusion("add", "f32[8]", False, 2, 100.0, 150.0, 50.0)
    assert fusion.memory_share(bytes_per_cycle=4.0) == 0.5


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (
            "jit(train_step)/shard_map/jvp(GLM.hidden_states)/GLM._run_layers/GLM._run_stack/while/"
            "body/closed_call/layers.step/layers.run_block/layers/mlp/up/up.product/dot_general",
            "layers/mlp/up/up.product/dot_general",
        ),
        (
            "jit(train_step)/transpose(jvp(GLM.hidden_states))/GLM._run_layers/GLM._run_stack/"
            "while/body/closed_call/checkpoint/layers/attention/output/output.product/dot_general",
            "backward: layers/attention/output/output.product/dot_general",
        ),
        (
            "jit(train_step)/transpose(jvp(GLM.hidden_states))/GLM._run_layers/GLM._run_stack/"
            "closed_call/checkpoint/rematted_computation/layers/mlp/up/up.product/dot_general",
            "recomputed: layers/mlp/up/up.product/dot_general",
        ),
        (
            "jit(train_step)/shard_map/transpose(jvp(...d,vd->...v))/dot_general",
            "backward: ...d,vd->...v/dot_general",
        ),
        ("jit(run_rows)/while/body/blocks_3/mlp/down/dot_general", "blocks/mlp/down/dot_general"),
        ("", "fusion"),
    ],
)
def test_names_of_layers_and_transformations_are_left_out(name, operation):
    module = read_module(LOOP)
    product = next(i for i in module.computations["body"] if i.name == "product")
    attributes = product.attributes.replace("jit(f)/mlp/dot_general", name)
    if not name:
        attributes = attributes.replace('op_name="" ', "")
    assert operation_of(dataclasses.replace(product, attributes=attributes)) == operation
