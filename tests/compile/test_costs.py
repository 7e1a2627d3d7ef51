"""What is counted in a program's text."""

from __future__ import annotations

import re

import pytest

from glm_jax.compile.collectives import read_groups, read_slice_transfer, wire_bytes
from glm_jax.compile.costs import Loops, count_costs
from glm_jax.compile.hlo import Instruction, read_arrays, read_module, trip_count
from tests.compile.programs import LOOP

ROUNDS = 48
ONE_SLICE = [0] * 8


def costs(text: str = LOOP, slice_of: list[int] = ONE_SLICE):
    """Of a whole program."""
    return count_costs(read_module(text), slice_of)


def test_instructions_are_read_with_shapes_operands_and_attributes():
    module = read_module(LOOP)
    start = next(i for i in module.computations[module.entry] if i.name == "start")
    assert start.opcode == "tuple"
    assert start.operands == ("zero", "p0")
    assert [array.dimensions for array in start.arrays] == [(), (8, 4)]
    assert start.bytes == 4 + 2 * 8 * 4
    assert module.computations["body"][-1].is_root


def test_sizes_of_element_types():
    shape = "(pred[3], s4[4]{0}, f8e4m3fn[5], bf16[2,2], f32[], u32[7], token[])"
    assert [array.bytes for array in read_arrays(shape)] == [3, 2, 5, 8, 4, 28, 0]


def test_a_line_of_the_project_is_found_behind_lines_of_libraries():
    module = read_module(LOOP, "glm_jax/")
    product = next(i for i in module.computations["body"] if i.name == "product")
    assert module.source(product) == "glm_jax/model/layers.py:131"
    assert read_module(LOOP).source(product) == "/opt/flax/core.py:7"


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        read_module("HloModule nothing\n")


def test_products_and_cycles_in_a_loop_count_every_round():
    counted = costs()
    assert counted.flops == ROUNDS * 2 * 8 * 4 * 16
    assert counted.cycles == {"product fusion": ROUNDS * 1000, "copy": 7}


def test_a_loop_without_a_number_of_rounds_can_be_given_one():
    unknown = LOOP.replace("constant(48)", "parameter(1)")
    assert count_costs(read_module(unknown), ONE_SLICE).unknown_loops == ("while.1",)
    named = unknown.replace("body=%body", 'body=%body, metadata={op_name="jit(f)/mlp/while"}')
    counted = count_costs(read_module(named), ONE_SLICE, Loops({"mlp/while": 5}))
    assert counted.unknown_loops == ()
    assert counted.cycles["product fusion"] == 5 * 1000
    assert count_costs(read_module(named), ONE_SLICE, Loops({"while/mlp": 5})).unknown_loops


def test_costs_of_one_of_several_steps_have_their_share_of_what_is_around_the_loop():
    counted = count_costs(read_module(LOOP), ONE_SLICE, Loops(steps=ROUNDS))
    assert counted.flops == 2 * 8 * 4 * 16
    assert counted.cycles["product fusion"] == 1000
    assert counted.unestimated == {"scattered": 8 * 4 * 2 / ROUNDS}
    assert counted.kernels[0].calls == 1
    times = {moved.kind: times for moved, times in counted.collectives}
    assert times == {"reduce-scatter": 1, "all-gather": 1 / ROUNDS}


def test_a_fusion_without_an_estimate_is_told_with_its_bytes():
    assert costs().unestimated == {"scattered": 8 * 4 * 2}


def test_a_scatter_moves_its_updates_only():
    fused = """
%scattering (all: bf16[512,16], rows: s32[2], new: bf16[2,16]) -> bf16[512,16] {
  %all = bf16[512,16] parameter(0)
  %rows = s32[2] parameter(1)
  %new = bf16[2,16] parameter(2)
  ROOT %one = bf16[512,16] scatter(%all, %rows, %new), to_apply=%add
}

ENTRY %main (all: bf16[512,16], rows: s32[2], new: bf16[2,16]) -> bf16[512,16] {
  %all = bf16[512,16] parameter(0)
  %rows = s32[2] parameter(1)
  %new = bf16[2,16] parameter(2)
  %first = bf16[512,16] scatter(%all, %rows, %new), to_apply=%add
  ROOT %second = bf16[512,16] fusion(%first, %rows, %new), kind=kLoop, calls=%scattering
}
"""
    assert costs(fused).unestimated == {"first": 2 * 16 * 2, "second": 2 * 16 * 2}


def test_kernels_count_with_what_they_declare():
    (kernel,) = costs().kernels
    assert (kernel.name, kernel.calls) == ("kernel", ROUNDS)
    assert (kernel.flops, kernel.bytes) == (3000, 2000)


def test_a_sum_cut_up_inside_a_fusion_is_a_reduce_scatter():
    found = [(moved, times) for moved, times in costs().collectives if moved.kind != "all-gather"]
    ((moved, times),) = found
    assert (moved.kind, times, moved.group_size) == ("reduce-scatter", ROUNDS, 4)
    assert moved.ici_bytes == 8 * 16 * 2 * 3 / 4


def test_a_gather_spread_over_fusions_counts_once_and_is_asynchronous():
    ((moved, times),) = [item for item in costs().collectives if item[0].kind == "all-gather"]
    assert (times, moved.is_async, moved.group_size) == (1, True, 4)
    assert moved.ici_bytes == 8 * 16 * 2 * 3 / 4
    assert moved.ici_links == 2


def test_every_gather_that_is_spread_over_fusions_counts_also_with_one_channel_for_all():
    # As one program has them: each starts in a fusion of its own.
    twice = LOOP.replace('"flag_end":"8"', '"flag_end":"-1"')
    gathers = [moved for moved, _ in costs(twice).collectives if moved.kind == "all-gather"]
    assert len(gathers) == 2


def test_a_fusion_names_the_algorithm_of_the_sum_inside_it():
    def links(text: str) -> int | None:
        (moved,) = [moved for moved, _ in costs(text).collectives if moved.kind != "all-gather"]
        return moved.ici_links

    config = '"collective_algorithm_config":{"debug":"StrategyRing{colors:1 phases:1}"}'
    named = LOOP.replace("calls=%summed", f"calls=%summed, backend_config={{{config}}}")
    assert (links(LOOP), links(named)) == (None, 2)


@pytest.mark.parametrize(
    ("operation", "kind", "whole"),
    [
        ("bf16[2,16]{1,0} reduce-scatter(%x)", "reduce-scatter", 8 * 16 * 2),
        ("(bf16[8,16]{1,0}, bf16[2,16]{1,0}) reduce-scatter-start(%x)", "reduce-scatter", 256),
        ("(bf16[2,16]{1,0}, bf16[8,16]{1,0}) all-gather-start(%x)", "all-gather", 256),
        ("(bf16[8,16]{1,0}, f32[2]{0}) all-reduce(%x, %y)", "all-reduce", 256 + 8),
    ],
)
def test_the_whole_array_is_found_in_every_form_of_a_result(operation, kind, whole):
    line = f"  %one = {operation}, channel_id=1, replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}"
    text = f"ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {{\n{line}\n}}\n"
    ((moved, _),) = costs(text).collectives
    assert (moved.kind, moved.bytes, moved.group_size) == (kind, whole, 4)
    assert moved.is_async == ("-start" in operation)


def test_a_collective_in_an_asynchronous_call_is_asynchronous():
    text = LOOP.replace(
        "fusion(%product), kind=kCustom, calls=%summed", "async-start(%product), calls=%summed"
    )
    (moved,) = [moved for moved, _ in costs(text).collectives if moved.kind != "all-gather"]
    assert (moved.kind, moved.is_async) == ("all-reduce", True)


def test_rounds_are_read_from_the_condition_or_from_what_the_loop_says():
    module = read_module(LOOP)
    loop = next(i for i in module.computations[module.entry] if i.opcode == "while")
    assert trip_count(loop, module) == ROUNDS
    said = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
    assert costs(said).flops == 5 * 2 * 8 * 4 * 16


def test_a_loop_of_unknown_length_counts_once_and_is_named():
    counted = costs(LOOP.replace("direction=LT", "direction=NE"))
    assert counted.unknown_loops == ("while.1",)
    assert counted.flops == 2 * 8 * 4 * 16


@pytest.mark.parametrize(
    "branches",
    [
        "true_computation=%body, false_computation=%summed",
        "branch_computations={%body, %summed}",
    ],
)
def test_the_slowest_branch_of_a_conditional_counts(branches):
    chosen = LOOP.replace(
        "while(%start), condition=%condition, body=%body", f"conditional(%start), {branches}"
    )
    kinds = [moved.kind for moved, _ in costs(chosen).collectives]
    assert kinds == ["all-gather", "reduce-scatter"]  # and no all-reduce of the other branch
    assert costs(chosen).flops == 2 * 8 * 4 * 16


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}", [[0, 1, 2, 3]]),
    ],
)
def test_groups_are_read_in_every_notation(text, groups):
    assert read_groups(f"channel_id=1, {text}, dimensions={{0}}", 4) == groups


@pytest.mark.parametrize(
    ("kind", "ici", "dcn"),
    [("all-gather", 700, 50), ("reduce-scatter", 700, 50), ("all-reduce", 1400, 100)],
)
def test_bytes_on_the_wire_split_between_the_networks(kind, ici, dcn):
    assert wire_bytes(kind, 800, 8) == (ici, 0)
    # Two slices of eight: each does its own part, and chips at the same place exchange an eighth.
    assert wire_bytes(kind, 800, 16, num_slices=2) == (ici, dcn)


def test_a_group_across_slices_uses_both_networks():
    moved = costs(slice_of=[0, 0, 1, 1] * 2).collectives
    assert all(one.dcn_bytes > 0 and one.ici_bytes > 0 for one, _ in moved)


def test_a_transfer_that_the_host_makes_counts_on_the_network_between_slices():
    def transfer(opcode: str, kind: str) -> Instruction:
        attributes = f'frontend_attributes={{_xla_megascale_transfer_type="{kind}"}}'
        shape = "(bf16[10,10]{1,0}, u32[], token[])"
        return Instruction("t", shape, opcode, (), None, attributes, False)

    total = read_slice_transfer(transfer("send", "ALL_REDUCE"), 4)
    assert total is not None
    assert (total.kind, total.dcn_bytes, total.is_async) == ("all-reduce", 200 * 2 * 3 / 4, True)
    gathered = read_slice_transfer(transfer("recv", "ALL_GATHER"), 4)
    assert gathered is not None
    assert gathered.dcn_bytes == 200 * 3 / 4
    assert read_slice_transfer(transfer("recv", "ALL_REDUCE"), 4) is None
    assert read_slice_transfer(Instruction("a", "f32[]", "add", (), None, "", False), 4) is None


@pytest.mark.parametrize(
    ("algorithm", "links"),
    [
        ('"emitter":"3DAllGatherNonMajorDim"', 6),
        ('"emitter":"1DAllGatherNonMajorDim"', 2),
        ('"debug":"UniDirectionNDRingStrategy{colors:6 phases:3"', 6),
        ('"debug":"StrategyND{colors:2 phases:2"', 4),
        ('"debug":"StrategyND{colors:0 phases:2"', None),
    ],
)
def test_links_in_use_are_those_of_the_compilers_algorithm(algorithm, links):
    config = f"backend_config={{{algorithm}}}"
    text = re.sub(r'backend_config=\{"async[^\n]*', config, LOOP)
    found = {moved.ici_links for moved, _ in costs(text).collectives if moved.kind == "all-gather"}
    assert found == {links}
