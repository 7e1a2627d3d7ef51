"""SentencePiece's normalization of text, exactly.

The `tokenizers` library applies the same map grapheme by grapheme, which differs where combining
marks follow each other.
"""

from __future__ import annotations

import base64
import struct
from typing import Any


class Charsmap:
    """Replaces the longest text at each position that a map has, as SentencePiece does.

    The map is a trie in a double array (Darts), and a text of replacements that end in a zero byte.
    """

    def __init__(self, precompiled: str) -> None:
        """Takes the base64 text of a `Precompiled` normalizer."""
        data = base64.b64decode(precompiled)
        (size,) = struct.unpack_from("<I", data)
        self._units = struct.unpack_from(f"<{size // 4}I", data, 4)
        self._texts = data[4 + size :]
        self._unchanged: dict[str, bool] = {}

    def __call__(self, text: str) -> str:
        """The normalized text."""
        parts, index = [], 0
        while index < len(text):
            length, replacement = self._longest(text, index)
            parts.append(replacement if length else text[index])
            index += length or 1
        return "".join(parts)

    def _longest(self, text: str, start: int) -> tuple[int, str]:
        """The number of characters that are replaced at an index, 0 for none, and by what."""
        if self._unchanged.get(text[start]):
            return 0, ""
        found, node = (0, ""), self._offset(self._units[0])
        for index in range(start, len(text)):
            for byte in text[index].encode():
                node ^= byte
                unit = self._units[node]
                if unit & 0x800000FF != byte:
                    if index == start:
                        self._unchanged[text[start]] = True
                    return found
                node ^= self._offset(unit)
            if unit >> 8 & 1:
                at = self._units[node] & 0x7FFFFFFF
                end = self._texts.index(b"\0", at)
                found = index + 1 - start, self._texts[at:end].decode()
        return found

    @staticmethod
    def _offset(unit: int) -> int:
        return unit >> 10 << ((unit & 1 << 9) >> 6)


def split_normalizers(steps: list[dict[str, Any]]) -> tuple[list[Any], list[dict[str, Any]]]:
    """Functions for the steps up to the map, and the other steps; nothing where there is no map.

    Arguments:
        steps: of a `Sequence` of normalizers in a tokenizer.json.
    """
    kinds = [step["type"] for step in steps]
    if "Precompiled" not in kinds:
        return [], steps
    end = kinds.index("Precompiled")
    functions: list[Any] = [
        lambda text, old=step["pattern"]["String"], new=step["content"]: text.replace(old, new)
        for step in steps[:end]
    ]
    return [*functions, Charsmap(steps[end]["precompiled_charsmap"])], steps[end + 1 :]
