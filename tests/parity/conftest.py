"""Reads checkpoints and recorded models of the original code, without torch.

A `torch.save` file is a zip archive: `data.pkl` describes the objects, `data/<key>` holds the bytes
of each storage. The unpickler below knows the few names that such a description of a state dict and
of random states needs, and refuses every other, so that reading a file runs none of its code.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_jax.model import GLM, GLMConfig


@pytest.fixture(scope="session")
def load_recorded(shared: Path) -> Callable[[str], tuple[GLM, dict[str, Any]]]:
    """Loads the model of a folder of recorded numbers: (model, parameters)."""

    def load(name: str) -> tuple[GLM, dict[str, Any]]:
        folder = shared / "goldens" / name
        config = json.loads((folder / "config.json").read_text())
        params = to_params(read_state_dict(folder / "ckpt"), config["num_layers"])
        return GLM(to_config(config)), params

    return load


STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "ByteStorage": np.dtype("u1"),
}


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


def _rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any):
    strides = tuple(step * storage.itemsize for step in stride)
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides)
    return view.copy()


def _opaque(*_: Any) -> None:
    """Stands for random states, whose contents no test needs."""


class _Opaque:
    """Takes any construction and state, and keeps nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("numpy", "dtype"): _Opaque,
    ("numpy", "ndarray"): _Opaque,
    ("numpy.core.multiarray", "_reconstruct"): _Opaque,
    ("numpy._core.multiarray", "_reconstruct"): _Opaque,
    ("_codecs", "encode"): _opaque,
    **{("torch", name): _StorageType(dtype) for name, dtype in STORAGE_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"refused {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage_type, key, _, count = pid
        assert kind == "storage"
        data = self.archive.read(f"{self.root}/data/{key}")
        return np.frombuffer(data, storage_type.dtype, count)


def read_state_dict(folder: Path) -> dict[str, np.ndarray]:
    """Parameters by their original names, from a checkpoint folder of one model-parallel rank."""
    tracker = next(
        path
        for name in ("latest_checkpointed_iteration.txt", "latest")
        if (path := folder / name).exists()
    )
    file = folder / tracker.read_text().strip() / "mp_rank_00_model_states.pt"
    with zipfile.ZipFile(file) as archive:
        description = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return _Unpickler(archive, description.removesuffix("/data.pkl")).load()["module"]


def to_params(state: Mapping[str, np.ndarray], num_layers: int) -> dict[str, Any]:
    """The parameters of `GLM` from the original's, as float32.

    The original keeps a linear map as [out, in] and query, key and value as thirds of `out`.
    """

    def stack(suffix: str) -> np.ndarray:
        layers = [state[f"transformer.layers.{n}.{suffix}"] for n in range(num_layers)]
        return np.stack(layers).astype(np.float32)

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    def linear(name: str) -> dict[str, np.ndarray]:
        return {"kernel": stack(f"{name}.weight").swapaxes(1, 2), "bias": stack(f"{name}.bias")}

    fused = linear("attention.query_key_value")
    hidden_size = fused["kernel"].shape[1]
    thirds = {
        "kernel": fused["kernel"].reshape(num_layers, hidden_size, 3, hidden_size),
        "bias": fused["bias"].reshape(num_layers, 3, hidden_size),
    }
    top = {name: value.astype(np.float32) for name, value in state.items() if "layers." not in name}
    return {
        "word_embedding": top["word_embeddings.weight"],
        "position_embedding": top["transformer.position_embeddings.weight"],
        "block_position_embedding": top["transformer.block_position_embeddings.weight"],
        "layers": {
            "attention_layernorm": norm("input_layernorm"),
            "attention": {"query_key_value": thirds, "output": linear("attention.dense")},
            "mlp_layernorm": norm("post_attention_layernorm"),
            "mlp": {"up": linear("mlp.dense_h_to_4h"), "down": linear("mlp.dense_4h_to_h")},
        },
        "final_layernorm": {
            "scale": top["transformer.final_layernorm.weight"],
            "bias": top["transformer.final_layernorm.bias"],
        },
    }


def to_config(recorded: Mapping[str, Any]) -> GLMConfig:
    """The network's dimensions from the `config.json` of a recorded model."""
    return GLMConfig(
        vocab_size=recorded["vocab_size"],
        num_layers=recorded["num_layers"],
        hidden_size=recorded["hidden_size"],
        num_attention_heads=recorded["num_attention_heads"],
        max_sequence_length=recorded["max_sequence_length"],
    )
