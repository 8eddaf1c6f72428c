"""Read pickles without running code: only data, and the few names that the caller allows.

Python's own unpickler calls the functions that the file names. Even with a filter on names, a short file can make it
take gigabytes (a memo slot numbered two thousand million) or hours (nested tuples as dictionary keys). This reader is
a plain loop over the opcodes that `torch.save` and `torch.jit.save` write. It imports nothing: a name that is not in
its table ends the reading.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from diptych.errors import CheckpointError

Builder = Callable[[tuple[Any, ...]], Any]  # takes the arguments in the file

_MARK = object()


class InertObject:
    """An object of a foreign class, of which only the state is kept."""

    state: Any = None


class Name:
    """A class or a function that a file refers to, and the builder that runs when the file calls it."""

    def __init__(self, title: str, build: Builder | None = None) -> None:
        self.title = title
        self.build = build


class PickleReader:
    """A reader of one pickle.

    resolve(module, name): returns the `Name` for a reference, or raises. persistent(id): returns the object for a
    persistent id. Errors are `CheckpointError` and begin with `where`.
    """

    def __init__(
        self,
        data: bytes,
        where: str,
        resolve: Callable[[str, str], Name],
        persistent: Callable[[Any], Any],
    ) -> None:
        self._data = data
        self._position = 0
        self._where = where
        self._resolve = resolve
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.states: list[Any] = []  # of dictionaries: a state dict keeps its metadata there

    def read(self) -> Any:
        """Return the object in the pickle."""
        try:
            while True:
                opcode = self._bytes(1)
                if opcode == b".":
                    return self._stack.pop()
                if opcode not in _OPCODES:
                    raise CheckpointError(
                        f"{self._where}: opcode {opcode!r} at byte {self._position - 1} is not one that a "
                        "file of tensors needs; it was refused, and nothing in it was run"
                    )
                _OPCODES[opcode](self)
        # A malformed file causes an empty stack, a missing memo slot, or an operand of another type.
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
            raise CheckpointError(
                f"{self._where}: is not a well-formed pickle at byte {self._position} ({error!r}); "
                "the file is damaged: fetch it again"
            ) from None

    def _bytes(self, count: int) -> bytes:
        piece = self._data[self._position : self._position + count]
        if len(piece) != count:
            raise ValueError("it ends early")
        self._position += count
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.index(b"\n", self._position)
        text = self._data[self._position : end].decode("utf-8")
        self._position = end + 1
        return text

    def _since_mark(self) -> list[Any]:
        start = len(self._stack) - 1
        while self._stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("there is no mark on the stack")
        items = self._stack[start + 1 :]
        del self._stack[start:]
        return items

    def _push_tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise ValueError("the stack is too short")
        start = len(self._stack) - count
        items = tuple(self._stack[start:])
        del self._stack[start:]
        self._stack.append(items)

    def _push_long(self) -> None:
        self._stack.append(int.from_bytes(self._bytes(self._number("<B")), "little", signed=True))

    def _push_name(self, module: Any, name: Any) -> None:
        self._stack.append(self._resolve(module, name))

    def _push_named_line(self) -> None:
        module = self._line()
        self._push_name(module, self._line())

    def _push_named_stack(self) -> None:
        name = self._stack.pop()
        self._push_name(self._stack.pop(), name)

    def _memoize(self, slot: int) -> None:
        self._memo[slot] = self._stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise TypeError(f"items are set on a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A tuple as a key can take exponential time to hash.
            if not isinstance(key, str | int):
                raise TypeError(f"a key is a {type(key).__name__}")
            target[key] = value

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError(f"items are appended to a {type(target).__name__}")
        target.extend(items)

    def _reduce(self) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if not isinstance(function, Name) or function.build is None or type(arguments) is not tuple:
            raise TypeError("something is called that is not a known function")
        self._stack.append(function.build(arguments))

    def _new_object(self) -> None:
        arguments = self._stack.pop()
        kind = self._stack.pop()
        if not isinstance(kind, Name) or kind.build is not None or arguments != ():
            raise TypeError("an object is made of something that is not a class without arguments")
        self._stack.append(InertObject())

    def _set_state(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, InertObject):
            target.state = state
        elif type(target) is dict:
            self.states.append(state)
        else:
            raise TypeError(f"state is set on a {type(target).__name__}")


Operation = Callable[[PickleReader], Any]


def _push(value: Callable[[PickleReader], Any]) -> Operation:
    return lambda reader: reader._stack.append(value(reader))


# The opcodes of `torch.save` (protocols 2 to 4) and `torch.jit.save`; the names are those of pickletools.
_OPCODES: Mapping[bytes, Operation] = {
    b"\x80": lambda r: r._bytes(1),  # PROTO
    b"\x95": lambda r: r._bytes(8),  # FRAME
    b"(": _push(lambda r: _MARK),
    b"0": lambda r: r._stack.pop(),  # POP
    b"N": _push(lambda r: None),
    b"\x88": _push(lambda r: True),
    b"\x89": _push(lambda r: False),
    b"J": _push(lambda r: r._number("<i")),  # BININT
    b"K": _push(lambda r: r._number("<B")),  # BININT1
    b"M": _push(lambda r: r._number("<H")),  # BININT2
    b"\x8a": PickleReader._push_long,  # LONG1
    b"G": _push(lambda r: r._number(">d")),  # BINFLOAT
    b"X": _push(lambda r: r._bytes(r._number("<I")).decode("utf-8")),  # BINUNICODE
    b"\x8c": _push(lambda r: r._bytes(r._number("<B")).decode("utf-8")),  # SHORT_BINUNICODE
    b"}": _push(lambda r: {}),
    b"]": _push(lambda r: []),
    b")": _push(lambda r: ()),
    b"t": _push(lambda r: tuple(r._since_mark())),
    b"\x85": lambda r: r._push_tuple(1),
    b"\x86": lambda r: r._push_tuple(2),
    b"\x87": lambda r: r._push_tuple(3),
    b"s": lambda r: r._set_items([r._stack.pop(-2), r._stack.pop()]),  # SETITEM
    b"u": lambda r: r._set_items(r._since_mark()),  # SETITEMS
    b"a": lambda r: r._append([r._stack.pop()]),  # APPEND
    b"e": lambda r: r._append(r._since_mark()),  # APPENDS
    b"q": lambda r: r._memoize(r._number("<B")),  # BINPUT
    b"r": lambda r: r._memoize(r._number("<I")),  # LONG_BINPUT
    b"\x94": lambda r: r._memoize(len(r._memo)),  # MEMOIZE
    b"h": _push(lambda r: r._memo[r._number("<B")]),  # BINGET
    b"j": _push(lambda r: r._memo[r._number("<I")]),  # LONG_BINGET
    b"c": PickleReader._push_named_line,  # GLOBAL
    b"\x93": PickleReader._push_named_stack,  # STACK_GLOBAL
    b"R": PickleReader._reduce,
    b"\x81": PickleReader._new_object,  # NEWOBJ
    b"b": PickleReader._set_state,  # BUILD
    b"Q": _push(lambda r: r._persistent(r._stack.pop())),  # BINPERSID
}
