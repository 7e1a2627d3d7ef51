"""Reads a pickle without Python's unpickler: a stack machine that can build data and nothing else.

Python's own unpickler trusts its input: it imports what a file names, calls it, allocates what a
file asks for and hashes what a file nests. This machine knows the opcodes with which `torch.save`
describes its objects (pickle protocol 2), and converts the few names such files need to values of
ours. It calls no function but those its caller gives, and its work is bounded by the file's length.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from glm_jax.errors import UsageError

Constructor = Callable[[tuple[Any, ...]], Any]

_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO_WRITES = {"BINPUT", "LONG_BINPUT"}
_MEMO_READS = {"BINGET", "LONG_BINGET"}
# Larger integers could be chosen to collide in a dictionary.
_KEY_BOUND = 1 << 60


class Inert:
    """An object whose content isn't needed here; takes any items and state."""


@dataclasses.dataclass(frozen=True)
class Name:
    """A name such as `torch.HalfStorage` that the file refers to; it is not imported."""

    text: str


class _MalformedError(ValueError):
    """What no `torch.save` writes; the message ends the sentence "the pickle of FILE ..."."""


class PickleMachine:
    """Rebuilds the pickles of one file.

    Attributes:
      file: what messages call the file.
      constructors: for each name that may be called, what is built from its arguments.
      names: further names that may be values, such as `torch.HalfStorage`.
      persistent: makes the value of a persistent id, by which files refer to storages.
    """

    def __init__(
        self,
        file: str,
        constructors: Mapping[str, Constructor],
        names: frozenset[str] = frozenset(),
        persistent: Constructor | None = None,
    ) -> None:
        self.file = file
        self._constructors = constructors
        self._names = names
        self._persistent = persistent

    def load(self, stream: io.BytesIO) -> Any:
        """The object of the pickle at the stream's position, which moves to its end.

        Raises:
          UsageError: the pickle is damaged, or names what checkpoints don't need.
        """
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    break
                self._step(opcode.name, argument)
            return self._pop()
        except _MalformedError as error:
            raise UsageError(f"the pickle in {self.file} {error}") from error
        except (ValueError, IndexError, struct.error) as error:
            raise UsageError(f"the pickle in {self.file} is damaged") from error

    def _step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _EMPTY:
            self._stack.append(_EMPTY[opcode]())
        elif opcode in _MEMO_WRITES:
            self._memo[argument] = self._top()
        elif opcode in _MEMO_READS:
            if argument not in self._memo:
                raise _MalformedError(f"reads memo {argument}, which it never wrote")
            self._stack.append(self._memo[argument])
        elif opcode in _SHORT_TUPLES:
            values = [self._pop() for _ in range(_SHORT_TUPLES[opcode])]
            self._stack.append(tuple(reversed(values)))
        else:
            self._build(opcode, argument)

    def _build(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO":
                if argument != 2:
                    raise _MalformedError(
                        f"has protocol {argument}, but torch.save writes protocol 2"
                    )
            case "MARK":
                self._marks.append(len(self._stack))
            case "TUPLE":
                self._stack.append(tuple(self._pop_to_mark()))
            case "APPEND":
                self._extend([self._pop()])
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "SETITEM":
                value, key = self._pop(), self._pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._pop_to_mark())
            case "GLOBAL":
                self._stack.append(self._look_up(argument))
            case "REDUCE" | "NEWOBJ":
                arguments, function = self._pop(), self._pop()
                self._stack.append(self._construct(function, arguments))
            case "BUILD":
                self._pop()
                if not isinstance(self._top(), Inert | dict):
                    raise _MalformedError("sets the state of an object that has none")
            case "BINPERSID":
                if self._persistent is None:
                    raise _MalformedError("refers to a storage where there can be none")
                self._stack.append(self._persistent(self._pop()))
            case _:
                raise _MalformedError(f"has opcode {opcode}, which torch.save never writes")

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise _MalformedError("takes a value where there is none")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise _MalformedError("closes a list that it never opened")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Inert):
            raise _MalformedError("appends to an object that is no list")

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise _MalformedError("sets items of an object that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and abs(key) < _KEY_BOUND):
                raise _MalformedError("has a dictionary key that is neither text nor an integer")
            if key in target:
                raise _MalformedError(f"has the dictionary key {str(key)[:80]!r} twice")
            target[key] = value

    def _look_up(self, argument: str) -> Name:
        text = ".".join(argument.split(" ", 1))
        if text not in self._constructors and text not in self._names:
            raise UsageError(
                f"{self.file} asks for {text[:80]!r}, which no GLM checkpoint needs: "
                "it was refused and nothing of it was run"
            )
        return Name(text)

    def _construct(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or function.text not in self._constructors:
            raise _MalformedError("calls something that can't be called")
        if not isinstance(arguments, tuple):
            raise _MalformedError(f"calls {function.text} without arguments")
        return self._constructors[function.text](arguments)
