"""The positions of the entries of a stored zip archive, for reading them there."""

from __future__ import annotations

import dataclasses
import struct
import zipfile

from glm_jax.convert.formats.binary_file import ByteFile
from glm_jax.errors import UsageError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_MAX_ENTRIES = 100_000
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11


@dataclasses.dataclass(frozen=True)
class Entry:
    """The bytes of one entry: from `start` on, as they are in the file."""

    start: int
    nbytes: int
    crc: int


def read_entries(file: ByteFile) -> dict[str, Entry]:
    """Every entry of an archive by its name; the names are never used as paths.

    Raises:
      UsageError: the archive is damaged, truncated, or has compressed, encrypted, doubled or
        overlapping entries, which torch.save never writes.
    """
    try:
        with zipfile.ZipFile(file.path) as archive:
            infos, directory_start = archive.infolist(), archive.start_dir
    # The standard library's reader answers damage with many kinds of exception.
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, struct.error) as error:
        raise _damaged(file) from error
    except (NotImplementedError, OverflowError, IndexError, RuntimeError) as error:
        raise _damaged(file) from error
    if len(infos) > _MAX_ENTRIES:
        raise UsageError(f"{file.path} has {len(infos)} entries, over {_MAX_ENTRIES}")
    entries: dict[str, Entry] = {}
    reached = 0
    if infos and min(info.header_offset for info in infos) != 0:
        raise UsageError(f"{file.path} is a damaged archive: there are bytes before it")
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise UsageError(f"{file.path} is a compressed archive, which torch.save never writes")
        if info.flag_bits & _ENCRYPTED:
            raise UsageError(f"{file.path} is an encrypted archive, which torch.save never writes")
        start = _data_start(file, info)
        end = start + info.file_size
        if info.header_offset < reached or end > directory_start or info.filename in entries:
            raise UsageError(f"{file.path} is a damaged archive: its entries overlap")
        entries[info.filename] = Entry(start, info.file_size, info.CRC)
        reached = end
    return entries


def _data_start(file: ByteFile, info: zipfile.ZipInfo) -> int:
    header = file.read(info.header_offset, _LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise _damaged(file)
    fields = _LOCAL_HEADER.unpack(header)
    name_start = info.header_offset + _LOCAL_HEADER.size
    name = file.read(name_start, fields[9])
    encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
    if fields[0] != b"PK\x03\x04" or name != info.orig_filename.encode(encoding, "replace"):
        raise _damaged(file)
    return name_start + fields[9] + fields[10]


def _damaged(file: ByteFile) -> UsageError:
    return UsageError(f"{file.path} is a damaged archive: it is truncated or was changed")
