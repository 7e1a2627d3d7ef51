"""Our checkpoints as source and destination: every bit, what orbax sees, what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.convert.array_layouts import to_native
from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.layouts.native import NativeSource
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.names import find
from glm_jax.convert.tensors import contiguous
from glm_jax.convert.transfer import checksum
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import RunError, UsageError

HALF, BRAIN, SINGLE = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
SMALL = Dimensions(
    vocab_size=40,
    num_layers=3,
    hidden_size=8,
    position_rows=17,
    block_positions=True,
    relative_heads=None,
)
MODEL = {
    "vocab_size": 40,
    "num_layers": 3,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "max_sequence_length": 16,
}


def random_tensors(
    dimensions: Dimensions, dtype_of: Callable[[str], np.dtype]
) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        name: generator.standard_normal(shape, np.float32).astype(dtype_of(name))
        for name, shape in dimensions.shapes().items()
    }


def write(
    folder: Path, tensors: Mapping[str, np.ndarray], metadata: SourceMetadata | None = None
) -> Path:
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    checksums = {name: checksum(tensor) for name, tensor in tensors.items()}
    metadata = metadata or SourceMetadata(num_attention_heads=2, iteration=7)
    destination = NativeDestination(folder, list(infos), infos, metadata, MODEL, checksums)
    for name in destination.order:
        destination.write(name, tensors[name])
    destination.finish()
    return folder


@pytest.fixture
def written(tmp_path) -> tuple[Path, dict[str, np.ndarray]]:
    tensors = random_tensors(SMALL, lambda _: HALF)
    return write(tmp_path / "run", tensors), tensors


def assert_same(source: NativeSource, tensors: Mapping[str, np.ndarray]) -> None:
    assert list(source.tensors) == list(tensors)
    for name, expected in tensors.items():
        found = source.read(name)
        assert found.dtype == expected.dtype == source.tensors[name].dtype
        assert found.flags.c_contiguous and found.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("dtype", [HALF, BRAIN, SINGLE], ids=str)
@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"block_positions": False},
        {"block_positions": False, "position_rows": 0, "relative_heads": 2},
    ],
    ids=["two positions", "one position", "relative"],
)
def test_every_bit_comes_back(tmp_path, dtype, variant):
    dimensions = Dimensions(**{**vars(SMALL), **variant})
    tensors = random_tensors(dimensions, lambda _: dtype)
    assert_same(NativeSource(write(tmp_path, tensors)), tensors)


def test_dtypes_that_differ_between_layers_come_back(tmp_path):
    def dtype_of(name: str) -> np.dtype:
        return BRAIN if ".1." in name else SINGLE if "layernorm" in name else HALF

    tensors = random_tensors(SMALL, dtype_of)
    assert_same(NativeSource(write(tmp_path, tensors)), tensors)


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/7"])
def test_run_folder_its_checkpoints_and_one_checkpoint_are_the_same(written, place):
    folder, tensors = written
    assert_same(NativeSource(folder / place), tensors)


def test_metadata_is_read_back(tmp_path):
    metadata = SourceMetadata(2, None, "glm.", {"model_type": "glm", "hidden_size": 8})
    folder = write(tmp_path, random_tensors(SMALL, lambda _: HALF), metadata)
    assert NativeSource(folder).metadata == metadata
    assert [step.name for step in (folder / "checkpoints").iterdir()] == ["0"]


def test_orbax_restores_it(written):
    folder, tensors = written
    state = ocp.PyTreeCheckpointer().restore(folder.absolute() / "checkpoints" / "7" / "state")
    assert set(state) == {"params"}
    for name, expected in tensors.items():
        entry, layer = find(name) or pytest.fail(name)
        leaf = state["params"]
        for part in entry.native.split("/"):
            leaf = leaf[part]
        assert leaf.dtype == expected.dtype
        found = leaf if layer is None else leaf[layer]
        np.testing.assert_array_equal(found, to_native(entry.layout, expected))


def test_our_checkpoints_restore_it_upcast(written):
    folder, tensors = written
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((3, 8, 32), jnp.float32, sharding=device)
    abstract = {"params": {"layers": {"mlp": {"up": {"kernel": shape}}}}}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 7
        record = checkpoints.read_record(7)
        restored = checkpoints.restore(7, abstract)["params"]["layers"]["mlp"]["up"]["kernel"]
    assert record["step"] == 7 and record["configuration"]["model"] == MODEL
    names = [f"transformer.layers.{layer}.mlp.dense_h_to_4h.weight" for layer in range(3)]
    expected = np.stack([tensors[name].T for name in names]).astype(np.float32)
    np.testing.assert_array_equal(restored, expected)


def training_checkpoint(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """What `glm-jax pretrain` saves, by orbax itself: a tree of whole arrays."""
    params: dict = {}
    for name, tensor in tensors.items():
        entry, layer = find(name) or pytest.fail(name)
        *parents, last = entry.native.split("/")
        node = params
        for part in parents:
            node = node.setdefault(part, {})
        array = to_native(entry.layout, tensor)
        node.setdefault(last, []).append(array) if layer is not None else node.update({last: array})
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.stack(leaf) if isinstance(leaf, list) else leaf),
        params,
        is_leaf=lambda node: isinstance(node, list),
    )
    state = {"step": jnp.asarray(3), "params": params, "optimizer_state": [jnp.ones(4)]}
    with Checkpoints(folder / "checkpoints", CheckpointConfig()) as checkpoints:
        checkpoints.save(3, state, {"configuration": {"model": MODEL}})


def test_a_training_run_is_read(tmp_path):
    tensors = random_tensors(SMALL, lambda _: SINGLE)
    training_checkpoint(tmp_path, tensors)
    source = NativeSource(tmp_path)
    assert source.metadata == SourceMetadata(num_attention_heads=2, iteration=3)
    assert_same(source, tensors)
    assert sorted(source.reading_order) == sorted(tensors)
    leaves = [(find(name) or pytest.fail(name))[0].native for name in source.reading_order]
    changes = sum(one != other for one, other in itertools.pairwise(leaves))
    assert changes == len(set(leaves)) - 1  # every parameter is decoded once


def chunk(folder: Path, parameter: str, *place: int) -> Path:
    state = folder / "checkpoints" / "7" / "state"
    return state.joinpath(f"params.{parameter}", "c", *map(str, place))


def test_a_flipped_bit_is_found_wherever_it_is(written):
    folder, tensors = written
    path = chunk(folder, "layers.mlp.up.kernel", 1, 0, 0)
    healthy = path.read_bytes()
    name = "transformer.layers.1.mlp.dense_h_to_4h.weight"
    for place in range(0, len(healthy), 37):
        damaged = bytearray(healthy)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=rf"mlp\.up\.kernel: {name} is damaged"):
            NativeSource(folder).read(name)
        other = name.replace(".1.", ".2.")
        assert NativeSource(folder).read(other).tobytes() == tensors[other].tobytes()


@pytest.mark.parametrize("length", [0, 1, 100, 511, 513])
def test_a_chunk_of_another_length_is_damaged(written, length):
    folder, _ = written
    path = chunk(folder, "layers.mlp.up.kernel", 1, 0, 0)
    content = path.read_bytes()
    assert len(content) == 512
    path.write_bytes((content + b"\0")[:length])
    with pytest.raises(UsageError, match="is damaged"):
        NativeSource(folder).read("transformer.layers.1.mlp.dense_h_to_4h.weight")


def test_a_missing_chunk_is_damaged(written):
    folder, _ = written
    chunk(folder, "word_embedding", 0, 0).unlink()
    with pytest.raises(UsageError, match=r"word_embeddings\.weight is damaged"):
        NativeSource(folder).read("word_embeddings.weight")


def test_numbers_that_are_none_are_refused(tmp_path):
    tensors = random_tensors(SMALL, lambda _: HALF)
    tensors["transformer.final_layernorm.bias"][5] = np.nan
    source = NativeSource(write(tmp_path, tensors))
    with pytest.raises(UsageError, match=r"final_layernorm\.bias .* nan at \[5\]"):
        source.read("transformer.final_layernorm.bias")


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("record/metadata", lambda r: r.update(parameter_layout="x"), "parameter layout 'x'"),
        ("record/metadata", lambda r: r.pop("configuration"), "lacks 'configuration'"),
        ("record/metadata", lambda r: r["weights"].update(iteration="7"), "'7'"),
        ("record/metadata", lambda r: r["weights"].update(dtypes={"a": "int4"}), "unknown dtypes"),
        ("record/metadata", lambda r: r["weights"].update(checksums=[1]), "usable checksums"),
        ("state/_METADATA", lambda d: d.pop("use_ocdbt"), "does not describe a checkpoint"),
        ("state/_METADATA", lambda d: d["tree_metadata"].clear(), "holds no parameters"),
        (
            "state/params.word_embedding/zarr.json",
            lambda z: z.update(data_type="int16"),
            "params.word_embedding holds int16",
        ),
        (
            "state/params.layers.mlp.up.kernel/zarr.json",
            lambda z: z.update(shape=[3, 8, 33]),
            "dense_h_to_4h",
        ),
        ("state/params.layers.mlp.up.kernel/zarr.json", lambda z: z.clear(), "missing or damaged"),
    ],
)
def test_a_changed_description_is_refused(written, file, change, sentence):
    folder, _ = written
    edit(folder / "checkpoints" / "7" / file, change)
    with pytest.raises(UsageError, match=sentence):
        NativeSource(folder)


def test_a_record_that_is_no_json_is_refused(written):
    folder, _ = written
    (folder / "checkpoints/7/record/metadata").write_text("{")
    with pytest.raises(RunError, match="can't be read"):
        NativeSource(folder)


def test_a_missing_parameter_is_refused(written):
    folder, _ = written
    keep = "('params', 'layers', 'mlp', 'up', 'bias')"
    edit(
        folder / "checkpoints/7/state/_METADATA",
        lambda description: description["tree_metadata"].pop(keep),
    )
    with pytest.raises(UsageError, match=r"no tensor .*dense_h_to_4h\.bias"):
        NativeSource(folder)


def test_an_empty_folder_holds_no_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="holds no complete checkpoint"):
        NativeSource(tmp_path)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
    st.sampled_from([HALF, BRAIN, SINGLE]),
)
def test_contiguous_keeps_values(shape, random, dtype):
    axes = list(range(len(shape)))
    random.shuffle(axes)
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype).transpose(axes)
    copy = contiguous(array)
    assert copy.flags.c_contiguous and copy.dtype == dtype
    np.testing.assert_array_equal(copy, array)


def test_contiguous_of_more_than_one_block():
    array = np.arange(1100 * 70, dtype=np.float32).reshape(70, 1100).T
    np.testing.assert_array_equal(contiguous(array), array)


def test_the_written_configuration_is_that_of_the_tensors(written):
    folder, _ = written
    config = infer_config(NativeSource(folder).tensors, 2)
    assert {name: getattr(config, name) for name in MODEL} == MODEL
