"""What the bytes of a file are, where they should be UTF-8 text."""

from __future__ import annotations

import codecs
import re

from glm_jax.errors import UsageError

# Half of a character, which escapes of JSON and bytes of a command line can leave; no text has it.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_STARTS = {
    b"\x1f\x8b": "compressed as gzip, which its name should say (.gz)",
    b"BZh91AY&SY": "compressed as bzip2, which its name should say (.bz2)",
    b"\xfd7zXZ\0": "compressed as xz, which its name should say (.xz)",
    b"\x28\xb5\x2f\xfd": "compressed as zstd, which its name should say (.zst)",
    b"PK\x03\x04": "a zip archive",
    b"PAR1\x15": "a Parquet file, which its name should say (.parquet)",
    codecs.BOM_UTF32_LE: "UTF-32 text, expected UTF-8",
    codecs.BOM_UTF32_BE: "UTF-32 text, expected UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16 text, expected UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text, expected UTF-8",
}
# Enough to see UTF-16 without its mark by: in Latin letters every second byte is zero.
_HEAD_BYTES = 1 << 12


def foreign_format(head: bytes) -> str | None:
    """What a file is instead of UTF-8 text, by its first bytes; None if nothing speaks against it.

    Args:
      head: the start of the file, 4 KiB if it has them.
    """
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    head = head[:_HEAD_BYTES]
    pairs = len(head) // 2
    zeros = sorted((head[: pairs * 2 : 2].count(0), head[1 : pairs * 2 : 2].count(0)))
    if pairs >= 2 and zeros[1] > pairs // 2 and zeros[0] <= pairs // 16:
        return "UTF-16 text, expected UTF-8"
    return None


def decode_text(content: bytes, name: str) -> str:
    """UTF-8 text, with or without a byte order mark.

    Args:
      name: of the file or stream, for the message.

    Raises:
      UsageError: it is something else.
    """
    if found := foreign_format(content):
        raise UsageError(f"{name} is {found}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"line {line} of {name} is not UTF-8 text: it has the byte 0x{content[error.start]:02x}"
        ) from error


def text_lines(text: str) -> list[str]:
    r"""The lines of a text, which only "\n" and "\r\n" end.

    `str.splitlines` also splits at U+2028, form feeds and other characters that texts contain.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()  # after the newline at the end
    return [line.removesuffix("\r") for line in lines]
