"""What the pickle of a `torch.save` file describes: tensors as views of storages, not yet read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ml_dtypes
import numpy as np

from glm_jax.convert.formats.restricted_pickle import Constructor, Inert, Name
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError

# Every dtype that numpy can hold too; the name of torch's storage class says which it is.
STORAGE_DTYPES: dict[str, np.dtype] = {
    "torch.DoubleStorage": np.dtype("<f8"),
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.HalfStorage": np.dtype("<f2"),
    "torch.BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "torch.LongStorage": np.dtype("<i8"),
    "torch.IntStorage": np.dtype("<i4"),
    "torch.ShortStorage": np.dtype("<i2"),
    "torch.CharStorage": np.dtype("i1"),
    "torch.ByteStorage": np.dtype("u1"),
    "torch.BoolStorage": np.dtype("?"),
}

# Random states and training objects that are saved next to the weights; nothing of them is used.
_INERT = (
    "__builtin__.set",
    "builtins.set",
    "torch.device",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "_codecs.encode",
    "argparse.Namespace",
    "fp16.loss_scaler.LossScaler",
    "fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
)
NAMES = frozenset(
    {*STORAGE_DTYPES}
    | {f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "int64", "uint8")}
)


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of `count` elements in the file, found by its key."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: a view of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype."""
        return TensorInfo(self.shape, self.storage.dtype)

    @property
    def span(self) -> int:
        """Elements of the storage from the tensor's first to its last, both included."""
        if 0 in self.shape:
            return 0
        pairs = zip(self.shape, self.strides, strict=True)
        return 1 + sum((length - 1) * stride for length, stride in pairs)

    @property
    def contiguous(self) -> bool:
        """Whether the elements are in the storage in the order of a C array."""
        expected = 1
        for length, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if length != 1 and stride != expected:
                return False
            expected *= length
        return True


class Description:
    """The objects of one file's pickle, checked while they are built.

    Attributes:
      file: what messages call the file.
      storages: every storage that the pickle refers to, by key.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.storages: dict[str, Storage] = {}

    def constructors(self) -> dict[str, Constructor]:
        """What may be called in the pickle, and what is built instead."""
        return {
            "collections.OrderedDict": self._ordered_dict,
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch.Size": self._size,
            **dict.fromkeys(_INERT, lambda _: Inert()),
        }

    def storage(self, identity: Any) -> Storage:
        """The storage of a persistent id `("storage", class, key, device, count[, None])`."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise self._error("a storage that is not described as torch.save does")
        kind, class_name, key, _, count = identity[:5]
        dtype = STORAGE_DTYPES.get(class_name.text) if isinstance(class_name, Name) else None
        if (
            kind != "storage"
            or dtype is None
            or not isinstance(key, str)
            or not _is_length(count)
            or identity[5:] not in ((), (None,))
        ):
            raise self._error("a storage that is not described as torch.save does")
        storage = Storage(key, dtype, count)
        if self.storages.setdefault(key, storage) != storage:
            raise self._error(f"two different descriptions of storage {key[:80]!r}")
        return storage

    def _tensor(self, arguments: tuple[Any, ...]) -> StoredTensor:
        if len(arguments) < 4:
            raise self._error("a tensor that is not described as torch.save does")
        storage, offset, shape, strides = arguments[:4]
        if (
            not isinstance(storage, Storage)
            or not _is_length(offset)
            or not _are_lengths(shape)
            or not _are_lengths(strides)
            or len(shape) != len(strides)
        ):
            raise self._error("a tensor that is not described as torch.save does")
        tensor = StoredTensor(storage, offset, tuple(shape), tuple(strides))
        if offset + tensor.span > storage.count:
            raise self._error(
                f"a tensor of shape {list(shape)} that reaches outside its storage of "
                f"{storage.count} elements"
            )
        if _overlaps(tensor):
            raise self._error(f"a tensor of shape {list(shape)} whose elements overlap")
        return tensor

    def _parameter(self, arguments: tuple[Any, ...]) -> StoredTensor:
        if not arguments or not isinstance(arguments[0], StoredTensor):
            raise self._error("a parameter that is no tensor")
        return arguments[0]

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        if arguments:
            raise self._error("an OrderedDict that is not described as torch.save does")
        return {}

    def _size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        if len(arguments) != 1 or not _are_lengths(arguments[0]):
            raise self._error("a torch.Size that holds no lengths")
        return tuple(arguments[0])

    def _error(self, what: str) -> UsageError:
        return UsageError(f"the pickle in {self.file} has {what}")


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _are_lengths(values: object) -> bool:
    return isinstance(values, tuple | list) and len(values) <= 8 and all(map(_is_length, values))


def _overlaps(tensor: StoredTensor) -> bool:
    """Whether two elements might overlap: each axis must step over all of the smaller ones.

    No transposed or sliced view of an ordinary tensor does; an expanded one (stride 0) does.
    """
    if math.prod(tensor.shape) == 0:
        return False
    reach = 0
    axes = sorted(zip(tensor.strides, tensor.shape, strict=True))
    for stride, length in axes:
        if length > 1:
            if stride <= reach:
                return True
            reach += (length - 1) * stride
    return False
