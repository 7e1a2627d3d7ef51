"""Pickles that no checkpoint holds: some would run code, others take memory or time without end."""

from __future__ import annotations

import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np

from tests.convert.tiny import (
    bytes_of,
    state_dict_opcodes,
    tensor_opcodes,
    text_opcodes,
    tiny_tensors,
)

_ROUNDS = 50_000


class _Calls:
    """Pickles as the call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def _globals(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def calling_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that make the file `marker` where they are trusted."""
    command = f"touch {marker}"
    source = f"open({str(marker)!r}, 'w')"
    text = text_opcodes(command)
    pickles = {
        "os.system by text opcodes": f"cos\nsystem\n(S{command!r}\ntR.".encode(),
        "os.system by REDUCE": b"\x80\x02" + _globals("os", "system") + text + b"\x85R.",
        "posix.system by REDUCE": b"\x80\x02" + _globals("posix", "system") + text + b"\x85R.",
        "os.system by INST": f"(S{command!r}\nios\nsystem\n.".encode(),
        "os.system by OBJ": b"(" + _globals("os", "system") + text + b"o.",
        "os.system by NEWOBJ": b"\x80\x02" + _globals("os", "system") + text + b"\x85\x81.",
        "os.system by NEWOBJ_EX": b"\x80\x04" + _globals("os", "system") + text + b"\x85}\x92.",
        "os.system by STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text + b"\x85R.",
        "a dotted name by STACK_GLOBAL": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93"
        + text
        + b"\x85R.",
        "os.system as another name": b"\x80\x02"
        + _globals("torch", "os.system")
        + text
        + b"\x85R.",
        "an extension": b"\x80\x02\x82\x01" + text + b"\x85R.",
        "subprocess": b"\x80\x02" + _globals("subprocess", "getoutput") + text + b"\x85R.",
        "runpy": b"\x80\x02" + _globals("runpy", "run_path") + text + b"\x85R.",
        "getattr": b"\x80\x02"
        + _globals("builtins", "getattr")
        + _globals("os", "path")
        + text_opcodes("os")
        + b"\x86R.",
        "a class of numpy": b"\x80\x02" + _globals("numpy", "load") + text + b"\x85R.",
        "torch's own loader": b"\x80\x02" + _globals("torch", "load") + text + b"\x85R.",
        "a module of torch": b"\x80\x02"
        + _globals("torch.nn.modules.linear", "Linear")
        + b")\x81.",
        "code hidden in a dictionary": b"\x80\x02}"
        + text_opcodes("module")
        + _globals("os", "system")
        + text
        + b"\x85Rs.",
        "an allowed class with a state": b"\x80\x02"
        + _globals("argparse", "Namespace")
        + b")\x81}"
        + text_opcodes("__class__")
        + _globals("os", "system")
        + b"sb.",
        "an allowed name called with code": b"\x80\x02"
        + _globals("_codecs", "encode")
        + _globals("os", "system")
        + b"\x85R.",
        "a text that is called": b"\x80\x02" + text_opcodes("os.system") + text + b"\x85R.",
        "a storage class that is called": b"\x80\x02" + _globals("torch", "HalfStorage") + b")R.",
    }
    for protocol in range(5):
        for function in (eval, exec):
            name = f"{function.__name__} by protocol {protocol}"
            pickles[name] = pickle.dumps(_Calls(function, source), protocol)
    return pickles


def exhausting_pickles() -> dict[str, bytes]:
    """Pickles that ask for more memory, depth or time than their length deserves."""
    start = b"\x80\x02"
    doubling = b"N\x85" + b"q\x00h\x00\x86" * 60
    return {
        "a huge memo index": start + b"]r\xff\xff\xff\xff.",
        "a growing memo": start
        + b"]"
        + b"".join(b"r" + struct.pack("<I", 1 << bit) for bit in range(32))
        + b".",
        "a text without end": start + b"X\xff\xff\xff\x7f.",
        "a long text without end": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
        "bytes without end": b"\x80\x03B\xff\xff\xff\xff.",
        "long bytes without end": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
        "a byte array without end": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b".",
        "a number without end": start + b"\x8b\xff\xff\xff\x7f.",
        "a number of negative length": start + b"\x8b\xff\xff\xff\xff.",
        "a number of many digits": b"I" + b"9" * 200_000 + b"\n.",
        "a frame without end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "deep lists": start + b"]" * _ROUNDS + b"a" * (_ROUNDS - 1) + b".",
        "deep tuples": start + b"N" + b"\x85" * _ROUNDS + b".",
        "a deep tuple as key": start + b"}N" + b"\x85" * _ROUNDS + b"Ns.",
        "a doubled tuple as key": start + b"}" + doubling + b"Ns.",
        "a dictionary as key": start + b"}}Ns.",
        "a list that holds itself": start + b"]q\x00h\x00a.",
        "marks without end": start + b"(" * _ROUNDS + b".",
        "colliding keys": start
        + b"}("
        + b"".join(
            b"\x8a\x0b" + (n * ((1 << 61) - 1)).to_bytes(11, "little") + b"N" for n in range(9)
        )
        + b"u.",
    }


def malformed_pickles() -> dict[str, bytes]:
    """Pickles that are none."""
    start = b"\x80\x02"
    return {
        "nothing": b"",
        "no end": start + b"}",
        "an empty stack": start + b".",
        "an unknown opcode": start + b"\xf0.",
        "a protocol of the future": b"\x80\x09}.",
        "an unwritten memo": start + b"h\x07.",
        "a tuple of nothing": start + b"\x87.",
        "a list never opened": start + b"]e.",
        "items of a number": start + b"K\x01K\x02K\x03s.",
        "an odd number of items": start + b"}(K\x01K\x02K\x03u.",
        "an item of a tuple": start + b")Na.",
        "a state of a number": start + b"K\x01Nb.",
        "an argument that is no tuple": start + b"ccollections\nOrderedDict\n]R.",
        "a persistent id that is a number": start + b"K\x01Q.",
        "a text that is no unicode": start + b"X\x02\x00\x00\x00\xff\xfe.",
        "a name that is no ASCII": start + b"c\xff\n\xfe\n.",
        "a number alone": start + b"K\x01.",
        "no parameters": start + b"}.",
        "an empty module": start + b"}" + text_opcodes("module") + b"}s.",
        "a parameter that is text": start
        + b"}"
        + text_opcodes("module")
        + b"}"
        + text_opcodes("word_embeddings.weight")
        + text_opcodes("no tensor")
        + b"ss.",
        "a parameter named by a number": start + b"}" + text_opcodes("module") + b"}K\x01K\x01ss.",
    }


def bad_tensors(legacy: bool) -> dict[str, tuple[bytes, str, tuple[int, bytes]]]:
    """Pickles of a checkpoint whose first tensor is described wrongly.

    Returns:
      By what is wrong: the pickle of all tensors, and the first one's storage: its key, the number
      of its elements and its bytes.
    """
    tensors = tiny_tensors()
    name, first = next(iter(tensors.items()))
    count, data, (rows, columns) = first.size, bytes_of(first), first.shape
    good = tensor_opcodes("0", "HalfStorage", count, first.shape, legacy=legacy)
    state = state_dict_opcodes(tensors, legacy=legacy)
    if text_opcodes(name) + good not in state:
        raise ValueError("the pickle to change has another form")

    def described(storage: str = "HalfStorage", elements: int = count, **changes) -> bytes:
        shape = changes.pop("shape", first.shape)
        key = changes.pop("key", "0")
        return tensor_opcodes(key, storage, elements, shape, legacy=legacy, **changes)

    huge = 1 << 30
    changed = {
        "storage that is too short": described(elements=count - 1),
        "storage that is too long": described(elements=count + 1),
        "storage of absurd length": described(elements=1 << 60),
        "storage of negative length": described(elements=-1),
        "storage of another dtype": described("FloatStorage"),
        "storage of an unknown dtype": described("QInt8Storage"),
        "storage that is text": good.replace(_globals("torch", "HalfStorage"), text_opcodes("a")),
        "storage that isn't there": described(key="nowhere"),
        "storage with a path for a key": described(key="../../etc/passwd"),
        "storage on nothing": good.replace(text_opcodes("storage"), text_opcodes("module")),
        "offset outside": described(offset=1),
        "negative offset": described(offset=-1),
        "negative shape": described(shape=(-rows, -columns), strides=(columns, 1)),
        "absurd shape": described(shape=(huge, huge), strides=(1, 1)),
        "expanded shape": described(shape=(huge, columns), strides=(0, 1)),
        "repeated rows": described(strides=(0, 1)),
        "overlapping rows": described(strides=(columns // 2, 1)),
        "negative strides": described(strides=(-columns, -1)),
        "strides outside": described(strides=(columns * 2, 1)),
        "too few strides": described(strides=(1,)),
        "very many axes": described(shape=(1,) * 60 + first.shape),
        "one axis": described(shape=(count,), strides=(1,)),
        "axes in the wrong order": described(shape=(columns, rows)),
    }
    return {
        what: (
            b"\x80\x02" + state.replace(text_opcodes(name) + good, text_opcodes(name) + bad) + b".",
            "0",
            (count, data),
        )
        for what, bad in changed.items()
    }


def with_random_states(tensors: dict[str, np.ndarray]) -> bytes:
    """The pickle of a whole checkpoint with everything inert that such files hold."""
    state = state_dict_opcodes(tensors)
    random = pickle.dumps(
        {"np_rng_state": np.random.RandomState(0).get_state(), "csr": {1, 2}}, protocol=2
    )
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(random)]
    if opcodes[0] != "PROTO" or opcodes[-1] != "STOP":
        raise ValueError("Python pickles in another form than expected")
    namespace = b"cargparse\nNamespace\n)\x81}" + text_opcodes("lr") + b"K\x01sb"
    scaler = b"cfp16.loss_scaler\nDynamicLossScaler\n)\x81}b"
    return (
        b"\x80\x02"
        + state
        + b"("
        + text_opcodes("rng")
        + random[2:-1]
        + text_opcodes("args")
        + namespace
        + text_opcodes("loss_scaler")
        + scaler
        + b"u."
    )
