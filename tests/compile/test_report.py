"""Bounds, verdicts, JSON and tables."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from glm_jax.compile.chips import CHIPS
from glm_jax.compile.collectives import Collective
from glm_jax.compile.costs import Costs, Kernel
from glm_jax.compile.hlo import read_module
from glm_jax.compile.memory import MemoryUse, Temporary, largest_temporaries
from glm_jax.compile.predict import predict
from glm_jax.compile.report import StepReport, collective_totals, read_report, report_json
from glm_jax.compile.table import details, heading, notes, step_table
from glm_jax.errors import UsageError
from tests.compile.programs import LOOP

V5P = CHIPS["v5p"]
GATHER = Collective("all-gather", 8e9, 8, 6e9, 0.0, 2, True)
SCATTER = Collective("reduce-scatter", 8e9, 8, 6e9, 1e9, None, False)
COSTS = Costs(
    flops=4e12,
    cycles={"product fusion": int(V5P.clock), "copy": int(V5P.clock) // 4},
    unestimated={"scatter_fusion": 2765e6 / 2},
    collectives=((GATHER, 2), (SCATTER, 1)),
    kernels=(Kernel("attention", 10, 459e10 / 2, 1e6),),
    unknown_loops=(),
)
GIB = 2**30


def make_report(**changes) -> StepReport:
    """A report of a made-up step."""
    values = {
        "configuration": "glm_test",
        "topology": "v5p:2x2x2",
        "num_slices": 2,
        "chips": 16,
        "mesh": {"data": 2, "fsdp": 8, "tensor": 1},
        "layers": 2,
        "parameters": 1234567,
        "remat": "full",
        "batch_size": 64,
        "sequence_length": 1024,
        "memory": MemoryUse(2 * GIB, 3 * GIB, 0, GIB // 2, 0),
        "hbm_bytes": V5P.hbm_bytes,
        "product_flops": COSTS.flops,
        "kernel_flops": 459e11 / 2,
        "model_flops": 459e11,
        "collectives": collective_totals(COSTS),
        "cycles": COSTS.cycles,
        "unestimated": COSTS.unestimated,
        "kernels": COSTS.kernels,
        "prediction": predict(COSTS, V5P, 459e11, 64),
        "temporaries": (Temporary("glm_jax/model/glm.py:1", 5, 1, "f32[1]"),),
        "unknown_loops": (),
        "compile_seconds": 61.5,
        "compile_cpu_seconds": 80.0,
        "compiler": {"jax": "1", "libtpu": "2"},
    }
    return StepReport(**(values | changes))


def shown(*renderables) -> str:
    """What a wide terminal would show."""
    console = Console(file=io.StringIO(), width=200)
    for renderable in renderables:
        console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_chips_have_plausible_clocks_and_networks(chip):
    assert 0.9e9 < chip.clock < 2e9
    assert chip.dcn_bandwidth < chip.ici_bandwidth < chip.hbm_bandwidth


def test_the_bounds_of_a_step():
    prediction = predict(COSTS, V5P, 459e11, 64)
    assert prediction.product_seconds == pytest.approx(1, rel=1e-6)
    # A quarter of a second of cycles, and the scatter's bytes there and back.
    assert prediction.other_seconds == pytest.approx(0.25 + 0.001 / 2 * 2, rel=1e-6)
    # Heads of 64 fill half of a matrix unit of 128.
    assert prediction.kernel_seconds == pytest.approx(0.1, rel=1e-6)
    assert prediction.ici_seconds == pytest.approx(18e9 / 600e9)
    # The gathers keep two of six links busy, and of the scatter nothing is known.
    assert prediction.ici_used_seconds == pytest.approx(12e9 / 200e9 + 6e9 / 600e9)
    assert prediction.dcn_seconds == pytest.approx(1e9 / 6.25e9)
    computing = 1.351
    assert prediction.overlapped_seconds == pytest.approx(computing, rel=1e-6)
    assert prediction.serial_seconds == pytest.approx(computing + 0.03 + 0.16, rel=1e-6)
    assert prediction.serial_used_seconds == pytest.approx(computing + 0.07 + 0.16, rel=1e-6)
    assert prediction.serial_utilisation == pytest.approx(0.1 / prediction.serial_seconds)


def test_kernels_are_bound_by_memory_where_they_compute_little():
    costs = dataclasses.replace(COSTS, kernels=(Kernel("copying", 3, 1.0, V5P.hbm_bandwidth),))
    assert predict(costs, V5P, 1.0, 128).kernel_seconds == pytest.approx(3)


def test_totals_add_up_by_kind():
    gather, scatter = collective_totals(COSTS)
    assert (gather.kind, gather.count, gather.ici_bytes) == ("all-gather", 2, 12e9)
    assert (gather.asynchronous_bytes, scatter.asynchronous_bytes) == (12e9, 0)
    assert scatter.dcn_bytes == 1e9


def test_the_verdict_names_what_takes_longest():
    assert make_report().verdict().startswith("limited by matrix products: 1 of 1.58 s")
    slow = dataclasses.replace(COSTS, collectives=((SCATTER, 100),))
    verdict = make_report(prediction=predict(slow, V5P, 1.0, 64)).verdict()
    assert verdict.startswith("limited by transfers between slices (DCN)")


def test_the_verdict_says_when_it_does_not_fit():
    report = make_report(memory=MemoryUse(90 * GIB, 6 * GIB, 0, 0, 0))
    assert not report.fits
    assert "does not fit: 96.00 GiB" in report.verdict()
    assert make_report().fits


def test_json_reads_back_to_the_same_report(tmp_path):
    path = tmp_path / "step.json"
    path.write_text(report_json(make_report()))
    assert read_report(path) == make_report()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 0}', '{"format": 1, "chips": 3}'])
def test_other_json_is_refused(tmp_path, text):
    path = tmp_path / "step.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"step\.json"):
        read_report(path)


def test_a_missing_report_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.json"):
        read_report(tmp_path / "absent.json")


def test_the_table_shows_one_step():
    report = make_report()
    text = shown(heading(report), step_table([report]), *details(report))
    for part in ("2 x v5p:2x2x2", "4 x 1024", "1,234,567", "5.50", "reduce-scatter", "glm.py:1"):
        assert part in text
    assert "in the host's memory" not in text


def test_two_steps_stand_side_by_side_with_ratios():
    other = make_report(configuration="other", memory=MemoryUse(GIB, 3 * GIB, 0, GIB // 2, 0))
    row = next(
        line
        for line in shown(step_table([make_report(), other])).splitlines()
        if line.startswith("arguments")
    )
    assert row.replace("│", " ").split()[2:] == ["2.00", "1.00", "0.50"]


def test_notes_tell_what_the_figures_leave_out():
    (note,) = notes(make_report())
    assert note.startswith("1 instructions")
    (_, loops) = notes(make_report(unknown_loops=("while.1",)))
    assert "while.1" in loops


def test_temporaries_are_those_that_live_at_the_peak():
    live = """HloLiveRange (max 9):
  Live ranges at 5 (peak):
    product{}: 3000 bytes (cumulative: 3000 bytes)
    state{1}: 900 bytes (cumulative: 3900 bytes)
    sum{}: 64 bytes (cumulative: 3964 bytes)
  Stack trace breakdown for peak usage: 3 964 bytes
    other{}: 9999 bytes (cumulative: 9999 bytes)
"""
    largest, second = largest_temporaries(live, read_module(LOOP, "glm_jax/"), 5)
    assert (largest.source, largest.bytes) == ("glm_jax/model/layers.py:131", 3000)
    assert largest.shape == "bf16[8,16]"
    assert (second.source, second.bytes) == ("sum", 64)
