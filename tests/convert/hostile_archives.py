"""Files that are no torch files, and zip archives that torch.save would not write."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.convert.tiny import (
    LEGACY_START,
    bytes_of,
    legacy_checkpoint,
    state_dict_opcodes,
    text_opcodes,
    tiny_tensors,
    write_original,
    zip_bytes,
    zip_checkpoint,
)

_BOMB_BYTES = 64 << 20


def makers() -> Iterator[tuple[str, Callable[[Path, Path], Path]]]:
    """Fills a folder with each file, by what is wrong with it."""
    for name, data in (_foreign_files() | _archives() | _legacy_files()).items():
        yield name, _writer(data)
    yield "a folder named as a file", _folder
    yield "a pipe named as a file", _pipe
    for name, place in {"beyond the end": 1 << 40, "beyond all numbers": (1 << 64) - 1}.items():
        yield f"an entry {name}", _far_entry(place)
    yield "no file", lambda folder, _: folder / "mp_rank_00_model_states.pt"


def _writer(data: bytes) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        path = folder / "mp_rank_00_model_states.pt"
        path.write_bytes(data)
        return path

    return make


def _folder(folder: Path, _: Path) -> Path:
    (folder / "mp_rank_00_model_states.pt").mkdir()
    return folder


def _pipe(folder: Path, _: Path) -> Path:
    os.mkfifo(folder / "mp_rank_00_model_states.pt")
    return folder


def _far_entry(place: int) -> Callable[[Path, Path], Path]:
    """The last entry's offset, in a 64-bit field of the archive's directory."""

    def make(folder: Path, _: Path) -> Path:
        shutil.rmtree(folder)
        file = write_original(folder, tiny_tensors()) / "5/mp_rank_00_model_states.pt"
        data = bytearray(file.read_bytes())
        entry, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, entry + 28)
        (directory_bytes,) = struct.unpack_from("<I", data, end + 12)
        wide_offset = struct.pack("<HHQ", 1, 8, place)
        struct.pack_into("<H", data, entry + 30, extra_bytes + len(wide_offset))
        struct.pack_into("<I", data, entry + 42, 0xFFFFFFFF)
        struct.pack_into("<I", data, end + 12, directory_bytes + len(wide_offset))
        extra = entry + 46 + name_bytes
        data[extra:extra] = wide_offset
        file.write_bytes(data)
        return folder

    return make


def _foreign_files() -> dict[str, bytes]:
    arrays = io.BytesIO()
    np.savez(arrays, weight=np.zeros(3))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("pickle")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"\x80\x02}."))
    return {
        "an empty file": b"",
        "one byte": b"P",
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "a web page": b"<!DOCTYPE html><html></html>",
        "zeros": bytes(4096),
        "a gzip file": gzip.compress(zip_checkpoint(tiny_tensors())),
        "a tar file": archive.getvalue(),
        "arrays of numpy": arrays.getvalue(),
        "an empty archive": b"PK\x05\x06" + bytes(18),
        "the head of an archive": b"PK\x03\x04" + bytes(200),
        "an archive without a pickle": zip_bytes(b"", {}).replace(b"data.pkl", b"data.txt"),
    }


def _archives() -> dict[str, bytes]:
    tensors = tiny_tensors()
    good = zip_checkpoint(tensors)
    pickled = b"\x80\x02" + state_dict_opcodes(tensors) + b"."
    storages = {str(key): bytes_of(tensor) for key, tensor in enumerate(tensors.values())}
    deflated = zipfile.ZIP_DEFLATED
    return {
        "compressed entries": zip_checkpoint(tensors, compression=deflated),
        "a compressed pickle of zeros": zip_bytes(bytes(_BOMB_BYTES), {}, compression=deflated),
        "a pickle that is too large": zip_bytes(bytes(_BOMB_BYTES), {}),
        "compressed storages of zeros": zip_bytes(
            pickled, storages | {"0": bytes(_BOMB_BYTES)}, compression=deflated
        ),
        "two pickles": zip_checkpoint(tensors, extra={"other/data.pkl": pickled}),
        "two pickles of one name": _doubled(pickled, storages),
        "big endian": zip_checkpoint(tensors, extra={"archive/byteorder": b"big"}),
        "storages in another folder": zip_checkpoint(tensors, root="a").replace(
            b"a/data/0", b"b/data/0"
        ),
        "paths upwards": zip_checkpoint(tensors, root="../../evil"),
        "an absolute path": zip_checkpoint(tensors, root="/tmp"),
        "a missing storage": zip_bytes(pickled, {key: storages[key] for key in list(storages)[1:]}),
        "a storage cut short": zip_bytes(pickled, storages | {"0": storages["0"][:-2]}),
        "a storage too long": zip_bytes(pickled, storages | {"0": storages["0"] + b"\0\0"}),
        "an encrypted entry": _central_field(good, 8, "<H", 1),
        "an absurd size": _central_field(
            _central_field(good, 24, "<I", 1 << 30), 20, "<I", 1 << 30
        ),
        "an absurd place": _central_field(good, 42, "<I", 1 << 30),
        "a place behind the end": _central_field(good, 42, "<I", len(good) - 1),
        "the same place for two entries": _last_entry_over_the_first(good),
        "a wrong checksum": _central_field(good, 16, "<I", 0),
        "another local name": good.replace(b"archive/data.pkl", b"archive/dada.pkl", 1),
        "no directory": good[: good.rindex(b"PK\x01\x02")],
        "a directory behind the end": _end_field(good, 16, struct.pack("<I", 1 << 31)),
        "two checkpoints in one file": good + good,
        "a second root object": zip_bytes(pickled + b"\x80\x02}.", storages),
    }


def _legacy_files() -> dict[str, bytes]:
    tensors = tiny_tensors()
    good = legacy_checkpoint(tensors)
    keys = b"\x80\x02](" + b"".join(text_opcodes(str(key)) for key in range(len(tensors))) + b"e."
    place = good.index(keys)
    before, data = good[:place], good[place + len(keys) :]
    first = text_opcodes("0")
    return {
        "legacy: the magic number only": LEGACY_START[:14],
        "legacy: another magic number": b"\x80\x02\x8a\x0am" + good[5:],
        "legacy: another version": good.replace(b"M\xe9\x03", b"M\xea\x03", 1),
        "legacy: big endian": good.replace(b"\x88s.", b"\x89s.", 1),
        "legacy: a machine that is no dictionary": LEGACY_START + b"\x80\x02K\x01." + before[15:],
        "legacy: storages that are no list": before + b"\x80\x02}." + data,
        "legacy: storages named by numbers": before + b"\x80\x02](K\x00K\x01e." + data,
        "legacy: a storage missing": before + keys.replace(first, b"", 1) + data,
        "legacy: a storage twice": before + keys.replace(first, first + first, 1) + data,
        "legacy: another storage": before + keys.replace(first, text_opcodes("x"), 1) + data,
        "legacy: more at the end": good + b"\0",
        "legacy: a storage of another length": before + keys + b"\xff" + data[1:],
        "legacy: a storage of absurd length": before + keys + b"\xff" * 8 + data[8:],
        "legacy: a view of a storage": good.replace(b"NtQ", b"K\x01tQ", 1),
    }


def _doubled(pickled: bytes, storages: dict[str, bytes]) -> bytes:
    """An archive whose second pickle of the same name would win."""
    data = zip_bytes(pickled, storages, extra={"archive/dbta.pkl": b"\x80\x02}."})
    return data.replace(b"archive/dbta.pkl", b"archive/data.pkl")


def _central_field(data: bytes, offset: int, form: str, value: int) -> bytes:
    """The archive with a field of its directory's first entry replaced."""
    place = data.index(b"PK\x01\x02") + offset
    field = struct.pack(form, value)
    return data[:place] + field + data[place + len(field) :]


def _end_field(data: bytes, offset: int, field: bytes) -> bytes:
    place = data.rindex(b"PK\x05\x06") + offset
    return data[:place] + field + data[place + len(field) :]


def _last_entry_over_the_first(data: bytes) -> bytes:
    place = data.rindex(b"PK\x01\x02") + 42
    return data[:place] + bytes(4) + data[place + 4 :]
