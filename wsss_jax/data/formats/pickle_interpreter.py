"""Interprets pickles without importing or calling anything that they name.

A pickle is a program for a small stack machine, and Python's own machine imports and calls any
function that the program names. This one knows containers, numbers and text. Every other name has
to be in a table of the caller, which gives a function of ours that makes an inert stand-in. A name
outside the table is refused when it is read, before anything was made of it.

A damaged or hostile pickle is also bounded in time and memory: sizes are compared with the bytes
that are left before memory is taken, and everything that is made counts against a budget.

The opcodes are described in the module `pickletools` of Python's standard library.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_MOST_STEPS = 4_000_000
_SPARE = 8 * 2**20
_LONGEST_NUMBER = 16
"""Bytes in a whole number: PyTorch's magic number has ten."""

Names = Mapping[str, Any]
"""What may be named, such as ``collections.OrderedDict``: functions that make stand-ins, or
constants."""


class ForbiddenName(Exception):
    """A pickle names a function or class that is not in the table."""


class StandIn:
    """Base class of objects that stand for those of other programs while a pickle is read."""

    __slots__ = ()

    def set_state(self, state: Any) -> None:
        """Takes what the other program's object would restore itself from; ignored here."""


class Inert(StandIn):
    """Stands for an object that nothing is needed of."""

    __slots__ = ()

    def __init__(self, *_: Any) -> None:
        pass


def load_pickle(
    data: bytes | memoryview,
    names: Names,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    budget: int | None = None,
    most_steps: int = _MOST_STEPS,
) -> tuple[Any, int]:
    """Returns the value of the pickle at `start`, and the position behind it.

    Args:
      data: bytes that contain the pickle.
      names: what the pickle may name.
      start: where the pickle begins.
      persistent: a function that gives the object for a persistent id; None to refuse them.
      budget: bytes of memory that the value and the machine may take, estimated upwards; by default
        the length of `data` and 8 MiB.
      most_steps: opcodes that are read at most.

    Raises:
      ForbiddenName: the pickle names something else.
      Exception: any other one means that the pickle is damaged or beyond its bounds.
    """
    view = memoryview(data)
    machine = _Machine(view, names, start, persistent, budget or len(view) + _SPARE)
    return machine.run(most_steps), machine.at


def checked_key(key: Any) -> Any:
    """Returns `key` if it is a plain key of a dictionary.

    Nested tuples are refused, because their hash can take exponential time, and numbers beyond 64
    bits, because many of them can have the same hash.
    """
    for one in key if type(key) is tuple else (key,):
        if type(one) not in _KEYS or (type(one) is int and one.bit_length() > 64):
            raise ValueError(f"expected a plain key in a pickle, found {type(one).__name__}")
    return key


def ordered_dict(pairs: Iterable[Any] = ()) -> dict[Any, Any]:
    """Stands for `collections.OrderedDict`, whose items Python 2 stored as its argument."""
    return {checked_key(key): value for key, value in pairs}


def _content(value: Any) -> int:
    """Returns about how much a function can make of its arguments, or an object of its state.

    Every part counts each time it is given, since the pickle can repeat it in a few bytes.
    """
    parts = value if type(value) is tuple else (value,)
    return sum(_SIZES[type(part)] * len(part) for part in parts if type(part) in _SIZES)


_SIZES = {bytes: 1, str: 4, tuple: 8, list: 100, dict: 100, set: 100, frozenset: 100}

_KEYS = frozenset({str, bytes, int, float, bool, type(None)})


class _Name:
    """Stands for a function or class that the table knows."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class _Machine:
    """The machine: a stack, marks on it, and values that the pickle refers to by number."""

    def __init__(
        self,
        data: memoryview,
        names: Names,
        at: int,
        persistent: Callable[[Any], Any] | None,
        budget: int,
    ) -> None:
        self.data, self.names, self.at = data, names, at
        self.persistent = persistent
        self.left = budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: list[Any] = []

    def run(self, most_steps: int) -> Any:
        data, operations = self.data, _OPERATIONS
        for _ in range(most_steps):
            code = data[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.stack.pop()
            operations[code](self)
            if self.left < 0:
                self.spend(0)
        raise ValueError(f"expected at most {most_steps} steps in a pickle")

    def spend(self, size: int) -> None:
        """Counts memory against the budget before it is taken."""
        self.left -= size
        if self.left < 0:
            raise ValueError("expected a pickle that takes as much memory as its size explains")

    def take(self, count: int) -> memoryview:
        """Returns the next bytes, which are there."""
        end = self.at + count
        if not 0 <= count <= len(self.data) - self.at:
            raise ValueError(f"expected {count} more bytes in a pickle")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self, form: struct.Struct) -> Any:
        at = self.at
        self.at = at + form.size
        return form.unpack_from(self.data, at)[0]

    def line(self, most: int) -> str:
        """Returns the text up to the end of the line."""
        ahead = bytes(self.data[self.at : self.at + 128])
        if b"\n" not in ahead:
            ahead = bytes(self.data[self.at : self.at + most])
        length = ahead.index(b"\n")
        self.at += length + 1
        return ahead[:length].decode("latin1")

    def push(self, value: Any, size: int = 40) -> None:
        """Pushes a value that takes `size` bytes."""
        self.left -= size + 8
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def find(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        try:
            found = self.names[full]
        except KeyError:
            raise ForbiddenName(full) from None
        return _Name(found) if callable(found) else found

    def call(self, name: Any, arguments: Any) -> None:
        if type(name) is not _Name or type(arguments) is not tuple:
            raise ValueError("expected a name and its arguments in a pickle")
        self.spend(_content(arguments))
        self.push(name.make(*arguments), 200)

    def remember(self, index: int) -> None:
        self.left -= 9
        memo = self.memo
        # Python numbers what it remembers one by one, from 0 or, in Python 2, from 1.
        if index == len(memo) + 1:
            memo.append(None)
        if index == len(memo):
            memo.append(self.stack[-1])
        else:
            memo[index] = self.stack[-1]

    def remember_next(self) -> None:
        self.left -= 9
        self.memo.append(self.stack[-1])

    def recall(self, index: int) -> None:
        self.left -= 8
        self.stack.append(self.memo[index])

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError("expected items of a dictionary in a pickle")
        self.left -= 60 * len(items)
        for position in range(0, len(items), 2):
            target[checked_key(items[position])] = items[position + 1]

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError("expected a list in a pickle")
        self.left -= 9 * len(items)
        target.extend(items)

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise ValueError("expected a set in a pickle")
        self.left -= 80 * len(items)
        target.update(map(checked_key, items))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, StandIn):
            self.spend(_content(state))
            target.set_state(state)
        elif type(target) is not dict:  # PyTorch's dictionaries have attributes, which are ignored
            raise ValueError("expected an object with a state in a pickle")

    # What follows is one function for each kind of opcode.

    def _recall_byte(self) -> None:
        self.left -= 8
        self.stack.append(self.memo[self.data[self.at]])
        self.at += 1

    def _mark(self) -> None:
        self.left -= 128
        self.below.append(self.stack)
        self.stack = []

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def _long(self, count: int) -> None:
        if count > _LONGEST_NUMBER:
            raise ValueError(f"expected a whole number in a pickle, found {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def _int_line(self) -> None:
        text = self.line(64)
        self.push({"00": False, "01": True}[text] if text[:1] == "0" and text[1:] else int(text))

    def _string_line(self) -> None:
        text = self.line(2**16)
        if len(text) < 2 or text[0] not in "'\"" or text[-1] != text[0]:
            raise ValueError("expected text in quotes in a pickle")
        self.push(text[1:-1].encode("latin1").decode("unicode-escape"), 80 + 4 * len(text))

    def _text_line(self) -> None:
        text = self.line(2**16)
        self.push(text.encode("latin1").decode("raw-unicode-escape"), 80 + 4 * len(text))

    def _text(self, count: int) -> None:
        self.spend(80 + 4 * count)  # one character beyond the first 65536 widens all others
        self.push(str(self.take(count), "utf-8", "surrogatepass"))

    def _old_text(self, count: int) -> None:
        self.spend(80 + count)
        self.push(str(self.take(count), "latin1"))

    def _bytes(self, count: int) -> None:
        self.spend(40 + count)
        self.push(bytes(self.take(count)))

    def _tuple(self, count: int) -> None:
        stack = self.stack
        if len(stack) < count:
            raise ValueError("expected more values in a pickle")
        items = tuple(stack[-count:])
        del stack[-count:]
        self.push(items, 40 + 8 * count)

    def _long_tuple(self) -> None:
        items = tuple(self.pop_mark())
        self.push(items, 40 + 8 * len(items))

    def _pairs(self) -> None:
        items = self.pop_mark()
        self.push({}, 64)
        self.set_items(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def _append(self) -> None:
        self.extend([self.stack.pop()])

    def _frozen_set(self) -> None:
        items = self.pop_mark()
        self.push(frozenset(map(checked_key, items)), 216 + 80 * len(items))

    def _global_line(self) -> None:
        module = self.line(1024)
        self.push(self.find(module, self.line(1024)))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("expected a name in a pickle")
        self.push(self.find(module, name))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.call(self.stack.pop(), arguments)

    def _instance(self) -> None:
        module = self.line(1024)
        name = self.find(module, self.line(1024))
        self.call(name, tuple(self.pop_mark()))

    def _object(self) -> None:
        name, *arguments = self.pop_mark()
        self.call(name, tuple(arguments))

    def _persistent(self) -> None:
        if self.persistent is None:
            raise ValueError("expected a pickle without persistent ids")
        self.push(self.persistent(self.stack.pop()))


_Operation = Callable[[_Machine], Any]
_U2, _U4, _U8, _I4, _F8 = map(struct.Struct, ("<H", "<I", "<Q", "<i", ">d"))


def _refused(machine: _Machine) -> None:
    code = machine.data[machine.at - 1]
    raise ValueError(f"expected an opcode of a pickle, found {code:#04x}")


def _operations() -> list[_Operation]:
    """Returns what to do for each of the 256 opcodes."""
    known: dict[str, _Operation] = {
        # Structure.
        "\x80": lambda m: m.byte(),  # PROTO
        "\x95": lambda m: m.number(_U8),  # FRAME
        "(": _Machine._mark,
        "0": _Machine._pop,
        "1": lambda m: m.pop_mark(),
        "2": lambda m: m.push(m.stack[-1]),
        # Constants and numbers.
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "K": lambda m: m.push(m.byte()),
        "M": lambda m: m.push(m.number(_U2)),
        "J": lambda m: m.push(m.number(_I4)),
        "\x8a": lambda m: m._long(m.byte()),
        "\x8b": lambda m: m._long(m.number(_U4)),
        "G": lambda m: m.push(m.number(_F8)),
        "I": _Machine._int_line,
        "L": lambda m: m.push(int(m.line(64).rstrip("L"))),
        "F": lambda m: m.push(float(m.line(64))),
        # Text and bytes; text of Python 2 is bytes.
        "\x8c": lambda m: m._text(m.byte()),
        "X": lambda m: m._text(m.number(_U4)),
        "\x8d": lambda m: m._text(m.number(_U8)),
        "U": lambda m: m._old_text(m.byte()),
        "T": lambda m: m._old_text(m.number(_U4)),
        "C": lambda m: m._bytes(m.byte()),
        "B": lambda m: m._bytes(m.number(_U4)),
        "\x8e": lambda m: m._bytes(m.number(_U8)),
        "\x96": lambda m: m._bytes(m.number(_U8)),  # a bytearray, which nothing changes here
        "S": _Machine._string_line,
        "V": _Machine._text_line,
        # Containers.
        ")": lambda m: m.push(()),
        "\x85": lambda m: m._tuple(1),
        "\x86": lambda m: m._tuple(2),
        "\x87": lambda m: m._tuple(3),
        "t": _Machine._long_tuple,
        "]": lambda m: m.push([], 56),
        "l": lambda m: m.push(m.pop_mark()),
        "a": _Machine._append,
        "e": lambda m: m.extend(m.pop_mark()),
        "}": lambda m: m.push({}, 64),
        "d": _Machine._pairs,
        "s": _Machine._set_item,
        "u": lambda m: m.set_items(m.pop_mark()),
        "\x8f": lambda m: m.push(set(), 216),
        "\x90": lambda m: m.add_items(m.pop_mark()),
        "\x91": _Machine._frozen_set,
        # What was seen before.
        "p": lambda m: m.remember(int(m.line(64))),
        "q": lambda m: m.remember(m.byte()),
        "r": lambda m: m.remember(m.number(_U4)),
        "\x94": _Machine.remember_next,
        "g": lambda m: m.recall(int(m.line(64))),
        "h": _Machine._recall_byte,
        "j": lambda m: m.recall(m.number(_U4)),
        # Names and objects.
        "c": _Machine._global_line,
        "\x93": _Machine._stack_global,
        "R": _Machine._reduce,
        "\x81": _Machine._reduce,  # NEWOBJ: a class in the place of a function
        "i": _Machine._instance,
        "o": _Machine._object,
        "b": _Machine.build,
        "Q": _Machine._persistent,
    }
    table: list[_Operation] = [_refused] * 256
    for code, operation in known.items():
        table[ord(code)] = operation
    return table


_OPERATIONS = _operations()
