"""Checkpoints of the original code: read, split and merged over ranks, and written."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.layouts.original_writer import OriginalDestination
from glm_jax.convert.layouts.rank_files import rank_file_name
from glm_jax.convert.layouts.state_dict import read_state_dict
from glm_jax.convert.tensors import require_finite
from glm_jax.errors import RunError, UsageError
from tests.convert.tiny import (
    BFLOAT16,
    DIMENSIONS,
    bytes_of,
    infos_of,
    tiny_tensors,
    write_original,
    zip_checkpoint,
)

DTYPES = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)]


def assert_reads(path: Path, expected: dict[str, np.ndarray]) -> None:
    with OriginalSource(path) as source:
        assert dict(source.tensors) == infos_of(expected)
        assert list(source.tensors) == list(expected)
        for name, tensor in expected.items():
            found = source.read(name)
            assert bytes_of(found) == bytes_of(tensor), name
            assert found.flags.c_contiguous and found.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_what_is_written_reads_back(ranks, dtype, tmp_path):
    tensors = tiny_tensors(dtype)
    folder = write_original(tmp_path / "checkpoint", tensors, ranks)
    assert len(list((folder / "5").iterdir())) == ranks
    assert_reads(folder, tensors)
    assert_reads(folder / "5", tensors)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_recorded_ranks_merge_into_the_recorded_whole(shared, ranks):
    folder = shared / "goldens/b_model_parallel"
    with np.load(folder / "merged_expected.npz") as recorded:
        expected = dict(recorded)
    with OriginalSource(folder / f"mp{ranks}") as source:
        assert source.metadata.iteration == 1200
        assert source.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            found = source.read(name)
            assert found.dtype == tensor.dtype
            np.testing.assert_array_equal(found, tensor, err_msg=name)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_splitting_gives_the_recorded_files(shared, ranks, tmp_path):
    recorded = shared / "goldens/b_model_parallel"
    with OriginalSource(recorded / "mp1") as source:
        order = list(source.tensors)
        destination = OriginalDestination(tmp_path, order, source.tensors, 1200, ranks, 4)
        for name in reversed(order):
            destination.write(name, source.read(name))
        destination.finish()
    for rank in range(ranks):
        written = TorchFile(tmp_path / "1200" / rank_file_name(rank))
        expected = TorchFile(recorded / f"mp{ranks}/1200" / rank_file_name(rank))
        found = read_state_dict(written)[0]
        assert list(found) == list(read_state_dict(expected)[0])
        for name, tensor in read_state_dict(expected)[0].items():
            np.testing.assert_array_equal(written.read(found[name]), expected.read(tensor))
        written.close()
        expected.close()


def test_the_original_finds_what_it_looks_up(tmp_path):
    torch = pytest.importorskip("torch")
    folder = write_original(tmp_path / "checkpoint", tiny_tensors(), ranks=2, iteration=30)
    for tracker in ("latest", "latest_checkpointed_iteration.txt"):
        assert (folder / tracker).read_text() == "30"
    loaded = torch.load(folder / "30" / rank_file_name(1), weights_only=True, mmap=True)
    assert loaded["iteration"] == loaded["global_steps"] == 30
    assert loaded["mp_world_size"] == 2
    for key in ("optimizer", "lr_scheduler", "csr_tensor_module_names", "skipped_steps"):
        assert key in loaded
    state = loaded["module"]
    assert state["word_embeddings.weight"].shape == (12, 8)
    assert state["transformer.layers.0.attention.dense.weight"].shape == (8, 4)


@pytest.mark.parametrize("prefix", ["module.", "model."])
def test_the_prefix_of_a_wrapper_is_taken_off(prefix, tmp_path):
    tensors = tiny_tensors()
    path = tmp_path / "weights.pt"
    path.write_bytes(zip_checkpoint({f"{prefix}{name}": t for name, t in tensors.items()}))
    assert_reads(path, tensors)


def test_one_tracker_or_two_that_agree(tmp_path):
    folder = write_original(tmp_path / "checkpoint", tiny_tensors())
    (folder / "latest").write_text(" 5\n")
    assert_reads(folder, tiny_tensors())
    (folder / "latest_checkpointed_iteration.txt").unlink()
    assert_reads(folder, tiny_tensors())


def test_other_files_of_a_training_run_are_left_alone(tmp_path):
    folder = write_original(tmp_path / "checkpoint", tiny_tensors())
    (folder / "5/zero_pp_rank_0_mp_rank_00_optim_states.pt").write_text("")
    (folder / "zero_to_fp32.py").write_text("")
    assert_reads(folder, tiny_tensors())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [*DTYPES, np.dtype(np.float64)], ids=str)
def test_a_number_that_is_none_is_found_in_any_dtype(dtype, value):
    tensor = np.zeros((1000, 300), dtype)
    tensor[3, 5] = np.finfo(np.float16).max
    require_finite(tensor, "name", "file")
    tensor[998, 7] = value
    with pytest.raises(UsageError, match=r"name in file has (nan|inf|-inf) at \[998, 7\]"):
        require_finite(tensor, "name", "file")


def test_one_file_of_several_ranks_is_not_a_checkpoint(tmp_path):
    folder = write_original(tmp_path / "checkpoint", tiny_tensors(), ranks=2)
    with pytest.raises(UsageError, match="was saved by 2 ranks, but 1 file is there"):
        OriginalSource(folder / "5" / rank_file_name(0))


def test_the_number_of_ranks_follows_from_shapes(tmp_path):
    """Where nothing else says it: the original's own style doesn't record the number."""
    folder = write_original(tmp_path / "checkpoint", tiny_tensors(), ranks=2)
    first = TorchFile(folder / "5" / rank_file_name(0))
    share = {name: first.read(tensor) for name, tensor in read_state_dict(first)[0].items()}
    path = tmp_path / "one.pt"
    path.write_bytes(zip_checkpoint(share))
    with pytest.raises(UsageError, match="as 2 ranks have it, but 1 file is there"):
        OriginalSource(path)


@pytest.mark.parametrize(
    ("dimensions", "ranks", "heads", "sentence"),
    [
        (DIMENSIONS, 8, 4, "8 model-parallel ranks can't share 4 heads"),
        (DIMENSIONS, 3, 4, "3 model-parallel ranks can't share 4 heads"),
        (DIMENSIONS, 3, 3, r"3 .* can't share transformer.layers.0.* of shape \[24, 8\]"),
        (DIMENSIONS, 0, 4, "must be at least 1"),
        (Dimensions(25, 1, 8, 7, True, None), 2, 4, r"word_embeddings.weight of shape \[25, 8\]"),
    ],
)
def test_ranks_must_divide_everything(dimensions, ranks, heads, sentence, tmp_path):
    infos = infos_of(tiny_tensors(dimensions=dimensions))
    with pytest.raises(UsageError, match=sentence):
        OriginalDestination(tmp_path, list(infos), infos, 5, ranks, heads)
    assert not list(tmp_path.iterdir())


def test_a_failing_disk_is_one_sentence(tmp_path):
    infos = infos_of(tiny_tensors())
    (tmp_path / "5").write_text("in the way")
    with pytest.raises(RunError, match="can't be written: File exists"):
        OriginalDestination(tmp_path, list(infos), infos, 5, 1, 4)


def test_reading_takes_the_memory_of_one_tensor(tmp_path):
    wide = Dimensions(128, 12, 128, 65, True, None)
    tensors = tiny_tensors(dimensions=wide)
    total = sum(tensor.nbytes for tensor in tensors.values())
    largest = max(tensor.nbytes for tensor in tensors.values())
    folder = write_original(tmp_path / "checkpoint", tensors, ranks=2)
    tracemalloc.start()
    with OriginalSource(folder) as source:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for name in source.tensors:
            source.read(name)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A rank's share beside the whole tensor, and what is compared at a time.
    assert peak - before < 2 * largest + (1 << 20)
    assert total > 20 * largest


def test_a_folder_that_is_gone(tmp_path):
    folder = write_original(tmp_path / "checkpoint", tiny_tensors())
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="there is no checkpoint at"):
        OriginalSource(folder)
